"""What the bits mean: levels, sizes, indices, reserved bits, canonical form."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu import Paging
from emu.paging import (
    ADDRESS,
    PS,
    U64,
    XD,
    P,
    canonical,
    frame,
    index,
    is_canonical,
    maps_page,
    page_shift,
    page_size,
)

addresses = st.integers(0, U64)
levels_of_paging = st.sampled_from((4, 5))


@pytest.mark.parametrize(
    ("level", "size"), [(1, 1 << 12), (2, 1 << 21), (3, 1 << 30), (4, 1 << 39), (5, 1 << 48)]
)
def test_an_entry_of_a_level_covers_so_many_bytes(level: int, size: int) -> None:
    assert page_size(level) == 1 << page_shift(level) == size


def test_the_five_indices_and_the_offset_make_the_address() -> None:
    va = 0o111_222_333_444_555_1234

    assert [index(va, level) for level in (5, 4, 3, 2, 1)] == [0o111, 0o222, 0o333, 0o444, 0o555]
    assert va & 0xFFF == 0o1234


@pytest.mark.parametrize(
    ("va", "levels", "form"),
    [
        (0x0000_7FFF_FFFF_FFFF, 4, 0x0000_7FFF_FFFF_FFFF),
        (0x0000_8000_0000_0000, 4, 0xFFFF_8000_0000_0000),
        (0xFFFE_8000_0000_0000, 4, 0xFFFF_8000_0000_0000),
        (0x0000_8000_0000_0000, 5, 0x0000_8000_0000_0000),
        (0x00FF_FFFF_FFFF_FFFF, 5, 0x00FF_FFFF_FFFF_FFFF),
        (0x0100_0000_0000_0000, 5, 0xFF00_0000_0000_0000),
    ],
)
def test_canonical_form_copies_the_top_bit_of_the_linear_address(
    va: int, levels: int, form: int
) -> None:
    assert canonical(va, levels) == form


@given(addresses, levels_of_paging)
def test_canonical_form_is_canonical_and_keeps_every_index(va: int, levels: int) -> None:
    form = canonical(va, levels)

    assert is_canonical(form, levels)
    assert Paging.long_mode(0, levels=levels).is_canonical(form)
    assert [index(form, n) for n in range(1, levels + 1)] == [
        index(va, n) for n in range(1, levels + 1)
    ]


@given(addresses, levels_of_paging)
def test_both_ways_of_telling_what_is_canonical_agree(va: int, levels: int) -> None:
    assert Paging.long_mode(0, levels=levels).is_canonical(va) == is_canonical(va, levels)
    assert is_canonical(va, levels) == (va == canonical(va, levels))


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("va", [-1, -0x1000, -1 << 63, 1 << 64, (1 << 64) + 0x1000])
def test_what_is_no_64_bit_number_is_not_canonical(va: int, levels: int) -> None:
    assert not is_canonical(va, levels)
    assert not Paging.long_mode(0, levels=levels).is_canonical(va)


@pytest.mark.parametrize(
    ("level", "entry", "maps"),
    [(5, P, 0), (4, P, 0), (3, P, 0), (3, P | PS, 1), (2, P | PS, 1), (2, P, 0), (1, P, 1)],
)
def test_an_entry_maps_a_page_by_its_level_and_ps(level: int, entry: int, maps: bool) -> None:
    assert maps_page(entry, level) == maps


@pytest.mark.parametrize(
    ("level", "base"),
    [(1, 0x000F_FFFF_FFFF_F000), (2, 0x000F_FFFF_FFE0_0000), (3, 0x000F_FFFF_C000_0000)],
)
def test_the_frame_of_a_page_is_as_aligned_as_the_page(level: int, base: int) -> None:
    assert frame(U64, level) == base


@pytest.mark.parametrize(
    ("level", "entry", "reserved"),
    [
        *((level, 1 << 40, 1 << 40) for level in (1, 2, 3, 4, 5)),
        *((level, 1 << 51, 1 << 51) for level in (1, 2, 3, 4, 5)),
        *((level, 0x7FF0_0000_0000_0E7F, 0) for level in (1, 2, 3, 4, 5)),
        (1, PS, 0),
        (4, PS, PS),
        (5, PS, PS),
        (2, PS | 1 << 12, 0),
        (2, PS | 1 << 13, 1 << 13),
        (2, PS | 1 << 20, 1 << 20),
        (2, PS | 1 << 21, 0),
        (2, 1 << 13, 0),
        (3, PS | 1 << 12, 0),
        (3, PS | 1 << 29, 1 << 29),
        (3, PS | 1 << 30, 0),
    ],
)
def test_reserved_bits_follow_from_level_and_size(level: int, entry: int, reserved: int) -> None:
    assert Paging.long_mode(0).reserved(entry | P, level) == reserved


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_xd_is_reserved_without_nxe(level: int) -> None:
    assert Paging.long_mode(0, nxe=False).reserved(XD | P, level) == XD
    assert Paging.long_mode(0, nxe=True).reserved(XD | P, level) == 0


@pytest.mark.parametrize("maxphyaddr", [36, 40, 46, 52])
def test_address_bits_from_maxphyaddr_on_are_reserved(maxphyaddr: int) -> None:
    paging = dataclasses.replace(Paging.long_mode(0), maxphyaddr=maxphyaddr)

    assert paging.reserved(ADDRESS | P, 1) == ADDRESS & -(1 << maxphyaddr)


@pytest.mark.parametrize("levels", [3, 6, 0])
def test_there_are_4_levels_or_5(levels: int) -> None:
    with pytest.raises(ValueError, match=f"{levels} levels"):
        Paging.long_mode(0, levels=levels)


@pytest.mark.parametrize("root", [0x123, 1 << 52, -0x1000])
def test_a_root_is_a_frame(root: int) -> None:
    with pytest.raises(ValueError, match=f"root {root:#x}"):
        Paging.long_mode(root)


def test_paging_compares_by_its_registers() -> None:
    paging = Paging.long_mode(0x1000, smep=True)

    assert paging.with_root(0x2000).with_root(0x1000) == paging
    assert paging.with_root(0x2000) != paging
    assert paging.with_root(0x2000).root == 0x2000
    assert repr(paging).startswith("Paging(cr0=0x80010033, cr3=0x1000, cr4=0x1006b0")
