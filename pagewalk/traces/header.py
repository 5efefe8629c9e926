"""What a trace file says of its recording: at its top, and once it is over.

Knows the fields and their form in JSON, whatever the file's format is. Refuses to know how a file
holds them, and events.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final, NamedTuple

from emu.paging import ADDRESS, Paging

SCHEMA: Final = 1
FORMAT: Final = "pagewalk-trace"


class Region(NamedTuple):
    """Addresses that have code: [start, end)."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What was run, and what the machine was when the recording began.

    `source` is what names it: a file, or a scenario with its release and settings. `cr3` has every
    CPU's, and `tasks` whose the roots were, then.
    """

    source: Mapping[str, Any]
    paging: Paging
    cpl: int
    entry: int | None
    cr3: tuple[int, ...]
    tasks: Mapping[int, str]
    regions: tuple[Region, ...]
    registers: bool

    def as_json(self) -> dict[str, Any]:
        """Return the header as the first line of a file has it."""
        paging = self.paging
        control = {name: f"{getattr(paging, name):#x}" for name in ("cr0", "cr4", "efer", "pkru")}
        return {
            "schema": SCHEMA,
            "format": FORMAT,
            **self.source,
            "levels": paging.levels,
            "cpl": self.cpl,
            "cr3": f"{paging.cr3:#x}",
            "entry": None if self.entry is None else f"{self.entry:#x}",
            "control": control,
            "cpus": [f"{cr3:#x}" for cr3 in self.cr3],
            "tasks": tasks_json(self.tasks),
            "regions": [
                {"name": name, "start": f"{start:#x}", "end": f"{end:#x}"}
                for name, start, end in self.regions
            ],
            "recorder": {"pagewalk": version("pagewalk"), "registers": self.registers},
        }


_OWN: Final = frozenset(
    "schema format levels cpl cr3 entry control cpus tasks regions recorder".split()
)


def read_header(found: Any) -> Header:
    """Return the header that `as_json` gave; ValueError, which says why, for anything else."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError("it is no pagewalk trace")
    if found.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {found.get('schema')!r}, and only {SCHEMA} can be read")
    try:
        control = {name: int(value, 16) for name, value in found["control"].items()}
        return Header(
            source={key: value for key, value in found.items() if key not in _OWN},
            paging=Paging(cr3=int(found["cr3"], 16), **control),
            cpl=found["cpl"],
            entry=None if found["entry"] is None else int(found["entry"], 16),
            cr3=tuple(int(cr3, 16) for cr3 in found["cpus"]),
            tasks=read_tasks(found["tasks"]),
            regions=tuple(
                Region(one["name"], int(one["start"], 16), int(one["end"], 16))
                for one in found["regions"]
            ),
            registers=found["recorder"]["registers"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"its header is damaged ({error!r})") from None


def tasks_json(tasks: Mapping[int, str]) -> list[dict[str, str]]:
    """Return roots and names as a header, and an ending, has them."""
    return [{"name": name, "root": f"{root:#x}"} for root, name in tasks.items()]


def read_tasks(found: Any) -> dict[int, str]:
    """Return what `tasks_json` was given."""
    return {int(one["root"], 16): one["name"] for one in found}


@dataclass(frozen=True)
class Names:
    """How a recording's addresses are called, while it goes on."""

    symbolise: Callable[[int], str | None]
    """Name an address of code: "memcpy+0x9/0x12"."""
    tasks: Callable[[], Mapping[int, str]] = dict
    """Return the roots that are some task's now, with its name."""
    _known: dict[int, str] = field(default_factory=dict)

    def task(self, cr3: int) -> str | None:
        """Name the task whose root this is; one that has gone is still known."""
        root = cr3 & ADDRESS
        name = self.tasks().get(root)
        if name is None:
            return self._known.get(root)
        self._known[root] = name
        return name
