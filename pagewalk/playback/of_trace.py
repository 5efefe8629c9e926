"""A playback of a trace file.

Knows what a trace tells of the tables: the entries that walks read, the stores into their frames,
what the kernel wrote in Python. All writes are in a trace; so what an entry is first seen to hold,
it has held since the recording began. Refuses to guess the rest, and to know what is asked of it
(`moments`). A file that was cut off is played back up to there.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from emu.events import (
    Accessed,
    Cr3Switch,
    Delivered,
    Edited,
    Event,
    Executed,
    Faulted,
    Invalidated,
    Walked,
)
from emu.paging import ENTRIES, ENTRY_SIZE, FRAME_SIZE, U64, PhysAddr
from pagewalk.playback.chosen_events import MOST, TELLING, Kept, choose, has_all, moment
from pagewalk.playback.entry_values import EntryValues
from pagewalk.playback.moments import Playback, Since
from pagewalk.render_show import end_lines, header_line

if TYPE_CHECKING:
    from pagewalk.traces.reading import Trace

_OFTEN: Final = 1 << 14
"""How many events are read between two words to `progress`."""


def read_back(
    trace: "Trace", *, keep: int | None = MOST, progress: Callable[[int], object] | None = None
) -> Playback:
    """Read a trace, and return its playback, of `keep` events at most; of all if that is None.

    Which they are is as with `Capture`.

    `progress` is told now and then how many events were read since it was told last.
    """
    last: deque[tuple[int, Event]] = deque(maxlen=keep)
    told = _Told()
    pagings = {cpu: [(0, trace.paging(cpu))] for cpu in range(len(trace.header.cr3))}
    for at, (cpu, _, _, event) in enumerate(trace.events(), 1):
        last.append((cpu, event))
        told.add(at, cpu, event)
        if isinstance(event, Cr3Switch | Invalidated):
            pagings.setdefault(cpu, [(0, trace.header.paging)]).append((at, trace.paging(cpu)))
        if progress is not None and not at % _OFTEN:
            progress(_OFTEN)
    roots = {PhysAddr(root) for root in trace.tasks}
    roots |= {paging.root for known in pagings.values() for _, paging in known}
    values = told.values(roots, trace.header.paging.levels)
    names = _names(trace, values)
    telling = told.telling({change.at for change in values.changes})
    kept = choose(telling, list(last), trace.nr_events, keep)
    numbers = [one.number for one in kept]
    values.keep(numbers)
    return Playback(
        title=header_line(trace),
        ending=" ".join(end_lines(trace)) or "the file was cut off",
        events=[one.event for one in kept],
        cpus=[one.cpu for one in kept],
        numbers=numbers,
        nr_left_out=trace.nr_events - len(kept),
        has_telling=has_all(telling[0].number if telling else None, numbers),
        nr_instructions=trace.nr_instructions,
        pagings={
            cpu: [(moment(numbers, at), paging) for at, paging in known]
            for cpu, known in pagings.items()
        },
        names=[one._replace(at=moment(numbers, one.at)) for one in names],
        values=values,
        symbolise=trace.symbols.get,
        symbols=dict(_functions(trace.symbols)),
        ram=None,
        layout=None,
        own_slots=frozenset(range(ENTRIES // 2)),
    )


def _names(trace: "Trace", values: EntryValues) -> list[Since]:
    """Return whose the roots are: of one that came later, since somebody wrote into its table."""
    written: dict[int, int] = {}
    for change in values.changes:
        written.setdefault(change.entry_pa & -FRAME_SIZE, change.at)
    first = trace.header.tasks
    found = [
        Since(0 if root in first else written.get(root, 0), PhysAddr(root), name)
        for root, name in trace.tasks.items()
    ]
    return sorted(found, key=lambda one: one.at)


def _functions(symbols: dict[int, str]) -> Iterator[tuple[str, int]]:
    """Yield the functions that a trace's addresses lie in, and where they begin."""
    for address, text in symbols.items():
        name, _, offset = text.partition("/")[0].partition("+")
        yield name, address - int(offset or "0", 16)


