"""Address spaces and tasks: init_mm, pgd_list, and what fork copies.

Knows that a new table is a copy of init_mm's kernel slots as they are at that moment, and from
then on only as good as whoever syncs it. Refuses to know who does (`sync`). Linux vocabulary;
source: arch/x86/mm/pgtable.c, pgd_alloc() and pgd_ctor() (v6.17).
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from emu import OutOfFrames, PhysAddr, PhysMemory, VirtAddr
from emu.paging import ENTRIES
from kernel_model.errors import ENOMEM
from kernel_model.history import Exited, Forked
from kernel_model.layout import PAGE_SHIFT, PAGE_SIZE
from kernel_model.pti import free_own_tables, user_table
from kernel_model.vmalloc import get_vm_area, map_vm_area, vfree
from kernel_model.vmap_areas import VmArea

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.ldt import Ldt

THREAD_SIZE: Final = 4 * PAGE_SIZE
SIZEOF_TASK_STRUCT: Final = 64  # as much of it as there is here: an address


@dataclass(eq=False, slots=True)
class Mm:
    """An address space: the physical address of its top table. Everything else is in RAM.

    With page-table isolation `user` is the table for user mode, in the frame behind `pgd`, and
    `ldt` the local descriptor table that lies in the space, if there is one.
    """

    name: str
    pgd: PhysAddr
    user: "Mm | None" = None
    ldt: "Ldt | None" = None


@dataclass(frozen=True, slots=True)
class Stack:
    """A kernel stack: [base, base + THREAD_SIZE), in the frames `pages`.

    `area` is its place in the vmalloc area, if that is where it lies.
    """

    base: VirtAddr
    pages: tuple[PhysAddr, ...]
    area: VmArea | None = None
    top: int = field(init=False)
    """The byte after the last."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "top", self.base + THREAD_SIZE)

    def pa_of(self, va: int) -> PhysAddr:
        """Return where a word of the stack lies."""
        offset = va - self.base
        return PhysAddr(self.pages[offset >> PAGE_SHIFT] + (offset & PAGE_SIZE - 1))

    def peek(self, memory: PhysMemory, va: int) -> bytes:
        """Return all from `va` up."""
        if va >= self.top - PAGE_SIZE:
            return memory.peek(self.pages[-1] + (va & PAGE_SIZE - 1), self.top - va)
        first, offset = divmod(va - self.base, PAGE_SIZE)
        data = memory.peek(self.pages[first] + offset, PAGE_SIZE - offset)
        for page in self.pages[first + 1 :]:
            data += memory.peek(page, PAGE_SIZE)
        return data


