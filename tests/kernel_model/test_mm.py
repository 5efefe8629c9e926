"""What fork copies, and who is on pgd_list (facts of arch/x86/mm/pgtable.c)."""

import pytest
from support.kernel_facts import Where, put_slot, slots

from kernel_model import Kernel
from kernel_model.mm import pgd_free

ENTRY = 0x1234_5067


@pytest.mark.levels(4, 5)
def test_fork_copies_every_slot_from_the_direct_map_up(kernel: Kernel) -> None:
    task = kernel.fork("a")

    assert slots(kernel, task.mm)[273:] == slots(kernel, kernel.init_mm)[273:]


@pytest.mark.levels(4, 5)
@pytest.mark.parametrize("slot", [0, 255, 256, 271, 272])
def test_fork_copies_nothing_below(kernel: Kernel, slot: int) -> None:
    put_slot(kernel, kernel.init_mm, slot, ENTRY)

    task = kernel.fork("a")

    assert slots(kernel, task.mm)[slot] == 0


@pytest.mark.levels(4, 5)
def test_a_later_change_of_init_mm_does_not_reach_a_fork(kernel: Kernel, where: Where) -> None:
    task = kernel.fork("a")

    put_slot(kernel, kernel.init_mm, where.slot, ENTRY)

    assert slots(kernel, task.mm)[where.slot] == 0


@pytest.mark.levels(4, 5)
def test_a_later_fork_has_it(kernel: Kernel, where: Where) -> None:
    put_slot(kernel, kernel.init_mm, where.slot, ENTRY)

    task = kernel.fork("a")

    assert slots(kernel, task.mm)[where.slot] == ENTRY


def test_init_mm_is_not_on_pgd_list(kernel: Kernel) -> None:
    task = kernel.fork("a")

    assert list(kernel.pgd_list) == [task.mm]


def test_a_kernel_thread_runs_on_init_mm_itself(kernel: Kernel) -> None:
    thread = kernel.kthread("kworker/0:1")

    assert (thread.mm, list(kernel.pgd_list)) == (kernel.init_mm, [])


def test_a_freed_table_is_on_pgd_list_no_more(kernel: Kernel) -> None:
    task = kernel.fork("a")
    free = kernel.frames.nr_free

    pgd_free(kernel, task.mm)

    assert (list(kernel.pgd_list), kernel.frames.nr_free) == ([], free + 1)


def test_tasks_are_found_by_name(kernel: Kernel) -> None:
    task = kernel.fork("ndctl")

    assert kernel.task("ndctl") is task


def test_an_unknown_task_is_refused_with_the_names(kernel: Kernel) -> None:
    kernel.fork("ndctl")

    with pytest.raises(ValueError, match=r"'modprobe'.* ndctl, swapper/0"):
        kernel.task("modprobe")


def test_pids_differ(kernel: Kernel) -> None:
    assert kernel.fork("a").pid != kernel.kthread("b").pid


@pytest.mark.levels(4, 5)
def test_a_stack_needs_no_sync_to_be_seen_by_all(kernel: Kernel) -> None:
    early = kernel.fork("early")
    late = kernel.fork("late")

    stack = kernel.stack_of(late)

    assert kernel.walk(stack.top - 8, early.mm).pa == stack.pa_of(stack.top - 8)


def test_below_a_stack_lies_a_guard(kernel: Kernel) -> None:
    kernel.stack_of(kernel.fork("first"))

    stack = kernel.stack_of(kernel.fork("second"))

    assert kernel.walk(stack.base - 8).verdict == "not-present"
