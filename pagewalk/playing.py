"""Choosing and running a scenario from the command line: options, progress, Ctrl-C, the clock.

Knows what `run` and `walk` share. Refuses to know what is shown of it.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pagewalk.arguments import BadInput, bad

if TYPE_CHECKING:
    from emu.trace import Recorder
    from kernel_model.scenarios.outcome import ScenarioRun

_BAR_FROM = 1 << 20  # pages: what takes less than a second or so needs no progress bar


def add_scenario_options(parser: argparse.ArgumentParser) -> None:
    """Add what chooses a scenario's variant."""
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
            raise TaskDied(StepLimit(VirtAddr(kernel.cpu.registers.rip)))
        if advance is not None:
            advance(nr_pages)

    try:
        found, kernel, values = prepare(scenario, progress=tell, **arguments)  # type: ignore[arg-type]
    except ValueError as error:
        raise BadInput(str(error)) from None
    with ExitStack() as stack:
        recorder = None
        if keep != 0:
            from emu.trace import Recorder

            recorder = stack.enter_context(Recorder(kernel.cpu, keep=keep))
        advance = stack.enter_context(progress("adding pages", found.nr_pages(values), _BAR_FROM))
        guard = stack.enter_context(guarded(kernel.cpu))
        ending = found.play(kernel, values)
    if guard.interrupted:
        raise KeyboardInterrupt

    from kernel_model.scenarios.outcome import ScenarioRun

    count = recorder.instructions if recorder else None
    return ScenarioRun(found, values, kernel, ending, count), recorder
