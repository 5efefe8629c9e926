"""A walk reads entries root first until one settles the matter, and keeps what it read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu import Paging, PhysAddr, VirtAddr, Walk
from emu.paging import ENTRY_SIZE, PS, P, index
from emu.walk import walk

ROOT = 0x1_0000
VA = VirtAddr(0o111_222_333_444_1234)  # one index a level, different from each other
Entries = dict[int, int]


def table(level: int) -> int:
    """Where the test's table of `level` lies."""
    return ROOT + (5 - level) * 0x1000


def entries(levels: int = 4, **at: int) -> Entries:
    """A whole walk of VA by address; `level3=…` replaces an entry."""
    tables = {n: table(n - 1) | P for n in range(2, levels + 1)} | {1: 0x7000 | P}
    tables |= {int(name.removeprefix("level")): entry for name, entry in at.items()}
    return {table(n) + ENTRY_SIZE * index(VA, n): entry for n, entry in tables.items()}


def find(found: Entries, levels: int = 4, va: int = VA) -> Walk:
    paging = Paging.long_mode(table(levels), levels=levels)
    return walk(found.get, paging, VirtAddr(va))


@pytest.mark.parametrize("levels", [4, 5])
def test_a_walk_that_maps_reads_one_entry_a_level(levels: int) -> None:
    found = find(entries(levels), levels)

    assert found.verdict == "mapped"
    assert found.pa == 0x7000 | VA & 0xFFF
    assert [step.level for step in found.steps] == list(range(levels, 0, -1))
    assert {step.entry_pa: step.entry for step in found.steps} == entries(levels)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_it_ends_at_an_entry_that_is_not_present_whatever_else_that_holds(level: int) -> None:
    found = find(entries(**{f"level{level}": ~P & (1 << 64) - 1}))

    assert found.verdict == "not-present"
    assert found.level == level
    assert found.pa is None


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_it_ends_at_a_reserved_bit(level: int) -> None:
    found = find(entries(**{f"level{level}": 1 << 45 | P}))

    assert found.verdict == "reserved-bit"
    assert found.level == level
    assert found.pa is None


def test_a_reserved_bit_is_found_before_the_page_that_the_entry_would_map() -> None:
    assert find(entries(level2=0x2000 | PS | P)).verdict == "reserved-bit"


@pytest.mark.parametrize(("level", "size"), [(2, 1 << 21), (3, 1 << 30)])
def test_it_ends_at_a_large_page(level: int, size: int) -> None:
    found = find(entries(**{f"level{level}": 5 * size | PS | P}))

    assert found.verdict == "mapped"
    assert found.level == level
    assert found.pa == 5 * size + VA % size


@pytest.mark.parametrize("level", [4, 3, 2, 1])
def test_it_ends_where_there_is_no_ram_and_names_the_table(level: int) -> None:
    ram = entries()
    del ram[table(level) + ENTRY_SIZE * index(VA, level)]

    found = find(ram)

    assert found.verdict == "outside-ram"
    assert found.table == table(level)
    assert [step.level for step in found.steps] == list(range(4, level, -1))


@pytest.mark.parametrize(("va", "levels"), [(1 << 47, 4), (1 << 56, 5), (-1, 4), (1 << 64, 4)])
def test_an_address_that_is_not_canonical_is_not_walked(va: int, levels: int) -> None:
    found = find(entries(levels), levels, va)

    assert found.verdict == "non-canonical"
    assert found.steps == ()
    assert found.level == 0


def test_it_prints_what_it_read_in_hex() -> None:
    found = find(entries(level2=0))

    assert repr(found) == (
        f"Walk({VA:#x}: PML4E @0x11248 = 0x12001, PDPTE @0x12490 = 0x13001, "
        "PDE @0x136d8 = 0x0 -> not-present)"
    )


@given(
    words=st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=8),
    present=st.booleans(),
    va=st.integers(0, (1 << 64) - 1),
    levels=st.sampled_from((4, 5)),
)
def test_garbage_is_walked_too(words: list[int], present: bool, va: int, levels: int) -> None:
    def read(pa: PhysAddr) -> int:
        return words[hash(pa) % len(words)] & ~(0xFFF << 40) | present

    paging = Paging.long_mode(0x1000, levels=levels)

    found = walk(read, paging, VirtAddr(va))

    assert len(found.steps) <= levels
    assert (found.pa is None) == (found.verdict != "mapped")
    assert {step.entry_pa % ENTRY_SIZE for step in found.steps} <= {0}
