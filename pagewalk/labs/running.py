"""A student's routine on the machine of `pagewalk trace`: assembled, linked, called.

Knows how to call a function of a `.S` file, and what is told of one that does not return. Refuses
to know what it should do. The options in the file's own header lines do not count here.
"""

import resource
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from emu.paging import ENTRY_SIZE, PhysAddr
from pagewalk.labs.bench import HLT, ROUTINES
from pagewalk.labs.board import DIRECT, KERNEL_SLOTS
from pagewalk.labs.lab import Lost

if TYPE_CHECKING:
    from emu import Cpu, PhysMemory, Stop

STEPS: Final = 100_000
"""How many steps a call may take."""
_MOST_MEMORY: Final = 1 << 28  # bytes, for the assembler
RAM: Final = 64 << 20
FREE: Final = 32 << 20
"""From here up, RAM is the tool's: code, stack, tables."""
_ROUTINES_PA: Final = PhysAddr(FREE)
_ROUTINES_VA: Final = 0xFFFF_FFFF_8000_0000  # in the slot of the code, which every root has


class Routine:
    """A function of a student's file, on a machine whose RAM is mapped at DIRECT.

    RAM below FREE is the lab's to use; `maps` are further values of `pagewalk trace --map`.
    """

    def __init__(self, text: str, file: str, entry: str, *, maps: Iterable[str] = ()) -> None:
        from pagewalk.arguments import BadInput
        from pagewalk.bare import Bare, Wanted, read_maps
        from pagewalk.sources import assemble_source

        own = f"{DIRECT:#x}=0+{RAM:#x}:rw", f"{_ROUTINES_VA:#x}={_ROUTINES_PA:#x}:rx"
        wanted = Wanted(
            levels=4,
            ram=RAM,
            user=False,
            entry=entry,
            maps=read_maps((*own, *maps), RAM, 4),
            registers={},
        )
        try:
            with _limited_memory():
                program = assemble_source(text, file, {})
            if entry not in program.symbols:
                raise Lost(f"{file} has no function {entry}")
            self._bare: Final = Bare(program, file, wanted)
        except BadInput as error:
            raise Lost(str(error)) from None
        self._file: Final = file
        self._paging: Final = self.cpu.paging
        self._rsp: Final = self.cpu.registers.rsp
        self.memory.write(_ROUTINES_PA, ROUTINES)

    @property
    def cpu(self) -> "Cpu":
        """The CPU that it runs on."""
        return self._bare.cpu

    @property
    def memory(self) -> "PhysMemory":
        """The RAM."""
        return self.cpu.memory

    def put(self, words: Mapping[int, int]) -> None:
        """Store words in RAM, by their physical addresses."""
        for pa, word in words.items():
            self.memory.write_u64(PhysAddr(pa), word)

    def lend_kernel_half(self, root: int) -> None:
        """Copy to `root` what the routine itself needs: code, stack and direct map."""
        words, own = self.memory.words, self._paging.root // ENTRY_SIZE
        for slot in KERNEL_SLOTS[self._paging.levels]:
            words[root // ENTRY_SIZE + slot] = words[own + slot]

    def access(self, routine: int, va: int, word: int = 0) -> "Stop":
        """Have the CPU run LOAD, STORE or INVLPG of `bench` between two calls."""
        code = _ROUTINES_VA + routine
        return self.cpu.run(code, returns_to=code + HLT, rdi=va, rax=word)

    def call(self, **registers: int) -> int:
        """Call the function, and return RAX; Lost, with the reason, if it does not return."""
        from emu import Returned, VirtAddr, write_virtual
        from pagewalk.render_trace import with_symbol

        back = self._bare.returns_to.to_bytes(8, "little")
        write_virtual(self.memory, self._paging, VirtAddr(self._rsp), back)
        stop = self.cpu.run(
            self._bare.entry,
            returns_to=self._bare.returns_to,
            step_limit=STEPS,
            rsp=self._rsp,
            **registers,
        )
        if not isinstance(stop, Returned):
            raise Lost(f"{self._file} does not return: {with_symbol(stop, self._bare.symbol)}")
        return stop.value


@contextmanager
def _limited_memory() -> Iterator[None]:
    """Have an allocation beyond _MOST_MEMORY fail: a few lines can ask for any number of bytes.

    Only the assembler is limited so: a machine's RAM is a terabyte of addresses, and hardly used.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    limits = [n for n in (used + _MOST_MEMORY, soft, hard) if n != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
