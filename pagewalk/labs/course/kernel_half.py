"""Lab 8: two tasks, one kernel half.

Two roots whose kernel slots lead to the same tables. What one task's kernel changes below the roots
is there for both; what it changes in a root is not, until somebody copies it.
"""

from functools import partial
from string import Template
from typing import TYPE_CHECKING, Final

from emu.paging import ENTRIES, FRAME_SIZE, RW, P, canonical, index, page_shift, slot_of
from pagewalk.labs.bench import LOAD, Bench, loaded
from pagewalk.labs.board import DIRECT, Board, label
from pagewalk.labs.entries import entry_pa, read_table, require_equal
from pagewalk.labs.lab import Answer, ErrorCode, Exercise, Lab, Lost, Number, Part, Source
from pagewalk.labs.running import FREE, Routine
from pagewalk.labs.seeded import Dice
from pagewalk.labs.templates import course_file

if TYPE_CHECKING:
    from emu import Stop

KERNEL_HALF: Final = ENTRIES // 2
_SLOTS: Final = range(320, 400)  # of the kernel's, those that nothing else here is in
_SEE: Final = course_file("kernel_half", "see.S").student
_SHARE: Final = course_file("kernel_half", "share.S")


class _Half:
    """Tasks A and B: a user page each, a kernel half, and what its kernel is about to map."""

    def __init__(self, dice: Dice, *, ram: int | None = None) -> None:
        shared, own = dice.sample(_SLOTS, 2)
        self.board: Final = Board(dice, nr_frames=24, ram=ram)
        frame, words = self.board.frame, self.board.words
        self.a: Final = frame()
        self.b: Final = frame()
        self.child: Final = frame()
        self.user: Final = _address(dice, dice.between(1, KERNEL_HALF - 1))
        self.kernel: Final = _address(dice, shared)
        for root, va in ((self.a, self.kernel), (self.a, self.user), (self.b, self.user)):
            self._page(dice, root, va)
        words[entry_pa(self.b, shared)] = words[entry_pa(self.a, shared)]

        # A page of the shared slot whose entry is still to be written, into a table that is there.
        self.new: Final = self.kernel ^ dice.between(1, 511) << page_shift(1)
        step = self.board.walk(self.a, self.new).steps[-1]
        self.new_entry_pa: Final = step.entry_pa
        self.new_entry: Final = self._fresh(dice, self.new) | RW | P

        # A slot that is still empty, and all that will lie below it.
        self.top: Final = _address(dice, own)
        scratch = frame()
        self._page(dice, scratch, self.top)
        self.top_slot: Final = own
        self.top_entry: Final = words.pop(entry_pa(scratch, own))

        self.kernel_word: Final = dice.word()
        self.user_word: Final = dice.word()

    def _page(self, dice: Dice, root: int, va: int) -> None:
        self.board.map(root, va & -FRAME_SIZE, self._fresh(dice, va))

    def _fresh(self, dice: Dice, va: int) -> int:
        """Return a frame with a word where `va` will find it."""
        page = self.board.frame()
        self.board.words[page + va % FRAME_SIZE] = dice.word()
        return page

    def source(self, template: Template) -> str:
        """Return a file with these tables, and with the template filled in."""
        return self.board.source(template.substitute(self.names()), roots=(self.a, self.b))

    def names(self) -> dict[str, str]:
        """Return what the texts call by name."""
        new_table = self.new_entry_pa & -FRAME_SIZE
        numbers = {
            "a": self.a,
            "b": self.b,
            "child": self.child,
            "user": self.user,
            "kernel": self.kernel,
            "new": self.new,
            "new_entry": self.new_entry,
            "new_table": new_table,
            "top": self.top,
            "top_entry": self.top_entry,
            "kernel_word": self.kernel_word,
            "user_word": self.user_word,
        }
        return {
            **{name: hex(value) for name, value in numbers.items()},
            "new_index": str(slot_of(self.new_entry_pa)),
            "top_slot": str(self.top_slot),
            "label_a": label(self.a),
            "label_b": label(self.b),
            "label_child": label(self.child),
            "label_new_table": label(new_table),
        }

    def after(self) -> Bench:
        """Return the machine on which A has made its two stores, and A's kernel its two."""
        bench = Bench(self.board.ram, self.board.words)
        bench.store(self.a, self.kernel, self.kernel_word)
        bench.store(self.a, self.user, self.user_word)
        bench.put(self.new_entry_pa, self.new_entry)
        bench.put(entry_pa(self.a, self.top_slot), self.top_entry)
        return bench

    # -- what the CPU says of an answer

    def check_word(self, va: int, word: int, bench: Bench | None = None) -> None:
        """Load in B."""
        if (bench or self.after()).value(self.b, va) != word:
            raise Lost(f"at {va:#x}, B loads another word than {word:#x}")

    def check_top(self, in_a: int | None, in_b: int | None) -> None:
        """Load in A, and store in B, below the slot that A's kernel has filled."""
        bench = self.after()
        _check_error_code("A's load", bench.load(self.a, self.top), in_a)
        _check_error_code("B's store", bench.store(self.b, self.top, 1), in_b)

    def check_repair(self, where: int, entry: int) -> None:
        """Write the entry: does B store into the page that A loads from?"""
        bench, word = self.after(), self.user_word ^ 1
        bench.put(where, entry)
        stop = bench.store(self.b, self.top, word)
        if (code := _error_code(stop)) is not None:
            raise Lost(f"with {entry:#x} at {where:#x}, B's store faults: error code {code:#x}")
        if bench.value(self.a, self.top) != word:
            raise Lost(f"with {entry:#x} at {where:#x}, B stores into another page than A's")
        self.check_word(self.kernel, self.kernel_word, bench)
        self.check_word(self.user, self.board.words[self.board.pa(self.b, self.user)], bench)


