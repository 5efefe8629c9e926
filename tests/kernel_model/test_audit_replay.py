"""Who wrote the top-level entry of a task, as told by why(), against what was seen to change.

The truth is had without the model's help: all top tables are photographed before and after every
operation, and what an operation changed, it wrote.
"""

from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.kernel_facts import FIVE, FOUR, SYNCING, Where, boot, slots

from kernel_model import Kernel, Task, audit, why
from kernel_model.history import Cleared
from kernel_model.populate import p4d_populate_kernel, pgd_populate_kernel
from kernel_model.sync import arch_sync_kernel_pagetables, sync_global_pgds

SLOTS = (462, 463)  # that boot leaves empty, at 4 levels and at 5
KEPT = (273, *SLOTS, 511)  # those that are asked for: the direct map's and the text's are boot's
PATH = "a_path_that_tells_nobody"
SYNC = {
    "6.8": "sync_global_pgds",
    "rfc-v1": "arch_sync_kernel_pagetables",
    "6.17": "sync_global_pgds",
}

Tables = dict[str, bytes]
Seen = dict[tuple[str, int], str]


class Op(NamedTuple):
    """One operation; `slot` and `task` choose among those that there are."""

    what: str
    slot: int
    task: int = 0
    more: int = 0


def ops(*what: str) -> st.SearchStrategy[list[Op]]:
    """Sequences of operations."""
    return st.lists(
        st.builds(
            Op, st.sampled_from(what), st.sampled_from(SLOTS), st.integers(0, 3), st.integers(0, 1)
        ),
        min_size=5,
        max_size=24,
    )


def short(text: str) -> list[Op]:
    """Operations on the first task and slot; with a + on the next slot, with .. on both."""
    return [
        Op(word.rstrip("+."), SLOTS[word.endswith("+")], 0, int(word.endswith("..")))
        for word in text.split()
    ]


class World:
    """A kernel, its tasks, and what was seen of their tables."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.tasks: list[Task] = []
        self.nr_forks = 0
        self.worker = kernel.kthread("worker")
        kernel.stack_of(self.worker)
        self.seen: Seen = {}
        self.before = self.photograph()

    def photograph(self) -> Tables:
        """All bytes of all tasks' top tables."""
        return {task.comm: self.kernel.memory.read(task.mm.pgd, 4096) for task in self.tasks}

    def play(self, op: Op) -> None:
        """Do one thing, and remember what changed."""
        by = getattr(self, op.what)(op)
        now = self.photograph()
        for task, table in now.items():
            was = self.before.get(task, bytes(4096))
            for slot in KEPT:
                if table[8 * slot : 8 * slot + 8] != was[8 * slot : 8 * slot + 8]:
                    self.seen[task, slot] = by
        self.before = now

    def fork(self, _op: Op) -> str:
        self.nr_forks += 1
        self.tasks.append(self.kernel.fork(f"task-{self.nr_forks}"))
        return "pgd_ctor"

    def exit(self, op: Op) -> str:
        if self.tasks:
            self.kernel.exit(self.tasks.pop(op.task % len(self.tasks)))
        return "nobody"

    def populate(self, op: Op) -> str:
        kernel, addr = self.kernel, self.kernel.layout.slot_base(op.slot)
        pgdp = kernel.pgtable.pgd_offset(kernel.init_mm.pgd, addr)
        if kernel.pgtable.get(pgdp) == 0:
            fill = p4d_populate_kernel if kernel.pgtable.p4d_folded else pgd_populate_kernel
            kernel.run(self.worker, fill, addr, pgdp, kernel.frames.allocate(), PATH)
        return SYNC[kernel.release.name]

    def clear(self, op: Op) -> str:
        kernel, addr = self.kernel, self.kernel.layout.slot_base(op.slot)
        pgdp = kernel.pgtable.pgd_offset(kernel.init_mm.pgd, addr)
        if kernel.pgtable.get(pgdp):
            kernel.pgtable.set(pgdp, 0, by="free_pud_table")
            kernel.history.append(Cleared(addr, op.slot, "free_pud_table", 0))
        return "nobody"

    def clear_all(self, op: Op) -> str:
        kernel, addr = self.kernel, self.kernel.layout.slot_base(op.slot)
        for mm in (kernel.init_mm, *kernel.pgd_list):
            kernel.memory.write_u64(kernel.pgtable.pgd_offset(mm.pgd, addr), 0)
        kernel.history.append(Cleared(addr, op.slot, "free_pud_table", len(kernel.pgd_list)))
        return "free_pud_table"

    def sync(self, op: Op) -> str:
        start = self.kernel.layout.slot_base(op.slot)
        end = start + op.more * self.kernel.layout.pgdir_size
        self.kernel.run(self.worker, sync_global_pgds, start, end)
        return "sync_global_pgds"

    def sync_one(self, op: Op) -> str:
        addr = self.kernel.layout.slot_base(op.slot)
        self.kernel.run(self.worker, arch_sync_kernel_pagetables, addr)
        return "arch_sync_kernel_pagetables"

    def fault(self, op: Op) -> str:
        """Copy one entry into one table, as a fault handler does."""
        kernel, addr = self.kernel, self.kernel.layout.slot_base(op.slot)
        if self.tasks:
            entry_pa = kernel.pgtable.pgd_offset(self.tasks[op.task % len(self.tasks)].mm.pgd, addr)
            reference = kernel.pgtable.get(kernel.pgtable.pgd_offset(kernel.init_mm.pgd, addr))
            if reference and not kernel.pgtable.get(entry_pa):
                kernel.pgtable.set(entry_pa, reference, by="vmalloc_fault")
        return "vmalloc_fault"

    def told(self) -> Seen:
        """What why() says of every entry that is there."""
        return {
            (table.name, slot): write.by if (write := reading.written[0]) else "nobody"
            for slot in KEPT
            for reading in why(self.kernel, self.kernel.layout.slot_base(slot)).others
            for table in reading.tables
            if slots(self.kernel, table.mm)[slot]
        }

    def truth(self) -> Seen:
        """What was seen to write every entry that is there."""
        return {
            (task.comm, slot): self.seen[task.comm, slot]
            for task in self.tasks
            for slot in KEPT
            if slots(self.kernel, task.mm)[slot]
        }


