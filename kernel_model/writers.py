"""Who wrote which entries: a journal of places and functions, never of values.

Knows which kernel function wrote an entry last, and when; what an entry holds is in RAM alone.
Refuses to know the copies in tasks' top tables, which a sync writes by the thousand: `replay`
tells those from the history. What the CPU itself writes, the A and D bits, is nobody's. Linux
vocabulary.

A run of neighbouring entries with one writer is one record, so a table filled front to back costs
as much as an entry.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from weakref import ref

from emu import PageFault, PhysAddr, VirtAddr, map_page
from emu.paging import ENTRY_SIZE
from emu.walk import Step
from kernel_model.history import Populated
from kernel_model.pgtable import none

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.mm import Mm

ENTRY_REGISTER: Final = {"vmemmap_set_pmd": "rdi"}
"""The routines that store an entry, each with the register that says where (by direct map)."""


@dataclass(frozen=True, slots=True)
class Write:
    """An entry was written by the kernel function `by`, when the history had `at` events.

    `how`: "stored", a value of its own; "cleared", none; "forked", "synced" and, to a table outside
    pgd_list, "copied", what init_mm had.
    """

    by: str
    how: Literal["stored", "cleared", "forked", "synced", "copied"]
    at: int


class Writers:
    """The journal of one kernel, oldest record first."""

    def __init__(self, kernel: "Kernel") -> None:
        self._kernel: Final = ref(kernel)
        self._runs: list[tuple[int, int, str, int]] = [(0, 0, "", 0)]
        """The first entry's place, the byte after the last, the writer, when; see `Write`."""
        self.unframed = "boot"
        """Who writes while no kernel function runs."""
        self.watcher: Callable[[int, int, str], None] | None = None
        """Told of what Python writes for the kernel: the first entry's place, how many, by whom."""

    def note(self, entry_pa: PhysAddr, nr: int = 1, by: str | None = None) -> None:
        """Remember who writes `nr` entries from `entry_pa` on: the running function if not `by`."""
        kernel = self._kernel()
        assert kernel is not None
        if by is None:
            by = self._writer()
        at = len(kernel.history)
        first, end, writer, when = self._runs[-1]
        if end == entry_pa and writer == by and when == at:
            self._runs[-1] = first, entry_pa + nr * ENTRY_SIZE, by, at
        else:
            self._runs.append((entry_pa, entry_pa + nr * ENTRY_SIZE, by, at))

    def tell(self, entry_pa: int, nr: int = 1, by: str | None = None) -> None:
        """Tell the watcher, if there is one, that entries have been written from Python."""
        if self.watcher is not None:
            self.watcher(entry_pa, nr, self._writer() if by is None else by)

    def _writer(self) -> str:
        kernel = self._kernel()
        assert kernel is not None
        frames = kernel.current.frames
        return frames[-1][0] if frames else self.unframed

    def last(self, entry_pa: PhysAddr) -> tuple[int, Write] | None:
        """Return who wrote an entry last, with the record's number; None if nobody noted that.

        Frames are used again: what was written in a frame's former life is found, too.
        """
        for number in range(len(self._runs) - 1, 0, -1):
            first, end, by, at = self._runs[number]
            if first <= entry_pa < end:
                return number, Write(by, "stored", at)
        return None

    def records(self) -> Iterator[tuple[int, int, Write]]:
        """Yield every record, oldest first: its first entry's place, the end, and the write."""
        for first, end, by, at in self._runs[1:]:
            yield first, end, Write(by, "stored", at)

    def of_walk(self, steps: Sequence[Step], parent: int = 0) -> tuple[Write | None, ...]:
        """Return who wrote each entry of a walk, root first; None for nobody, or nobody noted.

        `parent` is the record of the entry that leads to the first. An empty entry was cleared if
        it was written after the entry that leads to it, and otherwise is as its table began.
        """
        found: list[Write | None] = []
        for step in steps:
            number, write = self.last(step.entry_pa) or (0, None)
            if write is not None and none(step.entry):
                write = Write(write.by, "cleared", write.at) if number > parent else None
            found.append(write)
            parent = number or parent
        return tuple(found)


def map_kernel_page(
    kernel: "Kernel", va: int, pa: int, flags: int, by: str, *, table_flags: int, level: int = 1
) -> None:
    """Map one page in init_mm, and note every entry that is new. Raises OutOfFrames."""
    before = kernel.walk(va).steps
    try:
        map_page(
            kernel.memory,
            kernel.frames,
            kernel.paging(kernel.init_mm),
            VirtAddr(va),
            PhysAddr(pa),
            flags,
            level=level,
            table_flags=table_flags,
        )
    finally:
        for step in kernel.walk(va).steps:
            if step in before:
                continue
            kernel.pgtable.writers.note(step.entry_pa, by=by)
            kernel.pgtable.writers.tell(step.entry_pa, by=by)
            if step.level == kernel.layout.levels:
                name = "p4d" if kernel.pgtable.p4d_folded else "pgd"
                slot = kernel.layout.pgd_index(va)
                kernel.history.append(Populated(name, va, slot, step.entry, by))


@contextmanager
def telling(kernel: "Kernel", mm: "Mm", va: VirtAddr, by: str) -> Iterator[None]:
    """Tell the watcher which of the entries for `va` the body writes in a task's own tables."""
    before = kernel.walk(va, mm).steps
    try:
        yield
    finally:
        for step in kernel.walk(va, mm).steps:
            if step not in before:
                kernel.pgtable.writers.tell(step.entry_pa, by=by)


def note_lazy_copy(kernel: "Kernel", fault: PageFault) -> None:
    """Note that vmalloc_fault() copied the top-level entry that a fault was about, if it did.

    The guest's handler does that itself; it may die of what it does next, and the entry stays.
    """
    if fault.walk is None or len(fault.walk.steps) != 1:
        return
    _, entry_pa, before = fault.walk.steps[0]
    if none(before) and not none(kernel.pgtable.get(entry_pa)):
        kernel.pgtable.writers.note(entry_pa, by="vmalloc_fault")


def stored_entry(
    kernel: "Kernel", routine: str, registers: dict[str, int]
) -> tuple[PhysAddr, int] | None:
    """Return where a routine is about to store an entry, and what is there; None if it does not."""
    va = registers.get(ENTRY_REGISTER.get(routine, ""))
    if not isinstance(va, int):
        return None
    pa = PhysAddr(kernel.layout.pa(va))
    if pa % ENTRY_SIZE or not kernel.memory.holds(pa, ENTRY_SIZE):
        return None
    return pa, kernel.pgtable.get(pa)
