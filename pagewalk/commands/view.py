"""`pagewalk view SCENARIO|TRACE`: a run as one web page, to look at instead of reading.

Knows whether a name is a scenario's or a file's, and where the page goes. Refuses to know how a run
is played back (`playback_scenario`, `playback_trace`) and what is in the page (`view`).
"""

import argparse
import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kernel_model.scenarios.spec import SCHEMA
from kernel_model.words import did_you_mean
from pagewalk.arguments import BadInput, bad, number
from pagewalk.playing import add_scenario_options, scenario_arguments
from pagewalk.traces.files import FORMATS, format_of

if TYPE_CHECKING:
    from pagewalk.playback import Playback

_ENDING: Final = ".html"
_BAR_FROM: Final = 1 << 18  # events: what takes less than a few seconds needs no progress bar
_EPILOG: Final = """\
The page needs no network and no server: open it, send it, project it. It has the tables of all
tasks as trees, the walk of any address entry by entry, a scrubber over the events, and the
top-level entries of every task side by side. ? in it lists its keys.

Of a long run the last events are in it (--events), and before them those that change a table,
fault or switch CR3. The tables are right at every one of them. Of a trace they are known as far as
it tells.

example: pagewalk view vmemmap-devdax -o devdax.html"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "what", metavar="SCENARIO|TRACE", help="a name from `pagewalk list`, or a trace file"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the page (default: the name, with .html behind it)"
    )
    parser.add_argument(
        "--events", metavar="N|all", default="100000", help="how many events (default: 100000)"
    )
    add_scenario_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Write the page; 0 if it could be written, however the run ended."""
    keep = None if args.events == "all" else number("--events", args.events, least=1, most=1 << 32)
    is_trace = _is_trace(args.what)
    output = args.output if args.output is not None else _default_output(args.what)
    _check_output(output)
    playback = _trace(args, keep) if is_trace else _scenario(args, keep)

    from pagewalk.terminal import progress
    from pagewalk.view.page import page

    with progress("drawing the page", playback.nr_events, _BAR_FROM) as advance:
        data = page(playback, advance)
    _write(output, data)
    if args.json:
        print(json.dumps(_document(args.what, playback, output, len(data)), indent=2))
        return 0
    print(f"{output}: {playback.nr_events} events, {len(data)} bytes")
    return 0


def _is_trace(what: str) -> bool:
    """Tell a trace from a scenario by its name, or refuse what is neither."""
    if format_of(what) is not None:
        return True
    from kernel_model.scenarios import SCENARIOS

    if what not in SCENARIOS and (os.sep in what or os.path.exists(what)):
        readable = " or ".join(ending for ending, one in FORMATS.items() if one.reads)
        bad("TRACE", repr(what), f"a trace to read: {readable}")
    if what not in SCENARIOS:
        near = did_you_mean(what, SCENARIOS)
        bad("SCENARIO|TRACE", repr(what), f"a trace file, or one of {', '.join(SCENARIOS)}{near}")
    return False


def _default_output(what: str) -> str:
    """Return NAME.html, here."""
    name = os.path.basename(what)
    ending = next((ending for ending in FORMATS if name.endswith(ending)), "")
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
        bad("-o", repr(path), f"a file that can be written: {getattr(error, 'strerror', error)}")
    try:
        output.write(data)
        output.close()
    except OSError as error:
        output.cut(0)
        with suppress(OSError):
            output.close()
        raise BadInput(f"-o {path!r}: {error.strerror or error}; nothing is in it") from None


def _scenario(args: argparse.Namespace, keep: int | None) -> "Playback":
    from pagewalk.playback_scenario import play_back

    playback, run = play_back(args.what, scenario_arguments(args), keep=keep)
    run.kernel.close()
    return playback


def _trace(args: argparse.Namespace, keep: int | None) -> "Playback":
    """Play a trace file back, up to where it was cut off."""
    for option in ("release", "build"):
        if getattr(args, option) is not None:
            bad(f"--{option}", repr(getattr(args, option)), "a scenario: a trace has been made")
    if args.set or args.levels != "4":
        option, value = ("--set", args.set[0]) if args.set else ("--levels", args.levels)
        bad(option, repr(value), "a scenario: a trace has been made")
    from pagewalk.playback_trace import read_back
    from pagewalk.terminal import progress
    from pagewalk.traces.reading import read_trace

    trace = read_trace(args.what)
    with progress("reading events", os.path.getsize(args.what), _BAR_FROM) as advance:
        playback = read_back(trace, keep=keep, progress=advance)
    if trace.cut_off:
        print(
            f"pagewalk: {args.what} was cut off: it was read up to there, "
            f"{trace.nr_events} events ({trace.nr_instructions} instructions)",
            file=sys.stderr,
        )
    return playback


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
