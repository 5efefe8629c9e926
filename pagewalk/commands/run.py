"""`pagewalk run SCENARIO`: run it, tell its story, judge --expect.

Knows what was expected. Refuses to know how a scenario is run (`playing`) or told (`story`).
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from pagewalk.arguments import BadInput, bad, number
from pagewalk.playing import add_scenario_options, play, scenario_arguments
from pagewalk.recording import ScenarioRecording, add_output_options, wants_registers

if TYPE_CHECKING:
    from emu.trace import MachineRecorder
    from kernel_model.scenarios.outcome import ScenarioRun


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("scenario", metavar="SCENARIO", help="a name from `pagewalk list`")
    add_scenario_options(parser)
    parser.add_argument(
        "--trace",
        metavar="N|all",
        nargs="?",
        const="200",
        help="also print the last N events before the end (default: 200), or all",
    )
    add_output_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--expect",
        metavar="oops|ok|ADDR",
        help="exit 0 if the run ended so, and 1 otherwise; ADDR is the faulting address",
    )
    parser.epilog = (
        "example: pagewalk run vmemmap-devdax --release 6.17 --set task=early --expect ok"
    )


def run(args: argparse.Namespace) -> int:
    """Run the scenario; 0 if it completed, or if --expect held."""
    expected = _expected(args.expect)
    keep = _events_to_keep(args.trace)
    registers = wants_registers(args)
    into = None
    if args.output is not None:
        if keep != 0:
            bad("--trace", "beside -o", "one of them: pagewalk show prints what -o has written")
        into = ScenarioRecording(args.output, registers=registers)
    elif registers:
        bad("--registers", "without -o", "a file that they are recorded into")
    finished, recorder = _played(args, keep, into)
    file = None if into is None else into.file
    if args.json:
        document = _document(finished, recorder)
        if file is not None:
            document["written"] = file.as_json()
        print(json.dumps(document, indent=2))
    else:
        from pagewalk.story import story_lines
        from pagewalk.terminal import show

        show(story_lines(finished, recorder))
        if file is not None:
            print(f"\n{file}")
    if expected is None:
        return 0 if finished.outcome == "completed" else 1
    if _held(expected, finished):
        return 0
    address = getattr(finished.ending.stop, "address", None)
    where = "" if address is None else f" at {address:#x}"
    ended = f"it ended with {finished.outcome}{where}"
    print(f"pagewalk: --expect {args.expect} did not hold: {ended}", file=sys.stderr)
    return 1


def _played(
    args: argparse.Namespace, keep: int | None, into: ScenarioRecording | None
) -> "tuple[ScenarioRun, MachineRecorder | None]":
    """Run the scenario; a file that it is recorded into has an ending, whatever happens."""
    if into is None:
        return play(args.scenario, scenario_arguments(args), keep=keep)
    from emu import EmuError

    try:
        finished, recorder = play(args.scenario, scenario_arguments(args), keep=keep, into=into)
    except KeyboardInterrupt:
        ending = into.end("limit", None)
        if into.file is not None and args.json:
            print(json.dumps({"scenario": args.scenario, **ending, "written": into.file.as_json()}))
        elif into.file is not None:
            print(into.file)
        raise
    except EmuError as error:
        into.end("error", str(error))
        raise
    into.end(finished.outcome, finished.ending.stop)
    return finished, recorder


def _document(finished: "ScenarioRun", recorder: "MachineRecorder | None") -> dict[str, object]:
    """Return the JSON of a run, with the events that were asked for."""
    document = finished.as_json()
    if recorder is not None:
        from pagewalk.objects import Objects

        kernel = finished.kernel
        objects = Objects(kernel.image.describe, kernel.layout.levels)
        document["events"] = [json.loads(objects.of(event)) for event in recorder.events()]
    return document


def _events_to_keep(text: str | None) -> int | None:
    if text is None:
        return 0
    return None if text == "all" else number("--trace", text, least=1, most=1 << 32)


def _expected(text: str | None) -> str | int | None:
    if text is None or text in ("oops", "ok"):
        return text
    try:
        return number("--expect", text)
    except BadInput:
        bad("--expect", repr(text), "oops, ok or a faulting address")


def _held(expected: str | int, finished: "ScenarioRun") -> bool:
    if expected == "ok":
        return finished.outcome == "completed"
    if expected == "oops":
        return finished.outcome == "oops"
    return getattr(finished.ending.stop, "address", None) == expected
