"""The engine's last picture of the CPU, in the words of the rules.

Knows how to read control registers, privilege and the current instruction from a picture, and how
to word an exception with them. Refuses to know why the picture was taken. SDM vocabulary.
"""

from typing import Final

from emu._unicorn import Engine
from emu.fault import GP, SS, OutsideRam, PageFault, Trap
from emu.instruction import Instruction
from emu.memory import PhysMemory
from emu.paging import Paging, VirtAddr
from emu.predict import Context, Expected, Predictor, context
from emu.registers import Registers

_KNOWN_PAGINGS: Final = 256


class Picture:
    """What `engine` saw last, over `memory`. Taken anew by whoever enters or saves the engine."""

    def __init__(self, engine: Engine, memory: PhysMemory) -> None:
        self.engine: Final = engine
        self.memory: Final = memory
        self.predictor: Final = Predictor(memory)
        self._unpack: Final = engine.control
        self._known: dict[tuple[int, ...], Paging] = {}

    def control(self) -> tuple[Paging, int, int, int]:
        """Return the control registers, CR2, and the last exception's error code and whether
        software raised it (`int n`)."""
        cr0, _, cr2, cr3, cr4, efer, pkru, error_code, software = self._unpack()
        key = (cr0, cr3, cr4, efer, pkru)
        paging = self._known.get(key)
        if paging is None:
            if len(self._known) >= _KNOWN_PAGINGS:
                self._known.clear()
            paging = self._known[key] = Paging(*key)
        return paging, cr2, error_code, software

    def who(self, registers: Registers) -> Context:
        """Return the context that these registers are executed in."""
        return context(self.control()[0], self.engine.cpl(), registers.rflags)

    def instruction(self, registers: Registers, rip: int) -> Instruction | Expected:
        """Fetch and decode the instruction at `rip`."""
        return self.predictor.instruction(self.who(registers), VirtAddr(rip))

    def stopped(self, stop: Expected, registers: Registers) -> PageFault | OutsideRam | Trap:
        """Word what stops the instruction at RIP."""
        if stop.kind == "non-canonical":
            return self.trap(SS if stop.stack else GP, 0, registers)
        if stop.kind == "outside-ram":
            return OutsideRam(stop.pa, VirtAddr(registers.rip), stop.what, stop.walk)
        return stop.page_fault(registers, self.engine.cpl(), self.control()[0].cr3)

    def trap(
        self,
        vector: int,
        error_code: int | None,
        registers: Registers,
        instruction: VirtAddr | None = None,
    ) -> Trap:
        """Word another exception; `instruction` is where the `int` begins that raised it."""
        paging, cr2, _, _ = self.control()
        return Trap(
            vector,
            error_code,
            VirtAddr(registers.rip),
            registers,
            cpl=self.engine.cpl(),
            cr3=paging.cr3,
            cr2=cr2,
            instruction=instruction,
        )
