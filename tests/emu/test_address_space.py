"""A space as ranges: they tile it, say what `walk` says, and are as few as can be."""

import resource
from array import array
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.garbage import known, spaces
from support.tables import VA, Tables

from emu import Paging, PhysMemory, Range, Ranges, ranges
from emu.bulk import MAPPED
from emu.paging import PS, RW, U64, US, XD, A, D, G, P, canonical, page_size


def assert_tiles(found: Ranges, paging: Paging) -> None:
    """Both canonical halves, from 0 to the last byte, without gap or overlap."""
    lower, upper = paging.halves
    borders = [(one.last + 1, after.first) for one, after in pairwise(found)]
    assert found[0].first == 0
    assert found[-1].last == U64
    assert [pair for pair in borders if pair[0] != pair[1]] == [(lower.stop, upper.start)]
    assert all(one.first <= one.last for one in found)


def could_be_one(one: Range, after: Range) -> bool:
    """Tell whether nothing keeps two neighbours apart."""
    alike = (one.kind, one.level, one.rights) == (after.kind, after.level, after.rights)
    follows = one.pa is None or after.pa == one.pa + one.size
    return one.last + 1 == after.first and alike and follows


def told(one: Range, va: int) -> tuple:
    """What a range says of an address in it: kind, and level, pa and rights where mapped."""
    if one.pa is None:
        return one.kind, 0, 0, 0
    return one.kind, one.level, one.pa + va - one.first, one.rights


def walked(memory: PhysMemory, paging: Paging, va: int) -> tuple:
    """The same from `walk`."""
    kind, level, _, _, pa, rights = known(memory, paging, va)
    return (kind, level, pa, rights) if kind == "mapped" else (kind, 0, 0, 0)


def mapped(found: Ranges) -> list[Range]:
    return [one for one in found if one.kind == "mapped"]


@settings(max_examples=150, deadline=None)
@given(space=spaces(most=3), data=st.data())
def test_every_range_says_of_its_addresses_what_their_walks_say(space, data):
    memory, paging = space
    found = ranges(memory, paging)
    some = data.draw(st.lists(st.sampled_from(range(len(found))), max_size=40))
    inside = [data.draw(st.integers(found[at].first, found[at].last)) for at in some]
    borders = [(found[at], va) for at in some for va in (found[at].first, found[at].last)]

    asked = [*borders, *((found[at], va) for at, va in zip(some, inside, strict=True))]

    assert [told(one, va) for one, va in asked] == [walked(memory, paging, va) for _, va in asked]
    assert found.complete
    memory.close()


@settings(max_examples=150, deadline=None)
@given(space=spaces(most=3))
def test_ranges_tile_the_space_and_no_two_could_be_one(space):
    memory, paging = space

    found = ranges(memory, paging)

    assert_tiles(found, paging)
    assert [pair for pair in pairwise(found) if could_be_one(*pair)] == []
    memory.close()


@settings(max_examples=60, deadline=None)
@given(space=spaces(most=3), limits=st.tuples(st.integers(1, 60), st.integers(512, 600)))
def test_what_is_explored_within_limits_is_what_it_is_without(space, limits):
    memory, paging = space
    whole = ranges(memory, paging)

    found = ranges(memory, paging, max_tables=limits[0], max_ranges=limits[1])

    told_here = [(told(r, r.first), told(r, r.last)) for r in found if r.kind != "unexplored"]
    told_there = [
        (told(whole.holding(r.first), r.first), told(whole.holding(r.last), r.last))
        for r in found
        if r.kind != "unexplored"
    ]
    assert told_here == told_there
    assert found.complete == ("unexplored" not in [one.kind for one in found])
    assert_tiles(found, paging)
    memory.close()


# -- what is one range, and what is not


def test_empty_tables_are_one_gap_in_each_half(tables: Tables) -> None:
    found = ranges(tables.memory, tables.paging)

    assert [(one.kind, one.level, one.pa) for one in found] == [("not-present", 0, None)] * 2
    assert found.complete


def test_pages_that_follow_each_other_are_one_range_across_tables(tables: Tables) -> None:
    tables.map_range(VA - 0x3000, 0x5000, 0x6000)

    assert mapped(ranges(tables.memory, tables.paging)) == [
        Range(VA - 0x3000, VA + 0x2FFF, "mapped", 1, RW, 0x5000)
    ]


