"""sync_global_pgds() and the hooks on top of it (facts of arch/x86/mm/init_64.c)."""

from collections.abc import Callable
from functools import partial

import pytest
from support.kernel_facts import (
    EXPLICIT,
    FIVE,
    FOUR,
    SYNCING,
    Where,
    boot,
    populate_compound,
    put_slot,
    slots,
)

from emu import Trap
from kernel_model import Kernel
from kernel_model.history import Synced
from kernel_model.populate import (
    arch_page_table_sync_mask,
    p4d_populate,
    p4d_populate_kernel,
    pgd_populate,
    pgd_populate_kernel,
)
from kernel_model.sync import (
    arch_sync_kernel_mappings,
    arch_sync_kernel_pagetables,
    sync_global_pgds,
)

ENTRY, OTHER = 0x1234_5067, 0x6789_A067
SLOT = 512 << 30  # what a slot covers at 4 levels


def fill(kernel: Kernel, *at: int) -> None:
    """Fill slots of init_mm."""
    for slot in at:
        put_slot(kernel, kernel.init_mm, slot, ENTRY + slot * 0x1000)


def filled(kernel: Kernel, *among: int) -> list[int]:
    """Those slots of the first task that are not empty."""
    return [slot for slot in among if slots(kernel, kernel.tasks[0].mm)[slot]]


@pytest.mark.levels(4, 5)
def test_a_sync_copies_the_entry_into_every_table(kernel: Kernel, where: Where) -> None:
    tasks = [kernel.fork("a"), kernel.fork("b")]
    put_slot(kernel, kernel.init_mm, where.slot, ENTRY)

    sync_global_pgds(kernel, where.boundary, where.boundary)

    assert [slots(kernel, task.mm)[where.slot] for task in tasks] == [ENTRY, ENTRY]


