"""The stories: who faults at the top level, who does not, and what heals it (facts 2.1, 9, 11)."""

from collections.abc import Callable

import pytest
from support.kernel_facts import (
    EXPLICIT,
    FOUR,
    GIB,
    MIB,
    SECTION,
    SYNCING,
    VRAM,
    Where,
    entries,
    populate_compound,
)

from emu import PageFault, Returned
from kernel_model import Kernel
from kernel_model.drivers import dax_bus_probe, xe_device_probe
from kernel_model.vmemmap import populate_section_memmap

DEVICE = (64 * GIB - 256 * MIB, 512 * MIB, 2 * MIB)  # its struct pages cross the boundary


@pytest.mark.levels(4, 5)
def test_a_task_forked_before_the_populate_faults_at_the_top_level(
    kernel: Kernel, where: Where, expect_page_fault: Callable[..., PageFault]
) -> None:
    early = kernel.fork("early")
    populate_compound(kernel, where.pfn)

    stop = kernel.run(early, "__init_single_page", rdi=where.boundary)

    at = where.boundary + 0x34
    expect_page_fault(stop, at=at, error="W", symbol="__init_single_page+0x9", level="pgd")


@pytest.mark.levels(4, 5)
def test_a_task_forked_after_it_does_not(kernel: Kernel, where: Where) -> None:
    populate_compound(kernel, where.pfn)
    late = kernel.fork("late")

    assert kernel.run(late, "__init_single_page", rdi=where.boundary) == Returned()


@pytest.mark.levels(4, 5)
def test_a_kernel_thread_on_init_mm_does_not(kernel: Kernel, where: Where) -> None:
    thread = kernel.kthread("kworker/0:1")
    populate_compound(kernel, where.pfn)

    assert kernel.run(thread, "__init_single_page", rdi=where.boundary) == Returned()


@pytest.mark.levels(4, 5)
@pytest.mark.release(*SYNCING)
def test_with_the_fix_nobody_faults(kernel: Kernel, where: Where) -> None:
    early = kernel.fork("early")
    populate_compound(kernel, where.pfn)

    assert kernel.run(early, "__init_single_page", rdi=where.boundary) == Returned()


@pytest.mark.levels(4, 5)
def test_the_entry_is_missing_from_the_task_and_present_in_init_mm(
    kernel: Kernel, where: Where
) -> None:
    early = kernel.fork("early")
    populate_compound(kernel, where.pfn)

    stop = kernel.run(early, "__init_single_page", rdi=where.boundary)

    assert isinstance(stop, PageFault)
    assert (stop.reason, stop.cr3, stop.cpl) == ("not-present", early.mm.pgd, 0)
    assert [step.entry for step in stop.walk.steps] == [0]  # type: ignore[union-attr]
    assert kernel.walk(stop.address).verdict == "mapped"


@pytest.mark.levels(4, 5)
@pytest.mark.release(*EXPLICIT)
def test_probing_a_device_that_crosses_a_slot_kills_the_task(
    kernel: Kernel, where: Where, expect_page_fault: Callable[..., PageFault]
) -> None:
    task = kernel.fork("modprobe")

    stop = kernel.run(task, dax_bus_probe, *DEVICE)

    at = where.boundary + 0x34
    expect_page_fault(stop, at=at, error="W", symbol="__init_single_page+0x9/0x6d", level="pgd")


@pytest.mark.levels(4, 5)
@pytest.mark.release(*SYNCING)
def test_with_the_fix_the_probe_completes(kernel: Kernel, where: Where) -> None:
    task = kernel.fork("modprobe")

    stop = kernel.run(task, dax_bus_probe, *DEVICE)

    assert (stop, kernel.page(where.pfn).refcount) == (Returned(), 1)


