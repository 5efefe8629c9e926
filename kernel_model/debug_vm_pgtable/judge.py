"""The CPU as a judge: one access to user memory, and how it ended.

Knows how to make one, whatever handler the kernel has: it is taken away meanwhile, so that a fault
is an answer and no death. Refuses to know what was to be expected. Linux vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Final

from emu import PageFault, PhysAddr, Returned, Stop, VirtAddr
from emu.fault import PF_P, PF_W

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_WORD: Final = 8


def absent(level: int, entry_pa: int) -> str:
    """Say which entry is not present."""
    return f"absent at level {level} in the entry at {entry_pa:#x}"


class Judge:
    """Accesses under the table that is active, by the task that is running."""

    def __init__(self, kernel: "Kernel", random: Random) -> None:
        address = kernel.image.address
        self._cpu: Final = kernel.cpu
        self._memory: Final = kernel.memory
        self._random: Final = random
        self._call_once: Final = address("call_once")
        self._returns_to: Final = address("run_return")
        self._routine: Final = {k: address(f"{k}_user_word") for k in ("read", "write")}
        self._rip: Final = {
            "read": VirtAddr(address("read_user_word_load")),
            "write": VirtAddr(address("write_user_word_store")),
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

    def verdict(self, kind: str, addr: int, pa: PhysAddr | None) -> str:
        """Read or write the word at `addr`, which should be that at `pa`, and say how it ended.

        "allowed", "refused: …" (a protection violation), what `absent` says of the entry that is
        not present, or something else. Memory is as before. Without a `pa` any word will do.
        """
        word = self._random.getrandbits(8 * _WORD)
        old = None if pa is None else self._memory.read_u64(pa)
        if pa is None or old is None:
            return self._ended(self._access(kind, addr, word), kind, addr)
        if kind == "read":
            self._memory.write_u64(pa, word)
        stop = self._access(kind, addr, word)
        now = self._memory.read_u64(pa)
        self._memory.write_u64(pa, old)

        got = stop.value if kind == "read" and isinstance(stop, Returned) else now
        if isinstance(stop, Returned) and got != word:
            return f"another word than that at pa {pa:#x}"
        return self._ended(stop, kind, addr)

    def _ended(self, stop: Stop, kind: str, addr: int) -> str:
        if isinstance(stop, Returned):
            return "allowed"
        if not isinstance(stop, PageFault) or stop.walk is None:
            return f"something else: {stop}"
        if stop == self._fault(kind, addr, PF_P):
            return f"refused: {stop.walk!r}"
        if stop == self._fault(kind, addr, 0):
            level, entry_pa, _ = stop.walk.steps[-1]
            return f"{absent(level, entry_pa)}: {stop.walk!r}"
        return f"another fault: {stop}"

    def _access(self, kind: str, addr: int, word: int) -> Stop:
        """Make one access, with nothing in the TLB."""
        self._cpu.invalidate_tlb()
        return self._cpu.run(
            self._call_once,
            returns_to=self._returns_to,
            rsp=self._rsp,
            rflags=self._rflags,
            rax=self._routine[kind],
            rdi=addr,
            rsi=word,
        )

    def _fault(self, kind: str, addr: int, error_code: int) -> PageFault:
        """Return the fault that an access ends with; W is added for a write."""
        code = error_code | (PF_W if kind == "write" else 0)
        return PageFault(VirtAddr(addr), code, self._rip[kind])
