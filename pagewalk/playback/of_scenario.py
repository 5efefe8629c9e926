"""A playback of a kernel that runs now: recorded while it does.

Knows how one learns what its tables hold: from RAM when a table is first met (`kernel_tables`), and
from then on from every event that writes an entry. Refuses to know what is asked of it
(`moments`).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from emu import trace
from emu.events import (
    Accessed,
    Cr3Switch,
    Delivered,
    Edited,
    Event,
    Invalidated,
    Walked,
    controls_after,
)
from emu.paging import ENTRIES, ENTRY_SIZE, FRAME_SIZE, U64, Paging, PhysAddr
from kernel_model.auditing import per_mm
from pagewalk.playback.chosen_events import MOST, TELLING, Kept, choose, has_all, moment
from pagewalk.playback.entry_values import EntryValues
from pagewalk.playback.kernel_tables import KernelTables, Look, Seen
from pagewalk.playback.moments import Playback, Since
from pagewalk.recording import recording
from pagewalk.traces.rows import order

if TYPE_CHECKING:
    from emu.chunks import Chunk
    from kernel_model import Kernel
    from kernel_model.scenarios.outcome import ScenarioRun
    from kernel_model.scenarios.spec import Scenario, Settings


class Capture:
    """Records a kernel, for a playback of `keep` events at most; of all if that is None.

        capture = Capture(keep=100_000)
        with capture.recording(kernel):
            ...
        playback = capture.playback("title", "ending")

    They are the last ones, and, for up to a half of `keep`, those before them that tell most:
    faults, other CR3s, and whatever changes a table, each with its instruction.
    """

    def __init__(self, *, keep: int | None = MOST, registers: bool = False) -> None:
        self._keep: Final = keep
        self._registers: Final = registers
        self._chunks: Final = trace.Kept(keep)
        self._telling: Final[dict[int, Kept]] = {}  # by number
        self._first_telling: int | None = None  # of all that there were
        self._values: Final = EntryValues()
        self._looks: Final[deque[Look]] = deque()  # one for each edit that has not come in yet
        self._edits: Final[list[int]] = []  # the moments right after them
        self._pagings: Final[dict[int, list[tuple[int, Paging]]]] = {}
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
        self._tables = tables = KernelTables(kernel)
        for nr, cpu in enumerate(kernel.machine.cpus):
            self._pagings[nr] = [(0, cpu.paging)]
        self._saw(0, tables.find_roots())
        writers = kernel.pgtable.writers
        with recording(kernel, registers=self._registers, sink=self._take):
            told = writers.watcher
            assert told is not None

            def watch(pa: int, nr: int, by: str) -> None:
                self._looks.append(tables.edited(pa, nr))
                told(pa, nr, by)

            writers.watcher = watch
            yield
        tables.edits += 1  # whoever goes after the last one
        self._saw(self._at, tables.find_roots())

    def playback(self, title: str, ending: str) -> Playback:
        """Return what was recorded."""
        telling = sorted(self._telling.values())
        last = [(c.cpu, event) for c in self._chunks.drain() for event in c.events()]
        kept = choose(telling, last, self._at, self._keep)
        numbers = [one.number for one in kept]
        self._values.keep(numbers)
        return Playback(
            title=title,
            ending=ending,
            events=[one.event for one in kept],
            cpus=[one.cpu for one in kept],
            numbers=numbers,
            nr_left_out=self._at - len(kept),
            has_telling=has_all(self._first_telling, numbers),
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

    def _names(self, numbers: Sequence[int]) -> list[Since]:
        """Return whose the roots were, and from which moment on."""
        moments = [0, *self._edits, self._at]
        found = [
            Since(moment(numbers, moments[min(edit, len(moments) - 1)]), PhysAddr(root), name)
            for edit, root, name in self._tables.names
        ]
        return sorted(found, key=lambda one: one.at)

    # -- while what was recorded comes in

    def _take(self, chunk: "Chunk") -> None:
        """Learn from a chunk's events what they write into tables."""
        self._chunks(chunk)
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
            if len(self._values.changes) > nr_changes or isinstance(event, TELLING):
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
            executed = chunk.shapes[chunk.instructions[behind - 1]]
            if chunk.registers is not None:
                registers = tuple(chunk.registers[behind - 1].tolist())
                executed = executed._replace(registers=registers)
            number = self._at + int(rows[behind - 1]) + 1
            self._telling[number] = Kept(number, chunk.cpu, executed)
        self._telling[at] = Kept(at, chunk.cpu, event)
        if self._first_telling is None:
            self._first_telling = at
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
            look = self._looks.popleft()
            self._saw(at, look.before)
            self._values.wrote(at, event.entry_pa, event.entries)
            self._saw(at, look.after)
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
        for child, level in self._tables.below(entry_pa, [entry or 0]):
            if child not in self._tables:
                self._saw(at, self._tables.reach(child, level))

    def _saw(self, at: int, seen: Seen) -> None:
        for frame, held in seen:
            self._values.saw(at, frame, np.frombuffer(held, np.uint64))


def _accessed(row: Any) -> Accessed:
    va, pa, value, _, size, _, has_va = row.tolist()
    return Accessed(va if has_va else None, pa, size, value, "write")


def play_back(
    scenario: str,
    arguments: dict[str, object],
    *,
    keep: int | None = MOST,
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
