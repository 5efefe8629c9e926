"""Removing memory: what is unmapped, what comes back, what each release leaves (facts 2.1, 2.2).

`clears-all`, `frees-pud` and `keeps-pud` are 5.8 with the hot-remove of 4.4, 4.12-rc and 4.14.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
from support.kernel_facts import (
    DEVICE_PRIVATE,
    EINVAL,
    GIB,
    MIB,
    PF_W,
    SECTION,
    TIB,
    compound,
    frames,
    slots,
)

from emu import PageFault, PhysAddr, Range, Returned, VirtAddr, ranges
from kernel_model import RELEASES, Kernel
from kernel_model.drivers import dax_bus_probe, devres_release_all, xe_device_probe
from kernel_model.errors import EBUSY, KernelError
from kernel_model.history import Cleared, Refused, Unmapped
from kernel_model.hotplug import add_pages, arch_add_memory
from kernel_model.hotremove import arch_remove_memory, remove_pages
from kernel_model.memremap import DevPagemap, memremap_pages, memunmap_pages
from kernel_model.ramhotplug import add_memory, remove_memory
from kernel_model.vmemmap import VmemAltmap

pytestmark = pytest.mark.trace_tail(0)  # the struct pages of terabytes are stored

NEW_SLOT = {4: 512 * GIB, 5: 256 * TIB}  # where the direct map's second slot begins
SLOT = 274  # its index
HOT_REMOVES = ["clears-all", "frees-pud", "keeps-pud"]
VMEMMAP = 0xFFFF_EA00_0000_0000
UNUSED = b"\xfd"


class Device(NamedTuple):
    """What is added."""

    start: int
    size: int
    align: int | None  # of a dax device; None for device-private memory


DEVICES = {
    "compounds of 2 MiB": Device(64 * GIB, 256 * MIB, 2 * MIB),
    "compounds of 1 GiB": Device(64 * GIB, GIB, GIB),
    "base pages": Device(64 * GIB, 256 * MIB, 0x1000),
    "a part of a section": Device(64 * GIB + 2 * MIB, 6 * MIB, 2 * MIB),
    "base pages of a part": Device(64 * GIB + 2 * MIB, 6 * MIB, 0x1000),
    "across a section's end": Device(64 * GIB + 126 * MIB, 4 * MIB, 2 * MIB),
    "a slot of its own": Device(512 * GIB, GIB, 2 * MIB),
    "device-private": Device(64 * GIB, 256 * MIB, None),
}


@pytest.fixture
def remake(
    make_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Kernel]:
    """5.8 with another hot-remove."""
    for name in HOT_REMOVES:
        release = replace(RELEASES["5.8"], name=name, hot_remove=name)  # type: ignore[arg-type]
        monkeypatch.setitem(RELEASES, name, release)
    return make_kernel


def add(kernel: Kernel, device: Device) -> None:
    """Probe a device in the boot task, whose stack costs nothing."""
    args = (device.start, device.size)
    if device.align is None:
        stop = kernel.run(kernel.init_task, xe_device_probe, *args)
    else:
        stop = kernel.run(kernel.init_task, dax_bus_probe, *args, device.align)
    assert stop == Returned()


def remove(kernel: Kernel, device: Device) -> None:
    """Unbind its driver."""
    assert kernel.run(kernel.init_task, devres_release_all, device.start) == Returned()


def mapped(kernel: Kernel) -> list[Range]:
    """What init_mm maps, and to which frames."""
    found = ranges(kernel.memory, kernel.paging(kernel.init_mm))
    return [r for r in found if r.kind != "not-present"]


def shape(kernel: Kernel) -> list[tuple[int, int, int, int]]:
    """The same without the frames: first and last address, level, rights."""
    spans: list[tuple[int, int, int, int]] = []
    for r in mapped(kernel):
        first = r.first
        if spans and spans[-1][1:] == (first - 1, r.level, r.rights):
            first = VirtAddr(spans.pop()[0])
        spans.append((first, r.last, r.level, r.rights))
    return spans


# -- what goes, and what comes back


@pytest.mark.parametrize("struct_page", [64, 80])
@pytest.mark.parametrize("device", DEVICES.values(), ids=list(DEVICES))
def test_after_a_removal_init_mm_maps_what_it_mapped_before(
    make_kernel: Callable[..., Kernel], device: Device, struct_page: int
) -> None:
    kernel = make_kernel("6.17", struct_page=struct_page)
    before = mapped(kernel)
    add(kernel, device)

    remove(kernel, device)

    assert mapped(kernel) == before
    assert not kernel.sections.pfn_valid(device.start >> 12)


@pytest.mark.parametrize("struct_page", [64, 80])
@pytest.mark.parametrize("device", DEVICES.values(), ids=list(DEVICES))
def test_all_frames_come_back_but_for_the_table_of_a_new_slot(
    make_kernel: Callable[..., Kernel], device: Device, struct_page: int
) -> None:
    kernel = make_kernel("6.17", struct_page=struct_page)
    free = kernel.frames.nr_free
    add(kernel, device)
    remove(kernel, device)
    add(kernel, device)

    remove(kernel, device)

    assert free - kernel.frames.nr_free == (device is DEVICES["a slot of its own"])


@pytest.mark.parametrize("device", DEVICES.values(), ids=list(DEVICES))
def test_what_is_added_again_is_mapped_as_it_was(
    make_kernel: Callable[..., Kernel], device: Device
) -> None:
    kernel = make_kernel("6.17")
    add(kernel, device)
    first = shape(kernel)
    remove(kernel, device)

    add(kernel, device)

    assert shape(kernel) == first
    assert kernel.page(device.start >> 12).zone == 4


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("release", HOT_REMOVES)
def test_in_every_release_ram_comes_and_goes_without_a_trace_in_init_mm(
    remake: Callable[..., Kernel], release: str, levels: int
) -> None:
    kernel = remake(release, levels=levels)
    before = mapped(kernel)
    add_memory(kernel, NEW_SLOT[levels], GIB)
    added = shape(kernel)

    remove_memory(kernel, NEW_SLOT[levels], GIB)
    after = mapped(kernel)
    add_memory(kernel, NEW_SLOT[levels], GIB)

    assert (after, shape(kernel)) == (before, added)


@pytest.mark.parametrize(
    ("release", "levels", "kept"),
    [
        ("clears-all", 4, 0),
        ("frees-pud", 4, 0),
        ("keeps-pud", 4, 1),  # the table of puds
        ("keeps-pud", 5, 1),  # the table of p4ds
    ],
)
def test_what_a_removal_keeps_is_at_most_the_table_under_the_top_entry(
    remake: Callable[..., Kernel], release: str, levels: int, kept: int
) -> None:
    kernel = remake(release, levels=levels)
    free = kernel.frames.nr_free

    for _ in range(3):
        add_memory(kernel, NEW_SLOT[levels], GIB + 128 * MIB)
        remove_memory(kernel, NEW_SLOT[levels], GIB + 128 * MIB)

    assert kernel.frames.nr_free == free - kept


def test_tables_that_are_still_in_use_stay(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.17")
    add_memory(kernel, 64 * GIB, 256 * MIB)
    before = mapped(kernel)
    add_memory(kernel, 64 * GIB + 256 * MIB, 256 * MIB)

    remove_memory(kernel, 64 * GIB + 256 * MIB, 256 * MIB)

    assert mapped(kernel) == before


def test_the_cpu_forgets_what_it_had_translated(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.17")
    task = kernel.fork("a")
    page = VMEMMAP + (64 * GIB >> 12) * 64
    add(kernel, DEVICES["base pages"])
    kernel.run(task, "read_byte", rdi=page)

    remove(kernel, DEVICES["base pages"])

    assert kernel.run(task, "read_byte", rdi=page).address == page  # type: ignore[union-attr]


# -- the top-level entry, release by release


@pytest.mark.parametrize(
    ("release", "in_init_mm", "in_a_task"),
    [("clears-all", False, False), ("frees-pud", False, True), ("keeps-pud", True, True)],
)
def test_who_has_the_slot_after_a_removal_depends_on_the_release(
    remake: Callable[..., Kernel], release: str, in_init_mm: bool, in_a_task: bool
) -> None:
    kernel = remake(release)
    task = kernel.fork("early")
    add_memory(kernel, 512 * GIB, GIB)

    remove_memory(kernel, 512 * GIB, GIB)

    entries = [slots(kernel, mm)[SLOT] for mm in (kernel.init_mm, task.mm)]
    assert [bool(entry) for entry in entries] == [in_init_mm, in_a_task]


@pytest.mark.parametrize("release", HOT_REMOVES)
def test_at_five_levels_the_slot_stays_and_all_share_it(
    remake: Callable[..., Kernel], release: str
) -> None:
    kernel = remake(release, levels=5)
    task = kernel.fork("early")
    add_memory(kernel, 256 * TIB, GIB)
    entry = slots(kernel, kernel.init_mm)[SLOT]

    remove_memory(kernel, 256 * TIB, GIB)

    assert slots(kernel, kernel.init_mm)[SLOT] == slots(kernel, task.mm)[SLOT] == entry != 0


def test_what_a_task_keeps_points_to_a_frame_that_is_free(remake: Callable[..., Kernel]) -> None:
    kernel = remake("frees-pud")
    task = kernel.fork("early")
    add_memory(kernel, 512 * GIB, GIB)

    remove_memory(kernel, 512 * GIB, GIB)

    stale = slots(kernel, task.mm)[SLOT] & ~0xFFF
    assert kernel.frames.is_free(stale)
    assert kernel.fork("next").mm.pgd == stale


@pytest.mark.parametrize(
    ("release", "cleared"),
    [
        ("clears-all", [Cleared(0xFFFF_8900_0000_0000, SLOT, "sync_global_pgds", 2)]),
        ("frees-pud", [Cleared(0xFFFF_8900_0000_0000, SLOT, "remove_pagetable", 0)]),
        ("keeps-pud", []),
    ],
)
def test_the_history_says_where_the_entry_was_cleared(
    remake: Callable[..., Kernel], release: str, cleared: list[Cleared]
) -> None:
    kernel = remake(release)
    tasks = [kernel.fork("a"), kernel.fork("b")]
    add_memory(kernel, 512 * GIB, GIB)

    remove_memory(kernel, 512 * GIB, GIB)

    assert [event for event in kernel.history if isinstance(event, Cleared)] == cleared
    assert len(tasks) == 2


def test_a_slot_that_other_memory_uses_stays_in_every_release(
    remake: Callable[..., Kernel],
) -> None:
    kernel = remake("frees-pud")
    task = kernel.fork("early")
    add_memory(kernel, 512 * GIB, GIB)
    add_memory(kernel, 600 * GIB, GIB)

    remove_memory(kernel, 512 * GIB, GIB)

    assert slots(kernel, task.mm)[SLOT] == slots(kernel, kernel.init_mm)[SLOT] != 0
    assert kernel.walk(0xFFFF_8880_0000_0000 + 600 * GIB, task.mm).pa == 600 * GIB


@pytest.mark.parametrize("release", HOT_REMOVES)
def test_memory_in_two_slots_leaves_both(remake: Callable[..., Kernel], release: str) -> None:
    kernel = remake(release)
    before = mapped(kernel)
    add_memory(kernel, 1023 * GIB, 2 * GIB)

    remove_memory(kernel, 1023 * GIB, 2 * GIB)

    assert mapped(kernel) == before


# -- blocks of vmemmap that sections share (80 bytes: a section has 2.5 MiB of struct pages)

START = VMEMMAP + (64 * GIB >> 12) * 80  # begins a block
BLOCK = 2 * MIB


def section(kernel: Kernel, number: int) -> int:
    """Add the number-th section from there on, in one go."""
    return add_pages(kernel, 0, (64 * GIB >> 12) + number * SECTION, SECTION, None, None)


def drop(kernel: Kernel, number: int) -> None:
    """Remove it."""
    remove_pages(kernel, (64 * GIB >> 12) + number * SECTION, SECTION)


@pytest.fixture
def shared(make_kernel: Callable[..., Kernel]) -> Kernel:
    """Two sections, the second half way into the first one's second block."""
    kernel = make_kernel("6.17", struct_page=80)
    assert (section(kernel, 0), section(kernel, 1)) == (0, 0)
    return kernel


