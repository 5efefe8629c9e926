"""Recording a run into a trace file: the options, the header, and the recorder's chunks.

Knows what a file says of a bare machine and of a kernel. Refuses to know how files look
(`traces`) and how a run is made.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pagewalk.traces.files import NAMES, TraceFile, wanted_format

if TYPE_CHECKING:
    from emu import Cpu, Stop
    from emu.trace import MachineRecorder
    from kernel_model import Kernel
    from kernel_model.scenarios.spec import Scenario, Settings
    from pagewalk.bare import Bare
    from pagewalk.render_trace import Symbolise


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add what says that a run is to be recorded into a file."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"write the events into FILE instead; the format is one of {NAMES}",
    )
    parser.add_argument(
        "--registers",
        action="store_true",
        help="also record the general registers before each instruction",
    )


def wants_registers(args: argparse.Namespace) -> bool:
    """Check -o before anything runs; return whether registers are to be recorded."""
    if args.output is None:
        return bool(args.registers)
    return wanted_format(args.output).registers or bool(args.registers)


@contextmanager
def recording(kernel: "Kernel", **options: Any) -> "Iterator[MachineRecorder]":
    """Record what a kernel's CPUs do, and what its functions write that run in Python."""
    from emu.trace import MachineRecorder

    writers = kernel.pgtable.writers
    with MachineRecorder(kernel.machine, **options) as recorder:
        writers.watcher = lambda pa, nr, by: recorder.edited(pa, nr, by, cpu=kernel.cpu_nr)
        try:
            yield recorder
        finally:
            writers.watcher = None


def open_bare(path: str, bare: "Bare", file: str, *, registers: bool) -> TraceFile:
    """Open a trace file for a routine of a user's own."""
    from pagewalk.traces.header import Header, Names, Region

    cpu = bare.cpu
    header = Header(
        source={"file": file},
        paging=cpu.paging,
        cpl=cpu.cpl,
        entry=bare.entry,
        cr3=(cpu.cr3,),
        tasks={},
        regions=tuple(
            Region(region.name, region.va, region.va + region.size)
            for region in bare.regions
            if "x" in region.rights
        ),
        registers=registers,
    )
    return TraceFile(path, header, Names(bare.symbol))


def open_kernel(
    path: str, kernel: "Kernel", scenario: "Scenario", settings: "Settings", *, registers: bool
) -> TraceFile:
    """Open a trace file for a scenario that is about to be played."""
    from pagewalk.traces.header import Header, Names, Region

    header = Header(
        source={
            "scenario": scenario.name,
            "release": kernel.release.name,
            "build": kernel.build.name,
            "settings": {p.name: p.as_json(settings[p.name]) for p in scenario.parameters},
        },
        paging=kernel.cpu.paging,
        cpl=kernel.cpu.cpl,
        entry=None,
        cr3=tuple(cpu.cr3 for cpu in kernel.machine.cpus),
        tasks=tables(kernel),
        regions=tuple(
            Region(segment.name, segment.base, segment.end)
            for segment in kernel.image.segments
            if segment.name != ".data"
        ),
        registers=registers,
    )
    return TraceFile(path, header, Names(kernel.image.describe, _remembered_tables(kernel)))


def _remembered_tables(kernel: "Kernel") -> "Callable[[], dict[int, str]]":
    """Return what `tables` returns, worked out anew only when something has happened."""

    @lru_cache(maxsize=1)
    def after(nr_events: int) -> dict[int, str]:
        return tables(kernel)

    return lambda: after(len(kernel.history))


def tables(kernel: "Kernel") -> dict[int, str]:
    """Return every table of a kernel, by its root, with its task's name."""
    return {mm.pgd: mm.name for mm in (*kernel.pgd_list, *kernel.outside)}


class ScenarioRecording:
    """A scenario that is recorded into a file while it is played."""

    def __init__(self, path: str, *, registers: bool) -> None:
        self._path = path
        self._registers = registers
        self._kernel: Kernel | None = None
        self.file: TraceFile | None = None

    @property
    def instructions(self) -> int | None:
        """How many instructions are in the file; None if there is none."""
        return None if self.file is None else self.file.instructions

    @contextmanager
    def of(self, kernel: "Kernel", scenario: "Scenario", settings: "Settings") -> Iterator[None]:
        """Record while the body plays the scenario; the file has no ending then."""
        self._kernel = kernel
        registers = self._registers
        self.file = file = open_kernel(self._path, kernel, scenario, settings, registers=registers)
        with recording(kernel, registers=registers, sink=file.write):
            yield

    def end(self, outcome: str, stop: "Stop | str | None") -> dict[str, Any]:
        """Write how it ended, and return that; a text says what the engine could not do, None is
        Ctrl-C."""
        if self.file is None or self._kernel is None:
            return {}
        kernel = self._kernel
        from pagewalk.traces.header import tasks_json

        named = kernel.image.describe
        ending = ending_json(outcome, stop, self.file.instructions, kernel.cpu, named)
        self.file.close({**ending, "tasks": tasks_json(tables(kernel))})
        return ending


def ending_json(
    outcome: str, stop: "Stop | str | None", instructions: int, cpu: "Cpu", symbolise: "Symbolise"
) -> dict[str, Any]:
    """Return what a file says of how a run ended, in the form of `trace --json`."""
    from emu import StepLimit, VirtAddr
    from pagewalk.objects import Objects

    if isinstance(stop, str):
        found: dict[str, Any] = {"kind": "error", "message": stop}
    else:
        interrupted = StepLimit(VirtAddr(cpu.registers.rip))
        found = Objects(symbolise, cpu.paging.levels).stop(interrupted if stop is None else stop)
    return {"instructions": instructions, "outcome": outcome, "stop": found}
