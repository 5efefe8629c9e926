"""The fields of an entry, by name, and what each is for.

Knows which bits mean what in an entry that leads to a table, in one that maps a page, and in one
that is not present. Refuses to know how they are shown. SDM vocabulary; source: Intel SDM volume
3A, "Paging", tables "Format of a … Entry".
"""

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from emu.paging import KEY_SHIFT, P, Paging, maps_page, page_shift

Sort = Literal["table", "page", "absent"]


class Field(NamedTuple):
    """Neighbouring bits of an entry, from `high` down to `low`, and what they say."""

    high: int
    low: int
    name: str
    meaning: str

    def of(self, entry: int) -> int:
        """Return what an entry has there."""
        return entry >> self.low & (1 << self.high - self.low + 1) - 1


LARGEST: Final = 3
"""The level of the largest page: above, bit 7 is reserved."""
_IGNORED: Final = "the CPU ignores it"
_ZERO: Final = "must be zero"
_OF_EVERY_ENTRY: Final = (
    Field(5, 5, "A", "accessed: the CPU has walked through here"),
    Field(4, 4, "PCD", "cache disable"),
    Field(3, 3, "PWT", "write-through"),
    Field(2, 2, "US", "user mode may access what is below"),
    Field(1, 1, "RW", "what is below may be written"),
    Field(0, 0, "P", "present"),
)


def sort(entry: int, level: int) -> Sort:
    """Tell which of the three an entry of `level` is."""
    if not entry & P:
        return "absent"
    return "page" if maps_page(entry, level) and level <= LARGEST else "table"


def fields(level: int, sort: Sort, paging: Paging) -> tuple[Field, ...]:
    """Return the fields of an entry of `level`, highest first."""
    if sort == "absent":
        return (
            Field(63, 1, "ignored", "nothing counts without P: Linux keeps swap entries here"),
            Field(0, 0, "P", "present"),
        )
    middle = _middle(level, sort, paging)
    return (*_high(sort, paging), *middle, *_low(level, sort), *_OF_EVERY_ENTRY)


def _high(sort: Sort, paging: Paging) -> Iterator[Field]:
    yield Field(63, 63, "XD", "execute disable: no fetch from what is below")
    if sort == "page":
        yield Field(62, KEY_SHIFT, "key", "protection key, which selects two bits of PKRU")
        yield Field(58, 52, "ignored", _IGNORED)
    else:
        yield Field(62, 52, "ignored", _IGNORED)
    yield Field(51, paging.maxphyaddr, "reserved", f"{_ZERO}: above MAXPHYADDR")


def _middle(level: int, sort: Sort, paging: Paging) -> Iterator[Field]:
    """The address, down to bit 12."""
    low = page_shift(level) if sort == "page" else 12
    what = "frame" if sort == "page" else "table"
    yield Field(paging.maxphyaddr - 1, low, what, f"where the {what} lies, from this bit up")
    if low > 13:
        yield Field(low - 1, 13, "reserved", f"{_ZERO} for a page of this size")
    if low > 12:
        yield Field(12, 12, "PAT", "memory type, with PCD and PWT")


def _low(level: int, sort: Sort) -> Iterator[Field]:
    """Bits 11 to 6."""
    yield Field(11, 9, "ignored", "the CPU ignores it: Linux keeps marks of its own here")
    if sort == "page":
        yield Field(8, 8, "G", "global: the translation survives a CR3 write")
    else:
        yield Field(8, 8, "ignored", _IGNORED)
    if level == 1:
        yield Field(7, 7, "PAT", "memory type, with PCD and PWT")
    elif level in (2, 3):
        yield Field(7, 7, "PS", "set: maps a page; clear: leads to a table")
    else:
        yield Field(7, 7, "reserved", f"{_ZERO} at this level")
    if sort == "page":
        yield Field(6, 6, "D", "dirty: the CPU has written to the page")
    else:
        yield Field(6, 6, "ignored", _IGNORED)
