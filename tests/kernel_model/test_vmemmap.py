"""How vmemmap is populated: by blocks, by base pages, or deduplicated (facts 3.2, 3.3)."""

from collections.abc import Callable

import pytest
from support.kernel_facts import (
    ENOMEM,
    GIB,
    MIB,
    SECTION,
    compound,
    entries,
    frames,
    populate_compound,
)

from kernel_model import Kernel
from kernel_model.memremap import DevPagemap
from kernel_model.vmemmap import (
    VmemAltmap,
    populate_section_memmap,
    vmemmap_can_optimize,
    vmemmap_populate,
)

PFN = 64 * GIB >> 12
MEMMAP = 0xFFFF_EA00_4000_0000  # its struct page without KASLR, at 64 bytes
BLOCK, LEAF, PTE = 2 * MIB, 0x8000_0000_0000_01E3, 0x8000_0000_0000_0163
FLAGS = 0xFFF0_0000_0000_0FFF
RAM_PFN = 1 * GIB >> 12  # RAM that stands in for a device's own


# Every path syncs, and there is no KASLR.
pytestmark = [pytest.mark.release("6.17"), pytest.mark.boot(vmemmap_base=None)]


def test_a_whole_section_gets_one_two_mib_block(kernel: Kernel) -> None:
    populate_section_memmap(kernel, PFN, SECTION, 0, None, None)

    assert entries(kernel, MEMMAP)[-1] & FLAGS == LEAF
    assert kernel.walk(MEMMAP).steps[-1].level == 2
    assert kernel.walk(MEMMAP + BLOCK).verdict == "not-present"


@pytest.mark.parametrize(("nr", "pages"), [(512, 8), (1024, 16), (SECTION - 512, 504)])
def test_less_than_a_section_gets_base_pages_with_a_frame_each(
    kernel: Kernel, nr: int, pages: int
) -> None:
    populate_section_memmap(kernel, PFN, nr, 0, None, None)

    assert entries(kernel, MEMMAP)[-1] & FLAGS == PTE
    assert len(set(frames(kernel, MEMMAP, pages * 4096))) == pages
    assert kernel.walk(MEMMAP + pages * 4096).verdict == "not-present"


def test_base_pages_that_exist_are_kept(kernel: Kernel) -> None:
    populate_section_memmap(kernel, PFN, 512, 0, None, None)
    before = frames(kernel, MEMMAP, 0x8000)

    vmemmap_populate(kernel, MEMMAP, MEMMAP + 0x10000, 0, None)

    assert frames(kernel, MEMMAP, 0x8000) == before


def test_a_block_where_a_table_lies_already_is_filled_with_base_pages(kernel: Kernel) -> None:
    populate_section_memmap(kernel, PFN, 512, 0, None, None)
    before = frames(kernel, MEMMAP, 0x8000)

    vmemmap_populate(kernel, MEMMAP, MEMMAP + BLOCK, 0, None)

    assert frames(kernel, MEMMAP, 0x8000) == before
    assert len(set(frames(kernel, MEMMAP, BLOCK))) == 512


@pytest.mark.parametrize(
    ("base_pfn", "block"),
    [(RAM_PFN, 0x4000_0000), (RAM_PFN + 1, 0x4020_0000), (RAM_PFN + 512, 0x4020_0000)],
)
def test_an_altmap_gives_its_first_aligned_block(kernel: Kernel, base_pfn: int, block: int) -> None:
    altmap = VmemAltmap(base_pfn, nr_pages=1024)

    populate_section_memmap(kernel, PFN, SECTION, 0, altmap, None)

    assert kernel.walk(MEMMAP).pa == block


def test_an_altmap_gives_block_after_block(kernel: Kernel) -> None:
    altmap = VmemAltmap(RAM_PFN, nr_pages=1024)

    vmemmap_populate(kernel, MEMMAP, MEMMAP + 2 * BLOCK, 0, altmap)

    assert frames(kernel, MEMMAP + BLOCK, 4096) == [0x4020_0000]


@pytest.mark.parametrize("nr_pages", [0, 1, 511])
def test_an_altmap_without_a_block_left_is_no_memory(kernel: Kernel, nr_pages: int) -> None:
    altmap = VmemAltmap(RAM_PFN, nr_pages)

    error = populate_section_memmap(kernel, PFN, SECTION, 0, altmap, None)

    assert error == -ENOMEM


