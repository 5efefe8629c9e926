"""`.json`: a timeline for ui.perfetto.dev, chrome://tracing and other viewers of trace events.

Knows tracks and slices: a track for each CPU, with the functions that it runs, and one for each
task, with its turns; faults, CR3 switches and TLB invalidations as instants; a counter of walks.
The time is not one: a microsecond stands for an instruction. Refuses to know single instructions.
Source: "Trace Event Format", the JSON array format, whose closing bracket may be missing.

However long a run is, the file is not: each time so many slices have been written, the shortest
ones that are told apart become twice as long, and what is shorter is put together.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from emu.chunks import Chunk
from emu.events import Cr3Switch, Delivered, Edited, Event, Faulted, Invalidated, Walked
from pagewalk.objects import Objects
from pagewalk.traces import rows
from pagewalk.traces.header import Header, Names
from pagewalk.traces.output import Output

MOST_SLICES: Final = 100_000
"""After so many, slices are put together that are shorter than what was the least so far."""
MOST_INSTANTS: Final = 200_000
"""The rest of them is left out, which the last event says."""
_PIECE: Final = 1 << 18
_CPUS, _TASKS = 1, 2  # "processes", which are groups of tracks


@dataclass
class Slice:
    """What a track shows since `start`: a function, or several that were too short for one."""

    name: str
    start: int
    nr: int = 1
    """How many slices are put together in it."""


class Writer:
    """Writes slices when they are over, and instants as they come."""

    def __init__(self, output: Output, header: Header, names: Names) -> None:
        self.events = self.instructions = 0
        self._output = output
        self._names = names
        self._objects = Objects(names.symbolise, header.paging.levels, names.task)
        self._functions = rows.Shapes(lambda shape: _function(names.symbolise(shape.rip)))
        self._slices: dict[tuple[int, int], Slice] = {}
        self._tracks: set[tuple[int, int]] = set()
        self._task_tracks: dict[str, int] = {}
        self._cr3 = dict(enumerate(header.cr3))
        self._grain, self._nr_slices, self._nr_instants = 1, 0, 0
        self._walks = self._left_out = 0
        self._now = 0
        self._lines: list[str] = []
        self._whole = 0
        for process, name in ((_CPUS, "CPUs"), (_TASKS, "tasks")):
            self._put({"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}})
        about = {"time": "1 us stands for 1 instruction", **header.as_json()}
        self._put(
            {"ph": "i", "s": "g", "name": "recording", "ts": 0, "pid": 1, "tid": 0, "args": about}
        )
        self._flush("[\n")

    def write(self, chunk: Chunk) -> None:
        """Write what is over; what goes on is written in the end."""
        for piece in rows.pieces(chunk, _PIECE):
            self._write(piece)
            self.events += len(piece)
            self.instructions += len(piece.instructions)
            self._flush()

    def close(self, ending: dict[str, Any]) -> None:
        """Write what goes on, how the run ended, and what was left out."""
        for track, one in self._slices.items():
            self._put_slice(track, one, self._now)
        left_out = {
            "instants left out": self._left_out,
            "shortest slice told apart, in instructions": self._grain,
        }
        args = {**ending, **left_out}
        self._put(self._instant("end", _CPUS, 0, self._now, args))
        self._flush()
        self._output.write(b"\n]\n")

    def rescue(self) -> None:
        """Take back what is not whole; the closing bracket may be missing."""
        self._output.cut(self._whole)

    def _write(self, chunk: Chunk) -> None:
        cpu, first = chunk.cpu, chunk.first
        nr = len(chunk.instructions)
        if nr:
            names = [name or "" for name in self._functions.of(chunk)]
            numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
            functions = np.array([numbers[name] for name in names])[chunk.instructions]
            changes = np.flatnonzero(np.append(True, functions[1:] != functions[:-1]))
            by_number = list(numbers)
            for at, number in zip(changes.tolist(), functions[changes].tolist(), strict=True):
                self._shows((_CPUS, cpu), by_number[number], first + at)
            self._takes_turn(cpu, first)
        for done, _, event in chunk.others:
            self._happens(cpu, first + done, event)
        self._now = max(self._now, first + nr)
        if self._walks:
            args = {"walks": self._walks}
            self._put({"ph": "C", "name": "walks", "ts": self._now, "pid": _CPUS, "args": args})

    def _takes_turn(self, cpu: int, now: int) -> None:
        """Show on its track that a task runs on a CPU."""
        name = self._names.task(self._cr3.get(cpu, 0))
        if name is not None:
            track = self._task_tracks.setdefault(name, len(self._task_tracks))
            if (_TASKS, track) not in self._slices:
                self._name_track((_TASKS, track), name)
                self._slices[_TASKS, track] = Slice(f"on CPU {cpu}", now)

    def _happens(self, cpu: int, now: int, event: Event) -> None:
        match event:
            case Walked():
                self._walks += 1
                return
            case Edited():
                return
            case Cr3Switch(_, new):
                name = f"CR3 = {new:#x}"
                track = self._task_tracks.get(self._names.task(self._cr3.get(cpu, 0)) or "", -1)
                turn = self._slices.pop((_TASKS, track), None)
                if turn is not None:
                    self._put_slice((_TASKS, track), turn, now)
                self._cr3[cpu] = new
                self._takes_turn(cpu, now)
            case Invalidated(what, value):
                name = f"{what} {value:#x}"
            case Delivered(delivery):
                name = str(delivery.exceptions[-1])
            case Faulted(stop):
                name = str(stop)
            case _:
                return
        self._nr_instants += 1
        if self._nr_instants > MOST_INSTANTS:
            self._left_out += 1
            return
        args = json.loads(self._objects.of(event))
        self._put(self._instant(name, _CPUS, cpu, now, args))

    def _shows(self, track: tuple[int, int], name: str, now: int) -> None:
        """A track shows something else from now on."""
        one = self._slices.get(track)
        if one is None:
            self._name_track(track, f"CPU {track[1]}")
            self._slices[track] = Slice(name, now)
        elif one.name == name:
            return
        elif now - one.start < self._grain:
            one.name, one.nr = name, one.nr + 1
        else:
            self._put_slice(track, one, now)
            self._slices[track] = Slice(name, now)

    def _put_slice(self, track: tuple[int, int], one: Slice, end: int) -> None:
        name = one.name if one.nr == 1 else f"{one.nr} stretches, the last in {one.name}"
        self._put(
            {
                "ph": "X",
                "name": name,
                "ts": one.start,
                "dur": end - one.start,
                "pid": track[0],
                "tid": track[1],
            }
        )
        self._nr_slices += 1
        if self._nr_slices % MOST_SLICES == 0:
            self._grain *= 2

    def _name_track(self, track: tuple[int, int], name: str) -> None:
        if track not in self._tracks:
            self._tracks.add(track)
            process, thread = track
            where = {"pid": process, "tid": thread}
            self._put({"ph": "M", "name": "thread_name", **where, "args": {"name": name}})

    def _instant(
        self, name: str, process: int, thread: int, now: int, args: dict[str, Any]
    ) -> dict[str, Any]:
        where = {"pid": process, "tid": thread}
        return {"ph": "i", "s": "t", "name": name, "ts": now, **where, "args": args}

    def _put(self, event: dict[str, Any]) -> None:
        self._lines.append(json.dumps(event))

    def _flush(self, before: str = ",\n") -> None:
        """Write what has come up, each event behind a comma."""
        if self._lines:
            self._output.write((before + ",\n".join(self._lines)).encode())
            self._whole = self._output.size
            self._lines.clear()


def _function(symbol: str | None) -> str:
    """Return the function that an address lies in."""
    return (symbol or "unnamed code").partition("+")[0]