def test_a_device_that_crosses_no_slot_harms_nobody(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")

    assert kernel.run(task, dax_bus_probe, 32 * GIB, 512 * MIB, 2 * MIB) == Returned()


def test_what_was_initialised_before_the_fault_is_kept(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")

    kernel.run(task, dax_bus_probe, *DEVICE)

    assert (kernel.page(FOUR.pfn - 512).refcount, kernel.page(FOUR.pfn).refcount) == (1, 0)


def test_larger_struct_pages_take_the_path_that_syncs(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.16", struct_page=80)
    task = kernel.fork("modprobe")
    section = 209715  # its struct pages end with the first block of slot 469

    stop = kernel.run(task, dax_bus_probe, section * 128 * MIB, 128 * MIB, 2 * MIB)

    assert stop == Returned()
    assert entries(kernel, 0xFFFF_EA80_0000_0000, task.mm)[0] != 0


@pytest.mark.release("6.16")
@pytest.mark.boot(struct_page=96)
def test_that_path_faults_where_a_slot_begins_with_a_part_of_a_block(
    kernel: Kernel, expect_page_fault: Callable[..., PageFault]
) -> None:
    task = kernel.fork("modprobe")
    section = 174762  # its struct pages end 1 MiB into slot 469

    stop = kernel.run(task, dax_bus_probe, section * 128 * MIB, 128 * MIB, 2 * MIB)

    at = 0xFFFF_EA80_0000_0000
    expect_page_fault(stop, at=at, error="W", symbol="vmemmap_set_pmd+0xff", level="pgd")


@pytest.mark.release(*EXPLICIT)
@pytest.mark.boot(struct_page=80)
def test_gpu_memory_whose_section_shares_a_block_kills_the_task(
    kernel: Kernel, expect_page_fault: Callable[..., PageFault]
) -> None:
    task = kernel.fork("modprobe")

    stop = kernel.run(task, xe_device_probe, VRAM, 128 * MIB)

    at = 0xFFFF_EB3F_F120_0000
    expect_page_fault(stop, at=at, error="W", symbol="vmemmap_set_pmd+0xff/0x230")


@pytest.mark.release(*SYNCING)
@pytest.mark.boot(struct_page=80)
def test_with_the_fix_gpu_memory_does_not(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")

    assert kernel.run(task, xe_device_probe, VRAM, 128 * MIB) == Returned()


@pytest.mark.levels(4, 5)
def test_the_other_path_heals_the_slot_when_it_comes_later(kernel: Kernel, where: Where) -> None:
    early = kernel.fork("early")
    populate_compound(kernel, where.pfn)
    before = kernel.run(early, "__init_single_page", rdi=where.boundary)

    populate_section_memmap(kernel, where.pfn + SECTION, SECTION, 0, None, None)

    after = kernel.run(early, "__init_single_page", rdi=where.boundary)
    assert (type(before), type(after)) == (PageFault, Returned)


@pytest.mark.levels(4, 5)
def test_the_other_path_leaves_nothing_to_heal_when_it_comes_first(
    kernel: Kernel, where: Where
) -> None:
    early = kernel.fork("early")
    populate_section_memmap(kernel, where.pfn + SECTION, SECTION, 0, None, None)

    populate_compound(kernel, where.pfn)

    assert kernel.run(early, "__init_single_page", rdi=where.boundary) == Returned()


@pytest.mark.levels(4, 5)
def test_the_other_path_does_not_heal_a_slot_that_it_only_reaches_up_to(
    kernel: Kernel, where: Where
) -> None:
    early = kernel.fork("early")
    populate_compound(kernel, where.pfn)

    populate_section_memmap(kernel, where.pfn - SECTION, SECTION, 0, None, None)

    assert entries(kernel, where.boundary, early.mm) == [0]


def test_a_worker_that_borrows_a_late_table_in_time_does_not_fault(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")
    kernel.before["memmap_init_zone_device"] = lambda k: k.switch_mm(k.fork("late").mm)

    assert kernel.run(task, dax_bus_probe, *DEVICE) == Returned()


def test_a_worker_that_borrows_an_early_table_faults(kernel: Kernel) -> None:
    early, thread = kernel.fork("early"), kernel.kthread("kworker/0:1")
    kernel.before["memmap_init_zone_device"] = lambda k: k.switch_mm(early.mm)

    stop = kernel.run(thread, dax_bus_probe, *DEVICE)

    assert isinstance(stop, PageFault)
    assert stop.cr3 == early.mm.pgd


def test_a_second_device_in_the_healed_slot_is_added_by_the_next_task(kernel: Kernel) -> None:
    kernel.run(kernel.fork("first"), dax_bus_probe, *DEVICE)

    stop = kernel.run(kernel.fork("second"), dax_bus_probe, 65 * GIB, 512 * MIB, 2 * MIB)

    assert stop == Returned()
