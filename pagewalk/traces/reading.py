"""Reading a trace file: its header, its events in order, and how it ended.

Knows which format's reader is asked, and whose table was active when. Refuses to know what is
looked for. What cannot be read is BadInput, in one line; a file that was cut off is read up to
there.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from emu.events import Cr3Switch, Event, Executed, Invalidated, controls_after
from emu.paging import ADDRESS, Paging
from pagewalk.arguments import BadInput, bad, bad_name, why_unreadable
from pagewalk.traces import parsing
from pagewalk.traces.files import FORMATS, format_of, needed
from pagewalk.traces.header import Header, read_header, read_tasks
from pagewalk.traces.stream import Damaged

if TYPE_CHECKING:
    from emu import Stop
    from pagewalk.traces.stream import Part

_READERS: Final = {"jsonl": "jsonl", "parquet": "parquet_reading"}
_READABLE: Final = " or ".join(ending for ending, one in FORMATS.items() if one.reads)


class Seen(NamedTuple):
    """An event, and where it happened: on which CPU, under which table, and whose that is."""

    cpu: int
    cr3: int
    task: str | None
    event: Event


class Ending(NamedTuple):
    """How a recording ended. `stop` is None where the engine failed, which `message` is about."""

    instructions: int
    outcome: str
    stop: "Stop | None"
    message: str
    tasks: dict[int, str]
    found: dict[str, Any]


class Trace:
    """A trace file. What is known of it grows while `events` is read, which may be repeated."""

    def __init__(self, path: str) -> None:
        self.path: Final = path
        wanted = format_of(path)
        if wanted is None or not wanted.reads:
            raise BadInput(f"FILE {path!r}: expected a trace to read: {_READABLE}")
        needed(wanted)
        _must_be_regular(path)
        self._reader = import_module(f"pagewalk.traces.{_READERS[wanted.module]}")
        self.header: Final[Header] = self._read_header()
        self.symbols: Final[dict[int, str]] = {}
        """What addresses are called, as far as events have told."""
        self.tasks: Final[dict[int, str]] = dict(self.header.tasks)
        """Whose tables there are, by their roots, as far as events have told."""
        self.ending: Ending | None = None
        self.nr_events = self.nr_instructions = 0
        self._paging: dict[int, Paging] = {}

    def paging(self, cpu: int) -> Paging:
        """Return a CPU's control registers, as of the event that was read last."""
        if cpu not in self._paging:
            cr3 = dict(enumerate(self.header.cr3)).get(cpu, self.header.paging.cr3)
            self._paging[cpu] = replace(self.header.paging, cr3=cr3)
        return self._paging[cpu]

    @property
    def cut_off(self) -> bool:
        """Whether all has been read and there was no ending."""
        return self.ending is None

    def has_no_task(self, name: str) -> NoReturn:
        """Refuse --task."""
        names = dict.fromkeys(self.tasks.values())
        if not names:
            bad("--task", repr(name), "no --task: this trace has no tasks")
        bad_name("--task", name, names)

    def events(self) -> Iterator[Seen]:
        """Yield the events, in order. BadInput where there is something else in the file."""
        self.nr_events = self.nr_instructions = 0
        self.ending = None
        self._paging.clear()
        where: dict[int, tuple[int, str | None]] = {}  # each CPU's CR3, and whose table that is
        parts = self._parts()
        next(parts, None)  # the header
        for part in parts:
            if self.ending is not None:
                raise self._damaged("something follows its ending")
            if isinstance(part, dict):
                self.ending = self._read_ending(part)
                continue
            cpu, event, found = part
            if found is not None:
                self.symbols.update(parsing.symbols(found))
            if type(event) is Cr3Switch or type(event) is Invalidated:
                self._paging[cpu] = controls_after(self.paging(cpu), event)
            if type(event) is Cr3Switch:
                if found and found.get("task"):
                    self.tasks[event.new & ADDRESS] = found["task"]
                where.clear()
            if cpu not in where:
                paging = self.paging(cpu)
                where[cpu] = paging.cr3, self.tasks.get(paging.root)
            self.nr_events += 1
            self.nr_instructions += type(event) is Executed
            yield Seen(cpu, *where[cpu], event)

    def _parts(self) -> "Iterator[Part]":
        try:
            yield from self._reader.read_parts(self.path)
        except Damaged as error:
            raise self._damaged(str(error)) from None
        except (OSError, ValueError) as error:
            raise _unreadable(self.path, error) from None

    def _damaged(self, what: str) -> BadInput:
        return BadInput(f"FILE {self.path!r}: damaged after {self.nr_events} events: {what}")

    def _read_header(self) -> Header:
        try:
            first = next(self._reader.read_parts(self.path), None)
            if first is None:
                raise ValueError("it is empty, or was cut off before its first events")
            return read_header(first)
        except (Damaged, ValueError) as error:
            raise BadInput(f"FILE {self.path!r}: expected a pagewalk trace: {error}") from None
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def _read_ending(self, part: dict[str, Any]) -> Ending:
        try:
            found = part["end"]
            stop = found["stop"]
            tasks = read_tasks(found.get("tasks", ()))
            self.tasks.update(tasks)
            self.symbols.update(parsing.symbols(stop))
            return Ending(
                found["instructions"],
                found["outcome"],
                parsing.read_stop(stop),
                stop.get("message", ""),
                tasks,
                found,
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged(f"its ending is damaged ({error!r})") from None


def read_trace(path: str) -> Trace:
    """Open a trace file; BadInput for anything else."""
    return Trace(path)


def _must_be_regular(path: str) -> None:
    """Refuse what cannot be read twice, or at all: a pipe, a device, a directory."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(mode):
        raise BadInput(f"FILE {path!r}: expected a regular file, no pipe, device or directory")


def _unreadable(path: str, error: OSError | ValueError) -> BadInput:
    reason = why_unreadable(path, error)
    return BadInput(f"FILE {path!r}: expected a trace that can be read: {reason}")