def test_base_pages_do_not_come_from_the_altmap(kernel: Kernel) -> None:
    altmap = VmemAltmap(RAM_PFN, nr_pages=1024)

    populate_section_memmap(kernel, PFN, 512, 0, altmap, None)

    assert altmap.used == 0


# -- compounds


def test_a_two_mib_compound_has_two_frames_of_eight(kernel: Kernel) -> None:
    populate_compound(kernel, PFN)

    head, tail, *shared = frames(kernel, MEMMAP, 0x8000)

    assert shared == [tail] * 6
    assert head != tail


def test_the_next_compound_has_two_of_its_own(kernel: Kernel) -> None:
    populate_compound(kernel, PFN)

    assert len(set(frames(kernel, MEMMAP, 0x10000))) == 4


def test_shared_frames_are_writable_base_pages(kernel: Kernel) -> None:
    populate_compound(kernel, PFN)

    assert entries(kernel, MEMMAP + 0x7000)[-1] & FLAGS == PTE


@pytest.fixture
def gib_compounds(kernel: Kernel) -> Kernel:
    """Two compounds of 1 GiB, populated section by section."""
    device = compound(64 * GIB, 2 * GIB, shift=18)
    for section in range(16):
        populate_section_memmap(kernel, PFN + section * SECTION, SECTION, 0, None, device)
    return kernel


def test_a_one_gib_compound_has_two_frames_of_4096(gib_compounds: Kernel) -> None:
    head, tail, *shared = frames(gib_compounds, MEMMAP, 8 * BLOCK)

    assert shared == [tail] * 4094
    assert head != tail


def test_the_compound_behind_it_begins_with_frames_of_its_own(gib_compounds: Kernel) -> None:
    first = set(frames(gib_compounds, MEMMAP, 8 * BLOCK))
    second = set(frames(gib_compounds, MEMMAP + 8 * BLOCK, 8 * BLOCK))

    assert (len(second), first & second) == (2, set())


def test_the_middle_of_a_compound_gets_a_tail_frame_if_nobody_made_one(kernel: Kernel) -> None:
    device = compound(64 * GIB, GIB, shift=18)

    populate_section_memmap(kernel, PFN + SECTION, SECTION, 0, None, device)

    start = MEMMAP + SECTION * 64
    tail = kernel.walk(start - 4096).pa
    assert tail not in (None, 0)
    assert set(frames(kernel, start, SECTION * 64)) == {tail}


def test_a_device_smaller_than_a_section_is_deduplicated_too(kernel: Kernel) -> None:
    device = compound(64 * GIB, 4 * MIB)

    populate_section_memmap(kernel, PFN, 1024, 0, None, device)

    assert len(set(frames(kernel, MEMMAP, 0x10000))) == 4
    assert kernel.walk(MEMMAP + 0x10000).verdict == "not-present"


@pytest.mark.parametrize(
    ("struct_page", "shift", "optimized"),
    [
        (64, 0, False),
        (64, 7, False),  # 128 struct pages fill the two frames that are kept
        (64, 8, True),
        (64, 9, True),
        (64, 18, True),
        (80, 9, False),
        (80, 18, False),
        (96, 9, False),
    ],
)
def test_only_compounds_of_power_of_two_struct_pages_are_deduplicated(
    make_kernel: Callable[..., Kernel], struct_page: int, shift: int, optimized: bool
) -> None:
    kernel = make_kernel(struct_page=struct_page)

    assert vmemmap_can_optimize(kernel, None, compound(64 * GIB, GIB, shift)) is optimized


@pytest.mark.parametrize(
    ("altmap", "device"),
    [(None, None), (VmemAltmap(RAM_PFN, 1024), compound(64 * GIB, GIB)), (VmemAltmap(0, 0), None)],
)
def test_without_a_device_or_with_an_altmap_nothing_is_deduplicated(
    kernel: Kernel, altmap: VmemAltmap | None, device: DevPagemap | None
) -> None:
    assert vmemmap_can_optimize(kernel, altmap, device) is False
