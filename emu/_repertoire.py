"""The instructions that a recorder knows by heart.

Knows which instruction stands at an address, as long as that holds for the CPU: until the code is
written, or the CPU forgets it, or walks for code again. A table that is written changes nothing
before that. Refuses to know what is done with it. Its numbers for instructions, by address and
bytes, hold for as long as it lives.
"""

from typing import Final, NamedTuple

from emu._callbacks import SHAPE
from emu._layout import LIVE_BASES
from emu._tape import FRAMES, SHAPE_SIZE, SHAPES, Tape, Word
from emu.cpu import Cpu
from emu.events import Executed
from emu.instruction import MAX_SIZE, Plan, decode
from emu.operands import Kind, Shape, first_instruction, shape_of, sizes
from emu.paging import FRAME_SIZE, U64, Paging, PhysAddr, VirtAddr
from emu.registers import Registers
from emu.walk import walk

_OFFSET: Final = FRAME_SIZE - 1
_GENERATION: Final = int(Word.GENERATION)
_RIP: Final = Registers._fields.index("rip")
_LIVE: Final = (*range(_RIP + 2), *LIVE_BASES)  # from indices into `Registers` to those of `live`


class Form(NamedTuple):
    """An address, from the words of `live`: ((base + scaled * scale + displacement) & wrap) +
    segment, what is None left out."""

    scaled: int | None
    scale: int
    base: int | None
    displacement: int
    wrap: int
    segment: int | None

    def va(self, live: memoryview) -> int:
        """Work it out."""
        scaled, scale, base, va, wrap, segment = self
        if scaled is not None:
            va += live[scaled] * scale
        if base is not None:
            va += live[base]
        va &= wrap
        return va if segment is None else (va + live[segment]) & U64


class Known(NamedTuple):
    """An instruction at its address. The forms are those of its loads and its stores."""

    number: int
    kind: Kind
    counts: int
    read: Form | None
    write: Form | None


class Repertoire:
    """What is known of the code that a CPU executes. `native`: tell the tape, too."""

    def __init__(self, cpu: Cpu, tape: Tape, *, native: bool) -> None:
        self._cpu: Final = cpu
        self._memory: Final = cpu.memory
        self._tape: Final = tape
        self._native: Final = native
        self.executed: Final[list[Executed]] = []  # by number
        self.sizes: Final[list[tuple[int, int]]] = []  # bytes that may be read, and written
        self._shapes: Final[list[Shape]] = []
        self._numbers: Final[dict[Executed, int]] = {}
        # What holds for one generation:
        self.known: Final[dict[int, Known]] = {}
        self.watched: Final[set[int]] = set()  # numbers of the frames where a store matters
        self.paging: Paging | None = None
        self._frames: Final[dict[int, PhysAddr]] = {}  # where pages of code are, by number
        self._words: Final = tape.words
        self._generation = self._words[_GENERATION]
        self._flushes = 0
        self._zero: Final = tape.address + 8 * Word.ZERO

    def learn(self, rip: int, size: int) -> Known:
        """Look at an instruction that the CPU is about to execute."""
        if self.paging is None:
            self.paging = self._cpu.paging
        code = self._fetch(rip, min(size, MAX_SIZE))
        if size > MAX_SIZE or decode(code) is None:  # where the engine refuses, its size is none
            code = first_instruction(self._fetch(rip, MAX_SIZE), code)
        executed = Executed(VirtAddr(rip), code)
        number = self._numbers.get(executed)
        if number is None:
            number = self._add(executed)
        kind, counts, read, write = self._shapes[number]
        known = Known(number, kind, counts, _form(read, rip), _form(write, rip))
        self.known[rip] = known
        if self._native and kind <= Kind.REPEATS:
            self._tell(rip, known)
        return known

    def forget(self) -> None:
        """Look at every instruction anew."""
        self._words[_GENERATION] += 1
        self.catch_up()

    def catch_up(self) -> None:
        """Forget what is of an older generation than the tape's."""
        generation = self._words[_GENERATION]
        if generation != self._generation:
            self._generation = generation
            for known in (self.known, self.watched, self._frames):
                known.clear()
            self.paging = None

    def refresh(self) -> None:
        """Forget, if the CPU has forgotten its translated code."""
        flushes = self._cpu.engine.flushes
        if flushes != self._flushes:
            self._flushes = flushes
            self.forget()

    def _add(self, executed: Executed) -> int:
        number = len(self.executed)
        shape = shape_of(executed.code)
        self.executed.append(executed)
        self._shapes.append(shape)
        self.sizes.append(sizes(shape))
        self._numbers[executed] = number
        return number

    def _tell(self, rip: int, known: Known) -> None:
        """Have the callbacks know it by heart."""
        tape = self._tape
        generation = self._generation & 0xFFFF_FFFF
        head = known.number, generation, known.kind, *self.sizes[known.number], known.counts
        forms = *self._addresses(known.read), *self._addresses(known.write)
        at = (rip ^ rip >> SHAPES.bit_length() - 1) & (SHAPES - 1)
        SHAPE.pack_into(tape.shapes, at * SHAPE_SIZE, rip, *head, *forms)

    def _addresses(self, form: Form | None) -> tuple[int, ...]:
        """Return a form with the words' addresses; one that is left out is that of a zero."""
        if form is None:
            return self._zero, 0, self._zero, 0, 0, self._zero
        scaled, scale, base, displacement, wrap, segment = form
        scaled_at, base_at, segment_at = map(self._address, (scaled, base, segment))
        return scaled_at, scale, base_at, displacement, wrap, segment_at

    def _address(self, word: int | None) -> int:
        return self._zero if word is None else self._tape.words[Word.STATE_AT] + 8 * word

    def _fetch(self, rip: int, size: int) -> bytes:
        """Read an instruction that the CPU has fetched; less of it where it cannot be found."""
        code = b""
        while len(code) < size:
            va = (rip + len(code)) & U64
            frame = self._frames.get(va >> 12)
            if frame is None:
                frame = self._frame(VirtAddr(va))
                if frame is None:
                    break
            offset = va & _OFFSET
            code += self._memory.peek(frame + offset, min(size - len(code), FRAME_SIZE - offset))
        return code

    def _frame(self, va: VirtAddr) -> PhysAddr | None:
        """Find the frame of a page of code that the CPU has just walked for, and watch it."""
        assert self.paging is not None
        found = walk(self._memory.read_u64, self.paging, va)
        if found.pa is None or not self._memory.holds(found.pa):
            return None
        frame = PhysAddr(found.pa & ~_OFFSET)
        self._frames[va >> 12] = frame
        self.watched.add(frame >> 12)
        self._tape.frames[frame >> 12 & FRAMES - 1] = self._generation & 0xFFFF_FFFF
        return frame


def _form(plan: Plan | None, rip: int) -> Form | None:
    if plan is None:
        return None
    base, displacement = plan.base, plan.displacement
    if base == _RIP:
        base, displacement = None, displacement + rip
    return Form(
        scaled=None if plan.scaled is None else _LIVE[plan.scaled],
        scale=1 << plan.shift if plan.scaled is not None else 0,
        base=None if base is None else _LIVE[base],
        displacement=displacement & U64,
        wrap=plan.wrap,
        segment=None if plan.segment is None else _LIVE[plan.segment],
    )
