"""Rows of `bench.py` about walks in bulk, and the tables that they are made in."""

import numpy as np
from measuring import Row, best
from numpy.typing import NDArray

from emu import Paging, PhysMemory, VirtAddr, ranges, walk_many
from emu.bulk import MAPPED
from emu.paging import ENTRIES, FRAME_SIZE, RW, P
from emu.walk import walk

BASE = 0xFFFF_8880_0000_0000
_ROOT, _PDPT, _DIRECTORIES, _TABLES = 0x1000, 0x2000, 0x3000, 0x10_0000
_SLOT = 8 * 273  # where BASE is in the root


def scattered(nr_pages: int, ram: int = 1 << 30) -> tuple[PhysMemory, Paging]:
    """Map so many 4 KiB pages from BASE on, no two of which follow each other in RAM.

    They need not be RAM themselves: nothing is read from them.
    """
    nr_tables = nr_pages // ENTRIES
    memory, paging = PhysMemory(ram), Paging.long_mode(_ROOT)
    words = np.frombuffer(memory.words, np.uint64)
    backwards = np.arange(nr_pages, 0, -1, dtype=np.uint64) * np.uint64(FRAME_SIZE)
    tables = np.arange(nr_tables, dtype=np.uint64) * np.uint64(FRAME_SIZE) + np.uint64(_TABLES)
    directories = -(-nr_tables // ENTRIES)
    words[_TABLES >> 3 :][:nr_pages] = backwards | np.uint64(P | RW)
    words[_DIRECTORIES >> 3 :][:nr_tables] = tables | np.uint64(P | RW)
    for at in range(directories):
        words[(_PDPT >> 3) + at] = _DIRECTORIES + at * FRAME_SIZE | P | RW
    words[_ROOT + _SLOT >> 3] = _PDPT | P | RW
    del words  # or the memory could not be closed
    return memory, paging


def addresses(nr: int, nr_pages: int) -> NDArray[np.uint64]:
    """Return random addresses in those pages."""
    rng = np.random.default_rng(1)
    return rng.integers(0, nr_pages * FRAME_SIZE, nr, dtype=np.uint64) + np.uint64(BASE)


def per_address() -> float:
    """Walk a million random addresses in 16 k pages; each of some is what it is alone."""
    memory, paging = scattered(1 << 14)
    vas = addresses(1_000_000, 1 << 14)
    found = walk_many(memory, paging, vas)
    assert (found.kind == MAPPED).all()
    for va, pa in zip(vas[:100].tolist(), found.pa.tolist(), strict=False):
        assert walk(memory.read_u64, paging, VirtAddr(va)).pa == pa
    return best(lambda: walk_many(memory, paging, vas), number=1, rounds=20) / len(vas) * 1e9


def scattered_ranges(nr_pages: int, rounds: int) -> float:
    """List pages of which each is a range of its own; in seconds."""
    memory, paging = scattered(nr_pages)
    found = ranges(memory, paging)
    assert found.complete
    assert int((found.kind == MAPPED).sum()) == nr_pages
    return best(lambda: ranges(memory, paging), number=1, rounds=rounds)


ROWS = (
    Row("walk_many, an address in 16 k pages", 60, "ns", per_address),
    Row("ranges, 16 k pages, none mergeable", 5, "ms", lambda: scattered_ranges(1 << 14, 60) * 1e3),
    Row("ranges, 1 M pages, none mergeable", 0.3, "s", lambda: scattered_ranges(1 << 20, 10)),
)
