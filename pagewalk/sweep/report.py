"""What a sweep found, as text and as JSON: cases, deviations by class, and what it cannot show.

Knows which deviations of the engine have names; one that has none is an error of somebody. Refuses
to know how the cases were judged.
"""

from collections.abc import Iterable, Iterator
from textwrap import fill
from typing import Any, Final

from emu.deviations import DEVIATIONS, UNCORRECTED
from kernel_model.scenarios.spec import SCHEMA
from pagewalk.sweep.conditions import written
from pagewalk.sweep.families import families
from pagewalk.sweep.tally import Found, Tally, Unit

KNOWN: Final = DEVIATIONS | UNCORRECTED
"""What the engine is known to do otherwise than the architecture, by name."""

_WIDTH: Final = 100


class Report:
    """The cases that were judged, and the deviations by class."""

    def __init__(self, units: Iterable[Unit], tally: Tally) -> None:
        self.tally: Final = tally
        self.cases: Final[dict[str, dict[int, int]]] = {}  # by family and depth
        for family, levels, numbers in units:
            depths = self.cases.setdefault(family, {})
            depths[levels] = depths.get(levels, 0) + len(numbers)

    @property
    def explained(self) -> bool:
        """Whether every deviation is one that has a name."""
        return all(name in KNOWN for name in self.tally)

    @property
    def nr_cases(self) -> int:
        """How many cases were judged."""
        return sum(sum(depths.values()) for depths in self.cases.values())

    @property
    def nr_deviations(self) -> int:
        """In how many of them the three did not agree."""
        return sum(found.cases for found in self.tally.values())

    @property
    def not_shown(self) -> dict[str, list[str]]:
        """The known deviations that did not occur, by what became of them."""
        return {
            "corrected": [name for name in DEVIATIONS if name not in self.tally],
            "not corrected": [name for name in UNCORRECTED if name not in self.tally],
        }

    def lines(self) -> Iterator[str]:
        """Say it in lines for people."""
        yield from self._table()
        agreed = self.nr_cases - self.nr_deviations
        yield ""
        yield f"CPU, walk and oracle agree in {agreed:,} of {self.nr_cases:,} cases."
        for name, found in self.tally.items():
            yield ""
            yield from _class_lines(name, found)
        yield ""
        yield "Known deviations of the engine that no case here shows (emu/deviations.py):"
        for what, names in self.not_shown.items():
            yield fill(
                f"{what}: {', '.join(names)}",
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="    ",
                break_on_hyphens=False,
            )

    def json(self) -> dict[str, Any]:
        """Say it as a JSON document."""
        return {
            "schema": SCHEMA,
            "explained": self.explained,
            "cases": self.nr_cases,
            "agreed": self.nr_cases - self.nr_deviations,
            "families": [
                {"name": name, "levels": levels, "cases": cases}
                for name, depths in self.cases.items()
                for levels, cases in depths.items()
            ],
            "deviations": [_class_json(name, found) for name, found in self.tally.items()],
            "not_shown": self.not_shown,
        }

    def _table(self) -> Iterator[str]:
        depths = sorted({levels for depths in self.cases.values() for levels in depths})
        yield f"{'family':14}" + "".join(f"{f'{levels} levels':>12}" for levels in depths)
        for name, cases in self.cases.items():
            counts = "".join(f"{cases.get(levels, 0):12,}" for levels in depths)
            what = families(depths[0])[name].what
            yield f"{name:14}{counts}  {what}"


def _class_lines(name: str, found: Found) -> Iterator[str]:
    cpu, walk, oracle, entries = found.difference
    kind = "known deviation" if name in KNOWN else "NOT EXPLAINED"
    yield f"{kind}: {name}, {found.cases:,} cases"
    if name in KNOWN:
        yield fill(KNOWN[name], _WIDTH, initial_indent="  ", subsequent_indent="  ")
    yield f'  for instance --levels {found.levels} --case "{_example(found)}"'
    yield f"  CPU: {cpu}; walk: {walk}; oracle: {oracle}" + (f"; {entries}" if entries else "")


def _class_json(name: str, found: Found) -> dict[str, Any]:
    return {
        "name": name,
        "known": name in KNOWN,
        "text": KNOWN.get(name),
        "count": found.cases,
        "example": {
            "family": found.family,
            "levels": found.levels,
            "case": _example(found),
            **found.difference._asdict(),
        },
    }


def _example(found: Found) -> str:
    family = families(found.levels)[found.family]
    return written(family.case(found.number), found.levels)
