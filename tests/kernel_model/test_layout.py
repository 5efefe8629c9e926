"""Where the regions lie: facts of Documentation/arch/x86/x86_64/mm.rst and arch/x86/mm/kaslr.c."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kernel_facts import GIB, TIB

from kernel_model import make_layout

KASLR = 0xFFFF_E6FF_C000_0000  # of the first oops


@pytest.mark.parametrize(
    ("levels", "name", "value"),
    [
        (4, "pgdir_shift", 39),
        (4, "max_physmem_bits", 46),
        (4, "page_offset_base", 0xFFFF_8880_0000_0000),
        (4, "kernel_pgd_boundary", 273),
        (4, "physmem_end", 64 * TIB),
        (4, "vmalloc_base", 0xFFFF_C900_0000_0000),
        (4, "vmalloc_end", 0xFFFF_E900_0000_0000),
        (4, "vmemmap_base", 0xFFFF_EA00_0000_0000),
        (4, "vmemmap_end", 0xFFFF_EB00_0000_0000),
        (4, "pgdir_size", 512 * GIB),
        (5, "pgdir_shift", 48),
        (5, "max_physmem_bits", 52),
        (5, "page_offset_base", 0xFF11_0000_0000_0000),
        (5, "kernel_pgd_boundary", 273),
        (5, "vmalloc_base", 0xFFA0_0000_0000_0000),
        (5, "vmalloc_end", 0xFFD2_0000_0000_0000),
        (5, "vmemmap_base", 0xFFD4_0000_0000_0000),
        (5, "vmemmap_end", 0xFFD6_0000_0000_0000),
        (5, "pgdir_size", 256 * TIB),
    ],
)
def test_without_kaslr_the_layout_is_that_of_mm_rst(levels: int, name: str, value: int) -> None:
    assert getattr(make_layout(levels=levels), name) == value


@pytest.mark.parametrize(
    ("levels", "addr", "slot"),
    [
        (4, 0xFFFF_8000_0000_0000, 256),
        (4, 0xFFFF_8800_0000_0000, 272),
        (4, 0xFFFF_8880_0000_0000, 273),
        (4, 0xFFFF_C87F_FFFF_FFFF, 400),
        (4, 0xFFFF_C900_0000_0000, 402),
        (4, 0xFFFF_E8FF_FFFF_FFFF, 465),
        (4, 0xFFFF_E700_0000_0034, 462),
        (4, 0xFFFF_EA00_0000_0000, 468),
        (4, 0xFFFF_EB3F_F120_0000, 470),
        (4, 0xFFFF_FE00_0000_0000, 508),
        (4, 0xFFFF_FFFF_8100_0000, 511),
        (5, 0xFF10_0000_0000_0000, 272),
        (5, 0xFF11_0000_0000_0000, 273),
        (5, 0xFFA0_0000_0000_0000, 416),
        (5, 0xFFD1_FFFF_FFFF_FFFF, 465),
        (5, 0xFFD4_0000_0000_0000, 468),
        (5, 0xFFFF_FE00_0000_0000, 511),
    ],
)
def test_an_address_lies_in_its_top_level_slot(levels: int, addr: int, slot: int) -> None:
    assert make_layout(levels=levels).pgd_index(addr) == slot


@pytest.mark.parametrize(
    ("levels", "slot", "base"),
    [(4, 256, 0xFFFF_8000_0000_0000), (4, 462, 0xFFFF_E700_0000_0000), (5, 468, 0xFFD4 << 48)],
)
def test_a_slot_begins_at_its_base(levels: int, slot: int, base: int) -> None:
    assert make_layout(levels=levels).slot_base(slot) == base


@pytest.mark.parametrize(
    ("base", "pfn", "boundary"),
    [
        (0xFFFF_E6FF_C000_0000, 64 * GIB >> 12, 0xFFFF_E700_0000_0000),
        (0xFFFF_E6FF_4000_0000, 192 * GIB >> 12, 0xFFFF_E700_0000_0000),
        (0xFFFF_EA00_0000_0000, 32 * TIB >> 12, 0xFFFF_EA80_0000_0000),
    ],
)
def test_the_struct_page_at_a_slot_boundary(base: int, pfn: int, boundary: int) -> None:
    assert make_layout(vmemmap_base=base).pfn_to_page(pfn) == boundary


def test_the_second_oops_is_at_the_struct_page_of_64_tib_less_12_gib() -> None:
    layout = make_layout(sizeof_page=80)

    assert layout.pfn_to_page(0x3FFD00000) == 0xFFFF_EB3F_F100_0000


def test_direct_map_addresses_are_physical_ones_plus_the_base() -> None:
    layout = make_layout()

    assert (layout.va(64 * GIB), layout.pa(0xFFFF_8890_0000_0000)) == (
        0xFFFF_8890_0000_0000,
        64 * GIB,
    )


@pytest.mark.parametrize(
    ("base", "vmalloc"),
    [
        (0xFFFF_E6FF_C000_0000, 0xFFFF_C6FF_8000_0000),  # 32 TiB and 1 GiB below
        (0xFFFF_E900_4000_0000, 0xFFFF_C900_0000_0000),  # the first that leaves it alone
        (0xFFFF_E900_0000_0000, 0xFFFF_C8FF_C000_0000),
        (0xFFFF_FD00_0000_0000, 0xFFFF_C900_0000_0000),  # never above its own base
    ],
)
def test_vmalloc_gives_way_to_a_low_vmemmap(base: int, vmalloc: int) -> None:
    assert make_layout(vmemmap_base=base).vmalloc_base == vmalloc


@pytest.mark.parametrize(
    ("base", "ram", "tib"),
    [
        (0xFFFF_E880_8000_0000, 4 * GIB, 64),  # 1 GiB is left between the two
        (0xFFFF_E880_4000_0000, 4 * GIB, 11),  # 64 TiB would reach vmalloc
        (KASLR, 128 << 20, 11),
        (KASLR, 1 * TIB, 11),
        (KASLR, 1 * TIB + 1, 12),
        (KASLR, 3 * TIB, 13),
    ],
)
def test_the_direct_map_is_trimmed_to_ram_and_padding_where_it_must(
    base: int, ram: int, tib: int
) -> None:
    assert make_layout(vmemmap_base=base, ram=ram).physmem_end == tib * TIB


@pytest.mark.parametrize(
    ("sizeof_page", "end"),
    [(64, 0xFFFF_EB00 << 32), (80, 0xFFFF_EC00 << 32), (96, 0xFFFF_EC00 << 32)],
)
def test_vmemmap_is_as_large_as_its_struct_pages_in_whole_tib(sizeof_page: int, end: int) -> None:
    assert make_layout(sizeof_page=sizeof_page).vmemmap_end == end


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 3}, "3 levels of paging: expected 4 or 5"),
        ({"vmemmap_base": -GIB}, "vmemmap_base -0x40000000: expected a 64-bit address"),
        ({"vmemmap_base": 1 << 64}, "vmemmap_base 0x10000000000000000: expected a 64-bit address"),
        ({"vmemmap_base": KASLR + (1 << 29)}, "0xffffe6ffe0000000 is not 1 GiB aligned"),
        ({"vmemmap_base": 0}, "vmemmap_base 0x0 leaves no room"),
        ({"vmemmap_base": 0xFFFF_B380_4000_0000}, "0xffffb38040000000 leaves no room for 11 TiB"),
        ({"vmemmap_base": 0xFFFF_FD00_4000_0000}, r"0xfffffd0040000000: .* \(slot 508\)"),
        ({"vmemmap_base": 0xFFFF_FC00_4000_0000, "sizeof_page": 80}, r"2 TiB would run into"),
        ({"vmemmap_base": KASLR, "levels": 5}, r"0xffffe6ffc0000000: .* \(slot 511\)"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_by_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_layout(**options)


ACCEPTED = {  # the first and the last base with 64-byte struct pages and up to 1 TiB of RAM
    4: (0xFFFF_B380_8000_0000 // GIB, 0xFFFF_FD00_0000_0000 // GIB),
    5: ((0xFF11 << 48) // GIB + (11 + 12800) * 1024 + 2, 0xFFFF_FDF0_0000_0000 // GIB - 512 * 1024),
}


@pytest.mark.parametrize("levels", [4, 5])
@settings(deadline=None)
@given(data=st.data())
def test_any_base_in_the_window_keeps_the_regions_in_order_and_apart(
    levels: int, data: st.DataObject
) -> None:
    base = data.draw(st.integers(*ACCEPTED[levels])) * GIB
    ram = data.draw(st.integers(1, TIB))

    regions = make_layout(levels=levels, vmemmap_base=base, ram=ram).regions()

    assert [r[0] for r in regions[:4]] == ["user space", "direct map", "vmalloc", "vmemmap"]
    assert all(start < end for _, start, end in regions)
    assert all(below[2] <= above[1] for below, above in pairwise(regions))


@pytest.mark.parametrize("base", [0xFFFF_B380_8000_0000, KASLR, 0xFFFF_FD00_0000_0000])
def test_a_gib_lies_between_vmalloc_and_vmemmap(base: int) -> None:
    layout = make_layout(vmemmap_base=base)

    assert layout.vmalloc_end + GIB <= layout.vmemmap_base


@pytest.mark.parametrize(
    ("addr", "region"),
    [
        (0x40_0000, "user space"),
        (0x7FFF_FFFF_FFFF, "user space"),
        (0xFFFF_8800_0000_0000, "no region"),
        (0xFFFF_8880_0000_0000, "direct map"),
        (0xFFFF_C8FF_FFFF_FFFF, "no region"),
        (0xFFFF_E8FF_FFFF_FFFF, "vmalloc"),
        (0xFFFF_EA00_0000_0000, "vmemmap"),
        (0xFFFF_FE00_0000_1000, "cpu entry area"),
        (0xFFFF_FFFF_8100_0000, "kernel text and data"),
        (0xFFFF_FFFF_C010_0000, "modules"),
    ],
)
def test_an_address_has_a_region_with_a_name(addr: int, region: str) -> None:
    assert make_layout().region(addr) == region
