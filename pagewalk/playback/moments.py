"""A run that can be looked at, at any of its events, forwards and backwards.

Knows, of each moment, the event that has just happened, the instruction under way, CR3, whose
tables there are, and what their entries held. A moment is how many events have happened: 0 is the
beginning, `nr_events` the end. Refuses to know how a run was recorded (`choosing`) and how
it looks. What was not told is None, never a guess.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from emu.events import Cr3Switch, Delivered, Event, Executed, Faulted
from emu.memory import Piece
from emu.paging import ADDRESS, ENTRY_SIZE, FRAME_SIZE, Paging, PhysAddr, VirtAddr
from emu.walk import Step, Walk, walk
from kernel_model.layout import Layout
from pagewalk.playback.entry_values import Change, EntryValues

if TYPE_CHECKING:
    from pagewalk.render_trace import Symbolise

Kind = Literal["fault", "change", "switch"]
"""What one may want to go to: a fault or an exception, an entry that changes, another CR3."""


class Since(NamedTuple):
    """From the moment `at` on, a root is `name`'s; None is nobody's."""

    at: int
    root: PhysAddr
    name: str | None


class Untold(NamedTuple):
    """A walk that came to an entry of which nobody has told what it held."""

    va: VirtAddr
    steps: tuple[Step, ...]
    level: int
    entry_pa: PhysAddr


class _Unknown(Exception):
    """Nobody has told of the entry at this place."""


@dataclass(frozen=True, eq=False)
class Playback:
    """A recorded run. `choosing` makes it; it needs no machine, and no file, any more."""

    title: str
    """What was run: one line."""
    ending: str
    """How it ended: one line."""
    events: Sequence[Event]
    cpus: Sequence[int]
    """The CPU of each event."""
    numbers: Sequence[int]
    """The number of each event in the whole run, from 1 on: what is missing was left out."""
    nr_left_out: int
    """How many events of the run are not among these."""
    has_telling: bool
    """Whether all are among these that change a table, fault or switch CR3."""
    nr_instructions: int
    """How many instructions the whole run had."""
    pagings: Mapping[int, Sequence[tuple[int, Paging]]]
    """Each CPU's control registers, from which moment on."""
    names: Sequence[Since]
    """Whose tables there are, in the order of time."""
    values: EntryValues
    symbolise: "Symbolise"
    symbols: Mapping[str, int]
    """The addresses that names stand for."""
    ram: Sequence[Piece] | None
    """Where there is RAM; None where that is not known."""
    layout: Layout | None
    """Where the kernel's regions are; None where that is not known."""
    own_slots: frozenset[int]
    """The slots of a top table that each task has for itself: there none lacks what init_mm has."""

    @property
    def nr_events(self) -> int:
        """How many events there are to look at."""
        return len(self.events)

    @property
    def levels(self) -> int:
        """4 or 5."""
        return self.paging(0).levels

    # -- what happens

    def event(self, at: int) -> Event | None:
        """Return the event that has just happened; None at the beginning."""
        return self.events[at - 1] if at else None

    def cpu(self, at: int) -> int:
        """Return the CPU of the event that has just happened; at the beginning, of the first."""
        return self.cpus[max(at - 1, 0)] if self.events else 0

    def instruction(self, at: int) -> Executed | None:
        """Return the instruction that the event belongs to: the last one of its CPU."""
        cpu = self.cpu(at)
        for number in range(at - 1, -1, -1):
            event = self.events[number]
            if isinstance(event, Executed) and self.cpus[number] == cpu:
                return event
        return None

    def registers(self, at: int) -> tuple[int, ...] | None:
        """Return the general registers before that instruction, RAX first, if they are known."""
        executed = self.instruction(at)
        return executed.registers if executed else None

    def paging(self, at: int, cpu: int | None = None) -> Paging:
        """Return a CPU's control registers; of the one that the event is about, if not `cpu`."""
        known = self.pagings[self.cpu(at) if cpu is None else cpu]
        return known[max(bisect_right(known, at, key=lambda one: one[0]) - 1, 0)][1]

    def cr3(self, at: int, cpu: int | None = None) -> int:
        """Return a CPU's CR3; of the one that the event is about, if not `cpu`."""
        return self.paging(at, cpu).cr3

    def changes(self, at: int) -> list[Change]:
        """Return the entries that the event has changed."""
        changes = self.values.changes
        first = bisect_left(changes, at, key=lambda change: change.at)
        return changes[first : bisect_right(changes, at, key=lambda change: change.at)]

    def moments(self, kind: Kind) -> Sequence[int]:
        """Return the moments right after the events of a kind, in order."""
        return self._moments[kind]

    def following(self, at: int, kind: Kind) -> int | None:
        """Return the next moment of a kind after `at`, if there is one."""
        moments = self._moments[kind]
        found = bisect_right(moments, at)
        return moments[found] if found < len(moments) else None

    def preceding(self, at: int, kind: Kind) -> int | None:
        """Return the last moment of a kind before `at`, if there is one."""
        moments = self._moments[kind]
        found = bisect_left(moments, at)
        return moments[found - 1] if found else None

    @cached_property
    def _moments(self) -> dict[Kind, list[int]]:
        events = list(enumerate(self.events, 1))
        return {
            "fault": [at for at, event in events if isinstance(event, Faulted | Delivered)],
            "change": sorted({change.at for change in self.values.changes}),
            "switch": [at for at, event in events if isinstance(event, Cr3Switch)],
        }

    # -- the tables

    def tasks(self, at: int) -> dict[PhysAddr, str]:
        """Return whose tables there are, by their roots."""
        found: dict[PhysAddr, str] = {}
        for since, root, name in self.names:
            if since > at:
                break
            if name is None:
                found.pop(root, None)
            else:
                found[root] = name
        return found

    def task(self, at: int, cpu: int | None = None) -> str | None:
        """Return whose table a CPU is on; None if it has no name."""
        return self.tasks(at).get(PhysAddr(self.cr3(at, cpu) & ADDRESS))

    def entry(self, at: int, entry_pa: int) -> int | None:
        """Return what an entry held; None if nobody has told."""
        return self.values.value(at, entry_pa)

    def table(self, at: int, pa: int) -> list[int | None]:
        """Return what a table's 512 entries held."""
        value = self.values.value
        return [value(at, entry_pa) for entry_pa in range(pa, pa + FRAME_SIZE, ENTRY_SIZE)]

    def walk(self, at: int, paging: Paging, va: VirtAddr) -> Walk | Untold:
        """Walk the tables as they were; as far as somebody has told."""
        seen: list[PhysAddr] = []

        def read(pa: PhysAddr) -> int | None:
            seen.append(pa)
            entry = self.values.value(at, pa)
            if entry is None and self.holds(pa) is not False:
                raise _Unknown
            return entry

        try:
            return walk(read, paging, va)
        except _Unknown:
            *known, entry_pa = seen
            level = paging.levels - len(known)
            entries = [self.values.value(at, pa) or 0 for pa in known]
            levels = range(paging.levels, level, -1)
            steps = tuple(map(Step, levels, known, entries))
            return Untold(va, steps, level, entry_pa)

    def holds(self, pa: int) -> bool | None:
        """Tell whether there is RAM at a place; None if that is not known."""
        if self.ram is None:
            return None
        return any(start <= pa < end for start, end in self.ram)
