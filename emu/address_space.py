"""A whole address space as ranges: what is mapped where and how, and what is not.

Knows how the tables are gone through, level by level, and when two neighbours are one range.
Refuses to know whose space it is, and how two of them differ (`differences`). Tables are whatever
RAM holds: that they loop, share tables or are garbage costs no more than the limits allow. SDM
vocabulary.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emu.bulk import (
    MAPPED,
    OF_THE_PAGE,
    OUTSIDE_RAM,
    RIGHTS,
    TABLE,
    UNEXPLORED,
    Ram,
    U64s,
    kinds,
)
from emu.columns import Ranges
from emu.memory import PhysMemory
from emu.paging import (
    ADDRESS,
    ENTRIES,
    U64,
    XD,
    Paging,
    address_bits,
    page_shift,
    page_size,
)

MAX_TABLES: Final = 1 << 18  # a second or two
MAX_RANGES: Final = 1 << 22  # some 200 MB

_BATCH: Final = 128  # tables at a time: half a megabyte of entries
_KIND_SHIFT, _LEVEL_SHIFT = 12, 16  # in a tag, where rights have no bits
_UNEXPLORED: Final = UNEXPLORED << _KIND_SHIFT


def ranges(
    memory: PhysMemory,
    paging: Paging,
    *,
    max_tables: int = MAX_TABLES,
    max_ranges: int = MAX_RANGES,
) -> Ranges:
    """Return what settles each address of both canonical halves, without gap or overlap.

    Neighbours are one range if they are of one kind and, where mapped, pages of one size that
    follow each other in physical memory, with the same rights (A and D are none).

    At most `max_tables` tables are entered, each as often as it is reached. If a level has more
    than are left of that, each of its tables is entered at the first place that leads to it, while
    they last. After `max_ranges` ranges no more are entered. What is below the others is
    "unexplored", and the result is not complete.
    """
    if max_tables < 1 or max_ranges < ENTRIES:
        raise ValueError(f"limits of {max_tables} tables, {max_ranges} ranges: expected 1, 512")
    found = _Runs(max_ranges)
    with Ram(memory) as ram:
        if not memory.holds(paging.root):
            halves = np.array([half.start for half in paging.halves], np.uint64)
            found.add(halves, len(paging.halves[0]), OUTSIDE_RAM << _KIND_SHIFT)
            return found.ranges()
        tables = _Tables(*(np.array([x], np.uint64) for x in (paging.root, 0, RIGHTS)))
        for level in range(paging.levels, 0, -1):
            max_tables -= len(tables.pa)
            tables = _enter(tables, level, paging, ram, found, max_tables)
    return found.ranges()


class _Tables(NamedTuple):
    """Tables to enter, lowest address first: where they are, what address they begin to translate,
    and which of `RIGHTS` the entries above them leave, with XD inverted.
    """

    pa: U64s
    base: U64s
    rights: U64s

    def only(self, which: slice | NDArray[np.bool_] | NDArray[np.int64]) -> "_Tables":
        return _Tables(*(column[which] for column in self))


def _enter(
    tables: _Tables, level: int, paging: Paging, ram: Ram, found: "_Runs", room: int
) -> _Tables:
    """Find what the entries of tables of `level` settle; return the tables below, `room` at most.

    They are taken in batches, so what is held of them is bounded by `room`, not by their number.
    """
    size = page_size(level)
    offsets = np.arange(ENTRIES, dtype=np.uint64) << page_shift(level)
    if level == paging.levels:
        offsets[ENTRIES // 2 :] += U64 + 1 - (1 << address_bits(level))  # the canonical upper half

    below = _Tables(*np.empty((3, 0), np.uint64))
    scarce = False
    for begin in range(0, len(tables.pa), _BATCH):
        part = tables.only(slice(begin, begin + _BATCH))
        entry = ram.tables(part.pa)
        kind = kinds(entry, level, paging, ram)
        rights = part.rights[:, None] & (entry ^ XD)
        va = part.base[:, None] + offsets

        mapped = kind == MAPPED
        tag = kind.astype(np.uint64) << np.uint64(_KIND_SHIFT)
        tag += (rights ^ XD | level << _LEVEL_SHIFT) * mapped
        delta = ((entry & np.uint64(ADDRESS & -size)) - va) * mapped
        if not found.add(va.ravel(), size, tag.ravel(), delta.ravel()):
            found.leave_out(tables.base[begin:], ENTRIES * size)
            break

        leads_on = kind == TABLE
        if not leads_on.any():
            continue
        more = entry[leads_on] & ADDRESS, va[leads_on], rights[leads_on] | OF_THE_PAGE
        below = _Tables(*map(np.concatenate, zip(below, more, strict=True)))
        if scarce or len(below.pa) > room:
            scarce = True
            below = _at_first_places(below, size, found, room)
    return below


def _at_first_places(tables: _Tables, size: int, found: "_Runs", room: int) -> _Tables:
    """Keep each table where it comes first, `room` of them at most; leave out what is below others.

    A repeated table says little that is new: KASAN's zero shadow is one table, millions of times.
    """
    _, first = np.unique(tables.pa, return_index=True)
    kept = np.zeros(len(tables.pa), np.bool_)
    kept[np.sort(first)[:room]] = True
    found.leave_out(tables.base[~kept], size)
    return tables.only(kept)


class _Runs:
    """Ranges in the making: merged as they come, and once more in the end, in their order.

    A tag is all that neighbours must have in common, as one number: kind, level and rights. A delta
    is how far physical addresses are from linear ones, and 0 where nothing is mapped.
    """

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._parts: list[tuple[U64s, U64s, U64s, U64s]] = []
        self._complete = True

    def add(self, first: U64s, size: int, tag: U64s | int, delta: U64s | int = 0) -> bool:
        """Take in runs of `size` bytes, lowest first, tables aside; False if they are too many."""
        last = first + np.uint64(size - 1)
        columns = first, last, np.asarray(tag, np.uint64), np.asarray(delta, np.uint64)
        merged = _merged(*np.broadcast_arrays(*columns))
        leads_on = merged[2] == TABLE << _KIND_SHIFT
        if leads_on.any():
            merged = tuple(column[~leads_on] for column in merged)
        if len(merged[0]) > self._room:
            return False
        self._room -= len(merged[0])
        self._parts.append(merged)
        return True

    def leave_out(self, base: U64s, size: int) -> None:
        """Take in what is not gone into: `size` bytes from each `base` on."""
        self._complete = self._complete and not len(base)
        columns = base, base + np.uint64(size - 1), np.full_like(base, _UNEXPLORED)
        self._parts.append(_merged(*columns, np.zeros_like(base)))

    def ranges(self) -> Ranges:
        """Return all that was taken in."""
        columns = [np.concatenate(column) for column in zip(*self._parts, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        first, last, tag, delta = _merged(*(column[order] for column in columns))
        kind = (tag >> _KIND_SHIFT & 7).astype(np.uint8)
        return Ranges(
            first=first,
            last=last,
            kind=kind,
            level=(tag >> _LEVEL_SHIFT & 7).astype(np.uint8),
            rights=tag & np.uint64(RIGHTS),
            pa=(first + delta) * (kind == MAPPED),
            complete=self._complete,
        )


def _merged(first: U64s, last: U64s, tag: U64s, delta: U64s) -> tuple[U64s, U64s, U64s, U64s]:
    """Make one run of neighbours that are alike."""
    begins = np.ones(len(first), np.bool_)
    begins[1:] = tag[1:] != tag[:-1]
    begins[1:] |= delta[1:] != delta[:-1]
    begins[1:] |= first[1:] != last[:-1] + 1
    at = np.flatnonzero(begins)
    return first[at], last[np.append(at, len(first))[1:] - 1], tag[at], delta[at]
