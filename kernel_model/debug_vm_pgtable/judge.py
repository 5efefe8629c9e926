"""The CPU as a judge: one access to user memory, and how it ended.

Knows how to make one, whatever handler the kernel has: it is taken away meanwhile, so that a fault
is an answer and no death. Refuses to know what was to be expected. Linux vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from emu import PageFault, Stop, VirtAddr
from emu.fault import PF_W

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_WORD: Final = 8


class Judge:
    """Accesses under the table that is active, by the task that is running."""

    def __init__(self, kernel: "Kernel") -> None:
        address = kernel.image.address
        self._cpu: Final = kernel.cpu
        self._call_once: Final = address("call_once")
        self._returns_to: Final = address("run_return")
        self._routine: Final = {k: address(f"{k}_user_word") for k in ("read", "write")}
        self._rip: Final = {
            "read": address("read_user_word_load"),
            "write": address("write_user_word_store"),
        }
        self._rsp: Final = kernel.stack_of(kernel.current).top - 2 * _WORD
        self._rflags: Final = self._cpu.registers.rflags

    @contextmanager
    def unhandled(self) -> Iterator[None]:
        """Have faults end a run; afterwards the kernel's handlers are there again."""
        idt, self._cpu.idt = self._cpu.idt, None
        try:
            yield
        finally:
            self._cpu.idt = idt
            self._cpu.write(rflags=self._rflags)  # a faulting access leaves AC set

    def access(self, kind: str, addr: int, value: int = 0) -> Stop:
        """Read 8 bytes or write `value`, with nothing in the TLB; a value read is `Returned`'s."""
        self._cpu.invalidate_tlb()
        return self._cpu.run(
            self._call_once,
            returns_to=self._returns_to,
            rsp=self._rsp,
            rflags=self._rflags,
            rax=self._routine[kind],
            rdi=addr,
            rsi=value,
        )

    def fault(self, kind: str, addr: int, error_code: int) -> PageFault:
        """Return the fault that an access has to end with; W is added for a write."""
        code = error_code | (PF_W if kind == "write" else 0)
        return PageFault(VirtAddr(addr), code, VirtAddr(self._rip[kind]))