def _address(dice: Dice, slot: int) -> int:
    """Draw an address in a top-level slot, 8-byte aligned."""
    return canonical(slot << page_shift(4), 4) | dice.below(1 << 36) << 3


def _error_code(stop: "Stop") -> int | None:
    """Return the error code of a page fault, or None if there was none."""
    from emu import PageFault, Returned

    if not isinstance(stop, PageFault | Returned):
        raise Lost(f"the CPU ends otherwise: {stop}")
    return stop.error_code if isinstance(stop, PageFault) else None


def _check_error_code(what: str, stop: "Stop", answer: int | None) -> None:
    if _error_code(stop) != answer:
        said = "no exception" if answer is None else f"error code {answer:#x}"
        raise Lost(f"{what} ends otherwise than with {said}")


def _check_share(text: str) -> None:
    """Have the student's routine make a root, and run on it."""
    half = _Half(Dice("share", text), ram=FREE)
    routine = Routine(text, "share.S", "share_kernel_half")
    routine.put(half.board.words)
    routine.lend_kernel_half(half.b)
    old = read_table(routine.memory, half.b)
    routine.put({entry_pa(half.child, slot): 0xBAD for slot in range(ENTRIES)})
    routine.call(rdi=DIRECT + half.child, rsi=DIRECT + half.b)
    new = read_table(routine.memory, half.child)
    wanted = [0] * KERNEL_HALF + old[KERNEL_HALF:]
    require_equal("the old root (share.S)", read_table(routine.memory, half.b), old)
    require_equal("the new root (share.S)", new, wanted)
    routine.cpu.cr3 = half.child
    load = routine.access(LOAD, half.kernel)
    if (
        loaded(load, f"under the new root, a load from {half.kernel:#x}")
        != half.board.words[half.board.pa(half.a, half.kernel)]
    ):
        raise Lost(f"under the new root, {half.kernel:#x} holds another word")
    if _error_code(routine.access(LOAD, half.user)) is None:
        raise Lost(f"under the new root, a load from the user's {half.user:#x} goes through")


def _exercise(dice: Dice) -> Exercise:
    half = _Half(dice)
    words = half.board.words
    share = Source("share.S", "the function share_kernel_half.", half.source(_SHARE.student))

    def solution() -> dict[str, Answer]:
        return {
            "kernel_word": half.kernel_word,
            "user_word": words[half.board.pa(half.b, half.user)],
            "new_word": words[(half.new_entry & -FRAME_SIZE) + half.new % FRAME_SIZE],
            "in_a": None,
            "in_b": _error_code(half.after().store(half.b, half.top, 1)),
            "entry_pa": entry_pa(half.b, index(half.top, 4)),
            "entry": half.top_entry,
            "share.S": half.source(_SHARE.teacher),
        }

    return Exercise(
        parts=(
            Part(
                "A store into the kernel half",
                1,
                (Number("kernel_word", f"The 8 bytes that B loads from {half.kernel:#x}."),),
                partial(half.check_word, half.kernel),
            ),
            Part(
                "A store into the user half",
                1,
                (Number("user_word", f"The 8 bytes that B loads from {half.user:#x}."),),
                partial(half.check_word, half.user),
            ),
            Part(
                "A new entry below the roots",
                1,
                (Number("new_word", f"The 8 bytes that B loads from {half.new:#x}."),),
                partial(half.check_word, half.new),
            ),
            Part(
                "A new entry in one root",
                2,
                (
                    ErrorCode("in_a", f"What A's load from {half.top:#x} ends with."),
                    ErrorCode("in_b", f"What B's store to {half.top:#x} ends with."),
                ),
                half.check_top,
            ),
            Part(
                "What B lacks",
                2,
                (
                    Number("entry_pa", "The pa of the one entry that is to be written for B."),
                    Number("entry", "What is to be written there."),
                ),
                half.check_repair,
            ),
            Part("What fork copies", 3, (share,), _check_share),
        ),
        values={**half.names(), "ram": half.board.listing()},
        solution=solution,
        files={"see.S": half.source(_SEE)},
    )


LAB = Lab(
    number=8,
    name="kernel-half",
    title="Two tasks, one kernel half",
    idea="Tasks share the kernel's tables, but each root has its own copy of the entries to them.",
    points=10,
    exercise=_exercise,
)
