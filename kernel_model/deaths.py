"""From a stop of the CPU to a death: who died, and of what.

Knows what the guest's own handlers were entered for, which of these faults they repaired, and that
a handler which gives up stops the CPU with RDI at its struct pt_regs. Refuses to know wording
(`oops`) and who runs (`running`). Linux vocabulary.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asm import Image
from emu import Access, Halted, PageFault, Registers, Returned, Stop, Trap, refusal
from emu.fault import DF
from emu.interrupts import Delivery, Exc
from emu.paging import ADDRESS, ENTRIES, RFLAGS_AC, P
from kernel_model.death import Death, with_symbol
from kernel_model.errors import KernelError
from kernel_model.history import LazyFault
from kernel_model.structs import (
    PT_REGS_ERROR_CODE,
    PT_REGS_RIP,
    SIZEOF_PT_REGS,
    parse_pt_regs,
)
from kernel_model.writers import note_lazy_copy

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_FRAME: Final = 6 * 8  # SS, RSP, RFLAGS, CS, RIP, error code


class Deaths:
    """What the CPUs have delivered to handlers, and the first and the last death since boot."""

    def __init__(self, image: Image) -> None:
        found = image.symbols.get("oops_stop")
        self._dies_at: Final = found.address if found else None
        self._raised: Final[dict[int, Exc]] = {}  # by the RSP that its handler began with
        self._page_faults: Final[list[PageFault]] = []  # in the order in which they came
        self.first: Death | None = None
        self.last: Death | None = None

    def delivered(self, delivery: Delivery) -> None:
        """Remember what a handler is entered for."""
        exc = delivery.exceptions[-1]
        self._raised[delivery.rsp] = exc
        if isinstance(exc, PageFault):
            self._page_faults.append(exc)

    def judge(self, kernel: "Kernel", stop: Stop) -> Stop:
        """Return how a run ended; keep what its oops needs if it was a death.

        The faults that were handled on the way are told to the history.
        """
        if type(stop) is Returned:
            if self._page_faults:
                self._tell_faults(kernel, repeated=True)
            return stop
        if isinstance(stop, Halted) and stop.rip == self._dies_at:
            stop = self._given_up(kernel)
        elif (
            self._dies_at is None and isinstance(stop, PageFault) and not _frame_fits(kernel, stop)
        ):
            stop = Trap(DF, 0, stop.rip, stop.registers, cpl=stop.cpl, cr3=stop.cr3)
        if isinstance(stop, (PageFault, Trap)):
            stop, last = with_symbol(stop, kernel.image), self.last
            self.last = Death.of(kernel, stop, last.number + 1 if last else 1)
            if last is None:
                self.first = self.last
        return stop

    def _given_up(self, kernel: "Kernel") -> Exc:
        """Return what the handler that gave up was entered for.

        The upper part of a struct pt_regs is the frame that the CPU pushed.
        """
        regs = kernel.cpu.registers.rdi
        exc = self._raised.get(regs + PT_REGS_ERROR_CODE) or self._raised.get(regs + PT_REGS_RIP)
        if exc is None:
            raise KernelError(f"a handler gave up with pt_regs at {regs:#x}, where none are")
        if isinstance(exc, PageFault) and exc in self._page_faults:
            self._page_faults.remove(exc)
        self._tell_faults(kernel, repeated=False)
        if isinstance(exc, Trap) and exc.registers is None:
            return replace(exc, registers=_saved_registers(kernel, regs))
        return exc

    def _tell_faults(self, kernel: "Kernel", *, repeated: bool) -> None:
        for fault in self._page_faults:
            note_lazy_copy(kernel, fault)
            slot = kernel.layout.pgd_index(fault.address)
            missed = fault.walk is not None and len(fault.walk.steps) == 1
            now = kernel.walk_under(kernel.boot_paging.with_root(fault.cr3), fault.address)
            filled = missed and len(now.steps) > 1
            event = LazyFault(kernel.current.comm, fault.address, slot, filled, repeated)
            kernel.history.append(event)
        self._page_faults.clear()
        self._raised.clear()


def _saved_registers(kernel: "Kernel", regs: int) -> Registers:
    """Read the registers that an entry has saved."""
    saved = parse_pt_regs(kernel.read(regs, SIZEOF_PT_REGS))
    now = kernel.cpu.registers
    return now._replace(**{name: saved[name] for name in now._fields if name in saved})


def _frame_fits(kernel: "Kernel", fault: PageFault) -> bool:
    """Tell whether the frame of a fault could be pushed, for builds without handlers: no CPU tries.

    On a task's own stack it is enough that the table has its slot: boot has filled those of all
    stacks, in every table on pgd_list.
    """
    registers, stack = fault.registers, kernel.current.stack
    assert registers is not None
    rsp = registers.rsp
    if stack is not None and stack.base + _FRAME <= rsp <= stack.top:
        slot = rsp - 8 >> kernel.layout.pgdir_shift & ENTRIES - 1
        return kernel.memory.words[((fault.cr3 & ADDRESS) >> 3) + slot] & P != 0
    if fault.cpl == 3:
        return True  # it is pushed where the TSS says
    paging = kernel.boot_paging.with_root(fault.cr3)
    push = Access("write", user=False, ac=bool(registers.rflags & RFLAGS_AC))
    ends = ((rsp & -16) - 8, (rsp & -16) - _FRAME)
    return not any(refusal(kernel.walk_under(paging, end), push, paging) for end in ends)
