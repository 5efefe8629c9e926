"""Walks in bulk: what settles each of a million addresses, in NumPy.

Knows the walk once more, a level of all addresses at a time, and answers as `walk` does, address
by address. Refuses to know what follows from it: a space as ranges is `address_space`, and whether
an access may use a translation is `rights`. SDM vocabulary; source: as for `walk`.
"""

from collections.abc import Iterable
from operator import index
from types import TracebackType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emu.memory import PhysMemory
from emu.paging import (
    ADDRESS,
    ENTRIES,
    ENTRY_NAME,
    ENTRY_SIZE,
    KEY_SHIFT,
    PS,
    RW,
    U64,
    US,
    XD,
    G,
    P,
    Paging,
    address_bits,
    page_shift,
    page_size,
)

U64s = NDArray[np.uint64]
U8s = NDArray[np.uint8]

KINDS: Final = (
    "not-present",
    "mapped",
    "reserved-bit",
    "outside-ram",
    "non-canonical",
    "unexplored",  # a range only: it was left out, and anything may be there
)
"""What settles an address, by code: `walk`'s verdicts, and one that it has no need of."""
NOT_PRESENT, MAPPED, RESERVED_BIT, OUTSIDE_RAM, NON_CANONICAL, UNEXPLORED = range(len(KINDS))
TABLE: Final = len(KINDS)  # settles nothing: the entry leads on to a table in RAM

OF_EVERY_ENTRY: Final = RW | US | XD
OF_THE_PAGE: Final = G | 15 << KEY_SHIFT
RIGHTS: Final = OF_EVERY_ENTRY | OF_THE_PAGE
"""The bits of effective rights, where an entry has them: RW and US if every entry on the way has
them, XD if any has, G and the protection key as in the entry that maps the page."""

_BATCH: Final = 1 << 14  # addresses at a time: what is held of them stays in the cache


class Walks(NamedTuple):
    """What settled each address: a column for each thing that is known, in the addresses' order.

    `level`, `entry_pa` and `entry` are those of the last entry read, 0 if none was; `kind` is a
    code (`KINDS` has the names); `pa` and `rights` (see `RIGHTS`) are 0 unless mapped.
    """

    level: U8s
    kind: U8s
    entry_pa: U64s
    entry: U64s
    pa: U64s
    rights: U64s

    def _repr_html_(self) -> str:
        from emu import markup

        columns = ("number", "verdict", "level", "entry at pa", "value", "pa")
        caption = f"{len(self.kind):,} walks"
        return markup.table(caption, columns, markup.excerpt(range(len(self.kind)), self._cells))

    def _cells(self, at: int) -> tuple[str, ...]:
        level, kind, entry_pa, entry, pa, _ = (int(column[at]) for column in self)
        reached = f"{level} {ENTRY_NAME[level]}" if level else ""
        where = f"{entry_pa:#x}" if level else "", f"{entry:#x}" if level else ""
        return f"{at}", KINDS[kind], reached, *where, f"{pa:#x}" if kind == MAPPED else ""


class Ram:
    """Physical memory as arrays, inside a `with` and no longer: an array keeps RAM from closing.

    So `words` belongs in no variable that an exception's traceback could keep.
    """

    words: U64s

    def __init__(self, memory: PhysMemory) -> None:
        self._memory = memory
        self._edges = np.array(memory.pieces, np.uint64).ravel()
        self._end = memory.size if len(memory.pieces) == 1 and not memory.pieces[0].start else 0

    def __enter__(self) -> "Ram":
        self.words = np.frombuffer(self._memory.words, np.uint64)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del self.words

    def holds(self, table: U64s) -> NDArray[np.bool_]:
        """Tell of each frame whether it is RAM."""
        if self._end:
            return table < self._end
        if table.size > len(self._edges):  # most often they lie together
            at, above = np.searchsorted(self._edges, (table.min(), table.max()), side="right")
            if at == above:
                return np.full(table.shape, at & 1 == 1)
        odd: NDArray[np.bool_] = np.searchsorted(self._edges, table, side="right") & 1 == 1
        return odd  # behind as many starts of pieces as ends, and one more

    def tables(self, table: U64s) -> U64s:
        """Return the entries of tables in RAM, one row of 512 each."""
        return self.words.reshape(-1, ENTRIES)[(table >> 12).view(np.int64)]


