"""How a scenario ended, as a value and as JSON.

Knows how a Stop is classified, and the schema that users hold on to. Refuses to know wording.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from emu import Halted, OutsideRam, PageFault, Returned, Shutdown, StepLimit, Stop, Trap
from emu.fault import UD
from emu.paging import ENTRY_NAME
from emu.walk import Walk
from kernel_model.errors import ERRNO_NAME
from kernel_model.kernel import Kernel
from kernel_model.mm import Task
from kernel_model.pgtable import folded_name, linux_name
from kernel_model.scenarios.spec import SCHEMA, Scenario, Settings

Outcome = Literal["completed", "oops", "bug", "shutdown", "error", "outside-ram", "halted", "limit"]


@dataclass(frozen=True, slots=True)
class Ending:
    """What a story hands back: the task that it was about, how it stopped, what it touched.

    `touched` is the address whose walks are worth comparing, faulting or not; `notes` are lines
    that only this story can tell, and `facts` what it adds to the JSON.
    """

    task: Task
    stop: Stop
    touched: int
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """A scenario that has been run. The kernel is as the story left it; close it when done."""

    scenario: Scenario
    settings: Settings
    kernel: Kernel
    ending: Ending
    instructions: int | None = None

    @property
    def outcome(self) -> Outcome:
        """How it ended, in one word."""
        return classify(self.ending.stop)

    @property
    def errno(self) -> int | None:
        """The error that the kernel returned, as in 12 for -ENOMEM; None if it did not."""
        stop = self.ending.stop
        return _errno(stop.value) if isinstance(stop, Returned) else None

    @property
    def oops(self) -> str | None:
        """The kernel's text, if a task died."""
        stop = self.ending.stop
        if isinstance(stop, PageFault | Trap):
            return self.kernel.oops(stop)
        return None

    def _repr_html_(self) -> str:
        from emu import markup

        kernel, task, stop = self.kernel, self.ending.task, self.ending.stop
        levels = kernel.layout.levels
        on = f"{self.scenario.name} on {kernel.release.name}, {levels} levels"
        parts = [markup.sentence(f"{on}: {self.outcome}, {stop}")]
        parts += map(markup.sentence, self.ending.notes)
        names = {n: f"{ENTRY_NAME[n]} {folded_name(n, levels)}" for n in range(1, levels + 1)}
        addr = self.ending.touched
        if isinstance(stop, PageFault | OutsideRam) and stop.walk is not None:
            addr = stop.walk.va
            parts.append(stop.walk.html(names, f"{task.mm.name}'s table"))
        if kernel.machine.cpus:  # not closed: there is a memory to read
            parts.append(kernel.walk(addr).html(names, "init_mm's table"))
            parts.append(markup.verbatim(self.oops) if self.oops else "")
        return "".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document of a run, schema 1."""
        kernel = self.kernel
        errno = self.errno
        return {
            "schema": SCHEMA,
            "scenario": self.scenario.name,
            "release": kernel.release.name,
            "build": kernel.build.name,
            "levels": kernel.layout.levels,
            "settings": {
                p.name: p.as_json(self.settings[p.name]) for p in self.scenario.parameters
            },
            "outcome": self.outcome,
            "error": ERRNO_NAME.get(errno, str(errno)) if errno else None,
            "fault": fault_json(kernel, self.ending),
            "oops": self.oops,
            "handled_faults": kernel.handled_faults,
            "instructions": self.instructions,
            "facts": dict(self.ending.facts),
        }


def classify(stop: Stop) -> Outcome:
    """Return the one word for a way to stop."""
    match stop:
        case Returned(value):
            return "error" if _errno(value) else "completed"
        case Trap(vector=vector) if vector == UD:
            return "bug"
        case PageFault() | Trap():
            return "oops"
        case OutsideRam():
            return "outside-ram"
        case Halted():
            return "halted"
        case Shutdown():
            return "shutdown"
        case StepLimit():
            return "limit"


def fault_json(kernel: Kernel, ending: Ending) -> dict[str, Any] | None:
    """Return the "fault" object of the JSON: null unless an exception ended the run."""
    stop = ending.stop
    if isinstance(stop, Trap):
        return {
            "vector": stop.vector,
            "address": None,
            "error_code": stop.error_code,
            "access": None,
            "cpl": stop.cpl,
            "rip": f"{stop.rip:#x}",
            "symbol": stop.symbol,
            "cr3": f"{stop.cr3:#x}",
            "task": ending.task.comm,
            "reason": None,
            "walk": [],
        }
    if not isinstance(stop, PageFault):
        return None
    assert stop.walk is not None
    return {
        "vector": stop.vector,
        "address": f"{stop.address:#x}",
        "error_code": stop.error_code,
        "access": stop.access,
        "cpl": stop.cpl,
        "rip": f"{stop.rip:#x}",
        "symbol": stop.symbol,
        "cr3": f"{stop.cr3:#x}",
        "task": ending.task.comm,
        "reason": stop.reason,
        "walk": walk_json(stop.walk, kernel.layout.levels),
    }


def walk_json(walk: Walk, levels: int) -> list[dict[str, Any]]:
    """Return the entries of a walk, root first."""
    return [
        {
            "level": step.level,
            "entry_name": ENTRY_NAME[step.level],
            "linux_name": linux_name(step.level, levels),
            "index": step.slot,
            "entry_pa": f"{step.entry_pa:#x}",
            "entry": f"{step.entry:#x}",
        }
        for step in walk.steps
    ]


def _errno(value: int) -> int | None:
    """Return n if a returned value is -n, as IS_ERR_VALUE() decides."""
    negative = (1 << 64) - value
    return negative if 1 <= negative <= 4095 else None
