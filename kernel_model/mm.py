"""Address spaces and tasks: init_mm, pgd_list, and what fork copies.

Knows that a new table is a copy of init_mm's kernel slots as they are at that moment, and from
then on only as good as whoever syncs it. Refuses to know who does (`sync`). Linux vocabulary;
source: arch/x86/mm/pgtable.c, pgd_alloc() and pgd_ctor() (v6.17).
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from emu import OutOfFrames, PhysAddr, VirtAddr
from emu.paging import ENTRIES
from kernel_model.errors import ENOMEM
from kernel_model.history import Forked
from kernel_model.layout import LDT_SLOT, PAGE_SIZE
from kernel_model.pgtable import PAGE_KERNEL

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

THREAD_SIZE: Final = 4 * PAGE_SIZE
_STACK_STRIDE: Final = 2 * THREAD_SIZE  # a guard of the same size below each stack


@dataclass(eq=False, slots=True)
class Mm:
    """An address space: the physical address of its top table. Everything else is in RAM."""

    name: str
    pgd: PhysAddr


@dataclass(frozen=True, slots=True)
class Stack:
    """A kernel stack: [base, base + THREAD_SIZE), physically contiguous from `pa`."""

    base: VirtAddr
    pa: PhysAddr

    @property
    def top(self) -> int:
        """The byte after the last."""
        return self.base + THREAD_SIZE

    def pa_of(self, va: int) -> PhysAddr:
        """Return where a word of the stack lies."""
        return PhysAddr(self.pa + va - self.base)


@dataclass(eq=False, slots=True)
class Task:
    """A task. `frames` are the functions it is in, with the stack pointer each was entered with."""

    comm: str
    pid: int
    mm: Mm
    stack: Stack | None = None
    frames: list[tuple[str, int]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Task {self.comm} pid {self.pid} pgd {self.mm.pgd:#x}>"


def pgd_alloc(kernel: "Kernel", name: str) -> Mm:
    """Make a table with init_mm's kernel slots in it, and put it on pgd_list."""
    mm = Mm(name, kernel.frames.allocate())
    words = kernel.memory.words
    boundary = kernel.layout.kernel_pgd_boundary
    assert boundary > LDT_SLOT  # so each mm's own slot 272 stays empty
    new, old = mm.pgd >> 3, kernel.init_mm.pgd >> 3
    words[new + boundary : new + ENTRIES] = words[old + boundary : old + ENTRIES]
    kernel.pgd_list[mm] = None
    return mm


def pgd_free(kernel: "Kernel", mm: Mm) -> None:
    """Take a table off pgd_list and give its frame back."""
    del kernel.pgd_list[mm]
    kernel.frames.free(mm.pgd)


def fork(kernel: "Kernel", comm: str) -> Task:
    """Make a task with an address space of its own. Raises OutOfFrames."""
    try:
        mm = pgd_alloc(kernel, comm)
    except OutOfFrames:
        kernel.refuse("fork", ENOMEM, f"no frame is left for the top table of {comm}")
        raise
    task = Task(comm, kernel.next_pid(), mm)
    kernel.tasks.append(task)
    kernel.history.append(Forked(comm, task.mm.pgd))
    return task


def alloc_thread_stack(kernel: "Kernel", task: Task) -> Stack:
    """Give a task its kernel stack, in vmalloc space (VMAP_STACK); done when it first runs.

    Needs no sync: the top-level entries of the vmalloc area exist since boot. Raises OutOfFrames.
    """
    base = VirtAddr(kernel.layout.vmalloc_base + kernel.nr_stacks * _STACK_STRIDE + THREAD_SIZE)
    try:
        stack = Stack(base, kernel.frames.allocate_block(THREAD_SIZE))
        _map_stack(kernel, stack)
    except OutOfFrames:
        kernel.refuse("alloc_thread_stack_node", ENOMEM, f"no memory for the stack of {task.comm}")
        raise
    kernel.memory.zero(stack.pa, THREAD_SIZE)
    kernel.nr_stacks += 1
    task.stack = stack
    return stack


def _map_stack(kernel: "Kernel", stack: Stack) -> None:
    """Map a stack, or give its frames back: only the first page can lack a table."""
    offsets = range(0, THREAD_SIZE, PAGE_SIZE)
    try:
        for offset in offsets:
            va, pa = stack.base + offset, stack.pa + offset
            kernel.map_kernel_page(va, pa, PAGE_KERNEL, "alloc_thread_stack_node")
    except OutOfFrames:
        for offset in offsets:
            kernel.frames.free(PhysAddr(stack.pa + offset))
        raise
