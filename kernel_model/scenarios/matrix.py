"""Every story on every release: what becomes of it, in a word.

Knows how a run is put in a word, and which runs there are. Refuses to know how they are shown, and
on which cores they are made.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kernel_model.releases import RELEASES, find_release
from kernel_model.scenarios import find_scenario, run_scenario
from kernel_model.words import show_hex

if TYPE_CHECKING:
    from kernel_model.scenarios.outcome import ScenarioRun

Word = Literal[
    "completed", "fixed up", "fault", "BUG", "double fault", "n/a", "error", "limit", "outside RAM"
]


@dataclass(frozen=True, slots=True)
class Cell:
    """What became of a scenario, with its defaults, on a release at 4 or 5 levels.

    `detail` is where it died ("symbol+offset/size"), or why it cannot be told of that release.
    """

    scenario: str
    release: str
    levels: int
    word: Word
    detail: str | None = None
    address: int | None = None
    handled_faults: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as the JSON has it."""
        return {
            "scenario": self.scenario,
            "release": self.release,
            "levels": self.levels,
            "cell": self.word,
            "detail": self.detail,
            "address": show_hex(self.address),
            "handled_faults": self.handled_faults,
        }


def cells(
    scenarios: Iterable[str], releases: Iterable[str] = RELEASES, levels: Iterable[int] = (4, 5)
) -> Iterator[tuple[str, str, int]]:
    """Yield the runs that there are: scenario by scenario, release by release."""
    for scenario in scenarios:
        for release in releases:
            for depth in levels:
                yield scenario, release, depth


def run_cell(scenario: str, release: str, levels: int) -> Cell:
    """Make one run, and put it in a word."""
    why_not = find_scenario(scenario).why_not(find_release(release), levels)
    if why_not:
        return Cell(scenario, release, levels, "n/a", why_not)
    run = run_scenario(scenario, release=release, levels=levels)
    with run.kernel:
        return _cell(run, scenario, release, levels)


def _cell(run: "ScenarioRun", scenario: str, release: str, levels: int) -> Cell:
    stop, handled = run.ending.stop, run.kernel.handled_faults
    detail = getattr(stop, "symbol", None)
    address = getattr(stop, "address", None)
    return Cell(scenario, release, levels, _word(run), detail, address, handled)


def _word(run: "ScenarioRun") -> Word:
    from emu import Trap
    from emu.fault import DF

    match run.outcome:
        case "completed":
            return "fixed up" if run.kernel.handled_faults else "completed"
        case "oops":
            stop = run.ending.stop
            is_double = isinstance(stop, Trap) and stop.vector == DF
            return "double fault" if is_double else "fault"
        case "shutdown":
            return "double fault"
        case "bug":
            return "BUG"
        case "outside-ram":
            return "outside RAM"
        case "limit" | "halted":
            return "limit"
        case "error":
            return "error"
