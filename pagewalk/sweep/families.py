"""The cases: families of them, each a product of choices, so that a number is a case.

Numbers are read in mixed radix, the last choice first, hence any slice of a family can be made
alone, on any machine. Control registers are among the first choices, which change least often:
loading them costs more than an access. Refuses to know what becomes of a case.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import combinations, product
from math import prod
from typing import Final, NamedTuple

from pagewalk.sweep.conditions import KINDS, PAGE_BITS, PATH, Conditions, open_entries

Choices = tuple[Conditions, ...]
"""What one digit of a case's number chooses from."""


class Family(NamedTuple):
    """Cases of one depth."""

    name: str
    what: str
    levels: int
    digits: tuple[Choices, ...]

    @property
    def size(self) -> int:
        """How many cases there are."""
        return prod(map(len, self.digits))

    def case(self, number: int) -> Conditions:
        """Return one case, all its conditions spelled out."""
        parts = []
        for choices in reversed(self.digits):
            number, chosen = divmod(number, len(choices))
            parts.append(choices[chosen])
        return frozenset().union(*parts)

    def cases(self, numbers: Iterable[int]) -> Iterator[Conditions]:
        """Return the cases with these numbers; neighbours share most of the work."""
        last = self.digits[-1]
        above = self._replace(digits=self.digits[:-1])
        known, shared = -1, frozenset[str]()
        for number in numbers:
            high, low = divmod(number, len(last))
            if high != known:
                known, shared = high, above.case(high)
            yield shared | last[low]


@cache
def families(levels: int) -> dict[str, Family]:
    """Return every family of one depth, by name."""
    tables = PATH[levels]
    made = (
        ("access", "what kvm-unit-tests' access.c covers", _access(tables)),
        ("gigabyte", "every bit of a 1 GiB leaf", _gigabyte(tables)),
        ("upper", "every bit of PML4E and PML5E", _upper(tables)),
        ("reserved", "each reserved bit of each entry by itself", _reserved(tables)),
        ("smap", "SMAP and AC beside SMEP, WP and NXE, on pages of each size", _smap(tables)),
        ("keys", "protection keys beside all of these", _keys(tables)),
        ("non-canonical", "addresses that are not canonical", _non_canonical(tables)),
    )
    return {name: Family(name, what, levels, digits) for name, what, digits in made}


# -- choices


def _bits(names: str) -> Choices:
    """Return every subset of the names."""
    listed = names.split()
    return tuple(
        frozenset(chosen) for n in range(len(listed) + 1) for chosen in combinations(listed, n)
    )


def _one(*names: str) -> Choices:
    """Return a choice of these: each may stand for several conditions, "" for none."""
    return tuple(frozenset(name.split()) for name in names)


def _pairs(first: Choices, second: Choices) -> Choices:
    return tuple(one | other for one, other in product(first, second))


def _of(entry: str, words: str) -> str:
    return " ".join(f"{entry}.{word}" for word in words.split())


def _open(*entries: str) -> str:
    return " ".join(open_entries(*entries))


_KIND: Final = _one("", *KINDS[1:])
_CPL: Final = _one("", "user")


# -- families


def _access(tables: tuple[str, ...]) -> tuple[Choices, ...]:
    """At most one reserved bit at a time; the PTE is there even where the PDE maps a page."""
    reserved = _bits("pde.nx pte.nx pde.51 pte.51 pde.13")
    return (
        tuple(
            bits | controls
            for controls in _bits("efer.nx pde.pse")
            for bits in reserved
            if _is_of_access(bits | controls)
        ),
        _bits("cr0.wp"),
        _CPL,
        _one("", "write", "fetch"),
        _bits("twice"),
        _pairs(
            (open_entries(*tables[:-3]),), _one(_of("pdpte", "p rw user"), _of("pdpte", "p user"))
        ),
        _bits(_of("pde", "p rw user a d")),
        _bits(_of("pte", "p rw user a d")),
    )


def _is_of_access(conditions: Conditions) -> bool:
    """Tell whether access.c has the combination of bits that are, or may be, reserved."""
    if "pde.13" in conditions and "pde.pse" not in conditions:
        return False
    reserved = {"pde.51", "pte.51", "pde.13"}
    if "efer.nx" not in conditions:
        reserved |= {"pde.nx", "pte.nx"}
    return len(conditions & reserved) <= 1


