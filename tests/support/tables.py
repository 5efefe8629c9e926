"""Empty tables in RAM, and short names for what tests do to them."""

from emu import Machine, Paging, PhysAddr, VirtAddr, map_page, map_range
from emu.paging import RW
from emu.walk import walk

RAM = 64 << 20
VA = VirtAddr(0xFFFF_8880_4000_0000)


class Tables:
    """Memory, free frames and a root: the arguments of everything here."""

    def __init__(self, levels: int = 4) -> None:
        self.machine = Machine(ram=RAM, levels=levels)
        self.memory, self.frames = self.machine.memory, self.machine.frames
        self.paging: Paging = self.machine.cpu.paging

    def map(self, va: int, pa: int, flags: int = RW, level: int = 1) -> PhysAddr:
        to = VirtAddr(va), PhysAddr(pa)
        return map_page(self.memory, self.frames, self.paging, *to, flags, level=level)

    def map_range(self, va: int, pa: int, size: int, largest: int = 1) -> None:
        to = VirtAddr(va), PhysAddr(pa)
        map_range(self.memory, self.frames, self.paging, *to, size, RW, largest=largest)

    def verdict(self, va: int) -> tuple[str, int]:
        found = walk(self.memory.read_u64, self.paging, VirtAddr(va))
        return found.verdict, found.level