def kinds(entry: U64s, level: int, paging: Paging, ram: Ram) -> U8s:
    """Tell what each entry of `level` settles: a code of `KINDS`, or `TABLE`."""
    bit7_clear, bit7_set = map(np.uint64, paging.reserved_by_level[2 * level : 2 * level + 2])
    bit7 = entry & PS != 0
    if level == 1:
        kind = np.full(entry.shape, MAPPED, np.uint8)
        reserved = entry & bit7_clear
    else:
        kind = np.where(
            ram.holds(entry & np.uint64(ADDRESS)), np.uint8(TABLE), np.uint8(OUTSIDE_RAM)
        )
        kind[bit7] = MAPPED
        reserved = entry & np.where(bit7, bit7_set, bit7_clear)

    kind[reserved != 0] = RESERVED_BIT
    kind[entry & P == 0] = NOT_PRESENT
    return kind


def walk_many(memory: PhysMemory, paging: Paging, vas: U64s | Iterable[int]) -> Walks:
    """Walk every address of `vas`, an array of uint64 or numbers that fit it.

    As with `walk`, no A or D bit is set. Raises ValueError for what is no row of 64-bit addresses.
    """
    va = _addresses(vas)
    columns: list[NDArray[Any]] = [np.zeros(len(va), np.uint8) for _ in range(2)]
    columns += [np.zeros(len(va), np.uint64) for _ in range(4)]
    with Ram(memory) as ram:
        for begin in range(0, len(va), _BATCH):
            part = slice(begin, begin + _BATCH)
            _walk(ram, paging, va[part], Walks(*(column[part] for column in columns)))
    return Walks(*columns)


def _addresses(vas: U64s | Iterable[int]) -> U64s:
    if isinstance(vas, np.ndarray):
        va = vas
    else:
        try:
            va = np.array(list(map(index, vas)), np.uint64)
        except (OverflowError, TypeError) as error:
            raise ValueError(f"addresses: {error}: expected numbers of 64 bits") from None
    if va.ndim != 1 or va.dtype.kind not in "ui":
        raise ValueError(f"addresses: {va.ndim} dimensions of {va.dtype}: expected 1 of uint64")
    if va.dtype.kind == "i" and va.size and va.min() < 0:
        raise ValueError(f"addresses: {va.min()} is among them: expected uint64")
    return va.astype(np.uint64, copy=False)


def _walk(ram: Ram, paging: Paging, va: U64s, found: Walks) -> None:
    """Walk the addresses of one batch, and put what is found into the columns."""
    bits = address_bits(paging.levels)
    canonical = va + (1 << bits - 1) < 1 << bits  # the upper half wraps around, below the lower
    at = slice(None) if canonical.all() else np.flatnonzero(canonical)  # what is still under way
    found.kind[:] = NON_CANONICAL
    va = va[at]

    table = np.array([paging.root], np.uint64)
    if not ram.holds(table)[0]:
        found.kind[at] = OUTSIDE_RAM
        return

    everywhere = np.full(va.shape, U64, np.uint64)  # with XD inverted: that it is nowhere
    for level in range(paging.levels, 0, -1):
        entry_pa = table + (va >> page_shift(level) - 3 & (ENTRIES - 1) * ENTRY_SIZE)
        entry = ram.words[(entry_pa >> 3).view(np.int64)]
        everywhere &= entry ^ XD

        table = entry & np.uint64(ADDRESS)
        if level == 1:
            break
        unlike_a_table = (entry ^ P) & (P | PS | paging.reserved_by_level[2 * level])
        leads_on = (unlike_a_table == 0) & ram.holds(table)
        if leads_on.all():
            continue

        ends, goes_on = np.flatnonzero(~leads_on), np.flatnonzero(leads_on)
        seen = va[ends], entry_pa[ends], entry[ends], everywhere[ends]
        _settle(found, ends if isinstance(at, slice) else at[ends], level, paging, ram, *seen)
        at = goes_on if isinstance(at, slice) else at[goes_on]
        va, table, everywhere = va[goes_on], table[goes_on], everywhere[goes_on]
    _settle(found, at, 1, paging, ram, va, entry_pa, entry, everywhere)


def _settle(
    found: Walks,
    at: NDArray[np.int64] | slice,
    level: int,
    paging: Paging,
    ram: Ram,
    va: U64s,
    entry_pa: U64s,
    entry: U64s,
    everywhere: U64s,
) -> None:
    """Put down what was found of the addresses that an entry of `level` settles."""
    kind = kinds(entry, level, paging, ram)
    size = page_size(level)
    pa = entry & (ADDRESS & -size) | va & size - 1
    rights = (everywhere ^ XD) & OF_EVERY_ENTRY | entry & OF_THE_PAGE
    mapped = kind == MAPPED
    found.level[at] = level
    found.kind[at] = kind
    found.entry_pa[at] = entry_pa
    found.entry[at] = entry
    found.pa[at] = pa * mapped
    found.rights[at] = rights * mapped