@pytest.mark.parametrize("level", [2, 3])
def test_large_pages_are_merged_with_their_like_alone(tables: Tables, level: int) -> None:
    size = page_size(level)
    tables.map_range(VA, 0, 2 * size, largest=level)
    tables.map_range(VA + 2 * size, 2 * size, 0x2000)

    found = mapped(ranges(tables.memory, tables.paging))

    assert [(one.level, one.size) for one in found] == [(level, 2 * size), (1, 0x2000)]


@pytest.mark.parametrize("flags", [0, RW | US, RW | G, RW | XD, RW | 1 << 59])
def test_other_rights_begin_another_range(tables: Tables, flags: int) -> None:
    tables.map(VA, 0x5000, RW)
    tables.map(VA + 0x1000, 0x6000, flags)

    found = mapped(ranges(tables.memory, tables.paging))

    assert [one.rights for one in found] == [RW, flags]


@pytest.mark.parametrize("flags", [RW | A, RW | D, RW | 1 << 9, RW | 1 << 52])
def test_a_d_and_ignored_bits_begin_none(tables: Tables, flags: int) -> None:
    tables.map(VA, 0x5000, RW)
    tables.map(VA + 0x1000, 0x6000, flags)

    assert len(mapped(ranges(tables.memory, tables.paging))) == 1


def test_a_gap_is_one_whatever_levels_it_is_settled_on(tables: Tables) -> None:
    tables.map(VA, 0x5000)
    tables.map(VA + (1 << 40), 0x6000)

    kinds = [one.kind for one in ranges(tables.memory, tables.paging)]

    assert kinds == ["not-present", *["not-present", "mapped"] * 2, "not-present"]


def test_columns_are_cut_selected_and_searched(tables: Tables) -> None:
    tables.map_range(VA, 0x5000, 0x4000)
    found = ranges(tables.memory, tables.paging)

    part = found.within(VA + 0x1800, VA + 0x5FFF)

    assert list(part) == [
        Range(VA + 0x1800, VA + 0x3FFF, "mapped", 1, RW, 0x6800),
        Range(VA + 0x4000, VA + 0x5FFF, "not-present", 0, 0, None),
    ]
    assert found.holding(VA + 0x3FFF) == found[2]
    assert found.holding(tables.paging.halves[0].stop) is None
    assert found.holding(-1) is found.holding(1 << 64) is None
    assert list(found[1:3]) == list(found)[1:3]
    assert found[-1] == list(found)[-1]
    assert found[2] in found


def test_shapes_are_what_is_left_without_the_frames(tables: Tables) -> None:
    tables.map(VA, 0x5000)
    tables.map(VA + 0x1000, 0x9000)
    tables.map(VA + 0x2000, 0x7000, RW | XD)
    tables.map(VA + 0x4000, 0x8000, RW | XD)

    found = mapped_only(ranges(tables.memory, tables.paging))

    assert len(found) == 4
    assert found.shapes().tolist() == [0, 2, 3]


def mapped_only(found: Ranges) -> Ranges:
    return found.only(found.kind == MAPPED)


def test_a_range_shows_itself_in_hex(tables: Tables) -> None:
    tables.map(VA, 0x5000, RW | XD | 3 << 59)

    found = ranges(tables.memory, tables.paging)

    text = f"Range({VA:#x}-{VA + 0xFFF:#x} mapped to 0x5000 at level 1, RW XD key 3)"
    assert repr(found[2]) == text
    assert repr(found) == "<4 ranges>"


# -- tables that loop, are shared, or are garbage


def test_a_root_outside_ram_is_one_range_in_each_half(tables: Tables) -> None:
    found = ranges(tables.memory, tables.paging.with_root(1 << 35))

    assert [one.kind for one in found] == ["outside-ram"] * 2
    assert_tiles(found, tables.paging)


def looped(memory: PhysMemory, entry: int) -> None:
    """Fill the frame at 0x1000 with one entry."""
    memory.words[512:1024] = memoryview(entry.to_bytes(8, "little") * 512).cast("Q")