def test_a_block_stays_as_long_as_a_neighbour_uses_it(shared: Kernel) -> None:
    block = frames(shared, START + BLOCK, 0x1000)

    drop(shared, 0)

    assert shared.walk(START).verdict == "not-present"
    assert frames(shared, START + BLOCK, 0x1000) == block
    assert shared.read(START + BLOCK, BLOCK // 4) == UNUSED * (BLOCK // 4)
    assert shared.read(START + BLOCK + BLOCK // 4, 1) != UNUSED


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_last_of_its_sections_takes_the_block_with_it(
    make_kernel: Callable[..., Kernel], order: tuple[int, int]
) -> None:
    kernel = make_kernel("6.17", struct_page=80)
    free, before = kernel.frames.nr_free, mapped(kernel)
    section(kernel, 0)
    section(kernel, 1)

    drop(kernel, order[0])
    drop(kernel, order[1])

    assert (kernel.frames.nr_free, mapped(kernel)) == (free, before)


def test_without_marks_a_block_that_was_never_full_does_not_come_back(
    make_kernel: Callable[..., Kernel],
) -> None:
    kernel = make_kernel("5.10", struct_page=80)
    section(kernel, 0)

    drop(kernel, 0)

    assert kernel.walk(START).verdict == "not-present"
    assert kernel.walk(START + BLOCK).verdict == "mapped"


def test_without_marks_a_block_that_was_full_comes_back(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("5.10", struct_page=80)
    free = kernel.frames.nr_free
    errors = [section(kernel, number) for number in range(4)]  # 10 MiB: five blocks

    remove_pages(kernel, 64 * GIB >> 12, 4 * SECTION)

    assert (errors, kernel.frames.nr_free) == ([0, 0, 0, 0], free)


def test_marking_runs_on_the_cpu_and_faults_where_the_slot_is_missing(
    make_kernel: Callable[..., Kernel],
) -> None:
    kernel = make_kernel("6.13", vmemmap_base=0xFFFF_E6FF_C000_0000, struct_page=80)
    task = kernel.fork("early")
    page = 0xFFFF_E6FF_C000_0000 + 80 * (64 * GIB >> 12)
    errors = [section(kernel, number) for number in range(4)]  # no rest is left to be marked
    kernel.pgtable.set(kernel.pgtable.pgd_offset(task.mm.pgd, page), 0)

    stop = kernel.run(task, remove_pages, 64 * GIB >> 12, SECTION)

    rip = kernel.symbol("vmemmap_pmd_is_unused_store")
    assert (errors, stop) == ([0, 0, 0, 0], PageFault(VirtAddr(page + BLOCK), PF_W, rip=rip))
    assert "\n remove_pagetable+" in kernel.oops(stop)


# -- frames that several mappings share


def test_a_tail_shared_by_eight_sections_goes_with_the_last_in_any_order(
    make_kernel: Callable[..., Kernel],
) -> None:
    kernel = make_kernel("6.17")
    free = kernel.frames.nr_free
    device = compound(64 * GIB, GIB, shift=18)
    add_pages(kernel, 0, 64 * GIB >> 12, 8 * SECTION, None, device)
    tail = PhysAddr(kernel.walk(VMEMMAP + (64 * GIB >> 12) * 64 + 0x1000).pa or 0)

    in_use = []
    for number in (3, 0, 7, 1, 6, 2, 5, 4):
        in_use.append(not kernel.frames.is_free(tail))
        drop(kernel, number)

    assert (in_use, kernel.frames.nr_free) == ([True] * 8, free)


def test_blocks_of_an_altmap_go_back_to_it(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.17")
    free = kernel.frames.nr_free
    altmap = VmemAltmap(base_pfn=GIB >> 12, nr_pages=1024)
    device = DevPagemap(DEVICE_PRIVATE, 64 * GIB, 256 * MIB, altmap=altmap)
    memremap_pages(kernel, device, 0)
    used = altmap.used

    memunmap_pages(kernel, device)

    assert (used, altmap.used, kernel.frames.nr_free) == (1024, 0, free)


# -- what is refused


@pytest.mark.parametrize(
    ("start", "size", "error"),
    [
        (64 * GIB + MIB, 128 * MIB, EINVAL),
        (64 * GIB, 64 * MIB, EINVAL),
        (64 * GIB, 0, EINVAL),
        (1 << 46, 128 * MIB, EINVAL),
        (GIB, 128 * MIB, EBUSY),
        (4 * GIB - 128 * MIB, 256 * MIB, EBUSY),
    ],
)
def test_memory_that_cannot_go_is_refused_and_stays(
    make_kernel: Callable[..., Kernel], start: int, size: int, error: int
) -> None:
    kernel = make_kernel("6.17")
    before = mapped(kernel)

    assert remove_memory(kernel, start, size) == -error
    assert mapped(kernel) == before


@pytest.mark.parametrize(("start", "size"), [(64 * GIB, 64 * MIB), (1 << 46, 128 * MIB)])
def test_memory_that_cannot_be_is_not_added(
    make_kernel: Callable[..., Kernel], start: int, size: int
) -> None:
    assert add_memory(make_kernel("6.17"), start, size) == -EINVAL


def test_pages_that_are_not_there_are_told_of_and_nothing_else_happens(
    make_kernel: Callable[..., Kernel],
) -> None:
    kernel = make_kernel("6.17")
    before = mapped(kernel)

    remove_pages(kernel, 64 * GIB >> 12, SECTION)

    assert mapped(kernel) == before
    assert kernel.history[-1] == Refused(
        "sparse_remove_section", EINVAL, "pfn 0x1000000 (+32768) has no struct pages"
    )


@pytest.mark.parametrize(("pfn", "nr"), [(1 << 24, 511), (1, 512), (1 << 24, 0)])
def test_pages_go_by_whole_subsections(
    make_kernel: Callable[..., Kernel], pfn: int, nr: int
) -> None:
    kernel = make_kernel("6.17")

    remove_pages(kernel, pfn, nr)

    refused = kernel.history[-1]
    assert isinstance(refused, Refused)
    assert (refused.path, refused.errno) == ("__remove_pages", EINVAL)


@pytest.mark.parametrize(
    ("start", "size"), [(64 * GIB, 512 * MIB), (64 * GIB + 512 * MIB, 512 * MIB)]
)
def test_a_part_of_a_large_page_cannot_go(
    make_kernel: Callable[..., Kernel], start: int, size: int
) -> None:
    kernel = make_kernel("6.17")
    arch_add_memory(kernel, 0, 64 * GIB, GIB, None, None)

    with pytest.raises(KernelError, match=f"pa {64 * GIB + 512 * MIB:#x} lies inside a page"):
        arch_remove_memory(kernel, start, size)


def test_a_device_that_is_not_there_cannot_be_unbound(make_kernel: Callable[..., Kernel]) -> None:
    with pytest.raises(KernelError, match="0x1000000000"):
        devres_release_all(make_kernel("6.17"), 64 * GIB)


def test_a_part_that_went_can_come_back_alone(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.17")
    pfn = 64 * GIB >> 12
    add_pages(kernel, 0, pfn, 4 * 512, None, None)
    before = shape(kernel)
    remove_pages(kernel, pfn + 512, 512)
    valid = [kernel.sections.pfn_valid(pfn + n * 512) for n in range(4)]

    error = add_pages(kernel, 0, pfn + 512, 512, None, None)

    assert (valid, error) == ([True, False, True, True], 0)
    assert shape(kernel) == before


# -- the story


def test_the_history_says_what_went_and_by_whom(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.17")
    add_memory(kernel, 64 * GIB, 256 * MIB)

    remove_memory(kernel, 64 * GIB, 256 * MIB)

    pages, direct = VMEMMAP + 0x4000_0000, 0xFFFF_8890_0000_0000
    assert [event for event in kernel.history if isinstance(event, Unmapped)] == [
        Unmapped("vmemmap", pages, pages + 4 * MIB, "__remove_pages"),
        Unmapped("direct map", direct, direct + 256 * MIB, "kernel_physical_mapping_remove"),
    ]


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_can_remove_what_it_added(
    make_kernel: Callable[..., Kernel], release: str
) -> None:
    kernel = make_kernel(release)
    task = kernel.fork("bash")
    kernel.stack_of(task)
    before = mapped(kernel)

    stops = [kernel.run(task, what, 64 * GIB, GIB) for what in (add_memory, remove_memory)]

    assert (stops, mapped(kernel)) == ([Returned(), Returned()], before)
