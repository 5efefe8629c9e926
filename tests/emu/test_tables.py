"""Tables in RAM: what is mapped is found, and what is not is not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tables import VA, Tables

from emu import (
    ranges,
    translate,
    unmap_page,
)
from emu.paging import PS, RW, XD, G, P, canonical, page_size
from emu.walk import walk

# -- map and unmap


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_mapped_page_is_found_from_its_first_byte_to_its_last(tables: Tables, level: int) -> None:
    size = page_size(level)

    tables.map(VA, 3 * size, level=level)

    assert walk(tables.memory.read_u64, tables.paging, VA).pa == 3 * size
    assert tables.verdict(VA + size - 1) == ("mapped", level)
    assert tables.verdict(VA + size)[0] == tables.verdict(VA - 1)[0] == "not-present"


def test_the_entry_is_where_map_page_says(tables: Tables) -> None:
    entry_pa = tables.map(VA, 0x5000, RW | XD | G)

    assert tables.memory.read_u64(entry_pa) == 0x5000 | P | RW | XD | G


def test_tables_are_shared_by_neighbours(tables: Tables) -> None:
    tables.map(VA, 0x5000)
    free = tables.frames.nr_free

    tables.map(VA + 0x1000, 0x6000)

    assert tables.frames.nr_free == free


def test_an_unmapped_page_is_gone_and_its_neighbour_is_not(tables: Tables) -> None:
    tables.map(VA, 0x5000)
    tables.map(VA + 0x1000, 0x6000)

    unmap_page(tables.memory, tables.paging, VA)

    assert tables.verdict(VA) == ("not-present", 1)
    assert tables.verdict(VA + 0x1000) == ("mapped", 1)


def test_an_unmapped_page_may_be_mapped_again(tables: Tables) -> None:
    tables.map(VA, 0x5000)
    unmap_page(tables.memory, tables.paging, VA)

    tables.map(VA, 0x7000)

    assert translate(tables.memory, tables.paging, VA) == 0x7000


@pytest.mark.parametrize(
    ("va", "pa", "level", "message"),
    [
        (VA + 1, 0, 1, f"va {VA + 1:#x}"),
        (VA + 0x1000, 0, 2, f"va {VA + 0x1000:#x} is not a canonical, 0x200000-aligned"),
        (1 << 60, 0, 1, "va 0x1000000000000000"),
        (-0x1000, 0, 1, "va -0x1000"),
        (VA, 0x800, 1, "pa 0x800"),
        (VA, 0x1000, 2, "pa 0x1000"),
        (VA, 1 << 40, 1, "pa 0x10000000000"),
        (VA, -0x1000, 1, "pa -0x1000"),
        (VA, 0, 0, "level 0"),
        (VA, 0, 4, "level 4"),
        (VA, 0, -1, "level -1"),
    ],
)
def test_what_cannot_be_mapped_is_refused(
    tables: Tables, va: int, pa: int, level: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tables.map(va, pa, level=level)


def test_flags_hold_no_address(tables: Tables) -> None:
    with pytest.raises(ValueError, match="flags 0x5000"):
        tables.map(VA, 0x1000, 0x5000)


def test_bit_12_is_pat_in_a_large_page_and_address_in_a_small_one(tables: Tables) -> None:
    entry_pa = tables.map(VA, 0, RW | 1 << 12, level=2)

    assert tables.memory.read_u64(entry_pa) == RW | 1 << 12 | PS | P
    with pytest.raises(ValueError, match="flags 0x1002"):
        tables.map(VA + (1 << 30), 0, RW | 1 << 12)


def test_ps_where_no_page_can_be_is_a_reserved_bit(tables: Tables) -> None:
    top = walk(tables.memory.read_u64, tables.paging, VA).steps[0].entry_pa
    tables.memory.write_u64(top, 0x5000 | PS | P)

    with pytest.raises(ValueError, match=f"entry 0x5081 at pa {top:#x} has a reserved bit"):
        tables.map(VA, 0x5000)


def test_what_was_mapped_before_a_range_failed_stays(tables: Tables) -> None:
    tables.map(VA + 0x1000, 0x9000)

    with pytest.raises(ValueError, match="mapped already"):
        tables.map_range(VA, 0x5000, 0x2000)

    assert tables.verdict(VA) == ("mapped", 1)


def test_nothing_is_mapped_twice(tables: Tables) -> None:
    tables.map(VA, 0x5000)
    tables.map(VA + (1 << 30), 0, level=2)

    with pytest.raises(ValueError, match=f"va {VA:#x} is mapped already"):
        tables.map(VA, 0x6000)
    with pytest.raises(
        ValueError, match=f"va {VA + (1 << 30) + 0x1000:#x} lies in a page of level 2"
    ):
        tables.map(VA + (1 << 30) + 0x1000, 0x6000)
    with pytest.raises(ValueError, match=f"va {VA:#x} is mapped already"):
        tables.map(VA, 0, level=2)


def test_a_table_outside_ram_cannot_be_extended(tables: Tables) -> None:
    entry_pa = walk(tables.memory.read_u64, tables.paging, VA).steps[-1].entry_pa
    tables.memory.write_u64(entry_pa, 1 << 35 | P)

    with pytest.raises(ValueError, match="the table at pa 0x800000000 is outside RAM"):
        tables.map(VA, 0x5000)


def test_what_is_not_mapped_cannot_be_unmapped(tables: Tables) -> None:
    with pytest.raises(ValueError, match=f"va {VA:#x} is not mapped"):
        unmap_page(tables.memory, tables.paging, VA)


# -- ranges of pages


def test_a_range_uses_the_largest_pages_that_fit(tables: Tables) -> None:
    start = VA + (1 << 30) - 0x20_1000

    tables.map_range(start, (1 << 30) - 0x20_1000, 0x20_1000 + (1 << 30) + 0x1000, largest=3)

    mapped = [found for found in ranges(tables.memory, tables.paging) if found.kind == "mapped"]
    assert [found.level for found in mapped] == [1, 2, 3, 1]
    assert mapped[0].first == start
    assert [found.pa for found in mapped] == [found.first - VA for found in mapped]


@pytest.mark.parametrize("size", [-0x1000, 1, 0x1001])
def test_a_range_has_whole_pages(tables: Tables, size: int) -> None:
    with pytest.raises(ValueError, match=f"size {size:#x}"):
        tables.map_range(VA, 0, size)


@pytest.mark.parametrize("largest", [0, 4])
def test_a_range_has_pages_of_a_size_that_exists(tables: Tables, largest: int) -> None:
    with pytest.raises(ValueError, match=f"level {largest}"):
        tables.map_range(VA, 0, 0x1000, largest)


# -- all of them


@settings(max_examples=60, deadline=None)
@given(
    pages=st.dictionaries(st.integers(0, (1 << 36) - 1), st.integers(0, 1000), max_size=12),
    levels=st.sampled_from((4, 5)),
)
def test_exactly_what_was_mapped_is_found(pages: dict[int, int], levels: int) -> None:
    tables = Tables(levels)
    wanted = {canonical(n << 12, levels): frame << 12 for n, frame in pages.items()}
    with tables.machine:
        map_all(tables, wanted)
        behind = {tables.verdict(va + 0x1000)[0] for va in wanted if va + 0x1000 not in wanted}

        assert mapped(tables) == wanted
        assert {va: translate(tables.memory, tables.paging, va) for va in wanted} == wanted
        assert behind <= {"not-present", "non-canonical"}


def map_all(tables: Tables, pages: dict[int, int]) -> None:
    """Map each page."""
    for va, pa in pages.items():
        tables.map(va, pa)


def mapped(tables: Tables) -> dict[int, int | None]:
    """What `ranges` finds mapped."""
    found = ranges(tables.memory, tables.paging)
    return {
        one.first + offset: one.pa + offset
        for one in found
        if one.pa is not None
        for offset in range(0, one.size, 0x1000)
    }