@dataclass(eq=False, slots=True)
class Task:
    """A task. `frames` are the functions it is in, with the stack pointer each was entered with.

    `struct` is where its struct task_struct lies, in releases whose oops says so; nothing is in it.
    """

    comm: str
    pid: int
    mm: Mm
    stack: Stack | None = None
    area: VmArea | None = None  # where its stack lies or will lie
    struct: int = 0
    frames: list[tuple[str, int]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Task {self.comm} pid {self.pid} pgd {self.mm.pgd:#x}>"


def pgd_alloc(kernel: "Kernel", name: str) -> Mm:
    """Make a table with init_mm's kernel slots in it, and put it on pgd_list.

    The user's table, with page-table isolation, gets those of init_mm's user half.
    """
    user = kernel.init_mm.user
    mm = Mm(name, kernel.frames.allocate()) if user is None else alloc_two_tables(kernel, name)
    _copy_kernel_slots(kernel, mm, kernel.init_mm)
    if mm.user is not None and user is not None:
        _copy_kernel_slots(kernel, mm.user, user)
        kernel.outside[mm.user] = None
    kernel.pgd_list[mm] = None
    return mm


def _copy_kernel_slots(kernel: "Kernel", mm: Mm, source: Mm) -> None:
    words, boundary = kernel.memory.words, kernel.layout.kernel_pgd_boundary
    new, old = mm.pgd >> 3, source.pgd >> 3
    words[new + boundary : new + ENTRIES] = words[old + boundary : old + ENTRIES]
    kernel.pgtable.writers.tell((new + boundary) << 3, ENTRIES - boundary, "pgd_ctor")


def alloc_two_tables(kernel: "Kernel", name: str) -> Mm:
    """Allocate the two tables of page-table isolation, both empty. Raises OutOfFrames."""
    pgd = kernel.frames.allocate_block(2 * PAGE_SIZE)
    kernel.memory.zero(pgd, 2 * PAGE_SIZE)
    return Mm(name, pgd, Mm(f"{name} (user)", user_table(pgd)))


def pgd_free(kernel: "Kernel", mm: Mm) -> None:
    """Take a table off pgd_list and give its frame back."""
    del kernel.pgd_list[mm]
    if mm.user is not None:
        free_own_tables(kernel, mm)
        del kernel.outside[mm.user]
        kernel.frames.free(mm.user.pgd)
    kernel.frames.free(mm.pgd)


def fork(kernel: "Kernel", comm: str) -> Task:
    """Make a task with an address space of its own. Raises OutOfFrames."""
    area = reserve_thread_stack(kernel)
    stack = None
    try:
        if area is not None and _opens_a_slot(kernel, area):
            stack = _map_stack(kernel, area)  # so that the copy below has it
        mm = pgd_alloc(kernel, comm)
    except OutOfFrames:
        _free_thread_stack(kernel, stack, area)
        kernel.refuse("fork", ENOMEM, f"no frame is left for the top table of {comm}")
        raise
    task = Task(comm, kernel.next_pid(), mm, stack, area)
    kernel.tasks.append(task)
    kernel.history.append(Forked(comm, task.mm.pgd))
    return task


def exit_task(kernel: "Kernel", task: Task) -> None:
    """End a task: its table goes, and its stack with it, by way of a vfree()."""
    kernel.tasks.remove(task)
    if task.mm in kernel.pgd_list:
        pgd_free(kernel, task.mm)
    kernel.history.append(Exited(task.comm, task.mm.pgd))
    stack, area = task.stack, task.area
    task.stack = task.area = None
    _free_thread_stack(kernel, stack, area)


def reserve_thread_stack(kernel: "Kernel") -> VmArea | None:
    """Take the addresses of a task's stack; None where it lies in the direct map.

    It lies in the vmalloc area since e37e43a497d5 (VMAP_STACK, 4.9); in a kernel with KASAN only
    since that area has a shadow of its own: eafb149ed73a "fork: support VMAP_STACK with
    KASAN_VMALLOC" (5.5).
    """
    has_shadow = kernel.kasan is None or kernel.release.kasan_vmalloc
    if not (kernel.release.vmap_stack and has_shadow):
        return None
    area = get_vm_area(kernel, THREAD_SIZE, THREAD_SIZE, "stack")
    if area is None:
        raise OutOfFrames("no room for a stack in the vmalloc area")
    return area


def alloc_thread_stack(kernel: "Kernel", task: Task) -> Stack:
    """Give a task its kernel stack. Raises OutOfFrames.

    Linux does this in a fork. Here a fork takes the addresses only, unless they are the first in
    their top-level slot; memory comes when the task first runs, so that a task costs one page.
    """
    try:
        if kernel.release.oops.task:
            task.struct = kernel.kmalloc(bytes(SIZEOF_TASK_STRUCT))
        if task.area is None:
            task.area = reserve_thread_stack(kernel)
        area = task.area
        task.stack = _direct_stack(kernel) if area is None else _map_stack(kernel, area)
    except OutOfFrames:
        kernel.refuse("alloc_thread_stack_node", ENOMEM, f"no memory for the stack of {task.comm}")
        raise
    return task.stack


def _opens_a_slot(kernel: "Kernel", area: VmArea) -> bool:
    entry_pa = kernel.pgtable.pgd_offset(kernel.init_mm.pgd, area.start)
    return kernel.pgtable.top_none(kernel.pgtable.get(entry_pa))


def _map_stack(kernel: "Kernel", area: VmArea) -> Stack:
    frames = map_vm_area(kernel, area)
    return Stack(VirtAddr(area.start), tuple(frames), area)


def _direct_stack(kernel: "Kernel") -> Stack:
    pa = kernel.frames.allocate_block(THREAD_SIZE)
    kernel.memory.zero(pa, THREAD_SIZE)
    pages = tuple(PhysAddr(at) for at in range(pa, pa + THREAD_SIZE, PAGE_SIZE))
    return Stack(kernel.layout.va(pa), pages)


def _free_thread_stack(kernel: "Kernel", stack: Stack | None, area: VmArea | None) -> None:
    if area is not None and stack is None:
        kernel.vmap_areas.remove(area)
    elif area is not None:
        vfree(kernel, area)
    elif stack is not None:
        for page in stack.pages:
            kernel.frames.free(page)
