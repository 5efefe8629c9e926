"""Writing a tape: what the hooks do that is left to Python.

Knows which of the engine's reports are to be believed, and what has to be taken back of an
instruction that did not complete: the engine reports some of the accesses of one that then faults.
Refuses to know runs, and who gets the tape. SDM vocabulary.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from emu._layout import LIVE_RFLAGS, live
from emu._recording import ignore
from emu._repertoire import Known, Repertoire
from emu._tape import ACCESS, LOOKED_AFTER, MASKS, NOBODY, REFUSED, WALK, Tape, Word
from emu._unicorn import is_store, unpack_registers
from emu.cpu import Cpu
from emu.events import Cr3Switch, Event, Invalidated
from emu.operands import Kind, Operands, invalidation
from emu.paging import FRAME_SIZE, RFLAGS_AC, U64, PhysAddr, VirtAddr
from emu.rights import Access, refusal
from emu.walk import walk

if TYPE_CHECKING:
    from emu._cutting import Mark
    from emu.chunks import Chunk

# Plain numbers: to index by an enum's member takes three times as long.
HEAD, LIMIT, LAST = map(int, (Word.HEAD, Word.LIMIT, Word.LAST))
ACCESSES, WALKS = int(Word.ACCESSES), int(Word.WALKS)
READ_VA, WRITE_VA = int(Word.READ_VA), int(Word.WRITE_VA)
READ_SIZE, WRITE_SIZE = int(Word.READ_SIZE), int(Word.WRITE_SIZE)
ACCESSES_FULL, ACCESSES_END = int(Word.ACCESSES_FULL), int(Word.ACCESSES_END)

_OFFSET: Final = FRAME_SIZE - 1
_RCX: Final = 1
_GENERAL: Final = 16 * 8  # bytes


class Scribe:
    """Writes the tape of one CPU."""

    def __init__(self, cpu: Cpu, *, registers: bool, native: bool) -> None:
        self._cpu: Final = cpu
        self._memory: Final = cpu.memory
        self.goes_on: Callable[[], bool] = bool
        """Asked at an instruction that the tape has no room for, or that is behind the limit:
        whether there is room now, and the CPU is to execute it."""
        self.on_invalidation: Callable[[Invalidated], None] = ignore
        self.tape: Final = Tape(registers=registers)
        self.repertoire: Final = Repertoire(cpu, self.tape, native=native)
        self._words: Final = self.tape.words
        self._live: Final = live(cpu.engine.handle)
        self._general: Final = self._live.cast("B")[:_GENERAL]
        self._snapshots: dict[int, bytes] = {}
        self._marks: list[Mark] = []
        self._levels: Final = cpu.paging.levels
        self._cr3 = cpu.cr3
        self._begin = 0  # how many walks were on the tape when the engine was entered

    def follow(self) -> None:
        """Take CR3 to be what it is now."""
        self._cr3 = self._cpu.cr3

    def begin(self) -> None:
        """Be told that the engine is about to be entered."""
        self.finish_walk()
        self.repertoire.refresh()
        self._begin = self._words[WALKS]

    @property
    def nr_marks(self) -> int:
        """How many events there are besides those on the tape."""
        return len(self._marks)

    def cut(self, *, cpu: int, first: int) -> "Chunk | None":
        """Take what is on the tape, and begin a new one. Not in the middle of an instruction."""
        from emu._cutting import Script, cut

        words = self._words
        if not (words[HEAD] or words[ACCESSES] or words[WALKS] or self._marks):
            return None
        script = Script(
            executed=self.repertoire.executed,
            snapshots=self._snapshots,
            marks=self._marks,
            levels=self._levels,
            holds=self._memory.holds,
        )
        chunk = cut(self.tape, script, cpu=cpu, first=first)
        words[HEAD] = words[ACCESSES] = words[WALKS] = self._begin = 0
        self._snapshots, self._marks = {}, []
        return chunk

    def on_code(self, engine: Any, rip: int, size: int, data: Any) -> None:
        """Record an instruction, before it is executed: one that is not known by heart."""
        words = self._words
        try:
            head = words[HEAD]
            if head >= words[LIMIT]:
                if not self.goes_on():
                    return
                head = words[HEAD]
            self.repertoire.catch_up()
            known = self.repertoire.known.get(rip)
            if known is None:
                known = self._arrive(rip, size)
            number, kind, counts, read, write = known
            if counts and words[LAST] == number and not self._live[_RCX] & counts:
                return  # the engine's last look at a count that has come to 0
            self.tape.instructions[head] = words[LAST] = number
            if self.tape.registers is not None:
                self.tape.registers[_GENERAL * head : _GENERAL * (head + 1)] = self._general
            words[HEAD] = head + 1
            words[READ_SIZE], words[WRITE_SIZE] = self.repertoire.sizes[number]
            if read is not None and write is not None:
                words[READ_VA], words[WRITE_VA] = read.va(self._live), write.va(self._live)
            elif kind == Kind.OPAQUE:
                self._snapshots[head + 1] = self._cpu.engine.packed()
            elif kind == Kind.SYSTEM:
                self._system(number)
        except BaseException as error:  # noqa: BLE001 (ctypes would print it and go on)
            self._cpu.engine.break_off(error)

    def on_access(self, engine: Any, kind: int, pa: int, size: int, value: int, data: Any) -> None:
        """Record an access that crosses frames, or is a store to one of code; or any."""
        try:
            writes = is_store(kind)
            if (pa & _OFFSET) + size <= FRAME_SIZE:
                self._put(writes, pa, size, value)
            else:
                self._crossing(writes, pa, size, value)
            if writes and pa >> 12 in self.repertoire.watched:
                self.repertoire.forget()
        except BaseException as error:  # noqa: BLE001 (ctypes would print it and go on)
            self._cpu.engine.break_off(error)

    def _arrive(self, rip: int, size: int) -> Known:
        """Meet an instruction that is not known."""
        if self.repertoire.paging is None:
            self.switched()
        return self.repertoire.learn(rip, size)

    def _system(self, number: int) -> None:
        """Record what the last instruction is about to do to translations."""
        registers = unpack_registers(self._cpu.engine.packed())
        what = invalidation(self.repertoire.executed[number], registers)
        if what is not None:
            self.on_invalidation(what)
            self.mark(what)
            if what.what == "cr3" and what.value != self._cr3:
                self.mark(Cr3Switch(self._cr3, what.value))
                self._cr3 = what.value

    def _put(self, writes: bool, pa: int, size: int, value: int) -> None:
        words = self._words
        number = words[ACCESSES]
        if number >= words[ACCESSES_END]:
            words[Word.LOST] += 1
            return
        va = self._va(writes, pa)
        value &= MASKS[size]
        record = (0 if va is None else va), pa, value, words[HEAD], size, writes, va is not None
        ACCESS.pack_into(self.tape.accesses, ACCESS.size * number, *record)
        words[ACCESSES] = number + 1
        if number + 1 >= words[ACCESSES_FULL]:
            words[LIMIT] = 0

    def _crossing(self, writes: bool, pa: int, size: int, value: int) -> None:
        """Record an access that goes on in another frame: each page's part for itself.

        A store calls back before it is made, and the CPU cannot be asked where it would fault; so
        one that only its TLB still allows is recorded as a whole, as if in one frame.
        """
        first = FRAME_SIZE - (pa & _OFFSET)
        rest = self._next_frame(writes, pa, size)
        if rest is None:  # the store is about to fault
            self._put(writes, pa, size, value)
            return
        self._put(writes, pa, first, value)
        self._put(writes, rest, size - first, (value & U64) >> 8 * first)
        if writes and rest >> 12 in self.repertoire.watched:
            self.repertoire.forget()

    def _next_frame(self, writes: bool, pa: int, size: int) -> PhysAddr | None:
        """Return where the linear page behind this part of the current instruction lies."""
        head = self._words[HEAD]
        packed = self._snapshots.get(head)
        if packed is None:
            va = self._va(writes, pa)
        else:
            executed = self.repertoire.executed[self.tape.instructions[head - 1]]
            va = Operands(executed, unpack_registers(packed)).take(writes, pa, size)
        if va is None:
            return None
        rest = VirtAddr((va | _OFFSET) + 1 & U64)
        if writes and not self._may_write(rest):
            return None
        found = self._cpu.engine.translate(rest, writes=writes)
        return None if found is None else PhysAddr(found)

    def _may_write(self, va: VirtAddr) -> bool:
        """Tell whether the tables let the current instruction write there."""
        paging = self._cpu.paging
        found = walk(self._memory.read_u64, paging, va)
        user, ac = self._cpu.engine.cpl() == 3, bool(self._live[LIVE_RFLAGS] & RFLAGS_AC)
        access = Access("write", user, ac=ac)
        return found.pa is not None and refusal(found, access, paging) is None

    def _va(self, writes: bool, pa: int) -> VirtAddr | None:
        """Return the linear address of an access, if the instruction's one operand has it."""
        words = self._words
        va = words[WRITE_VA if writes else READ_VA]
        offset = (pa - va) & _OFFSET
        known = offset < words[WRITE_SIZE if writes else READ_SIZE]
        return VirtAddr((va + offset) & U64) if known else None

    def mark(self, event: Event, walks: int | None = None) -> None:
        """Record an event that is on no tape, behind what is there."""
        from emu._cutting import Mark

        words = self._words
        behind = words[WALKS] if walks is None else walks
        self._marks.append(Mark(words[HEAD], words[ACCESSES], behind, event))

    def switched(self) -> None:
        """Record that CR3 was given another value from outside, before this run."""
        cr3 = self._cpu.cr3
        if cr3 != self._cr3:
            self.mark(Cr3Switch(self._cr3, cr3), self._begin)
            self._cr3 = cr3

    def take_back(self, rip: int | None) -> bytes | None:
        """Forget the last instruction if it was the one at `rip`; return its bytes, None if not.

        The walks for it did happen, and stay.
        """
        words, marks = self._words, self._marks
        head = words[HEAD]
        if not head:
            return None
        executed = self.repertoire.executed[self.tape.instructions[head - 1]]
        if rip not in (None, executed.rip):
            return None
        words[HEAD], words[LAST] = head - 1, NOBODY
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
        for n in range(words[WALKS] - 1, -1, -1):
            va, instructions, _, *rest = WALK.unpack_from(self.tape.walks, n * WALK.size)
            if instructions != head:
                break
            WALK.pack_into(self.tape.walks, n * WALK.size, va, head - 1, number, *rest)
        return executed.code

    def _at(self, number: int) -> int:
        """Return which instruction an access belongs to."""
        return int(ACCESS.unpack_from(self.tape.accesses, ACCESS.size * number)[3])

    def finish_walk(self) -> None:
        """Look at what the last walk left behind, if it was the one that faulted."""
        number = self._words[WALKS] - 1
        if number < self._begin:
            return
        record = WALK.unpack_from(self.tape.walks, number * WALK.size)
        *head, done = record[:7]
        *words, efer = record[7:]
        if done != REFUSED:
            return
        entries: list[int] = []
        for pa, before, _ in zip(*[iter(words)] * 3, strict=True):
            entries += pa, before, self._memory.words[pa >> 3]
        WALK.pack_into(self.tape.walks, number * WALK.size, *head, LOOKED_AFTER, *entries, efer)
