"""`pagewalk run SCENARIO`: run it, tell its story, judge --expect."""

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pagewalk.arguments import BadInput, bad, number

if TYPE_CHECKING:
    from emu.trace import Recorder
    from kernel_model.scenarios.outcome import ScenarioRun

_BAR_FROM = 1 << 20  # pages: what takes less than a second or so needs no progress bar


def add_scenario_options(parser: argparse.ArgumentParser) -> None:
    """Add what chooses a scenario's variant; `walk` has the same."""
    parser.add_argument("--release", metavar="R", help="a kernel release (default: the scenario's)")
    parser.add_argument("--build", metavar="B", help="a build (default: the release's)")
    parser.add_argument("--levels", metavar="4|5", default="4", help="paging levels (default: 4)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a parameter; may be repeated",
    )


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
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--expect",
        metavar="oops|ok|ADDR",
        help="exit 0 if the run ended so, and 1 otherwise; ADDR is the faulting address",
    )
    parser.epilog = (
        "example: pagewalk run vmemmap-devdax --release 6.17 --set task=early --expect ok"
    )


def scenario_arguments(args: argparse.Namespace) -> dict[str, object]:
    """Return the options of `add_scenario_options` as `prepare`'s arguments."""
    settings = {}
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals:
            bad("--set", repr(item), "KEY=VALUE")
        settings[key.strip()] = value.strip()
    if args.levels not in ("4", "5"):
        bad("--levels", repr(args.levels), "4 or 5")
    return {
        "release": args.release,
        "build": args.build,
        "levels": int(args.levels),
        "settings": settings,
    }


def run(args: argparse.Namespace) -> int:
    """Run the scenario; 0 if it completed, or if --expect held."""
    expected = _expected(args.expect)
    keep = _events_to_keep(args.trace)
    finished, recorder = play(args.scenario, scenario_arguments(args), keep=keep)
    if args.json:
        print(json.dumps(finished.as_json(), indent=2))
    else:
        from pagewalk.story import story_lines
        from pagewalk.terminal import show

        show(story_lines(finished, recorder))
    if expected is None:
        return 0 if finished.outcome == "completed" else 1
    return 0 if _held(expected, finished) else 1


def play(
    scenario: str, arguments: dict[str, object], *, keep: int | None = 0
) -> "tuple[ScenarioRun, Recorder | None]":
    """Run a scenario with progress, a wall-clock limit and Ctrl-C; return it, and its recording.

    `keep` is how many events to record: 0 for none, None for all.
    """
    from emu import StepLimit, VirtAddr
    from kernel_model import TaskDied
    from kernel_model.scenarios import prepare
    from pagewalk.guard import Guard, guarded
    from pagewalk.terminal import progress

    guard: Guard | None = None
    advance: Callable[[int], None] | None = None

    def tell(nr_pages: int) -> None:
        """Where Python works for long, it looks up now and then, as a routine's end does."""
        if guard is not None and guard.interrupted:
            raise KeyboardInterrupt
        if guard is not None and guard.timed_out:
            raise TaskDied(StepLimit(VirtAddr(0)))
        if advance is not None:
            advance(nr_pages)

    try:
        found, kernel, values = prepare(scenario, progress=tell, **arguments)  # type: ignore[arg-type]
    except ValueError as error:
        raise BadInput(str(error)) from None
    pages = int(values.get("nr_pages", int(values.get("size", 0)) >> 12))
    with ExitStack() as stack:
        recorder = None
        if keep != 0:
            from emu.trace import Recorder

            recorder = stack.enter_context(Recorder(kernel.cpu, keep=keep))
        advance = stack.enter_context(progress("adding pages", pages, _BAR_FROM))
        guard = stack.enter_context(guarded(kernel.cpu))
        ending = found.play(kernel, values)
    if guard.interrupted:
        raise KeyboardInterrupt

    from kernel_model.scenarios.outcome import ScenarioRun

    count = recorder.instructions if recorder else None
    return ScenarioRun(found, values, kernel, ending, count), recorder


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
