"""`pagewalk tui SCENARIO|TRACE|FILE.S`: step through a run in a terminal, forwards and backwards.

Knows where one begins, and what is needed to show anything. Refuses to know which run is meant and
how it is played back (`playback.choosing`), what is on the screen and what keys do (`tui`).
"""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from pagewalk.arguments import BadInput, bad
from pagewalk.playback.choosing import add_run_arguments, playback_of

if TYPE_CHECKING:
    from pagewalk.playback.moments import Playback

_EPILOG: Final = """\
TRACE is what `pagewalk run` or `pagewalk trace` has written with -o, .jsonl.zst or .parquet; with
--registers, these are in it. FILE.S is run by its own header lines, as with `pagewalk trace`.

--at: an event's number, begin, end, fault, or an address or symbol: where it is executed first.
--events: of a long run the last events are kept, and before them, for up to half of the room, those
  that change a table, fault or switch CR3. All of a million take some 700 MB.

? lists the keys.

exit status: 0 it could be shown, 2 bad input, 130 interrupted
example: pagewalk tui vmemmap-devdax --release 6.16"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run_arguments(parser)
    parser.add_argument("--at", metavar="WHERE", help="where to begin (default: the last fault)")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Show the run until somebody quits; 0 whatever happened in it."""
    try:
        from pagewalk.tui.app import Stepper
    except ImportError:
        raise BadInput("pagewalk tui needs textual: pip install 'pagewalk[tui]'") from None
    if not is_interactive():
        raise BadInput(
            "standard input, output or error is no terminal: expected one; pagewalk run --trace "
            "and pagewalk show print instead"
        )
    if os.environ.get("TERM") == "dumb":
        raise BadInput("TERM is dumb: expected a terminal that can be drawn on")
    playback = playback_of(args, registers=True)
    Stepper(playback, _start(playback, args.at)).run()
    return 0


def is_interactive() -> bool:
    """Tell whether somebody presses keys and sees what happens: textual draws on stderr."""
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def _start(playback: "Playback", text: str | None) -> int:
    from pagewalk.tui.going import first, first_look, place

    if text is None:
        return first_look(playback)
    at = first(place(playback, 0, text, "--at"))
    if at is None:
        bad("--at", repr(text), "an address that is executed among the events that are kept")
    return at
