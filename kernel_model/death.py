"""What a dying task leaves behind: enough for its oops, whatever runs afterwards.

Knows what to read while the stack, the tables and the code are as the fault left them. Refuses to
know wording (`oops`) and why it died. Linux vocabulary.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from struct import iter_unpack
from typing import TYPE_CHECKING, Final, NamedTuple

from asm import Image
from emu import NotMapped, PageFault, PhysAddr, Registers, Trap, VirtAddr, read_virtual
from emu.fault import PF_I
from emu.paging import ADDRESS, Paging
from kernel_model.boot import kernel_pa
from kernel_model.layout import PAGE_SIZE

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

CODE_SIZE: Final = 64
_KERNEL_HALF: Final = 1 << 63
_TELL_ALL: Final = frozenset(("not-present", "mapped"))  # walks that end where Linux stops reading
Entries = tuple[tuple[str, int | None], ...]
"""Entries by Linux's names, root first; None for one that cannot be read."""


class Death(NamedTuple):
    """A picture of one task's end."""

    stop: PageFault | Trap
    number: int
    comm: str
    pid: int
    registers: Registers
    cr2: int
    cr3: int
    paging: Paging  # the other control registers, which the kernel writes at boot only
    selectors: dict[str, int]  # which no routine loads
    stack: bytes  # from RSP up, or all if RSP has just left it; empty if it is elsewhere
    code: bytes  # around RIP; empty if it cannot be read
    entries: Entries  # for a page fault's address, where Linux reads on and the walk did not
    cpu: int
    task: int  # its struct task_struct
    bounds: tuple[int, int]  # of its stack: the first byte, and the one after the last
    kasan: bool  # the kernel is built with it
    pti: bool  # whether page tables are isolated

    @classmethod
    def of(cls, kernel: "Kernel", stop: PageFault | Trap, number: int) -> "Death":
        """Take the picture now."""
        registers = stop.registers
        assert registers is not None
        task = kernel.current
        stack = kernel.stack_of(task)
        base, top, rsp = stack.base, stack.top, registers.rsp
        if stack.area is not None and base - PAGE_SIZE < rsp < base:
            rsp = base  # in the guard
        entries: Entries = ()
        if isinstance(stop, PageFault):
            cr2, fetched = int(stop.address), not stop.error_code & PF_I
            if stop.walk is None or stop.walk.verdict not in _TELL_ALL:
                entries = kernel.pgtable.read_down(PhysAddr(stop.cr3 & ADDRESS), cr2)
        else:
            cr2, fetched = kernel.cpu.cr2, True
        return cls._make(
            (
                stop,
                number,
                task.comm,
                task.pid,
                registers,
                cr2,
                stop.cr3,
                kernel.boot_paging,
                kernel.selectors if stop.cpl == 0 else kernel.cpu.selectors,
                stack.peek(kernel.memory, rsp) if base <= rsp < top else b"",
                _code(kernel, stop.cr3, registers.rip, fetched and stop.symbol is not None),
                entries,
                kernel.cpu_nr,
                task.struct,
                (base, top),
                kernel.kasan is not None,
                kernel.pti,
            )
        )

    def words(self) -> Iterator[tuple[int, int]]:
        """Yield the stack's words upwards, each behind its address."""
        start, whole = self.bounds[1] - len(self.stack), len(self.stack) & ~7
        for i, (word,) in enumerate(iter_unpack("<Q", self.stack[:whole])):
            yield start + 8 * i, word


def with_symbol(stop: PageFault | Trap, image: Image) -> PageFault | Trap:
    """Return the stop with the name of the code that it is in."""
    symbol = _describe(image, stop.rip)
    if isinstance(stop, PageFault):
        return PageFault._make((*stop[:-1], symbol))
    return replace(stop, symbol=symbol)


@lru_cache(maxsize=4096)
def _describe(image: Image, address: int) -> str | None:
    return image.describe(address)


def _code(kernel: "Kernel", cr3: int, rip: int, in_image: bool) -> bytes:
    """Read the bytes around RIP; `in_image` says that the CPU has fetched there from the image."""
    start = rip - kernel.release.oops.code_before
    if start < _KERNEL_HALF:
        return b""  # copy_from_kernel_nofault() reads no user memory
    if in_image and start % PAGE_SIZE <= PAGE_SIZE - CODE_SIZE:
        return kernel.memory.peek(kernel_pa(start), CODE_SIZE)
    try:
        return read_virtual(
            kernel.memory, kernel.boot_paging.with_root(cr3), VirtAddr(start), CODE_SIZE
        )
    except NotMapped:
        return b""