def play(kernel: Kernel, played: list[Op]) -> World:
    """Play operations, one behind the other."""
    world = World(kernel)
    for op in played:
        world.play(op)
    return world


@pytest.mark.parametrize("where", [FOUR, FIVE], ids=["4-level", "5-level"])
@pytest.mark.parametrize("release", SYNC)
@settings(max_examples=30)
@example(played=short("populate fork clear fork populate sync exit sync_one"))
@example(played=short("fork populate fault exit fork"))
@example(played=short("fork populate fault clear_all populate sync"))
@example(played=short("fork populate populate+ clear sync.. populate sync_one"))
@example(played=short("populate+ fork clear+ fork populate+ populate sync.."))
@given(
    played=ops(
        *("fork", "fork", "exit", "populate", "populate"),
        *("clear", "clear_all", "sync", "sync", "sync_one", "fault"),
    )
)
def test_the_history_tells_who_wrote_each_entry(
    release: str, where: Where, played: list[Op]
) -> None:
    with boot(where, release) as kernel:
        world = play(kernel, played)

        assert world.told() == world.truth()


def disagreeing(world: World) -> set[tuple[str, int]]:
    """(task, slot) where a table's entry is not init_mm's, read by hand."""
    reference = slots(world.kernel, world.kernel.init_mm)
    return {
        (task.comm, slot)
        for task in world.tasks
        for slot in range(273, 512)
        if (slots(world.kernel, task.mm)[slot] ^ reference[slot]) & ~0x60
    }


@pytest.mark.parametrize("release", SYNC)
@settings(max_examples=20)
@given(played=ops("fork", "fork", "exit", "populate", "clear", "sync", "fault"))
def test_an_audit_finds_every_entry_that_differs_and_no_other(
    release: str, played: list[Op]
) -> None:
    with boot(FOUR, release) as kernel:
        world = play(kernel, played)

        found = {(table.name, one.slot) for one in audit(kernel) for table in one.tables}
        assert found == disagreeing(world)


@settings(max_examples=20)
@given(release=st.sampled_from(SYNCING), played=ops("fork", "fork", "exit", "populate", "sync"))
def test_with_the_fix_an_audit_finds_nothing(release: str, played: list[Op]) -> None:
    with boot(FOUR, release) as kernel:
        play(kernel, played)

        assert audit(kernel) == ()


@settings(max_examples=30)
@given(played=ops("fork", "fork", "exit", "populate", "sync", "sync"))
def test_without_it_what_a_table_lacks_was_filled_behind_its_fork_and_not_synced(
    played: list[Op],
) -> None:
    with boot(FOUR, "6.8") as kernel:
        play(kernel, played)

        causes = {(one.kind, one.cause.reason, one.cause.path) for one in audit(kernel)}
        assert causes <= {("lacking", "not-synced", PATH)}
