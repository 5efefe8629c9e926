"""Choosing and running a scenario from the command line: options, progress, Ctrl-C, the clock.

Knows what the commands share that are about a scenario or its final state. Refuses to know what is
shown of it.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Protocol

from kernel_model.words import is_number
from pagewalk.arguments import BadInput, bad, number

if TYPE_CHECKING:
    from emu.trace import MachineRecorder
    from kernel_model import Kernel
    from kernel_model.scenarios.outcome import ScenarioRun
    from kernel_model.scenarios.spec import Scenario, Settings

_BAR_FROM = 1 << 20  # pages: what takes less than a second or so needs no progress bar
_RECORDED_BAR_FROM = 1 << 16  # and of those whose every instruction is written down


class Recording(Protocol):
    """Where a scenario is recorded into, while it is played."""

    @property
    def instructions(self) -> int | None:
        """How many instructions were recorded; None if it did not begin."""

    def of(
        self, kernel: "Kernel", scenario: "Scenario", settings: "Settings"
    ) -> AbstractContextManager[None]:
        """Record while the body plays the scenario."""


def add_scenario_options(parser: argparse.ArgumentParser) -> None:
    """Add what chooses a scenario's variant."""
    parser.add_argument("--release", metavar="R", help="a kernel release (default: the scenario's)")
    parser.add_argument("--build", metavar="BUILD", help="a build (default: the release's)")
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
    scenario: str,
    arguments: dict[str, object],
    *,
    keep: int | None = 0,
    into: Recording | None = None,
) -> "tuple[ScenarioRun, MachineRecorder | None]":
    """Run a scenario with progress, a wall-clock limit and Ctrl-C; return it, and its recording.

    `keep` is how many events to record: 0 for none, None for all; or they go `into` a recording.
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
            from pagewalk.recording import recording

            recorder = stack.enter_context(recording(kernel, keep=keep))
        if into is not None:
            stack.enter_context(into.of(kernel, found, values))
        least = _BAR_FROM if keep == 0 and into is None else _RECORDED_BAR_FROM
        advance = stack.enter_context(progress("adding pages", found.nr_pages(values), least))
        guard = stack.enter_context(guarded(kernel.cpu))
        ending = found.play(kernel, values)
    if guard.interrupted:
        raise KeyboardInterrupt

    from kernel_model.scenarios.outcome import ScenarioRun

    count = recorder.instructions if recorder else None
    if into is not None:
        count = into.instructions
    return ScenarioRun(found, values, kernel, ending, count), recorder


def final_kernel(args: argparse.Namespace) -> "tuple[Kernel, ScenarioRun | None]":
    """Run --scenario, or just boot; return the kernel, and the run if there was one."""
    chosen = scenario_arguments(args)
    if args.scenario is not None:
        finished, _ = play(args.scenario, chosen)
        return finished.kernel, finished
    from kernel_model import Kernel
    from kernel_model.releases import DEFAULT_RELEASE

    if chosen["settings"]:
        bad("--set", repr(args.set[0]), "a --scenario to set it in")
    try:
        kernel = Kernel(args.release or DEFAULT_RELEASE, levels=int(args.levels), build=args.build)
    except ValueError as error:
        raise BadInput(str(error)) from None
    return kernel, None


def read_address(kernel: "Kernel", text: str, argument: str = "ADDR") -> int:
    """Read an address: a number, or a symbol of the image."""
    if text[:1].isdigit() or is_number(text):
        return number(argument, text)
    try:
        return kernel.symbol(text)
    except ValueError as error:
        raise BadInput(f"{argument} {text!r}: expected an address, or a symbol: {error}") from None
