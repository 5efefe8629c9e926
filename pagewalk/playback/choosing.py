"""Which run is to be looked at: a scenario, a trace file, or a source of one's own.

Knows what the commands share that look at a run, and tells these three by their names. Refuses to
know how each is played back (`of_scenario`, `of_trace`, `of_source`).
"""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final, Literal

from kernel_model.words import did_you_mean
from pagewalk.arguments import bad, number
from pagewalk.playback.chosen_events import MOST
from pagewalk.playing import add_scenario_options, scenario_arguments
from pagewalk.traces.files import FORMATS, format_of

if TYPE_CHECKING:
    from pagewalk.playback.moments import Playback

WHICH: Final = "SCENARIO|TRACE|FILE.S"
_MOST_EVENTS: Final = 1 << 32
_BAR_FROM: Final = 1 << 18  # bytes: what takes less than a few seconds needs no progress bar


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what chooses a run, and how much of it is kept."""
    parser.add_argument(
        "name",
        metavar=WHICH,
        help="a name from `pagewalk list`, a trace file, or an assembly source",
    )
    parser.add_argument(
        "--events", metavar="N|all", default=str(MOST), help=f"how many events (default: {MOST})"
    )
    add_scenario_options(parser)


def playback_of(args: argparse.Namespace, *, registers: bool = False) -> "Playback":
    """Return the playback that is asked for; of a trace, up to where it was cut off.

    A source always has registers, and a trace if they were recorded.
    """
    keep = (
        None
        if args.events == "all"
        else number("--events", args.events, least=1, most=_MOST_EVENTS)
    )
    if _sort(args.name) == "scenario":
        from pagewalk.playback.of_scenario import play_back

        playback, run = play_back(
            args.name, scenario_arguments(args), keep=keep, registers=registers
        )
        run.kernel.close()
        return playback
    _refuse_scenario_options(args)
    if _sort(args.name) == "source":
        from pagewalk.playback.of_source import run_back

        return run_back(args.name, keep=keep)
    return _trace(args.name, keep)


def _sort(name: str) -> Literal["scenario", "trace", "source"]:
    """Tell which of the three a name is, or refuse it."""
    from kernel_model.scenarios import SCENARIOS

    if format_of(name) is not None:
        return "trace"
    if name.endswith((".S", ".s")):
        return "source"
    if name not in SCENARIOS and (os.sep in name or os.path.exists(name)):
        readable = " or ".join(ending for ending, one in FORMATS.items() if one.reads)
        bad("TRACE", repr(name), f"a trace to read: {readable}")
    if name not in SCENARIOS:
        near = did_you_mean(name, SCENARIOS)
        bad(WHICH, repr(name), f"a trace, a source, or one of {', '.join(SCENARIOS)}{near}")
    return "scenario"


def _refuse_scenario_options(args: argparse.Namespace) -> None:
    """Refuse what would choose a scenario's variant."""
    levels = None if args.levels == "4" else args.levels
    options = {"--release": args.release, "--build": args.build, "--levels": levels}
    for option, value in {**options, "--set": next(iter(args.set), None)}.items():
        if value is not None:
            bad(option, repr(value), f"a scenario that it is for; {args.name} is none")


def _trace(path: str, keep: int | None) -> "Playback":
    from pagewalk.playback.of_trace import read_back
    from pagewalk.terminal import progress
    from pagewalk.traces.reading import read_trace

    trace = read_trace(path)
    with progress("reading events", os.path.getsize(path), _BAR_FROM) as advance:
        playback = read_back(trace, keep=keep, progress=advance)
    if trace.cut_off:
        print(
            f"pagewalk: {path} was cut off: it was read up to there, "
            f"{trace.nr_events} events ({trace.nr_instructions} instructions)",
            file=sys.stderr,
        )
    return playback
