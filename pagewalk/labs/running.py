"""A student's routine on the machine of `pagewalk trace`: assembled, linked, called.

Knows how to call a function of a `.S` file, and what is told of one that does not return. Refuses
to know what it should do. The options in the file's own header lines do not count here.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from emu.paging import ENTRY_SIZE
from pagewalk.labs.board import DIRECT, KERNEL_SLOTS
from pagewalk.labs.lab import Lost

if TYPE_CHECKING:
    from emu import Cpu, PhysMemory

STEPS: Final = 100_000
"""How many steps a call may take."""
RAM: Final = 64 << 20
FREE: Final = 32 << 20
"""From here up, RAM is the tool's: code, stack, tables."""


class Routine:
    """A function of a student's file, on a machine whose RAM is mapped at DIRECT.

    RAM below FREE is the lab's to use; `maps` are further values of `pagewalk trace --map`.
    """

    def __init__(self, text: str, file: str, entry: str, *, maps: Iterable[str] = ()) -> None:
        from pagewalk.arguments import BadInput
        from pagewalk.bare import Bare, Wanted, read_maps
        from pagewalk.sources import assemble_source

        direct = f"{DIRECT:#x}=0+{RAM:#x}:rw"
        wanted = Wanted(
            levels=4,
            ram=RAM,
            user=False,
            entry=entry,
            maps=read_maps((direct, *maps), RAM, 4),
            registers={},
        )
        try:
            self._bare: Final = Bare(assemble_source(text, file, {}), file, wanted)
        except BadInput as error:
            raise Lost(str(error)) from None
        self._file: Final = file
        self._paging: Final = self.cpu.paging
        self._rsp: Final = self.cpu.registers.rsp

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
        from emu import PhysAddr

        for pa, word in words.items():
            self.memory.write_u64(PhysAddr(pa), word)

    def lend_kernel_half(self, root: int) -> None:
        """Copy to `root` what the routine itself needs: code, stack and direct map."""
        words, own = self.memory.words, self._paging.root // ENTRY_SIZE
        for slot in KERNEL_SLOTS[self._paging.levels]:
            words[root // ENTRY_SIZE + slot] = words[own + slot]

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
