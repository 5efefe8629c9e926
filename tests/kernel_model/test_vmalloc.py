"""The vmalloc area: who gets which addresses, what is mapped, and who is told (facts 2.3, 6.4)."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kernel_facts import GIB, MIB, slots

from kernel_model import Kernel
from kernel_model.e820 import E820
from kernel_model.ioremap import memremap
from kernel_model.vmalloc import vfree, vmalloc, vmalloc_sync_all
from kernel_model.vmap_areas import VmapAreas, VmArea, fill_first_slot

VMALLOC_START = 0xFFFF_C900_0000_0000
NEXT_SLOT = 0xFFFF_C980_0000_0000
DEVICE = (64 * GIB, 70 * GIB)
MACHINE = E820(((0, GIB),), (DEVICE,))


def levels_of_pages(kernel: Kernel, start: int, end: int) -> list[int]:
    """The level of each page that maps [start, end), lowest first."""
    found = []
    while start < end:
        level = kernel.walk(start).steps[-1].level
        found.append(level)
        start += 1 << 3 + 9 * level
    return found


def test_the_first_area_is_taken_at_boot(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("4.4")

    assert next(iter(kernel.vmap_areas)).start == VMALLOC_START


def test_an_ioremap_of_1_gib_is_aligned_to_that(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("4.4", ram=MACHINE)

    assert memremap(kernel, DEVICE[0], GIB) == VMALLOC_START + GIB


@pytest.mark.parametrize(
    ("offset", "size", "levels"),
    [
        (0, GIB, [3]),
        (0, GIB + 2 * MIB, [3, 2]),
        (0, 2 * MIB + 4096, [2, 1]),
        (2 * MIB, 4 * MIB, [2, 2]),
        (4096, 8192, [1, 1]),
    ],
)
def test_an_ioremap_takes_the_largest_pages_that_fit(
    make_kernel: Callable[..., Kernel], offset: int, size: int, levels: list[int]
) -> None:
    kernel = make_kernel("4.4", ram=MACHINE)

    start = memremap(kernel, DEVICE[0] + offset, size)

    assert levels_of_pages(kernel, start, start + size) == levels
    assert kernel.walk(start + size - 1).pa == DEVICE[0] + offset + size - 1


def test_behind_each_area_lies_a_guard(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("5.10")

    start = vmalloc(kernel, 8192)

    assert kernel.walk(start + 8191).verdict == "mapped"
    assert kernel.walk(start + 8192).verdict == "not-present"
    assert vmalloc(kernel, 4096) == start + 3 * 4096


def test_a_vfree_gives_addresses_and_frames_back(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("5.10")
    start = vmalloc(kernel, 4096)
    free = kernel.frames.nr_free
    area = kernel.vmap_areas.find(start)
    assert area is not None

    vfree(kernel, area)

    assert kernel.walk(start).verdict == "not-present"
    assert kernel.frames.nr_free == free + 1
    assert vmalloc(kernel, 4096) == start


@pytest.mark.parametrize(
    ("release", "has_it"),
    [("4.4", False), ("5.6", False), ("5.8", True), ("5.9-mw", False), ("5.10", True)],
)
def test_a_new_slot_reaches_a_task_at_once_in_the_releases_that_see_to_it(
    make_kernel: Callable[..., Kernel], release: str, has_it: bool
) -> None:
    kernel = make_kernel(release)
    task = kernel.fork("early")
    fill_first_slot(kernel)

    start = vmalloc(kernel, 4096)

    assert start == NEXT_SLOT
    assert bool(slots(kernel, task.mm)[403]) == has_it


@pytest.mark.parametrize("levels", [4, 5])
def test_from_5_10_on_no_slot_of_the_area_is_ever_new(
    make_kernel: Callable[..., Kernel], levels: int
) -> None:
    kernel = make_kernel("5.10", levels=levels)
    layout = kernel.layout

    first, last = layout.pgd_index(layout.vmalloc_base), layout.pgd_index(layout.vmalloc_end - 1)
    assert all(slots(kernel, kernel.init_mm)[first : last + 1])


@pytest.mark.parametrize(("ivt", "filled"), [(True, 1), (False, 64)])
def test_what_lies_in_page_0_decides_whether_the_merge_window_fills_them(
    make_kernel: Callable[..., Kernel], ivt: bool, filled: int
) -> None:
    kernel = make_kernel("5.9-mw", ivt=ivt)

    assert sum(map(bool, slots(kernel, kernel.init_mm)[402:466])) == filled


def test_syncing_the_whole_area_fills_every_table(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("5.6")
    tasks = [kernel.fork("a"), kernel.fork("b")]
    fill_first_slot(kernel)
    vmalloc(kernel, 4096)

    vmalloc_sync_all(kernel)

    assert [bool(slots(kernel, task.mm)[403]) for task in tasks] == [True, True]


@pytest.mark.parametrize(("release", "synced"), [("4.17", False), ("5.4", True), ("5.6", False)])
def test_an_exit_syncs_the_area_by_chance_in_5_4_alone(
    make_kernel: Callable[..., Kernel], release: str, synced: bool
) -> None:
    kernel = make_kernel(release)
    task, other = kernel.fork("a"), kernel.fork("b")
    kernel.stack_of(other)
    fill_first_slot(kernel)
    vmalloc(kernel, 4096)

    kernel.exit(other)

    assert bool(slots(kernel, task.mm)[403]) == synced


# Which addresses: areas against a plain list of pages.

requests = st.lists(
    st.tuples(st.sampled_from("lhr"), st.integers(1, 6), st.sampled_from([1, 2, 4])), max_size=40
)


@given(requests)
def test_areas_never_overlap_and_the_lowest_and_highest_fit_is_found(
    wanted: list[tuple[str, int, int]],
) -> None:
    areas, taken = VmapAreas(0, 64 * 4096), [False] * 64
    for how, pages, align in wanted:
        if how == "r":
            for area in list(areas)[:1]:
                areas.remove(area)
                taken[area.start // 4096 : area.end // 4096] = [False] * (
                    (area.end - area.start) // 4096
                )
            continue
        fits = [
            at
            for at in range(0, 65 - pages, align)
            if at % align == 0 and not any(taken[at : at + pages])
        ]
        find = areas.lowest if how == "l" else areas.highest
        found = find(pages * 4096, align * 4096)
        expected = (fits[0] if how == "l" else fits[-1]) * 4096 if fits else None
        assert found == expected
        if found is not None:
            areas.insert(VmArea(found, found + pages * 4096, "test"))
            taken[found // 4096 : found // 4096 + pages] = [True] * pages
