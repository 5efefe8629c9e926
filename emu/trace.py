"""Recording what happened: instructions, accesses, walks, what concerns the TLB, and exceptions.

Knows how to look on while a CPU runs, how far a run goes, and who gets what was recorded. Refuses
to steer: hooks record, nothing else. SDM vocabulary.

The hooks write a tape (`_tape`): in machine code (`_native`), where the host can run that, what is
known by heart (`_repertoire`), and in Python the rest (`_scribe`). Cut (`_cutting`), it is a chunk.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from emu import _native
from emu._recording import Recording
from emu._scribe import Scribe
from emu._tape import CAPACITY, Word
from emu.cpu import Cpu
from emu.events import Delivered, Edited, Event, Faulted
from emu.fault import EngineError, OutsideRam, PageFault, Returned, Shutdown, StepLimit, Stop, Trap
from emu.interrupts import Delivery, is_fault
from emu.machine import Machine
from emu.paging import PhysAddr

if TYPE_CHECKING:
    from emu.chunks import Chunk

HEAD, LIMIT = Word.HEAD, Word.LIMIT
ACCESSES, WALKS = Word.ACCESSES, Word.WALKS


def why_not_native() -> str | None:
    """Say why this host records in Python; None if it does in machine code."""
    return _native.why_not()


class Kept:
    """Keeps chunks, so that about the last `nr` events can be had; all of them if that is None."""

    def __init__(self, nr: int | None) -> None:
        if nr is not None and nr < 1:
            raise ValueError(f"keep={nr}: expected at least 1, or None for everything")
        self._nr: Final = nr
        self._chunks: deque[Chunk] = deque()
        self._size = 0  # events in these

    def __call__(self, chunk: "Chunk") -> None:
        """Keep one more."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._nr is not None and self._size - len(self._chunks[0]) >= self._nr:
            self._size -= len(self._chunks.popleft())

    def events(self) -> list[Event]:
        """Return the events that are kept."""
        found = [event for chunk in self._chunks for event in chunk.events()]
        return found if self._nr is None else found[-self._nr :]

    def drain(self) -> "list[Chunk]":
        """Return the chunks that are kept, and forget them."""
        chunks = list(self._chunks)
        self._chunks.clear()
        self._size = 0
        return chunks


class Turns:
    """Whose turn it is, of the recorders of one stream, and how much is in its chunks so far."""

    def __init__(self) -> None:
        self.instructions = 0
        self._current: Recorder | None = None

    def take(self, recorder: "Recorder") -> None:
        """Make it a recorder's turn; what the one before has on its tape comes first."""
        if self._current is not recorder:
            self.end()
            self._current = recorder

    def end(self) -> None:
        """Make it nobody's turn."""
        if self._current is not None:
            self._current.flush()
            self._current = None


