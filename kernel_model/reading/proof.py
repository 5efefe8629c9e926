"""Whether a candidate dies as an oops says: it is run, and compared with the text.

Knows which releases to try, and what makes two deaths the same. Refuses to know how a candidate
was found (`match`). Linux vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from kernel_model.oops_style import OopsStyle
from kernel_model.reading.explain import Depth
from kernel_model.reading.judge import Verdict
from kernel_model.reading.match import RECOGNISERS, Candidate
from kernel_model.reading.text import OopsText
from kernel_model.releases import RELEASES, Release
from kernel_model.scenarios import SCENARIOS, run_scenario
from kernel_model.words import show_hex

if TYPE_CHECKING:
    from kernel_model.scenarios.outcome import ScenarioRun

MOST_RUNS: Final = 24


@dataclass(frozen=True, slots=True)
class Match:
    """A candidate that was run, and what came of it.

    `address`, `error_code` and `symbol` tell whether the run and the text agree; None where the
    text does not have it. `differences` says how they do not; `lines` are the text's lines that
    the run's oops has, too.
    """

    candidate: Candidate
    release: str
    address: bool | None
    error_code: bool | None
    symbol: bool | None
    differences: tuple[str, ...]
    lines: tuple[str, ...]
    ran: "Ran"

    @property
    def exactly(self) -> bool:
        """Whether all that such a death has is there, and the same.

        That is address, error code and symbol+offset; of an exception other than a page fault,
        symbol+offset.
        """
        if self.ran.address is None and self.address is None:
            return bool(self.symbol)
        return bool(self.address and self.error_code and self.symbol)

    @property
    def reproduces(self) -> bool:
        """Whether it is worth a test: the same death, if not at the same instruction."""
        return self.exactly or bool(self.address and self.error_code)


@dataclass(frozen=True, slots=True)
class Ran:
    """How the run died."""

    outcome: str
    address: int | None
    error_code: int | None
    symbol: str | None


def find_match(oops: OopsText, verdict: Verdict, depth: Depth) -> Match | None:
    """Return the first candidate that reproduces the oops exactly, or else the nearest one.

    None if none dies at the same address or instruction. Each candidate takes milliseconds.
    """
    nearest: Match | None = None
    for candidate, release in islice(_offers(oops, verdict, depth), MOST_RUNS):
        match = _try(candidate, release, oops)
        if match is None or not (match.address or match.symbol):
            continue
        if match.exactly:
            return match
        if nearest is None or _nearness(match) > _nearness(nearest):
            nearest = match
    return nearest


def history(match: Match) -> dict[str, str]:
    """Return the commits that broke and fixed it, as the scenario has them."""
    scenario = SCENARIOS[match.candidate.scenario]
    died_in = (match.ran.symbol or "").split("+")[0]
    fixed = scenario.fixed
    found = {
        "broke": scenario.broke.get(died_in, scenario.broke.get("")),
        "fixed": fixed if isinstance(fixed, str) else fixed.get(died_in, fixed.get("")),
    }
    return {word: commit for word, commit in found.items() if commit is not None}


def _offers(oops: OopsText, verdict: Verdict, depth: Depth) -> Iterator[tuple[Candidate, str]]:
    for recognise in RECOGNISERS:
        for levels in (4, 5) if depth.levels is None else (depth.levels,):
            for candidate in recognise(oops, verdict, levels):
                if candidate.scenario in SCENARIOS:
                    for release in _releases(oops, candidate):
                        yield candidate, release


def _try(candidate: Candidate, release: str, oops: OopsText) -> Match | None:
    """Run a candidate; None if the release cannot, or if nothing dies."""
    try:
        run = run_scenario(
            candidate.scenario,
            release=release,
            levels=candidate.levels,
            settings=candidate.settings,
        )
    except ValueError:
        return None
    with run.kernel:
        return _compare(candidate, release, oops, run)


def _compare(
    candidate: Candidate, release: str, oops: OopsText, run: "ScenarioRun"
) -> Match | None:
    text = run.oops
    if text is None:
        return None
    stop = run.ending.stop
    ran = Ran(
        run.outcome,
        getattr(stop, "address", None),
        getattr(stop, "error_code", None),
        getattr(stop, "symbol", None),
    )
    where = f"{oops.rip.symbol}+{oops.rip.offset:#x}" if oops.rip else None
    differences = [
        f"{name}: {theirs} in the text, {ours} in the run"
        for name, theirs, ours in (
            ("address", show_hex(oops.address), show_hex(ran.address)),
            ("error code", show_hex(oops.error_code), show_hex(ran.error_code)),
            ("RIP", str(oops.rip) if oops.rip else None, ran.symbol),
        )
        if theirs is not None and theirs != ours
    ]
    return Match(
        candidate=candidate,
        release=release,
        address=None if oops.address is None else oops.address == ran.address,
        error_code=None if oops.error_code is None else oops.error_code == ran.error_code,
        symbol=None if where is None else (ran.symbol or "").split("/")[0] == where,
        differences=tuple(differences),
        lines=tuple(line for line in oops.lines if line in text),
        ran=ran,
    )


def _nearness(match: Match) -> tuple[bool, bool, bool, int]:
    address, code, symbol = match.address, match.error_code, match.symbol
    return bool(address), bool(code), bool(symbol), len(match.lines)


def _releases(oops: OopsText, candidate: Candidate) -> list[str]:
    """Return the releases to try, those first that word an oops as the text does."""
    scenario = SCENARIOS[candidate.scenario]

    def unlike(release: Release) -> tuple[bool, bool, int, bool]:
        return (
            oops.uname != release.uname,
            version != release.name,
            _wording_apart(oops, release.oops),
            release.name != scenario.release,
        )

    version = ".".join((oops.uname or "").split(".")[:2]).split("-")[0]
    can = [
        release
        for release in RELEASES.values()
        if (
            release.name in candidate.releases if candidate.releases else release.sync == "explicit"
        )
        and not scenario.why_not(release, candidate.levels)
    ]
    return [release.name for release in sorted(can, key=unlike)]


def _wording_apart(oops: OopsText, style: OopsStyle) -> int:
    """Count what a release would have printed otherwise."""
    apart = 0
    if oops.wording is not None:
        apart += 2 * ((oops.wording == "4.4") != style.text_addresses)
        apart += 2 * ((oops.wording in ("4.4", "4.15")) == style.explains_error_code)
    if oops.header is not None:
        twice = oops.header.startswith("Oops: Oops:")
        apart += 2 * (twice != (style.die_prefix == "Oops: "))
        apart += ("PREEMPT" in oops.flags) > style.preempt_in_header
        apart += twice and style.preempt_in_header and "PREEMPT" not in oops.flags
    if oops.cpu is not None:
        apart += (oops.uid is not None) != style.uid_in_cpu_line
    return apart