@pytest.mark.parametrize(
    ("start", "end", "synced"),
    [
        (0, 0, [462]),
        (0, SLOT - 1, [462]),
        (0, SLOT, [462, 463]),  # the end is inclusive
        (SLOT // 2, 2 * SLOT + 1, [462, 463, 464]),
        (SLOT - 1, SLOT, [462, 463]),
        (SLOT, SLOT - 1, []),
    ],
)
def test_a_sync_covers_the_slots_from_start_to_end(
    kernel: Kernel, start: int, end: int, synced: list[int]
) -> None:
    kernel.fork("a")
    fill(kernel, 462, 463, 464)

    sync_global_pgds(kernel, FOUR.boundary + start, FOUR.boundary + end)

    assert filled(kernel, 462, 463, 464) == synced


@pytest.mark.levels(4, 5)
def test_a_sync_of_the_last_slot_does_not_wrap_around(kernel: Kernel) -> None:
    kernel.fork("a")
    fill(kernel, 0, 255, 256, 272)

    sync_global_pgds(kernel, 0xFFFF_FF00_0000_0000, 0xFFFF_FFFF_FFFF_FFFF)

    assert filled(kernel, 0, 255, 256, 272) == []


def test_a_sync_leaves_an_entry_alone_that_points_to_the_same_table(kernel: Kernel) -> None:
    task = kernel.fork("a")
    put_slot(kernel, task.mm, 462, ENTRY & ~0x64)
    put_slot(kernel, kernel.init_mm, 462, ENTRY)

    sync_global_pgds(kernel, FOUR.boundary, FOUR.boundary)

    assert slots(kernel, task.mm)[462] == ENTRY & ~0x64


@pytest.mark.parametrize("reference", [0, 0x20, 0x60])
def test_a_sync_clears_nothing(kernel: Kernel, reference: int) -> None:
    task = kernel.fork("a")
    put_slot(kernel, task.mm, 462, ENTRY)
    put_slot(kernel, kernel.init_mm, 462, reference)

    sync_global_pgds(kernel, FOUR.boundary, FOUR.boundary)

    assert slots(kernel, task.mm)[462] == ENTRY


def test_a_stray_accessed_bit_does_not_keep_a_slot_from_being_filled(kernel: Kernel) -> None:
    task = kernel.fork("a")
    put_slot(kernel, task.mm, 462, 0x20)
    put_slot(kernel, kernel.init_mm, 462, ENTRY)

    sync_global_pgds(kernel, FOUR.boundary, FOUR.boundary)

    assert slots(kernel, task.mm)[462] == ENTRY


def test_the_history_says_how_many_tables_were_filled(kernel: Kernel) -> None:
    kernel.fork("a")
    fill(kernel, 462, 463)
    kernel.fork("b")

    sync_global_pgds(kernel, FOUR.boundary, FOUR.boundary + SLOT)

    assert kernel.history[-1] == Synced(
        FOUR.boundary, FOUR.boundary + SLOT, "sync_global_pgds", tables=2, filled=2
    )


SYNCS = {
    "sync_global_pgds": lambda kernel, addr: sync_global_pgds(kernel, addr, addr),
    "arch_sync_kernel_pagetables": arch_sync_kernel_pagetables,
}


@pytest.mark.levels(4, 5)
@pytest.mark.parametrize("name", SYNCS)
def test_two_tables_under_one_slot_are_a_bug_at_its_ud2(
    kernel: Kernel, where: Where, name: str
) -> None:
    task = kernel.fork("a")
    put_slot(kernel, kernel.init_mm, where.slot, ENTRY)
    put_slot(kernel, task.mm, where.slot, OTHER)

    stop = kernel.run(task, SYNCS[name], where.boundary)

    assert stop == Trap(6, None, rip=kernel.symbol(f"{name}_bug"))


def test_a_bug_replaces_nothing(kernel: Kernel) -> None:
    task = kernel.fork("a")
    put_slot(kernel, kernel.init_mm, 462, ENTRY)
    put_slot(kernel, task.mm, 462, OTHER)

    kernel.run(task, SYNCS["sync_global_pgds"], FOUR.boundary)

    assert slots(kernel, task.mm)[462] == OTHER


def test_the_table_that_differs_need_not_be_the_running_one(kernel: Kernel) -> None:
    task, other = kernel.fork("a"), kernel.fork("b")
    put_slot(kernel, kernel.init_mm, 462, ENTRY)
    put_slot(kernel, other.mm, 462, OTHER)

    stop = kernel.run(task, SYNCS["sync_global_pgds"], FOUR.boundary)

    assert isinstance(stop, Trap)


# -- which design syncs what


@pytest.mark.parametrize(
    ("release", "levels", "mask"),
    [
        ("5.6", 4, 0),
        ("5.8", 4, 2),
        ("5.8", 5, 1),
        ("5.10", 5, 0),
        ("6.8", 4, 0),
        ("6.16", 5, 0),
        ("rfc-v1", 4, 0),
        ("rfc-v1", 5, 0),
        ("6.17", 4, 2),
        ("6.17", 5, 1),
    ],
)
def test_a_sync_mask_is_there_in_5_8_and_in_the_merged_design(
    make_kernel: Callable[..., Kernel], release: str, levels: int, mask: int
) -> None:
    assert arch_page_table_sync_mask(make_kernel(release, levels=levels)) == mask


@pytest.mark.parametrize(
    ("release", "where"),
    [(r, where) for r in (*EXPLICIT, *SYNCING) for where in (FOUR, FIVE)],
)
def test_populating_for_the_kernel_syncs_in_the_releases_that_do(
    release: str, where: Where
) -> None:
    with boot(where, release) as kernel:
        kernel.fork("a")

        populate_compound(kernel, where.pfn)

        assert filled(kernel, where.slot) == [where.slot] * (release in SYNCING)


@pytest.mark.levels(4, 5)
@pytest.mark.parametrize(
    ("release", "by"), [("rfc-v1", "arch_sync_kernel_pagetables"), ("6.17", "sync_global_pgds")]
)
def test_each_design_syncs_the_new_slot_by_its_own_hook_and_once(
    release: str, by: str, where: Where
) -> None:
    with boot(where, release) as kernel:
        kernel.fork("a")
        before = len(kernel.history)

        populate_compound(kernel, where.pfn)

        syncs = [event for event in kernel.history[before:] if isinstance(event, Synced)]
        assert syncs == [Synced(where.boundary, where.boundary, by, tables=1, filled=1)]


@pytest.mark.levels(4, 5)
@pytest.mark.release(*EXPLICIT)
def test_before_the_fix_the_compound_path_syncs_nothing(kernel: Kernel, where: Where) -> None:
    before = len(kernel.history)

    populate_compound(kernel, where.pfn)

    assert not any(isinstance(event, Synced) for event in kernel.history[before:])


def test_the_merged_hook_is_sync_global_pgds(kernel: Kernel) -> None:
    kernel.fork("a")
    fill(kernel, 462, 463)

    arch_sync_kernel_mappings(kernel, FOUR.boundary, FOUR.boundary + SLOT)

    assert filled(kernel, 462, 463) == [462, 463]


def test_the_hook_of_rfc_v1_takes_one_address(kernel: Kernel) -> None:
    kernel.fork("a")
    fill(kernel, 462, 463)

    arch_sync_kernel_pagetables(kernel, FOUR.boundary + SLOT - 1)

    assert filled(kernel, 462, 463) == [462]


@pytest.mark.parametrize("populate", [pgd_populate, pgd_populate_kernel])
@pytest.mark.release(*SYNCING)
def test_with_a_folded_p4d_populating_a_pgd_does_nothing(
    kernel: Kernel, populate: Callable[..., None]
) -> None:
    pgdp = kernel.pgtable.pgd_offset(kernel.init_mm.pgd, FOUR.boundary)
    before = list(kernel.history)

    populate(kernel, FOUR.boundary, pgdp, kernel.frames.allocate(), "a test")

    assert (kernel.pgtable.get(pgdp), kernel.history) == (0, before)


@pytest.mark.parametrize("populate", [p4d_populate, p4d_populate_kernel])
@pytest.mark.levels(5)
@pytest.mark.release(*SYNCING)
def test_at_five_levels_populating_a_p4d_never_syncs(
    kernel: Kernel, populate: Callable[..., None]
) -> None:
    p4d = kernel.frames.allocate()
    before = list(kernel.history)

    populate(kernel, FIVE.boundary, p4d, kernel.frames.allocate(), "a test")

    assert kernel.pgtable.get(p4d) & 0xFFF == 0x67
    assert kernel.history == before


@pytest.mark.levels(5)
def test_at_five_levels_a_new_p4d_is_seen_by_all_without_a_sync(kernel: Kernel) -> None:
    populate_compound(kernel, FIVE.pfn)
    task = kernel.fork("a")
    next_p4d = FIVE.pfn + (512 << 30) // 64

    populate_compound(kernel, next_p4d)

    page = kernel.layout.pfn_to_page(next_p4d)
    assert kernel.walk(page, task.mm).pa == kernel.walk(page).pa


@pytest.mark.levels(4, 5)
@pytest.mark.release("rfc-v1", "6.17")
def test_a_populate_that_meets_another_table_is_a_bug(kernel: Kernel, where: Where) -> None:
    task = kernel.fork("a")
    put_slot(kernel, task.mm, where.slot, OTHER)

    stop = kernel.run(task, partial(populate_compound, pfn=where.pfn))

    assert isinstance(stop, Trap)
    assert stop.vector == 6
