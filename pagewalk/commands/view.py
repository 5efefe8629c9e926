"""`pagewalk view SCENARIO|TRACE|FILE.S`: a run as one web page, to look at instead of reading.

Knows where the page goes. Refuses to know which run is meant and how it is played back
(`playback.choosing`), and what is in the page (`view`).
"""

import argparse
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kernel_model.scenarios.spec import SCHEMA
from pagewalk.arguments import BadInput, bad, reason
from pagewalk.playback.choosing import add_run_arguments, playback_of
from pagewalk.traces.files import FORMATS

if TYPE_CHECKING:
    from pagewalk.playback.moments import Playback

_ENDING: Final = ".html"
_BAR_FROM: Final = 1 << 18  # events: what takes less than a few seconds needs no progress bar
_EPILOG: Final = """\
The page needs no network and no server: open it, send it, project it. It has the tables of all
tasks as trees, the walk of any address entry by entry, a scrubber over the events, and the
top-level entries of every task side by side. ? in it lists its keys.

Of a long run the last events are in it (--events), and before them, for up to half of the room,
those that change a table, fault or switch CR3. The tables are right at every one of them. Of a
trace they are known as far as it tells.

example: pagewalk view vmemmap-devdax -o devdax.html"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run_arguments(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the page (default: the name, with .html behind it)"
    )
    parser.add_argument(
        "--registers",
        action="store_true",
        help="also record the general registers, where it is a scenario",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Write the page; 0 if it could be written, however the run ended."""
    output = args.output if args.output is not None else _default_output(args.name)
    _check_output(output)
    playback = playback_of(args, registers=args.registers)

    from pagewalk.terminal import progress
    from pagewalk.view.page import page

    with progress("drawing the page", playback.nr_events, _BAR_FROM) as advance:
        data = page(playback, advance)
    _write(output, data)
    if args.json:
        print(json.dumps(_document(args.name, playback, output, len(data)), indent=2))
        return 0
    print(f"{output}: {playback.nr_events} events, {len(data)} bytes")
    return 0


def _default_output(what: str) -> str:
    """Return NAME.html, here."""
    name = os.path.basename(what)
    ending = next((ending for ending in (*FORMATS, ".S", ".s") if name.endswith(ending)), "")
    return name.removesuffix(ending) + _ENDING


def _check_output(path: str) -> None:
    """Refuse what cannot be written, before anything runs."""
    if not path.endswith(_ENDING):
        bad("-o", repr(path), f"a name that ends in {_ENDING}")
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        bad("-o", repr(path), "a file that can be written: No such file or directory")
    if os.path.isdir(path):
        bad("-o", repr(path), "a file that can be written: Is a directory")


def _write(path: str, data: bytes) -> None:
    """Write the page; a part of it is of no use, and is taken back."""
    from pagewalk.traces.output import Output

    try:
        output = Output(path)
    except (OSError, ValueError) as error:
        bad("-o", repr(path), f"a file that can be written: {reason(error)}")
    try:
        output.write(data)
        output.close()
    except OSError as error:
        output.cut(0)
        with suppress(OSError):
            output.close()
        raise BadInput(f"-o {path!r}: {reason(error)}; nothing is in it") from None


def _document(what: str, playback: "Playback", output: str, size: int) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "of": what,
        "file": output,
        "bytes": size,
        "events": playback.nr_events,
        "events_left_out": playback.nr_left_out,
        "instructions": playback.nr_instructions,
        "tables": len(playback.values.frames),
        "changes": len(playback.values.changes),
    }