@pytest.mark.parametrize("levels", [4, 5])
def test_a_table_that_is_nothing_but_itself_ends(levels: int) -> None:
    memory, paging = PhysMemory(0x3000), Paging.long_mode(0x1000, levels=levels)
    looped(memory, 0x1000 | RW | P)

    found = ranges(memory, paging)

    assert not found.complete
    assert found[0] == Range(0, 0xFFF, "mapped", 1, RW, 0x1000)
    assert found[-1].kind == "unexplored"
    assert len(found) < 1 << 20
    assert_tiles(found, paging)


def test_a_map_of_its_own_tables_is_walked_as_the_cpu_walks_it(tables: Tables) -> None:
    tables.map(VA, 0x5000)
    root = tables.paging.root
    tables.memory.write_u64(root + 8 * 300, root | RW | P)

    found = ranges(tables.memory, tables.paging)

    itself = sum(300 << 3 + 9 * level for level in range(1, tables.paging.levels + 1))
    at_root = found.holding(canonical(itself, tables.paging.levels))
    assert found.complete
    assert (at_root.level, at_root.pa) == (1, root)


def test_512_entries_may_share_a_table() -> None:
    memory, paging = PhysMemory(0x10000), Paging.long_mode(0x1000)
    looped(memory, 0x2000 | RW | P)
    memory.write_u64(0x2000, 0x3000 | RW | P)
    memory.write_u64(0x3000, 0x200000 | RW | PS | P)

    found = ranges(memory, paging)

    assert found.complete
    assert [(one.pa, one.size) for one in mapped(found)] == [(0x200000, 0x200000)] * 512


def test_repeated_tables_are_left_out_before_others() -> None:
    memory, paging = PhysMemory(0x10000), Paging.long_mode(0x1000)
    looped(memory, 0x2000 | RW | P)
    memory.write_u64(0x2000, 0x3000 | RW | P)
    memory.write_u64(0x3000, 0x4000 | RW | P)
    memory.write_u64(0x1FF8, 0x5000 | RW | P)
    memory.write_u64(0x5FF8, 0x6000 | RW | P)
    memory.write_u64(0x6FF8, 0x200000 | RW | PS | P | XD)

    found = ranges(memory, paging, max_tables=100)

    assert not found.complete
    assert found[-1] == Range(U64 - 0x1FFFFF, U64, "mapped", 2, RW | XD, 0x200000)


def test_a_new_table_after_many_repeats_is_entered() -> None:
    memory, paging = PhysMemory(0x10000), Paging.long_mode(0x1000)
    shared, empty, new = (pa | RW | P for pa in (0x2000, 0x3000, 0x4000))
    memory.words[512 : 512 + 256] = array("Q", [shared] * 128 + [empty] * 127 + [new])
    memory.write_u64(0x2000, 0x5000 | RW | P)
    memory.write_u64(0x4000, 0x6000 | RW | P)
    memory.write_u64(0x6000, 0x200000 | RW | PS | P)

    found = ranges(memory, paging, max_tables=1 + 256 + 100)

    assert [one.first for one in mapped(found)] == [255 << 39]
    assert [one.kind for one in found].count("unexplored") == 127


@pytest.mark.parametrize("levels", [4, 5])
def test_garbage_ends_in_bounded_memory(levels: int) -> None:
    memory, paging = PhysMemory(64 << 20), Paging.long_mode(0, levels=levels)
    entries = [(7919 * n % (1 << 14)) << 12 | RW | P for n in range(1 << 18)]
    memory.words[: len(entries)] = array("Q", entries)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    found = ranges(memory, paging, max_ranges=1 << 18)

    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert not found.complete
    assert len(found) < 1 << 20
    assert grown < 300 << 10  # KiB
    assert_tiles(found, paging)


@pytest.mark.parametrize(
    "limits", [{"max_tables": 0}, {"max_ranges": 511}, {"max_tables": -1, "max_ranges": 1 << 20}]
)
def test_the_root_at_least_must_be_within_the_limits(tables: Tables, limits: dict) -> None:
    with pytest.raises(ValueError, match="limits of"):
        ranges(tables.memory, tables.paging, **limits)


def test_memory_closes_while_ranges_are_kept() -> None:
    memory = PhysMemory(0x2000)
    found = ranges(memory, Paging.long_mode(0x1000))

    memory.close()

    assert len(list(found)) == 2
