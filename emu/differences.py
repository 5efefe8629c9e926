"""Where two address spaces differ: only one of them maps it, or they map it otherwise.

Knows ranges alone. Refuses to know which tables they were read from, and which entry is to blame:
`walk` both for that. SDM vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from emu.bulk import MAPPED, UNEXPLORED, U8s
from emu.columns import COLUMNS, Range, Ranges
from emu.paging import U64, VirtAddr

WHATS: Final = ("same", "pa", "rights", "pa-and-rights", "only-a", "only-b", "gap", "unexplored")
"""How two ranges differ, by code. Two gaps differ if an access faults for another reason, such as a
reserved bit; what was left unexplored on one side, or both, may or may not differ."""
_SAME, _PA, _RIGHTS, _BOTH, _ONLY_A, _ONLY_B, _GAP, _UNEXPLORED = range(len(WHATS))


class Difference(NamedTuple):
    """A run of addresses that are settled otherwise in `a` than in `b`; `last` is its last byte."""

    first: VirtAddr
    last: VirtAddr
    what: str
    a: Range
    b: Range

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1

    def cells(self) -> tuple[str, ...]:
        """What a row of a table says of it: where, what differs, and how it is on either side."""
        first, last, *a = self.a.cells()
        return first, last, self.what, *a, *self.b.cells()[2:]


@dataclass(frozen=True, eq=False, repr=False)
class Differences(Sequence[Difference]):
    """Differences, lowest first: the same addresses in both; `what` is a code of `WHATS`."""

    what: U8s
    a: Ranges
    b: Ranges

    @property
    def complete(self) -> bool:
        """Whether nothing was left unexplored on either side."""
        return self.a.complete and self.b.complete

    def shapes(self) -> NDArray[np.int64]:
        """Return the index of each that does not carry on the one before it, wherever in RAM."""
        other = np.flatnonzero(self.what[1:] != self.what[:-1]) + 1
        return np.unique(np.concatenate((self.a.shapes(), self.b.shapes(), other)))

    def __len__(self) -> int:
        return len(self.what)

    @overload
    def __getitem__(self, at: int) -> Difference: ...
    @overload
    def __getitem__(self, at: slice) -> "Differences": ...
    def __getitem__(self, at: int | slice) -> "Difference | Differences":
        if isinstance(at, slice):
            return Differences(self.what[at], self.a[at], self.b[at])
        a, b = self.a[at], self.b[at]
        return Difference(a.first, a.last, WHATS[self.what[at]], a, b)

    def __iter__(self) -> Iterator[Difference]:
        for what, a, b in zip(self.what, self.a, self.b, strict=True):
            yield Difference(a.first, a.last, WHATS[what], a, b)

    def _repr_html_(self) -> str:
        from emu import markup

        sides = [f"{name} in {side}" for side in "ab" for name in COLUMNS[2:]]
        caption = repr(self).strip("<>")
        columns = (*COLUMNS[:2], "what", *sides)
        return markup.table(caption, columns, markup.excerpt(self, Difference.cells))

    def __repr__(self) -> str:
        return f"<{len(self)} differences{'' if self.complete else ', not complete'}>"


def differences(a: Ranges, b: Ranges) -> Differences:
    """Return where the same address is settled otherwise, each with what it is in `a` and in `b`.

    That is: mapped in one alone, mapped to another physical address or with other rights (the size
    of the page does not matter), or a gap of another kind. Each piece is one range on either side.
    Raises ValueError if the two do not cover the same addresses, as at 4 and at 5 levels.
    """
    first = np.unique(np.concatenate((a.first, b.first, a.last + 1, b.last + 1)))
    in_a, in_b = a.find(first), b.find(first)
    if ((in_a < 0) != (in_b < 0)).any():
        raise ValueError(f"{a!r} and {b!r} do not cover the same addresses")
    last = np.append(first[1:] - 1, np.uint64(U64))[: len(first)]
    covered = in_a >= 0
    a = a.only(in_a[covered]).cut(first[covered], last[covered])
    b = b.only(in_b[covered]).cut(first[covered], last[covered])

    mapped_a, mapped_b = a.kind == MAPPED, b.kind == MAPPED
    what = np.where(a.kind != b.kind, np.uint8(_GAP), np.uint8(_SAME))
    what[mapped_a & ~mapped_b] = _ONLY_A
    what[mapped_b & ~mapped_a] = _ONLY_B
    what[(a.kind == UNEXPLORED) | (b.kind == UNEXPLORED)] = _UNEXPLORED
    in_both = mapped_a & mapped_b
    what[in_both] = _PA * (a.pa != b.pa)[in_both] + _RIGHTS * (a.rights != b.rights)[in_both]

    differ = what != _SAME
    return Differences(what[differ], a.only(differ), b.only(differ))
