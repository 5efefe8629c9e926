"""Ranges of addresses in columns: millions of them in arrays, each a `Range` when it is asked for.

Knows what a range says, and how many are cut, selected and searched. Refuses to know where they
come from (`address_space`). SDM vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from emu.bulk import KINDS, MAPPED, U8s, U64s
from emu.paging import (
    ENTRY_NAME,
    KEY_SHIFT,
    PAGE_SIZE_NAME,
    U64,
    PhysAddr,
    VirtAddr,
    flags_text,
)

COLUMNS: Final = ("first", "last", "kind", "pages", "rights", "pa")


class Range(NamedTuple):
    """A run of addresses of one kind; `last` is its last byte.

    Where mapped, by pages of `level`, `pa` is where `first` lies, and the rest follows it; `rights`
    are those over all levels (`bulk.RIGHTS`). Elsewhere these are None, 0 and 0.
    """

    first: VirtAddr
    last: VirtAddr
    kind: str
    level: int
    rights: int
    pa: PhysAddr | None

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1

    @property
    def key(self) -> int:
        """The protection key of the pages."""
        return self.rights >> KEY_SHIFT & 15

    @property
    def rights_text(self) -> str:
        """The rights by name: "RW XD", "US key 3", or a dash where there are none."""
        flags = flags_text(self.rights, self.level)
        if not self.key:
            return flags
        return f"{flags} key {self.key}".removeprefix("- ")

    def cells(self) -> tuple[str, ...]:
        """What a row of a table says of it; `COLUMNS` says what is what."""
        if self.pa is None:
            return f"{self.first:#x}", f"{self.last:#x}", self.kind, "", "", ""
        page = f"{PAGE_SIZE_NAME[self.level]} {ENTRY_NAME[self.level]}"
        return (
            *(f"{self.first:#x}", f"{self.last:#x}", self.kind),
            *(page, self.rights_text, f"{self.pa:#x}"),
        )

    def __repr__(self) -> str:
        what = self.kind
        if self.pa is not None:
            what += f" to {self.pa:#x} at level {self.level}, {self.rights_text}"
        return f"Range({self.first:#x}-{self.last:#x} {what})"


@dataclass(frozen=True, eq=False, repr=False)
class Ranges(Sequence[Range]):
    """Ranges, lowest first: a column for each field of `Range`, which is made when asked for.

    `kind` is a code (`bulk.KINDS` has the names); `pa` is 0 unless mapped. `complete` tells whether
    none was left unexplored.
    """

    first: U64s
    last: U64s
    kind: U8s
    level: U8s
    rights: U64s
    pa: U64s
    complete: bool

    def __len__(self) -> int:
        return len(self.first)

    @overload
    def __getitem__(self, at: int) -> Range: ...
    @overload
    def __getitem__(self, at: slice) -> "Ranges": ...
    def __getitem__(self, at: int | slice) -> "Range | Ranges":
        if isinstance(at, slice):
            return self.only(at)
        first, last, kind, level, rights, pa = (column[at].item() for column in self._columns())
        return Range(first, last, KINDS[kind], level, rights, pa if kind == MAPPED else None)

    def __iter__(self) -> Iterator[Range]:
        for begin in range(0, len(self), 4096):
            part = [column[begin : begin + 4096].tolist() for column in self._columns()]
            for first, last, kind, level, rights, pa in zip(*part, strict=True):
                yield Range(first, last, KINDS[kind], level, rights, pa if kind == MAPPED else None)

    def __repr__(self) -> str:
        return f"<{len(self)} ranges{'' if self.complete else ', not complete'}>"

    def _repr_html_(self) -> str:
        from emu import markup

        caption = repr(self).strip("<>")
        return markup.table(caption, COLUMNS, markup.excerpt(self, Range.cells))

    def only(self, which: slice | NDArray[np.bool_] | NDArray[np.int64]) -> "Ranges":
        """Return those that NumPy selects by `which`: a slice, a mask or indices."""
        first, last, kind, level, rights, pa = (column[which] for column in self._columns())
        return Ranges(first, last, kind, level, rights, pa, self.complete)

    def cut(self, first: U64s | np.uint64, last: U64s | np.uint64) -> "Ranges":
        """Return each range cut to [first, last], which must overlap it."""
        begin = np.maximum(self.first, first)
        pa = self.pa + (begin - self.first) * (self.kind == MAPPED)
        return replace(self, first=begin, last=np.minimum(self.last, last), pa=pa)

    def within(self, first: int, last: int) -> "Ranges":
        """Return what lies in [first, last], cut to it."""
        part = self.only((self.last >= first) & (self.first <= last))
        return part.cut(np.uint64(first), np.uint64(last))

    def find(self, va: U64s | np.uint64) -> NDArray[np.int64]:
        """Return the index of the range that each address lies in, -1 where none has it."""
        at = np.searchsorted(self.first, va, side="right") - 1
        return np.where((at >= 0) & (va <= self.last[at]) if len(self) else False, at, -1)

    def holding(self, va: int) -> Range | None:
        """Return the range that `va` lies in, if there is one."""
        at = int(self.find(np.uint64(va))) if 0 <= va <= U64 else -1
        return self[at] if at >= 0 else None

    def shapes(self) -> NDArray[np.int64]:
        """Return the index of each range that does not carry on the one before it, wherever in RAM.

        From one to the next, addresses follow each other, of one kind, level and rights.
        """
        begins = np.ones(len(self), np.bool_)
        begins[1:] = self.first[1:] != self.last[:-1] + 1
        for column in (self.kind, self.level, self.rights):
            begins[1:] |= column[1:] != column[:-1]
        return np.flatnonzero(begins)

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return self.first, self.last, self.kind, self.level, self.rights, self.pa
