"""`pagewalk tui SCENARIO|FILE`: step through a run in a terminal, forwards and backwards.

Knows which run is meant, and how much of it is kept. Refuses to know how a run is recorded
(`playback`), what is on the screen and what the keys do (`pagewalk.tui`).
"""

import argparse
import sys
from typing import TYPE_CHECKING, Final

from pagewalk.arguments import BadInput, bad, number
from pagewalk.playing import add_scenario_options, scenario_arguments

if TYPE_CHECKING:
    from pagewalk.playback import Playback

_MOST: Final = 1 << 32
_EPILOG: Final = """\
SCENARIO is a name from `pagewalk list`; FILE is a trace, .jsonl.zst or .parquet, that `pagewalk
run` or `pagewalk trace` has written with -o (with --registers, these are in it). ? lists the keys.

--at: an event's number, begin, end, fault, or an address or symbol: where it is first executed.
--events: all of a long run can be kept, too; a million events take some 400 MB.

exit status: 0 it could be shown, 2 bad input, 130 interrupted
example: pagewalk tui vmemmap-devdax --release 6.16"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", metavar="SCENARIO|FILE", help="a scenario, or a trace file")
    add_scenario_options(parser)
    parser.add_argument("--at", metavar="WHERE", help="where to begin (default: the last fault)")
    parser.add_argument(
        "--events", metavar="N|all", help="keep the last N events (default: 100000), or all"
    )
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Show the run until somebody quits; 0 whatever happened in it."""
    keep = _events_to_keep(args.events)
    try:
        from pagewalk.tui.app import Stepper
    except ImportError:
        raise BadInput("pagewalk tui needs textual: pip install 'pagewalk[tui]'") from None
    if not is_interactive():
        raise BadInput(
            "standard input, output or error is no terminal: expected one; pagewalk run --trace "
            "and pagewalk show print instead"
        )
    playback = opened(args, keep)
    Stepper(playback, _start(playback, args.at)).run()
    return 0


def is_interactive() -> bool:
    """Tell whether somebody presses keys and sees what happens: textual draws on stderr."""
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def opened(args: argparse.Namespace, keep: int | None) -> "Playback":
    """Play the scenario, or read the file."""
    from pagewalk.traces.files import format_of

    if format_of(args.run) is None:
        from pagewalk.playback_scenario import play_back

        playback, finished = play_back(
            args.run, scenario_arguments(args), keep=keep, registers=True
        )
        finished.kernel.close()
        return playback
    for option, value in (
        ("--release", args.release),
        ("--build", args.build),
        ("--set", args.set),
    ):
        if value:
            bad(option, repr(value), f"a scenario to choose it for; {args.run} has been recorded")
    from pagewalk.playback_trace import read_back
    from pagewalk.traces.reading import read_trace

    return read_back(read_trace(args.run), keep=keep)


def _start(playback: "Playback", text: str | None) -> int:
    from pagewalk.tui.going import first_look, place

    if text is None:
        return first_look(playback)
    at = place(playback, 0, text, "--at")
    if at is None:
        bad("--at", repr(text), "an address that is executed among the events that are kept")
    return at


def _events_to_keep(text: str | None) -> int | None:
    from pagewalk.playback_scenario import MOST_EVENTS

    if text is None:
        return MOST_EVENTS
    return None if text == "all" else number("--events", text, least=1, most=_MOST)