class _Told:
    """What a trace's events tell of memory: its accesses as columns, since there may be millions,
    and all else but the instructions."""

    def __init__(self) -> None:
        self._accesses: Final = tuple(array(code) for code in "QQQBBB")
        """at, pa, value, size, is_write, cpu"""
        self._others: Final[list[tuple[int, Event]]] = []
        self._cpus: Final = array("B")  # of the others, and
        self._leaders: Final[list[tuple[int, Executed] | None]] = []  # their instructions
        self._last: Final[dict[int, tuple[int, Executed]]] = {}

    def add(self, at: int, cpu: int, event: Event) -> None:
        """Take in the event that makes it `at`."""
        if isinstance(event, Executed):
            self._last[cpu] = at, event
        elif isinstance(event, Accessed):
            row = at, event.pa, event.value, event.size, event.kind == "write", cpu
            for column, value in zip(self._accesses, row, strict=True):
                column.append(value)
        else:
            self._others.append((at, event))
            self._cpus.append(cpu)
            self._leaders.append(None if isinstance(event, Edited) else self._last.get(cpu))

    def telling(self, changing: set[int]) -> list[Kept]:
        """Return what tells most, in order: with what changes a table, those at `changing`.

        Each with its instruction, which of a store is not known any more.
        """
        found: dict[int, Kept] = {}
        for (at, event), cpu, leader in zip(self._others, self._cpus, self._leaders, strict=True):
            if at in changing or isinstance(event, TELLING):
                found[at] = Kept(at, cpu, event)
                if leader is not None:
                    found[leader[0]] = Kept(leader[0], cpu, leader[1])
        for at, pa, value, size, writes, cpu in zip(*self._accesses, strict=True):
            if writes and at in changing:
                found[at] = Kept(at, cpu, Accessed(None, PhysAddr(pa), size, value, "write"))
        return [found[at] for at in sorted(found)]

    def values(self, roots: Iterable[int], levels: int) -> EntryValues:
        """Return what the frames of tables hold: those that the events name, and what they lead to.

        A table that nobody walked is known once an entry leads to it, and then so are the stores.
        """
        level_of = dict.fromkeys(roots, levels)
        tables = set(level_of)
        for _, event in self._others:
            if isinstance(event, Edited):
                tables |= {event.entry_pa & -FRAME_SIZE}
            for level, entry_pa, _ in _entries_read(event):
                level_of.setdefault(entry_pa & -FRAME_SIZE, level)
        while True:
            tables |= level_of.keys()
            values = self._tell(tables)
            below = {
                frame: level - 1
                for table, level in level_of.items()
                for frame in values.below(table, level)
            }
            if below.keys() <= level_of.keys():
                return values
            level_of = below | level_of

    def _tell(self, tables: set[int]) -> EntryValues:
        values = EntryValues()
        for at, event in merge(self._stores_into(tables), self._others, key=itemgetter(0)):
            if isinstance(event, Accessed) and event.kind == "write":
                values.wrote_bytes(at, event.pa, event.size, event.value)
            elif isinstance(event, Accessed):
                values.saw(at, event.pa, (event.value,))
            for _, entry_pa, entry in _entries_read(event):
                values.saw(at, entry_pa, (entry,))
            if isinstance(event, Walked):
                for step in event.steps:
                    values.wrote(at, step.entry_pa, (step.after,))
            elif isinstance(event, Edited):
                values.wrote(at, event.entry_pa, event.entries)
            elif isinstance(event, Delivered):
                for pa, value in event.delivery.stores.items():
                    if pa & -FRAME_SIZE in tables:
                        values.wrote_bytes(at, pa, ENTRY_SIZE, value)
        return values

    def _stores_into(self, tables: set[int]) -> Iterator[tuple[int, Event]]:
        """Yield the accesses to tables, without the reads that show only a part of an entry."""
        columns = [np.array(column, np.uint64) for column in self._accesses]
        _, pas, _, sizes, is_write, _ = columns
        frames = pas & np.uint64(U64 & -FRAME_SIZE)
        whole: NDArray[np.bool_] = (sizes == ENTRY_SIZE) & (pas % ENTRY_SIZE == 0)
        wanted = np.isin(frames, np.array(sorted(tables), np.uint64)) & (whole | (is_write != 0))
        rows = (column[wanted].tolist() for column in columns)
        for at, pa, value, size, writes, _ in zip(*rows, strict=True):
            yield at, Accessed(None, pa, size, value, "write" if writes else "read")


def _entries_read(event: Event) -> Iterator[tuple[int, PhysAddr, int]]:
    """Yield the entries that an event says somebody read: their level, place and value."""
    if isinstance(event, Walked):
        yield from ((step.level, step.entry_pa, step.before) for step in event.steps)
        return
    stops: Iterable[object] = ()
    if isinstance(event, Faulted):
        stops = getattr(event.stop, "exceptions", (event.stop,))
    elif isinstance(event, Delivered):
        stops = event.delivery.exceptions
    for stop in stops:
        walk = getattr(stop, "walk", None)
        yield from walk.steps if walk else ()