class Recorder:
    """Records everything that a CPU does while it is entered, over any number of runs.

        with Recorder(cpu, keep=200) as recorder:
            cpu.run(...)
        for event in recorder.events(): ...

    `keep` bounds the memory: only about so many events are kept, the last ones. With a `sink`
    nothing is kept: it is given the chunks while the CPU runs, the last one when the recorder
    ends; what it raises ends the run. `registers` has the general registers recorded before each
    instruction. `native` is for tests: whether machine code records; by default where it can.
    One recorder a CPU at a time; several CPUs are for `MachineRecorder`, which gives each its
    `number` and has them take `turns`.
    """

    def __init__(
        self,
        cpu: Cpu,
        *,
        keep: int | None = None,
        registers: bool = False,
        sink: "Callable[[Chunk], object] | None" = None,
        native: bool | None = None,
        number: int = 0,
        turns: Turns | None = None,
    ) -> None:
        self._cpu: Final = cpu
        self._kept: Final = Kept(keep)
        self._sink: Final = self._kept if sink is None else sink
        self._number: Final = number
        self._turns: Final = turns or Turns()
        self._native: Final = _native.runs_here() if native is None else native
        self._scribe: Final = Scribe(cpu, registers=registers, native=self._native)
        self._words: Final = self._scribe.tape.words
        self._before = 0  # instructions that are on the tape no more
        self._faults = 0
        # Of the current run of the engine:
        self._from = 0  # how many instructions there were before it,
        self._taken = 0  # how many of its were taken back,
        self._last: int | None = None  # how many there may be,
        self._at_limit = False  # and whether that ended it
        self._also_told: Callable[[Delivery], None] | None = None

    def __enter__(self) -> "Recorder":
        cpu = self._cpu
        if cpu.on_stop is not None:
            raise ValueError("the CPU is being recorded already")
        cpu.stop_counting()
        self._also_told = cpu.on_delivery
        cpu.on_stop, cpu.on_delivery = self._ended, self._delivered
        scribe = self._scribe
        scribe.follow()
        scribe.goes_on = self._goes_on
        self._recording = Recording(cpu, scribe.tape, scribe, native=self._native)
        cpu.engine.onlooker = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cpu.on_stop, self._cpu.on_delivery = None, self._also_told
        self._cpu.engine.onlooker = None
        self._recording.end()
        self._scribe.repertoire.forget()
        # Or there would be cycles, which only the gc frees.
        self._scribe.goes_on = bool
        self.flush()
        self._turns.end()

    @property
    def instructions(self) -> int:
        """How many instructions completed; an iteration of a rep is one."""
        return self._before + self._words[HEAD]

    @property
    def steps(self) -> int:
        """How many steps that is: an exception instead of an instruction is one, too."""
        return self.instructions + self._faults

    def events(self) -> list[Event]:
        """Return the events that are kept."""
        self.flush()
        return self._kept.events()

    def drain(self) -> Iterator[Event]:
        """Yield the events that are kept, and forget them. Not while the CPU runs."""
        return chain.from_iterable(chunk.events() for chunk in self.drain_chunks())

    def drain_chunks(self) -> "list[Chunk]":
        """Return the chunks that are kept, and forget them. Not while the CPU runs."""
        self.flush()
        return self._kept.drain()

    def edited(self, entry_pa: int, nr: int, by: str) -> None:
        """Record that entries were written from outside the CPU, by what is called `by`."""
        first = entry_pa >> 3
        entries = tuple(self._cpu.memory.words[first : first + nr])
        self._scribe.mark(Edited(PhysAddr(entry_pa), entries, by))
        if self._is_full():
            self.flush()

    def flush(self) -> None:
        """Cut the tape, and hand the chunk on. Not while the CPU runs."""
        nr, lost = self._words[HEAD], self._words[Word.LOST]
        if lost:
            raise EngineError(f"{lost} accesses and walks did not fit on the tape")
        chunk = self._scribe.cut(cpu=self._number, first=self._turns.instructions)
        self._before += nr
        self._turns.instructions += nr
        if chunk is not None:
            self._sink(chunk)

    # -- the beginning of a run of the engine, and how far it goes

    def begin(self, count: int) -> None:
        """Be told by the engine that it is entered, for so many instructions at most."""
        self._turns.take(self)
        if self._is_full():
            self.flush()
        self._scribe.begin()
        self._from, self._taken, self._at_limit = self.instructions, 0, False
        self._last = self._from + count if count else None
        self._set_limit()

    def begun(self) -> int:
        """Tell the engine how many instructions it has begun; one more if the limit ended it."""
        return self.instructions - self._from + self._taken + self._at_limit

    def refused(self) -> bool:
        """Tell the engine whether an access was refused a translation; it will be begun again."""
        kind = self._recording.refused()
        if kind in ("read", "write"):
            self._scribe.take_back(None)
        return kind is not None

    def look_away(self) -> None:
        """Record no walks until `look_back`: they are ours."""
        self._recording.look_away()

    def look_back(self) -> None:
        """Record walks again."""
        self._recording.look_back()

    def _set_limit(self) -> None:
        room = CAPACITY if self._last is None else min(CAPACITY, self._last - self._before)
        self._words[LIMIT] = room

    def _goes_on(self) -> bool:
        """Make room on the tape, at an instruction; False, and the run stops, at its limit."""
        if self._last is not None and self.instructions >= self._last:
            self._at_limit = True
            self._cpu.engine.stop()
            return False
        if self._is_full():
            self.flush()
        self._set_limit()
        return True

    def _is_full(self) -> bool:
        words = self._words
        return (
            words[HEAD] >= CAPACITY
            or words[ACCESSES] >= words[Word.ACCESSES_FULL]
            or words[WALKS] >= words[Word.WALKS_FULL]
            or self._scribe.nr_marks >= words[Word.WALKS_FULL]
        )

    # -- the end of a run

    def _ended(self, stop: Stop) -> None:
        """Take back what did not happen, and record how the run ended."""
        code = b""
        self._scribe.finish_walk()
        if isinstance(stop, Returned):
            self._take_back(None)  # the hlt is ours
        elif isinstance(stop, (PageFault, Trap, OutsideRam, Shutdown)) or (
            isinstance(stop, StepLimit) and stop.steps is None
        ):
            code = self._take_back(stop.rip)
        self._scribe.switched()
        if isinstance(stop, (PageFault, Trap, OutsideRam, Shutdown)):
            self._scribe.mark(Faulted(stop, code))

    def _delivered(self, delivery: Delivery) -> None:
        """Take back what did not happen, and record where the exception went."""
        exc = delivery.exceptions[0]
        code = b""
        self._scribe.finish_walk()
        if is_fault(exc):
            code = self._take_back(exc.rip)
            self._faults += 1
        self._scribe.switched()
        self._scribe.mark(Delivered(delivery, code))
        if self._also_told is not None:
            self._also_told(delivery)

    def _take_back(self, rip: int | None) -> bytes:
        """Take back the last instruction of this run, if it was the one at `rip`; its bytes."""
        code = None if self.instructions == self._from else self._scribe.take_back(rip)
        if code is None:
            return b""
        self._taken += 1
        return code