def _gigabyte(tables: tuple[str, ...]) -> tuple[Choices, ...]:
    above = tables[:-3]
    return (
        _bits("efer.nx cr0.wp cr4.smep"),
        _CPL,
        _KIND,
        _but_one(above, ("p user", "p rw", "p rw user nx", "p rw user a")),
        _one("pdpte.pse", *(_of("pdpte", f"pse {bit}") for bit in (13, 29, 51))),
        _bits(_of("pdpte", "p rw user a d nx")),
    )


def _upper(tables: tuple[str, ...]) -> tuple[Choices, ...]:
    above, below = tables[:-3], tables[-3:]
    words = _one("", "pse", "51")
    everything = [
        tuple(
            frozenset(_of(entry, " ".join(bits | odd)).split())
            for odd, bits in product(words, _bits("p rw user a nx"))
        )
        for entry in above
    ]
    return (
        _bits("efer.nx cr0.wp"),
        _CPL,
        _KIND,
        (open_entries(*below),),
        *everything,
    )


def _reserved(tables: tuple[str, ...]) -> tuple[Choices, ...]:
    """The bit in an entry that is otherwise open, or absent, on the way to each size of page."""
    cases = []
    for leaf in (3, 2, 1):
        path = tables[: len(tables) + 1 - leaf]
        page = frozenset() if leaf == 1 else frozenset({f"{path[-1]}.pse"})
        for entry in path:
            bits = [*range(40, 52), *(["nx"] if entry != path[-1] or leaf == 1 else [])]
            if entry not in PAGE_BITS and entry != "pte":
                bits.append("pse")
            if entry == path[-1]:
                bits += range(13, PAGE_BITS.get(entry, 0))
            others = open_entries(*(other for other in path if other != entry)) | page
            for bit, present in product(bits, ("", "p")):
                own = _of(entry, f"{present} rw user {bit}").split()
                cases.append(others | frozenset(own))
    return (_bits("efer.nx"), _CPL, _KIND, tuple(cases))


def _smap(tables: tuple[str, ...]) -> tuple[Choices, ...]:
    odd = ("rw user", "p user", "p rw", "p rw user nx", "p rw user 51")
    return (
        _bits("efer.nx cr0.wp cr4.smep cr4.smap"),
        _bits("ac"),
        _CPL,
        _KIND,
        _pages(tables, odd, "p rw user nx 51"),
    )


def _keys(tables: tuple[str, ...]) -> tuple[Choices, ...]:
    return (
        _bits("efer.nx cr0.wp cr4.smep cr4.smap"),
        _one(
            "pkey=13 pkru.ad pkru.wd",
            "cr4.pke pkru.ad pkru.wd",
            *(
                "cr4.pke pkey=13" + pkru
                for pkru in ("", " pkru.ad", " pkru.wd", " pkru.ad pkru.wd")
            ),
        ),
        _bits("ac"),
        _CPL,
        _KIND,
        _pages(tables, ("p user", "p rw"), "p rw user nx 51"),
    )


def _non_canonical(tables: tuple[str, ...]) -> tuple[Choices, ...]:
    return (
        _bits("efer.nx cr4.smep cr4.smap"),
        _CPL,
        _KIND,
        _one(_open(*tables), "", _of(tables[0], "p 51")),
        (frozenset({"non-canonical"}),),
    )


def _pages(tables: tuple[str, ...], odd: tuple[str, ...], leaf_words: str) -> Choices:
    """Every leaf of every size, below entries of which at most one is odd.

    One at a time will do: rights combine by and and or.
    """
    return tuple(
        above | frozenset(_of(path[-1], " ".join(leaf | page)).split())
        for path, page in (
            (tables[:-2], frozenset({"pse"})),
            (tables[:-1], frozenset({"pse"})),
            (tables, frozenset[str]()),
        )
        for above in _but_one(path[:-1], odd)
        for leaf in _bits(leaf_words)
    )


def _but_one(entries: tuple[str, ...], odd: tuple[str, ...]) -> Choices:
    """Return entries that are all open, and those of which one has other words."""
    return (
        open_entries(*entries),
        *(
            open_entries(*(other for other in entries if other != entry))
            | frozenset(_of(entry, words).split())
            for entry in entries
            for words in odd
        ),
    )
