"""A playback of a kernel that runs now: recorded while it does.

Knows how one learns what its tables hold: from RAM when a table is first met, and from then on from
every event that writes an entry. RAM is looked at only while the guest stands still, which is when
Python writes entries for the kernel. Refuses to know what is asked of it (`playback`).
"""

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from emu.events import (
    Accessed,
    Cr3Switch,
    Delivered,
    Edited,
    Event,
    Faulted,
    Invalidated,
    Walked,
    controls_after,
)
from emu.paging import ADDRESS, ENTRIES, ENTRY_SIZE, FRAME_SIZE, PS, U64, P, Paging, PhysAddr
from emu.trace import Kept
from kernel_model.auditing import per_mm
from pagewalk.entry_values import EntryValues, moment, nr_last
from pagewalk.playback import Playback, Since
from pagewalk.recording import recording, tables
from pagewalk.traces.rows import order

if TYPE_CHECKING:
    from emu.chunks import Chunk
    from kernel_model import Kernel
    from kernel_model.scenarios.outcome import ScenarioRun
    from kernel_model.scenarios.spec import Scenario, Settings

MOST_EVENTS: Final = 100_000
"""How many events are kept if nobody says otherwise: the last ones."""

_TELLING: Final = (Cr3Switch, Delivered, Edited, Faulted)
_Seen = list[tuple[int, bytes]]
"""Frames, and what RAM held there."""


@dataclass(slots=True)
class _Note:
    """What was found in RAM when Python wrote entries: of frames that had been no table, and of
    others."""

    new: _Seen = field(default_factory=list)
    again: _Seen = field(default_factory=list)


