"""Work and what comes of it: units of cases, and the deviations that were found in them.

Plain values, which travel between processes and machines and into a journal. Refuses to know how
a case is judged, and who does the work.
"""

import random
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from pagewalk.sweep.families import Family

UNIT: Final = 4096
"""Cases of a unit: a tenth of a second or so, so that progress moves, and Ctrl-C is heard."""

KEPT: Final = "what is finished is kept, run the same command to go on"
"""What is said when the work ends before its time."""


class Unit(NamedTuple):
    """Cases that are judged in one go: their numbers in a family."""

    family: str
    levels: int
    numbers: range | tuple[int, ...]


class Difference(NamedTuple):
    """What each of the three says, and what became of an entry that may not."""

    cpu: str
    walk: str
    oracle: str
    entries: str


class Found(NamedTuple):
    """The deviations of one class: how many, and the first."""

    cases: int
    family: str
    levels: int
    number: int
    difference: Difference


Tally = dict[str, Found]
"""The deviations that were found, by the name of their class."""


def whole(families: Iterable[Family]) -> list[Unit]:
    """Return units of all cases of the families."""
    return [
        Unit(family.name, family.levels, range(start, min(start + UNIT, family.size)))
        for family in families
        for start in range(0, family.size, UNIT)
    ]


def sample(families: Iterable[Family], size: int, seed: int) -> list[Unit]:
    """Return units of `size` cases that are drawn from all of the families; ValueError if there
    are not so many.
    """
    families = list(families)
    drawn = sorted(random.Random(seed).sample(range(sum(f.size for f in families)), size))
    units = []
    first = 0
    for family in families:
        numbers = [n - first for n in drawn if first <= n < first + family.size]
        first += family.size
        units += [
            Unit(family.name, family.levels, tuple(numbers[start : start + UNIT]))
            for start in range(0, len(numbers), UNIT)
        ]
    return units


def merged(tallies: Iterable[Tally]) -> dict[str, Found]:
    """Return one tally of all, by name, each with the first example, whatever their order."""
    found: dict[str, Found] = {}
    for tally in tallies:
        for name, other in tally.items():
            known = found.get(name, other._replace(cases=0))
            first = min(known, other, key=_place)
            found[name] = first._replace(cases=known.cases + other.cases)
    return dict(sorted(found.items()))


def _place(found: Found) -> tuple[str, int, int]:
    return found.family, found.levels, found.number


def from_json(tally: Mapping[str, Any]) -> dict[str, Found]:
    """Return what `json.dumps` was given."""
    return {
        name: Found(cases, family, levels, number, Difference(*difference))
        for name, (cases, family, levels, number, difference) in tally.items()
    }
