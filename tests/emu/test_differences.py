"""Two spaces differ where an address is settled otherwise, and nowhere else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.garbage import known, near_indices, spaces
from support.tables import VA, Tables

from emu import Paging, PhysMemory, ranges, unmap_page
from emu.differences import differences
from emu.paging import RW, XD, A, D, P


def now(tables: Tables):
    return ranges(tables.memory, tables.paging)


def shown(a, b):
    return [(one.first, one.last, one.what) for one in differences(a, b)]


def test_a_space_does_not_differ_from_itself(tables: Tables) -> None:
    tables.map(VA, 0x5000)

    assert len(differences(now(tables), now(tables))) == 0


def test_what_one_alone_maps_is_told_with_whose_it_is(tables: Tables) -> None:
    tables.map(VA, 0x5000)
    before = now(tables)
    tables.map(VA + 0x1000, 0x6000)
    unmap_page(tables.memory, tables.paging, VA)

    assert shown(before, now(tables)) == [
        (VA, VA + 0xFFF, "only-a"),
        (VA + 0x1000, VA + 0x1FFF, "only-b"),
    ]


@pytest.mark.parametrize(
    ("pa", "flags", "what"),
    [
        (0x6000, RW, "pa"),
        (0x5000, RW | XD, "rights"),
        (0x6000, 0, "pa-and-rights"),
    ],
)
def test_what_both_map_differs_in_pa_or_rights(
    tables: Tables, pa: int, flags: int, what: str
) -> None:
    tables.map(VA, 0x5000)
    before = now(tables)
    unmap_page(tables.memory, tables.paging, VA)
    tables.map(VA, pa, flags)

    assert shown(before, now(tables)) == [(VA, VA + 0xFFF, what)]


def test_accessed_and_dirty_are_no_difference(tables: Tables) -> None:
    tables.map(VA, 0x5000)
    before = now(tables)
    unmap_page(tables.memory, tables.paging, VA)
    tables.map(VA, 0x5000, RW | A | D)

    assert shown(before, now(tables)) == []


def test_the_size_of_the_page_is_no_difference(tables: Tables) -> None:
    pde = tables.map(VA, 0x20_0000, level=2)
    before = now(tables)
    tables.memory.write_u64(pde, 0)
    tables.map_range(VA, 0x20_0000, 0x20_0000)

    assert shown(before, now(tables)) == []


def test_a_piece_knows_where_it_lies_on_both_sides(tables: Tables) -> None:
    tables.map(VA, 0x20_0000, level=2)
    before = now(tables)
    unmap_page(tables.memory, tables.paging, VA)
    tables.map(VA + 0x20_0000, 0x5000)

    only_a, only_b = differences(before, now(tables))

    assert (only_a.a.pa, only_a.a.level, only_a.b.pa) == (0x20_0000, 2, None)
    assert (only_b.a.pa, only_b.b.pa, only_b.size) == (None, 0x5000, 0x1000)


def test_gaps_differ_by_kind_and_what_was_not_explored_is_told() -> None:
    memory, paging = PhysMemory(0x3000), Paging.long_mode(0x1000)
    memory.write_u64(0x1000, 1 << 51 | P)
    memory.write_u64(0x1FF8, 0x2000 | P)
    whole, hasty = ranges(memory, paging), ranges(memory, paging, max_tables=1)
    empty = ranges(memory, paging.with_root(0x2000))
    slot = 1 << 39

    assert shown(whole, empty) == [(0, slot - 1, "gap")]
    assert shown(empty, hasty)[1:] == [((1 << 64) - slot, (1 << 64) - 1, "unexplored")]
    assert not differences(empty, hasty).complete


def test_spaces_of_4_and_of_5_levels_cannot_be_compared() -> None:
    memory = PhysMemory(0x2000)
    four, five = (ranges(memory, Paging.long_mode(0x1000, levels=levels)) for levels in (4, 5))

    with pytest.raises(ValueError, match="do not cover the same addresses"):
        differences(four, five)


@settings(max_examples=150, deadline=None)
@given(space=spaces(most=3), data=st.data())
def test_an_address_is_in_a_difference_if_and_only_if_its_walks_differ(space, data):
    memory, paging = space
    other = paging.with_root(data.draw(st.sampled_from((0x2000, 0x3000, 0x8000))))
    found = differences(ranges(memory, paging), ranges(memory, other))
    vas = data.draw(st.lists(near_indices(paging.levels).filter(paging.is_canonical), max_size=30))
    vas += [va for one in found[:20] for va in (one.first, one.last)]
    differing = {va for va in vas for one in [found.a.holding(va)] if one is not None}

    walked = {va: (settled(memory, paging, va), settled(memory, other, va)) for va in vas}

    assert differing == {va for va, (one, another) in walked.items() if one != another}
    memory.close()


def settled(memory, paging, va):
    """What an access finds: kind, pa, rights."""
    kind, _, _, _, pa, rights = known(memory, paging, va)
    return kind, pa, rights