class _Tables:
    """The frames that are or were tables, as they are met; RAM is read as it is now."""

    def __init__(self, kernel: "Kernel") -> None:
        self._memory: Final = kernel.memory
        self._held: Final[dict[int, bytes]] = {}
        self._level: Final[dict[int, int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, frame: int) -> bool:
        return frame in self._held

    @property
    def frames(self) -> NDArray[np.uint64]:
        """All of them, lowest first."""
        return np.array(sorted(self._held), np.uint64)

    def reach(self, frame: int, level: int) -> _Seen:
        """Meet a table of `level` and all below it; return those that RAM has something new of."""
        seen: _Seen = []
        waiting = [(frame, level)]
        while waiting:
            frame, level = waiting.pop()
            if not self._memory.holds(frame, FRAME_SIZE):
                continue
            seen += self.look(frame)
            if frame not in self._level:
                self._level[frame] = level
                waiting += self.below(frame, self._words(frame))
        return seen

    def look(self, frame: int) -> _Seen:
        """Read a table; return it if it holds something else than when it was read last."""
        held = self._memory.peek(frame, FRAME_SIZE)
        if self._held.get(frame) == held:
            return []
        self._held[frame] = held
        return [(frame, held)]

    def below(self, pa: int, entries: NDArray[np.uint64]) -> list[tuple[int, int]]:
        """Return the tables that entries from `pa` on lead to, with their level."""
        level = self._level.get(pa & -FRAME_SIZE, 0)
        if level < 2:
            return []
        lead = entries[entries & np.uint64(P | PS) == P] & np.uint64(ADDRESS)
        return [(frame, level - 1) for frame in np.unique(lead).tolist()]

    def _words(self, frame: int) -> NDArray[np.uint64]:
        return np.frombuffer(self._held[frame], np.uint64)


class Capture:
    """Records a kernel, for a playback of `keep` events at most; of all if that is None.

    They are the last ones, and, for up to a half of `keep`, those before them that tell most:
    faults, other CR3s, and whatever changes a table, each with its instruction.

    capture = Capture(keep=100_000)
    with capture.recording(kernel):
        ...
    playback = capture.playback("title", "ending")
    """

    def __init__(self, *, keep: int | None = MOST_EVENTS, registers: bool = False) -> None:
        self._keep: Final = keep
        self._registers: Final = registers
        self._kept: Final = Kept(keep)
        self._telling: Final[dict[int, tuple[int, Event]]] = {}  # number -> CPU, event
        self._values: Final = EntryValues()
        self._notes: Final[deque[_Note]] = deque()
        self._edits: Final[list[int]] = []  # the moments right after them
        self._pagings: Final[dict[int, list[tuple[int, Paging]]]] = {}
        self._roots: dict[int, str] = {}
        self._root_events: Final[list[tuple[int, int, str | None]]] = []  # as `Since`, by edits
        self._last_edit: Final[dict[int, int]] = defaultdict(int)  # of a frame, counted from 1
        self._roots_of: tuple[int, ...] = ()  # when the roots were found: what had happened then
        self._at = 0
        self.instructions = 0

    @contextmanager
    def of(self, kernel: "Kernel", scenario: "Scenario", settings: "Settings") -> Iterator[None]:
        """Record a scenario, as `playing.play` has it."""
        with self.recording(kernel):
            yield

    @contextmanager
    def recording(self, kernel: "Kernel") -> Iterator[None]:
        """Record what the body has the kernel do."""
        self._kernel = kernel
        self._tables = _Tables(kernel)
        for nr, cpu in enumerate(kernel.machine.cpus):
            self._pagings[nr] = [(0, cpu.paging)]
        self._saw(0, self._find_roots(0))
        writers = kernel.pgtable.writers
        with recording(kernel, registers=self._registers, sink=self._take):
            told, nr = writers.watcher, 0
            assert told is not None

            def watch(pa: int, nr_entries: int, by: str) -> None:
                nonlocal nr
                nr += 1
                self._notes.append(self._look(pa, nr_entries, nr))
                told(pa, nr_entries, by)

            writers.watcher = watch
            yield
        self._saw(self._at, self._find_roots(nr + 1))

    def playback(self, title: str, ending: str) -> Playback:
        """Return what was recorded."""
        numbers, events, cpus = self._chosen()
        self._values.keep(numbers)
        return Playback(
            title=title,
            ending=ending,
            events=events,
            cpus=cpus,
            numbers=numbers,
            nr_left_out=self._at - len(events),
            nr_instructions=self.instructions,
            pagings={
                cpu: [(moment(numbers, at), paging) for at, paging in known]
                for cpu, known in self._pagings.items()
            },
            names=self._names(numbers),
            values=self._values,
            symbolise=self._kernel.image.describe,
            symbols={name: one.address for name, one in self._kernel.image.symbols.items()},
            ram=self._kernel.memory.pieces,
            layout=self._kernel.layout,
            own_slots=frozenset(slot for slot in range(ENTRIES) if per_mm(self._kernel, slot)),
        )

    def _chosen(self) -> tuple[list[int], list[Event], list[int]]:
        """Return the events that are kept: their numbers, themselves, and their CPUs."""
        events: list[Event] = []
        cpus: list[int] = []
        for chunk in self._kept.drain():
            events += chunk.events()
            cpus += [chunk.cpu] * len(chunk)
        if self._keep is None:
            return list(range(1, self._at + 1)), events, cpus
        telling = sorted(self._telling)
        last = nr_last(telling, self._at, self._keep)
        del telling[bisect_right(telling, self._at - last) :]
        numbers = [*telling, *range(self._at - last + 1, self._at + 1)]
        return (
            numbers,
            [*(self._telling[n][1] for n in telling), *events[len(events) - last :]],
            [*(self._telling[n][0] for n in telling), *cpus[len(cpus) - last :]],
        )

    def _names(self, numbers: Sequence[int]) -> list[Since]:
        """Return whose the roots were, and from which moment on."""
        moments = [0, *self._edits, self._at]
        found = [
            Since(moment(numbers, moments[min(edit, len(moments) - 1)]), PhysAddr(root), name)
            for edit, root, name in self._root_events
        ]
        return sorted(found, key=lambda one: one.at)

    # -- while the guest stands still

    def _look(self, pa: int, nr: int, edit: int) -> _Note:
        """Note what RAM holds, in and below a table of which Python has just written entries."""
        note, tables, frame = _Note(), self._tables, pa & -FRAME_SIZE
        entries = np.array(self._kernel.memory.words[pa >> 3 : (pa >> 3) + nr], np.uint64)
        if frame in tables:
            note.again += tables.look(frame)
        else:
            ((_, held),) = tables.look(frame)
            offset = pa - frame
            empty = bytes(min(ENTRY_SIZE * nr, FRAME_SIZE - offset))  # as tables begin
            note.new.append((frame, held[:offset] + empty + held[offset + len(empty) :]))
        self._last_edit[frame] = edit
        for child, level in tables.below(pa, entries):
            note.again += tables.reach(child, level)
        note.again += self._find_roots(edit)
        return note

    def _find_roots(self, edit: int) -> _Seen:
        """Note which tables have come and gone; return what RAM holds of the new ones."""
        kernel, seen = self._kernel, _Seen()
        state = len(kernel.history), len(kernel.pgd_list), len(kernel.outside)
        if self._roots_of == state:
            return seen
        self._roots_of = state
        roots: dict[int, str] = dict(tables(kernel))
        for root, name in roots.items():
            if self._roots.get(root) != name:
                self._root_events.append((min(self._last_edit[root], edit), root, name))
                seen += self._tables.reach(root, kernel.layout.levels)
        gone = self._roots.keys() - roots.keys()
        self._root_events.extend((edit, root, None) for root in gone)
        self._roots = roots
        return seen

    # -- while what was recorded comes in

    def _take(self, chunk: "Chunk") -> None:
        """Learn from a chunk's events what they write into tables."""
        self._kept(chunk)
        accesses, rows = chunk.accesses, order(chunk)
        frames = self._tables.frames
        stores = np.flatnonzero(
            accesses["is_write"] & np.isin(accesses["pa"] & np.uint64(-FRAME_SIZE & U64), frames)
        )
        facts: list[tuple[int, tuple[int, Any]]] = [
            (row, (int(accesses[number]["at"]), accesses[number]))
            for row, number in zip(rows[1][stores].tolist(), stores.tolist(), strict=True)
        ]
        others = ((behind, event) for behind, _, event in chunk.others)
        facts += zip(rows[2].tolist(), others, strict=True)
        for row, fact in sorted(facts, key=lambda one: one[0]):
            at, nr_changes = self._at + row + 1, len(self._values.changes)
            event = _accessed(fact[1]) if isinstance(fact[1], np.void) else fact[1]
            self._learn(at, chunk.cpu, event)
            if len(self._values.changes) > nr_changes or isinstance(event, _TELLING):
                self._tell(at, chunk, event, fact[0], rows[0])
        self._at += len(chunk)
        self.instructions += len(chunk.instructions)

    def _tell(
        self, at: int, chunk: "Chunk", event: Event, behind: int, rows: NDArray[np.int64]
    ) -> None:
        """Keep an event that tells much, with its instruction: the last of those it is behind."""
        if self._keep is None:
            return
        if behind and not isinstance(event, Edited):
            shape = chunk.shapes[chunk.instructions[behind - 1]]
            self._telling[self._at + int(rows[behind - 1]) + 1] = chunk.cpu, shape
        self._telling[at] = chunk.cpu, event
        while len(self._telling) > self._keep // 2:
            del self._telling[next(iter(self._telling))]

    def _learn(self, at: int, cpu: int, event: Event) -> None:
        if isinstance(event, Accessed):
            self._stored(at, event.pa, event.size, event.value)
        elif isinstance(event, Walked):
            for step in event.steps:
                if step.after != step.before:
                    self._values.wrote(at, step.entry_pa, (step.after,))
        elif isinstance(event, Edited):
            note = self._notes.popleft()
            self._saw(at, note.new)
            self._values.wrote(at, event.entry_pa, event.entries)
            self._saw(at, note.again)
            self._edits.append(at)
        elif isinstance(event, Delivered):
            for pa, value in event.delivery.stores.items():
                if pa & -FRAME_SIZE in self._tables:
                    self._stored(at, pa, ENTRY_SIZE, value)
        elif isinstance(event, Cr3Switch | Invalidated):
            known = self._pagings[cpu]
            after = controls_after(known[-1][1], event)
            if after != known[-1][1]:
                known.append((at, after))

    def _stored(self, at: int, pa: int, size: int, value: int) -> None:
        """The guest itself has stored into a table; what it leads to now is met in RAM."""
        self._values.wrote_bytes(at, pa, size, value)
        entry_pa = pa & -ENTRY_SIZE
        entry = self._values.latest(entry_pa)
        for child, level in self._tables.below(entry_pa, np.array([entry or 0], np.uint64)):
            if child not in self._tables:
                self._saw(at, self._tables.reach(child, level))

    def _saw(self, at: int, seen: _Seen) -> None:
        for frame, held in seen:
            self._values.saw(at, frame, np.frombuffer(held, np.uint64))


def _accessed(row: Any) -> Accessed:
    va, pa, value, _, size, _, has_va = row.tolist()
    return Accessed(va if has_va else None, pa, size, value, "write")


def play_back(
    scenario: str,
    arguments: dict[str, object],
    *,
    keep: int | None = MOST_EVENTS,
    registers: bool = False,
) -> "tuple[Playback, ScenarioRun]":
    """Play a scenario and return its playback, and the run, whose kernel is still there."""
    from pagewalk.playing import play

    capture = Capture(keep=keep, registers=registers)
    run, _ = play(scenario, arguments, into=capture)
    kernel, stop = run.kernel, run.ending.stop
    title = (
        f"{run.scenario.name}, release {kernel.release.name}, build {kernel.build.name}, "
        f"{kernel.layout.levels} levels"
    )
    ending = f"{run.outcome}: {stop}, after {capture.instructions} instructions"
    return capture.playback(title, ending), run
