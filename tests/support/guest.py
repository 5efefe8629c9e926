"""A machine that is ready to run: a window of code, mapped twice, and pages on demand.

`put` assembles a routine into the window and remembers the `hlt` behind it; every routine gets
bytes of its own, so that no test needs to invalidate code. Nothing below is a rule of paging:
tests state those themselves.
"""

from functools import lru_cache
from typing import NamedTuple

from asm import Image, assemble, link
from emu import Cpu, Machine, Paging, PhysAddr, Stop, VirtAddr, Walk, map_page
from emu.paging import ENTRY_SIZE, RW, US, page_size
from emu.walk import walk

CODE = VirtAddr(0xFFFF_FFFF_8100_0000)  # supervisor's mapping of the window
USER_CODE = VirtAddr(0x20_0000)  # the user's
CODE_PA = PhysAddr(0x20_0000)
CODE_SIZE = 0x20_0000
DATA = VirtAddr(0xFFFF_8880_0000_0000)
USER_DATA = VirtAddr(0x7F00_0000_0000)
HOLE = PhysAddr(0x8000_0000)  # no RAM here, and more than 2 GiB of nothing behind it
RAM = 0x400_0000


class Routine(NamedTuple):
    """Where it starts, and the `hlt` that ends it."""

    rip: VirtAddr
    hlt: VirtAddr
    image: Image

    def __getitem__(self, label: object) -> VirtAddr:  # type: ignore[override]
        return VirtAddr(self.image.address(str(label)))


class Guest:
    """One machine and what was put into it."""

    def __init__(self, *, levels: int = 4, cpus: int = 1, **features: bool | int) -> None:
        code = [(CODE_PA, CODE_PA + CODE_SIZE)]
        self.machine = Machine(ram=RAM, levels=levels, cpus=cpus, code=code)
        self.memory = self.machine.memory
        self.frames = self.machine.frames
        self.cpu: Cpu = self.machine.cpu
        self.cpu.paging = Paging.long_mode(self.cpu.paging.root, levels=levels, **features)  # type: ignore[arg-type]
        self.paging = self.cpu.paging
        self._next = CODE
        self.map(CODE, CODE_PA, 0, level=2)
        self.map(USER_CODE, CODE_PA, US, level=2)

    # -- tables

    def map(self, va: int, pa: int, flags: int = RW, level: int = 1) -> PhysAddr:
        """Map a page and return where its entry lies."""
        to = VirtAddr(va), PhysAddr(pa)
        return map_page(self.memory, self.frames, self.paging, *to, flags, level=level)

    def page(self, va: int, flags: int = RW, level: int = 1) -> PhysAddr:
        """Map a page of free frames and return its physical address."""
        pa = self.frames.allocate_block(page_size(level))
        self.map(va, pa, flags, level)
        return pa

    def walk(self, va: int) -> Walk:
        """What the tables say."""
        return walk(self.memory.read_u64, self.cpu.paging, VirtAddr(va))

    def entry_pa(self, va: int, level: int) -> PhysAddr:
        """Where the entry of `level` lies that translates `va`."""
        return next(step.entry_pa for step in self.walk(va).steps if step.level == level)

    def set_entry(self, va: int, level: int, entry: int) -> None:
        """Replace that entry."""
        self.memory.write_u64(self.entry_pa(va, level), entry)

    def change_entry(self, va: int, level: int, *, clear: int = 0, put: int = 0) -> None:
        """Clear and set bits of that entry."""
        pa = self.entry_pa(va, level)
        entry = self.memory.read_u64(pa)
        assert entry is not None
        self.memory.write_u64(pa, entry & ~clear | put)

    # -- code

    def put(self, source: str, *, at: int | None = None, base: int = CODE) -> Routine:
        """Assemble `source` and a `hlt` into the window: at the next free place, or `at`."""
        start = self._next if at is None else at
        image = _link(source, start)
        data = image.segments[0].data
        self.memory.write(PhysAddr(CODE_PA + start - base), data)
        if at is None:
            self._next = VirtAddr((start + len(data) + 63) & -64)
        return Routine(VirtAddr(start), VirtAddr(image.address("the_end")), image)

    def put_user(self, source: str) -> Routine:
        """The same, for the user's mapping."""
        here = self._next - CODE
        routine = self.put(source, at=USER_CODE + here, base=USER_CODE)
        self._next = VirtAddr((routine.hlt - USER_CODE + CODE + 64) & -64)
        return routine

    def run(self, source: str, **options: int) -> Stop:
        """Run `source` until it ends."""
        return self.call(self.put(source), **options)

    def call(self, routine: Routine, **options: int) -> Stop:
        """Run a routine that was put."""
        return self.cpu.run(routine.rip, returns_to=routine.hlt, **options)

    def call_user(self, routine: Routine, **options: int) -> Stop:
        """Run a routine at CPL 3."""
        self.cpu.cpl = 3
        return self.call(routine, **options)

    # -- data

    def u64(self, pa: int) -> int | None:
        """The 8 bytes at a physical address."""
        return self.memory.read_u64(PhysAddr(pa))


def entry_at(table: int, number: int) -> PhysAddr:
    """Where entry `number` of `table` lies."""
    return PhysAddr(table + ENTRY_SIZE * number)


@lru_cache
def _link(source: str, base: int) -> Image:
    return link([assemble(f"{source}\nthe_end: hlt\n")], {".text": base})
