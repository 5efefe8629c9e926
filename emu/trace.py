"""Recording what happened: instructions, accesses, walks, what concerns the TLB, and exceptions.

Knows how to look on while a CPU runs, and which of the engine's reports are to be believed.
Refuses to know who wants the events, and to steer: hooks record, nothing else. SDM vocabulary.

The hooks write a tape (`_tape`): in machine code, where the host can run that, what is known by
heart (`_repertoire`), and in Python the rest. What an access's linear address was is worked out
when the tape is cut (`_cutting`). Records of an instruction that did not complete are taken back:
the engine reports some of the accesses of an instruction that then faults.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from emu import _native
from emu._layout import live
from emu._recording import Recording
from emu._repertoire import Known, Repertoire
from emu._tape import ACCESS, CAPACITY, MASKS, NOBODY, WALK, Tape, Word
from emu._unicorn import is_store, unpack_registers
from emu.cpu import Cpu
from emu.events import Cr3Switch, Delivered, Edited, Event, Faulted, Invalidated
from emu.fault import OutsideRam, PageFault, Returned, Shutdown, StepLimit, Stop, Trap
from emu.interrupts import Delivery, is_fault
from emu.machine import Machine
from emu.operands import Kind, Operands, invalidation
from emu.paging import FRAME_SIZE, U64, PhysAddr, VirtAddr
from emu.walk import walk

if TYPE_CHECKING:
    from emu._cutting import Mark
    from emu.chunks import Chunk

_OFFSET: Final = FRAME_SIZE - 1
_RCX: Final = 1
_GENERAL: Final = 16 * 8  # bytes

HEAD, LIMIT, LAST = Word.HEAD, Word.LIMIT, Word.LAST
ACCESSES, WALKS = Word.ACCESSES, Word.WALKS
READ_VA, WRITE_VA = Word.READ_VA, Word.WRITE_VA
READ_SIZE, WRITE_SIZE = Word.READ_SIZE, Word.WRITE_SIZE


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


class Recorder:
    """Records everything that a CPU does while it is entered, over any number of runs.

        with Recorder(cpu, keep=200) as recorder:
            cpu.run(...)
        for event in recorder.events(): ...

    `keep` bounds the memory: only about so many events are kept, the last ones. With a `sink`
    nothing is kept: it is given the chunks while the CPU runs, the last one when the recorder
    ends; what it raises ends the run. `registers` has the general registers recorded before each
    instruction. `native` is for tests: whether machine code records; by default where it can.
    One recorder a CPU at a time; several CPUs are for `MachineRecorder`.
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
        turns: "list[Recorder] | None" = None,
    ) -> None:
        self._cpu: Final = cpu
        self._memory: Final = cpu.memory
        self._kept: Final = Kept(keep)
        self._sink: Final = self._kept if sink is None else sink
        self._number: Final = number
        self._turns: Final = [] if turns is None else turns  # who is entered, of several
        self._native: Final = _native.runs_here() if native is None else native
        self._tape: Final = Tape(registers=registers)
        self._words: Final = self._tape.words
        self._repertoire: Final = Repertoire(cpu, self._tape, native=self._native)
        self._live: Final = live(cpu.engine.handle)
        self._general: Final = self._live.cast("B")[:_GENERAL]
        self._snapshots: dict[int, bytes] = {}
        self._marks: list[Mark] = []
        self._before = 0  # instructions that are on the tape no more
        self._faults = 0
        self._cr3 = 0
        self._paging = cpu.paging
        # Of the current run of the engine:
        self._from = 0  # how many instructions there were before it,
        self._taken = 0  # how many of its were taken back,
        self._last: int | None = None  # how many there may be,
        self._at_limit = False  # whether that ended it,
        self._walks = 0  # and how many walks were on the tape
        self._also_told: Callable[[Delivery], None] | None = None

    def __enter__(self) -> "Recorder":
        cpu = self._cpu
        if cpu.on_stop is not None:
            raise ValueError("the CPU is being recorded already")
        cpu.stop_counting()
        self._also_told = cpu.on_delivery
        cpu.on_stop, cpu.on_delivery = self._ended, self._delivered
        self._cr3 = cpu.cr3
        self._recording = Recording(cpu, self._tape, self, native=self._native)
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
        self._repertoire.forget()
        self.flush()

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
        entry = self._memory.words[entry_pa >> 3]
        self._mark(Edited(PhysAddr(entry_pa), nr, entry, by))

    def flush(self) -> None:
        """Cut the tape, and hand the chunk on. Not while the CPU runs."""
        from emu._cutting import Script, cut

        words, repertoire = self._words, self._repertoire
        if not (words[HEAD] or words[ACCESSES] or words[WALKS] or self._marks):
            return
        script = Script(
            executed=repertoire.executed,
            snapshots=self._snapshots,
            marks=self._marks,
            paging=self._paging,
            holds=self._memory.holds,
        )
        chunk = cut(self._tape, script, cpu=self._number, first=self._before)
        self._before += words[HEAD]
        words[HEAD] = words[ACCESSES] = words[WALKS] = self._walks = 0
        self._snapshots, self._marks = {}, []
        self._sink(chunk)

    # -- the beginning of a run of the engine, and how far it goes

    def begin(self, count: int) -> None:
        """Be told by the engine that it is entered, for so many instructions at most."""
        self._finish_walk()
        if self._turns and self._turns[-1] is not self:
            self._turns.pop().flush()
            self._turns.append(self)
        self._repertoire.refresh()
        self._from, self._taken, self._at_limit = self.instructions, 0, False
        self._last = self._from + count if count else None
        self._walks = self._words[WALKS]
        self._set_limit()

    def begun(self) -> int:
        """Tell the engine how many instructions it has begun; one more if the limit ended it."""
        return self.instructions - self._from + self._taken + self._at_limit

    def refused(self) -> bool:
        """Tell the engine whether an access was refused a translation; it will be begun again."""
        kind = self._recording.refused()
        if kind in ("read", "write") and self._take_back(None):
            self._taken -= 1
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
        words = self._words
        if (
            words[HEAD] >= CAPACITY
            or words[ACCESSES] >= words[Word.ACCESSES_FULL]
            or words[WALKS] >= words[Word.WALKS_FULL]
        ):
            self.flush()
        self._set_limit()
        return True

    # -- the hooks

    def on_code(self, engine: Any, rip: int, size: int, data: Any) -> None:
        """Record an instruction, before it is executed: one that is not known by heart."""
        words = self._words
        try:
            head = words[HEAD]
            if head >= words[LIMIT]:
                if not self._goes_on():
                    return
                head = words[HEAD]
            known = self._repertoire.known.get(rip)
            if known is None:
                known = self._arrive(rip, size)
            number, kind, counts, read, write = known
            if counts and words[LAST] == number and not self._live[_RCX] & counts:
                return  # the engine's last look at a count that has come to 0
            self._tape.instructions[head] = words[LAST] = number
            if self._tape.registers is not None:
                self._tape.registers[_GENERAL * head : _GENERAL * (head + 1)] = self._general
            words[HEAD] = head + 1
            words[READ_SIZE], words[WRITE_SIZE] = self._repertoire.sizes[number]
            if read is not None and write is not None:
                words[READ_VA], words[WRITE_VA] = read.va(self._live), write.va(self._live)
            elif kind == Kind.OPAQUE:
                self._snapshots[head + 1] = self._cpu.engine.packed()
            elif kind == Kind.SYSTEM:
                self._system(number)
        except BaseException as error:  # noqa: BLE001 (ctypes would print it and go on)
            self._cpu.engine.break_off(error)

    def on_access(self, engine: Any, kind: int, pa: int, size: int, value: int, data: Any) -> None:
        """Record an access that crosses frames, or is to one of code or tables; or any."""
        try:
            writes = is_store(kind)
            if (pa & _OFFSET) + size <= FRAME_SIZE:
                self._put(writes, pa, size, value)
            else:
                self._crossing(writes, pa, size, value)
            if writes and pa >> 12 in self._repertoire.watched:
                self._repertoire.forget()
        except BaseException as error:  # noqa: BLE001 (ctypes would print it and go on)
            self._cpu.engine.break_off(error)

    def _arrive(self, rip: int, size: int) -> Known:
        """Meet an instruction that is not known."""
        if self._repertoire.paging is None:
            self._switched()
            self._paging = self._cpu.paging
        return self._repertoire.learn(rip, size)

    def _system(self, number: int) -> None:
        """Record what the last instruction is about to do to translations."""
        registers = unpack_registers(self._cpu.engine.packed())
        what = invalidation(self._repertoire.executed[number], registers)
        if what is not None:
            self._mark(what)
            if what.what == "cr3" and what.value != self._cr3:
                self._mark(Cr3Switch(self._cr3, what.value))
                self._cr3 = what.value
        self._repertoire.forget()

    def _put(self, writes: bool, pa: int, size: int, value: int) -> None:
        words = self._words
        number = words[ACCESSES]
        if number >= words[Word.ACCESSES_END]:
            words[Word.LOST] += 1
            return
        va = self._va(writes, pa)
        value &= MASKS[size]
        record = (0 if va is None else va), pa, value, words[HEAD], size, writes, va is not None
        ACCESS.pack_into(self._tape.accesses, ACCESS.size * number, *record)
        words[ACCESSES] = number + 1
        if number + 1 >= words[Word.ACCESSES_FULL]:
            words[LIMIT] = 0

    def _crossing(self, writes: bool, pa: int, size: int, value: int) -> None:
        """Record an access that goes on in another frame: each page's part for itself."""
        first = FRAME_SIZE - (pa & _OFFSET)
        rest = self._next_frame(writes, pa, size)
        if rest is None:  # the store is about to fault
            self._put(writes, pa, size, value)
            return
        self._put(writes, pa, first, value)
        self._put(writes, rest, size - first, (value & U64) >> 8 * first)
        if writes and rest >> 12 in self._repertoire.watched:
            self._repertoire.forget()

    def _next_frame(self, writes: bool, pa: int, size: int) -> PhysAddr | None:
        """Return where the linear page behind this part of the current instruction lies."""
        head = self._words[HEAD]
        packed = self._snapshots.get(head)
        if packed is None:
            va = self._va(writes, pa)
        else:
            executed = self._repertoire.executed[self._tape.instructions[head - 1]]
            va = Operands(executed, unpack_registers(packed)).take(writes, pa, size)
        if va is None:
            return None
        return walk(self._memory.read_u64, self._paging, VirtAddr((va | _OFFSET) + 1 & U64)).pa

    def _va(self, writes: bool, pa: int) -> VirtAddr | None:
        """Return the linear address of an access, if the instruction's one operand has it."""
        words = self._words
        va = words[WRITE_VA if writes else READ_VA]
        offset = (pa - va) & _OFFSET
        known = offset < words[WRITE_SIZE if writes else READ_SIZE]
        return VirtAddr((va + offset) & U64) if known else None

    def _mark(self, event: Event, walks: int | None = None) -> None:
        """Record an event that is on no tape, behind what is there."""
        from emu._cutting import Mark

        words = self._words
        behind = words[WALKS] if walks is None else walks
        self._marks.append(Mark(words[HEAD], words[ACCESSES], behind, event))

    def _switched(self) -> None:
        """Record that CR3 was given another value from outside, before this run."""
        cr3 = self._cpu.cr3
        if cr3 != self._cr3:
            self._mark(Cr3Switch(self._cr3, cr3), self._walks)
            self._cr3 = cr3

    # -- the end of a run

    def _ended(self, stop: Stop) -> None:
        """Take back what did not happen, and record how the run ended."""
        code = b""
        self._finish_walk()
        if isinstance(stop, Returned):
            self._take_back(None)  # the hlt is ours
        elif isinstance(stop, (PageFault, Trap, OutsideRam, Shutdown)) or (
            isinstance(stop, StepLimit) and stop.steps is None
        ):
            code = self._take_back(stop.rip)
        self._switched()
        if isinstance(stop, (PageFault, Trap, OutsideRam, Shutdown)):
            self._mark(Faulted(stop, code))

    def _delivered(self, delivery: Delivery) -> None:
        """Take back what did not happen, and record where the exception went."""
        exc = delivery.exceptions[0]
        code = b""
        self._finish_walk()
        if is_fault(exc):
            code = self._take_back(exc.rip)
            self._faults += 1
        self._switched()
        self._mark(Delivered(delivery, code))
        if self._also_told is not None:
            self._also_told(delivery)

    def _take_back(self, rip: int | None) -> bytes:
        """Forget the last instruction if it was the one at `rip`; return its bytes."""
        words, marks = self._words, self._marks
        head = words[HEAD]
        if self.instructions == self._from or not head:
            return b""
        executed = self._repertoire.executed[self._tape.instructions[head - 1]]
        if rip not in (None, executed.rip):
            return b""
        words[HEAD], words[LAST] = head - 1, NOBODY
        self._taken += 1
        self._snapshots.pop(head, None)
        number = words[ACCESSES]
        while number and self._at(number - 1) == head:
            number -= 1
        words[ACCESSES] = number
        while marks and marks[-1].instructions == head:
            event = marks.pop().event
            if isinstance(event, Cr3Switch):
                self._cr3 = event.old
            else:
                assert isinstance(event, Invalidated)
        for n in range(words[WALKS] - 1, -1, -1):  # these did happen
            va, instructions, _, *rest = WALK.unpack_from(self._tape.walks, n * WALK.size)
            if instructions != head:
                break
            WALK.pack_into(self._tape.walks, n * WALK.size, va, head - 1, number, *rest)
        return executed.code

    def _at(self, number: int) -> int:
        """Return which instruction an access belongs to."""
        return int(ACCESS.unpack_from(self._tape.accesses, ACCESS.size * number)[3])

    def _finish_walk(self) -> None:
        """Look at what the last walk left behind, if it was the one that faulted."""
        number = self._words[WALKS] - 1
        if number < self._walks:
            return
        *head, levels, done = WALK.unpack_from(self._tape.walks, number * WALK.size)[:7]
        if done:
            return
        words = WALK.unpack_from(self._tape.walks, number * WALK.size)[7:]
        entries: list[int] = []
        for pa, before, _ in zip(*[iter(words)] * 3, strict=True):
            entries += pa, before, self._memory.words[pa >> 3]
        WALK.pack_into(self._tape.walks, number * WALK.size, *head, levels, _FAULTED, *entries)


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
        turns: list[Recorder] = []
        self._recorders: Final = [
            Recorder(cpu, registers=registers, sink=sink or self._kept, number=nr, turns=turns)
            for nr, cpu in enumerate(machine.cpus)
        ]
        turns.append(self._recorders[0])
        self._turns: Final = turns
        self._stack: Final = ExitStack()

    def __enter__(self) -> "MachineRecorder":
        with ExitStack() as stack:
            for recorder in self._recorders:
                stack.enter_context(recorder)
            self._stack.push(stack.pop_all())
        return self

    def __exit__(self, *error: Any) -> None:
        self._turns[-1].flush()
        self._stack.close()

    @property
    def instructions(self) -> int:
        """How many instructions completed, on all CPUs."""
        return sum(recorder.instructions for recorder in self._recorders)

    def events(self) -> list[Event]:
        """Return the events that are kept."""
        self._turns[-1].flush()
        return self._kept.events()

    def drain_chunks(self) -> "list[Chunk]":
        """Return the chunks that are kept, and forget them. Not while a CPU runs."""
        self._turns[-1].flush()
        return self._kept.drain()

    def edited(self, entry_pa: int, nr: int, by: str) -> None:
        """Record that entries were written from outside the CPUs, by what is called `by`."""
        self._turns[-1].edited(entry_pa, nr, by)


_FAULTED: Final = 2  # instead of whether a walk ended without a fault: it did not, and is finished