class MachineRecorder:
    """Records everything that all CPUs of a machine do, as one stream: see `Recorder`.

    CPUs take turns, and each turn is in chunks of its own.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        keep: int | None = None,
        registers: bool = False,
        sink: "Callable[[Chunk], object] | None" = None,
    ) -> None:
        self._kept: Final = Kept(keep)
        self._turns: Final = Turns()
        self._recorders: Final = [
            Recorder(
                cpu, registers=registers, sink=sink or self._kept, number=nr, turns=self._turns
            )
            for nr, cpu in enumerate(machine.cpus)
        ]
        self._stack: Final = ExitStack()

    def __enter__(self) -> "MachineRecorder":
        with ExitStack() as stack:
            for recorder in self._recorders:
                stack.enter_context(recorder)
            self._stack.push(stack.pop_all())
        return self

    def __exit__(self, *error: Any) -> None:
        self._turns.end()
        self._stack.close()

    @property
    def instructions(self) -> int:
        """How many instructions completed, on all CPUs."""
        return sum(recorder.instructions for recorder in self._recorders)

    def events(self) -> list[Event]:
        """Return the events that are kept."""
        self._turns.end()
        return self._kept.events()

    def drain_chunks(self) -> "list[Chunk]":
        """Return the chunks that are kept, and forget them. Not while a CPU runs."""
        self._turns.end()
        return self._kept.drain()

    def edited(self, entry_pa: int, nr: int, by: str, *, cpu: int = 0) -> None:
        """Record that entries were written from outside the CPUs, by what is called `by`, which
        has the place of that CPU in the stream."""
        recorder = self._recorders[cpu]
        self._turns.take(recorder)
        recorder.edited(entry_pa, nr, by)
