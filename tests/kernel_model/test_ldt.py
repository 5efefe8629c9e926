"""The slot that each task has for itself (facts 1.1, 2.1, 11)."""

from collections.abc import Callable

import pytest
from support.kernel_facts import EINVAL, ENOMEM, slots
from support.kernel_outside import DEPTHS

from emu import PageFault, Returned
from kernel_model import Kernel, KernelError
from kernel_model.ldt import write_ldt
from kernel_model.sync import sync_global_pgds

DESCRIPTOR = 0x00CF_F300_0000_FFFF
LDT = {4: 0xFFFF_8800_0000_0000, 5: 0xFF10_0000_0000_0000}  # where it lies from 4.20 on
STRIDE = 0x1_0000


pytestmark = [
    pytest.mark.release("6.17"),
    pytest.mark.levels(*DEPTHS),
    pytest.mark.boot(pti=True),
]


def load(kernel: Kernel, task: str, base: int, selector: int) -> object:
    """Have a task load a descriptor."""
    return kernel.run(kernel.task(task), "read_ldt", rdi=base, rsi=selector)


def test_its_task_reads_what_it_wrote(kernel: Kernel) -> None:
    owner = kernel.fork("owner")
    write_ldt(kernel, owner.mm, 1, DESCRIPTOR)

    stop = load(kernel, "owner", LDT[kernel.layout.levels], 0xF)

    assert isinstance(stop, Returned)
    assert stop.value == DESCRIPTOR


@pytest.mark.parametrize("forked", ["earlier", "later"])
def test_no_other_task_finds_it(
    kernel: Kernel, forked: str, expect_page_fault: Callable[..., PageFault]
) -> None:
    kernel.fork("earlier")
    write_ldt(kernel, kernel.fork("owner").mm, 1, DESCRIPTOR)
    kernel.fork("later")
    base = LDT[kernel.layout.levels]

    stop = load(kernel, forked, base, 0xF)

    fault = expect_page_fault(stop, at=base + 8, error="", symbol="read_ldt_load", level="pgd")
    assert [step.entry for step in fault.walk.steps] == [0]  # type: ignore[union-attr]


def test_no_sync_spreads_it(kernel: Kernel) -> None:
    other = kernel.fork("other")
    write_ldt(kernel, kernel.fork("owner").mm, 1, DESCRIPTOR)

    sync_global_pgds(kernel, LDT[kernel.layout.levels], (1 << 64) - 1)

    assert (slots(kernel, other.mm)[272], slots(kernel, kernel.init_mm)[272]) == (0, 0)


def test_both_tables_of_the_task_have_it(kernel: Kernel) -> None:
    owner = kernel.fork("owner")
    write_ldt(kernel, owner.mm, 1, DESCRIPTOR)

    assert owner.mm.user is not None
    entry = slots(kernel, owner.mm)[272]
    assert entry == slots(kernel, owner.mm.user)[272] != 0


def test_two_tasks_have_different_ones(kernel: Kernel) -> None:
    for name, descriptor in (("a", 1), ("b", 2)):
        write_ldt(kernel, kernel.fork(name).mm, 0, descriptor)
    base = LDT[kernel.layout.levels]

    stops = [load(kernel, name, base, 7) for name in ("a", "b")]

    assert [stop.value for stop in stops] == [1, 2]  # type: ignore[attr-defined]


def test_a_new_state_lies_where_the_old_one_does_not_and_has_what_that_had(kernel: Kernel) -> None:
    owner, base = kernel.fork("owner"), LDT[kernel.layout.levels]
    write_ldt(kernel, owner.mm, 1, DESCRIPTOR)
    before = load(kernel, "owner", base, 0xF)

    write_ldt(kernel, owner.mm, 8191, 7)

    assert isinstance(before, Returned)
    assert isinstance(load(kernel, "owner", base, 0xF), PageFault)
    moved = [load(kernel, "owner", base + STRIDE, n << 3 | 7) for n in (1, 8191)]
    assert [stop.value for stop in moved] == [DESCRIPTOR, 7]  # type: ignore[attr-defined]


def test_the_third_is_back_where_the_first_was(kernel: Kernel) -> None:
    owner, base = kernel.fork("owner"), LDT[kernel.layout.levels]
    for number in (1, 2, 3):
        write_ldt(kernel, owner.mm, number, number)

    stop = load(kernel, "owner", base, 3 << 3 | 7)

    assert stop.value == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [-1, 8192])
def test_an_entry_that_no_selector_names_is_refused(kernel: Kernel, number: int) -> None:
    assert write_ldt(kernel, kernel.fork("owner").mm, number, DESCRIPTOR) == -EINVAL


def test_all_of_it_is_freed_with_its_task(kernel: Kernel) -> None:
    free = kernel.frames.nr_free
    owner = kernel.fork("owner")
    write_ldt(kernel, owner.mm, 600, DESCRIPTOR)
    write_ldt(kernel, owner.mm, 1, DESCRIPTOR)

    kernel.exit(owner)

    assert kernel.frames.nr_free == free


@pytest.mark.parametrize("left", [0, 1, 2, 15])
def test_without_memory_the_old_state_stays(kernel: Kernel, left: int) -> None:
    owner = kernel.fork("owner")
    kernel.stack_of(owner)
    write_ldt(kernel, owner.mm, 1, DESCRIPTOR)
    kernel.frames.floor = kernel.frames.allocate_block(0x1_0000)
    taken = [kernel.frames.allocate() for _ in range(kernel.frames.nr_free)]
    for frame in taken[:left]:
        kernel.frames.free(frame)

    error = write_ldt(kernel, owner.mm, 8191, DESCRIPTOR)

    assert (error, kernel.frames.nr_free) == (-ENOMEM, left)
    assert load(kernel, "owner", LDT[kernel.layout.levels], 0xF).value == DESCRIPTOR  # type: ignore[attr-defined]


@pytest.mark.parametrize("left", range(5))
def test_what_a_failure_left_is_freed_with_the_task(kernel: Kernel, left: int) -> None:
    owner = kernel.fork("owner")
    kernel.frames.floor = kernel.frames.allocate_block(0x1_0000)
    taken = [kernel.frames.allocate() for _ in range(kernel.frames.nr_free)]
    for frame in taken[:left]:
        kernel.frames.free(frame)

    errors = [write_ldt(kernel, owner.mm, 8191, DESCRIPTOR) for _ in range(2)]
    kernel.exit(owner)

    assert (errors, kernel.frames.nr_free) == ([-ENOMEM] * 2, left + 2)


def test_without_isolation_the_table_is_somewhere_else(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.17")
    owner = kernel.fork("owner")

    with pytest.raises(KernelError, match=r"^owner has no table for user mode: expected a Kernel"):
        write_ldt(kernel, owner.mm, 1, DESCRIPTOR)


@pytest.mark.parametrize(
    ("release", "levels", "slot"),
    [("4.17", 4, 509), ("4.17", 5, 400), ("5.4", 4, 272), ("6.17", 5, 272)],
)
def test_the_slot_moved_in_4_20(release: str, levels: int, slot: int) -> None:
    from kernel_model import RELEASES
    from kernel_model.layout import make_layout

    layout = make_layout(levels=levels, era=RELEASES[release].layout)

    assert layout.ldt_slot == slot
