"""Walks in bulk: the same as one by one."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.garbage import known, near_indices, spaces
from support.tables import VA, Tables

from emu import Paging, PhysMemory, walk_many
from emu.bulk import KINDS, MAPPED, NON_CANONICAL, OUTSIDE_RAM
from emu.paging import RW, U64, US, XD, G


def rows(memory, paging, vas):
    """What `walk_many` knows, as `known` has it."""
    level, kind, entry_pa, entry, pa, rights = (c.tolist() for c in walk_many(memory, paging, vas))
    kinds = [KINDS[code] for code in kind]
    return list(zip(kinds, level, entry_pa, entry, pa, rights, strict=True))


@settings(max_examples=300, deadline=None)
@given(space=spaces(), data=st.data())
def test_each_walk_ends_as_it_does_alone(space, data):
    memory, paging = space
    vas = data.draw(st.lists(near_indices(paging.levels), max_size=60))

    found = rows(memory, paging, vas)

    assert found == [known(memory, paging, va) for va in vas]
    memory.close()


@pytest.mark.parametrize("nr", [1, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 40_000])
def test_batches_join_without_a_seam(tables: Tables, nr: int) -> None:
    tables.map_range(VA, 0x5000, 0x40_0000 + 0x3000, largest=2)
    vas = VA - 0x1000 + 0x10B * np.arange(nr, dtype=np.uint64)

    found = walk_many(tables.memory, tables.paging, vas)

    some = [*range(0, nr, 997), nr - 1]
    one_by_one = [known(tables.memory, tables.paging, int(vas[at])) for at in some]
    assert [int(found.pa[at]) for at in some] == [row[4] for row in one_by_one]
    assert [int(found.level[at]) for at in some] == [row[1] for row in one_by_one]


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_last_byte_of_all_can_be_mapped(tables: Tables, level: int) -> None:
    size = 1 << 3 + 9 * level
    tables.map(U64 + 1 - size, size, level=level)

    found = walk_many(tables.memory, tables.paging, [U64, 0, U64 - size])

    assert found.kind.tolist() == [MAPPED, 0, 0]
    assert found.pa.tolist() == [2 * size - 1, 0, 0]


def test_rights_are_those_of_all_levels_and_g_and_key_those_of_the_page(tables: Tables) -> None:
    key = 5 << 59
    tables.map(VA, 0x5000, RW | G | XD | key)
    tables.map(VA + 0x1000, 0x6000, US)

    found = walk_many(tables.memory, tables.paging, [VA, VA + 0x1000])

    assert found.rights.tolist() == [RW | G | XD | key, US]


def test_the_borders_of_the_halves_are_canonical_and_their_neighbours_are_not(
    tables: Tables,
) -> None:
    lower, upper = tables.paging.halves

    found = walk_many(tables.memory, tables.paging, [lower[-1], lower.stop, upper[0] - 1, upper[0]])

    assert [KINDS[kind] for kind in found.kind] == [
        *("not-present", "non-canonical", "non-canonical", "not-present")
    ]


def test_a_root_outside_ram_is_an_answer() -> None:
    found = walk_many(PhysMemory(0x1000), Paging.long_mode(0x5000), [0, 1 << 60])

    assert found.kind.tolist() == [OUTSIDE_RAM, NON_CANONICAL]
    assert found.level.tolist() == [0, 0]


@pytest.mark.parametrize("vas", [[], np.empty(0, np.uint64), range(0)])
def test_nothing_is_found_of_nothing(tables: Tables, vas) -> None:
    assert [len(column) for column in walk_many(tables.memory, tables.paging, vas)] == [0] * 6


@pytest.mark.parametrize(
    ("vas", "message"),
    [
        ([-1], "expected numbers of 64 bits"),
        ([1 << 64], "expected numbers of 64 bits"),
        (["5"], "expected numbers of 64 bits"),
        ([1.5], "expected numbers of 64 bits"),
        ([None], "expected numbers of 64 bits"),
        (np.array([5, -3]), "-3 is among them"),
        (np.array([1.5]), "1 dimensions of float64"),
        (np.zeros((2, 2), np.uint64), "2 dimensions of uint64"),
    ],
)
def test_what_is_no_row_of_addresses_is_refused(tables: Tables, vas, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        walk_many(tables.memory, tables.paging, vas)


def test_memory_closes_while_the_answer_is_kept() -> None:
    memory = PhysMemory(0x2000)
    found = walk_many(memory, Paging.long_mode(0x1000), [0])

    memory.close()

    assert found.level.tolist() == [4]


@pytest.mark.parametrize("statement", ["import emu", "from emu import PageFault, Machine, walk"])
def test_who_walks_one_by_one_loads_no_numpy(statement: str) -> None:
    check = f"import sys; {statement}; print('numpy' in sys.modules)"

    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)

    assert found.stdout == "False\n"
