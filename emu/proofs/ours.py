"""The same guest on a `Machine`: what a proof looks like with everything corrected.

Knows the address space that `bare` draws. Refuses to know what is proved with it.
"""

from emu.cpu import Cpu
from emu.fault import PageFault, Returned, Stop, Trap
from emu.machine import Machine
from emu.paging import ENTRY_SIZE, RW, Paging, PhysAddr, VirtAddr, index
from emu.proofs.bare import CODE, CODE_PA, CODE_SIZE, HLT, RAM_SIZE, place
from emu.tables import map_page


class Ours:
    """A machine with the window of code mapped and filled with `hlt`."""

    def __init__(self) -> None:
        self.machine = Machine(ram=RAM_SIZE, code=[(CODE_PA, CODE_PA + CODE_SIZE)])
        self.memory = self.machine.memory
        self.paging = self.cpu.paging
        self.memory.write(CODE_PA, HLT * CODE_SIZE)
        for offset in range(0, CODE_SIZE, 0x1000):
            self.map(CODE + offset, CODE_PA + offset)

    @property
    def cpu(self) -> Cpu:
        """Its CPU."""
        return self.machine.cpu

    def map(self, va: int, pa: int, flags: int = RW) -> PhysAddr:
        """Map a page, and return where its entry lies."""
        frames = self.machine.frames
        return map_page(self.memory, frames, self.paging, VirtAddr(va), PhysAddr(pa), flags)

    def top_entry_pa(self, va: int) -> PhysAddr:
        """Where the root's entry for `va` lies."""
        return PhysAddr(self.paging.root + ENTRY_SIZE * index(va, self.paging.levels))

    def put(self, code: bytes, offset: int = 0) -> int:
        """Write a routine behind the CPU's back, and return its address."""
        self.memory.write(PhysAddr(CODE_PA + offset), code)
        return CODE + offset

    def run(self, rip: int = CODE, *, step_limit: int | None = None, **registers: int) -> Stop:
        """Run, and return what stopped it."""
        return self.cpu.run(rip, step_limit=step_limit, **registers)

    def use(self, **features: bool | int) -> None:
        """Change the features of paging."""
        self.cpu.paging = Paging.long_mode(self.paging.root, **features)  # type: ignore[arg-type]


def page_fault(address: int, error_code: int, rip: int = CODE) -> PageFault:
    """The #PF that the architecture wants."""
    return PageFault(VirtAddr(address), error_code, VirtAddr(rip))


def trap(vector: int, error_code: int | None, rip: int = CODE) -> Trap:
    """The exception that the architecture wants."""
    return Trap(vector, error_code, VirtAddr(rip))


def both(engine: str, corrected: str) -> str:
    """What was seen of either, in one line."""
    return f"the engine: {engine}; corrected: {corrected}"


def told(stop: Stop) -> str:
    """A stop as `bare.Stopped` words it."""
    if isinstance(stop, PageFault):
        return f"#PF({stop.error_code:#x}) for {place(stop.address)} at {place(stop.rip)}"
    name = str(stop).partition(" at rip ")[0].partition(", rip ")[0]
    return name if isinstance(stop, Returned) else f"{name} at {place(stop.rip)}"
