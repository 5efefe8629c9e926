"""Lab 10: a page-fault handler that copies the missing top-level entry when it is needed.

The tables are those of lab 9: a reference root, as init_mm's, and a task's, which lacks some of its
entries. What is repaired here was for a long time how Linux kept the vmalloc area in sync.
"""

from string import Template
from typing import Final

from emu.paging import FRAME_SIZE, PCD, RW, canonical, index, page_shift
from pagewalk.labs import handling
from pagewalk.labs.bench import Bench
from pagewalk.labs.board import Board
from pagewalk.labs.entries import entry_pa, filled, read_table, require_equal
from pagewalk.labs.handling import Handler, Touch
from pagewalk.labs.lab import Answer, Exercise, Lab, Lost, Number, Part, Source
from pagewalk.labs.running import FREE
from pagewalk.labs.seeded import Dice
from pagewalk.labs.templates import course_file

FILE: Final = "lazy.S"
RAM: Final = FREE  # so that the tables are the same when they are checked
_SLOTS: Final = range(320, 400)  # of the kernel's, those that nothing else here is in
_TEXT: Final = course_file("lazy", FILE)


class _Lacking:
    """A reference root, and a task's that lacks some of its kernel slots."""

    def __init__(self, dice: Dice) -> None:
        *missing, shared, self.nobodys = dice.sample(_SLOTS, 6)
        self.board: Final = Board(dice, nr_frames=32, ram=RAM - FRAME_SIZE * dice.below(1 << 12))
        self.reference: Final = self.board.frame()
        self.task: Final = self.board.frame()
        self.missing: Final = [self._page(dice, slot) for slot in missing]
        self.shared: Final = self._page(dice, shared)
        self.read_only: Final = self._fill(dice, self.shared ^ FRAME_SIZE, 0)
        self.unmapped: Final = self.shared ^ 1 << page_shift(2)
        # The reference has something in its user half as well, which is nobody else's business.
        self.user: Final = self._page(dice, dice.between(1, 255))
        words = self.board.words
        entry = words[entry_pa(self.reference, shared)]
        words[entry_pa(self.task, shared)] = entry

        again = [va ^ 8 for va in self.missing]
        others = dice.sample([*self.missing[1:], *again, self.shared], 4)
        words_stored = [dice.word() if dice.below(2) else None for _ in range(5)]
        self.touches: Final = [
            Touch(self.task, va, word)
            for va, word in zip([self.missing[0], *others], words_stored, strict=True)
        ]

    def _page(self, dice: Dice, slot: int) -> int:
        """Map a page under the reference root, and return an address in it that holds a word."""
        return self._fill(dice, canonical(slot << page_shift(4), 4) | dice.below(1 << 36) << 3, RW)

    def _fill(self, dice: Dice, va: int, flags: int) -> int:
        page = self.board.frame()
        self.board.map(self.reference, va & -FRAME_SIZE, page, flags=flags)
        self.board.words[page + va % FRAME_SIZE] = dice.word()
        return va

    def word(self, va: int) -> int:
        """Return what `va` holds."""
        return self.board.words[self.board.pa(self.reference, va)]

    def source(self, handler: Template) -> str:
        """Return the file, with this handler."""
        names = {self.task: "the task"}
        return handling.source(self.board, self.touches, handler, names, reference=self.reference)

    def require(self, handler: Handler, root: int, wanted: list[int]) -> None:
        """Raise Lost unless a root holds these entries after the handler's work."""
        whose = "the task's root" if root == self.task else "the reference root"
        require_equal(f"{whose} ({FILE})", read_table(handler.memory, root), wanted)

    def faults(self) -> int:
        """Have the CPU do what `main` does, with a handler that is right, and count its faults."""
        handler = self.handler(self.source(_TEXT.teacher))
        for touch in self.touches:
            handler.touch(touch)
        return handler.nr_faults

    def handler(self, text: str) -> Handler:
        """Return the handler of a file, on these tables."""
        handler = Handler(text, FILE, self.board, (self.task, self.reference))
        handler.set(reference=self.reference)
        return handler

    # -- what the CPU says of an answer

    def error_code(self) -> int:
        """Have the CPU touch what `main` touches first, with nobody to handle it."""
        from emu import PageFault

        bench, (root, va, word) = Bench(self.board.ram, self.board.words), self.touches[0]
        stop = bench.load(root, va) if word is None else bench.store(root, va, word)
        assert isinstance(stop, PageFault)
        return stop.error_code

    def check_error_code(self, code: int) -> None:
        """Ask the CPU."""
        if self.error_code() != code:
            raise Lost(f"the CPU pushes another error code than {code:#x}")

    def check_entry(self, where: int, entry: int) -> None:
        """Write the entry: does the task load what the reference has there?"""
        bench, va = Bench(self.board.ram, self.board.words), self.missing[0]
        bench.put(where, entry)
        if bench.value(self.task, va) != bench.value(self.reference, va):
            raise Lost(f"with {entry:#x} at {where:#x}, the task loads another word from {va:#x}")

    def check_faults(self, faults: int) -> None:
        """Count them."""
        if self.faults() != faults:
            raise Lost(f"a handler that repairs each of them is not entered {faults} times")


def _new(text: str) -> _Lacking:
    """Return tables that the student has never seen."""
    return _Lacking(Dice(FILE, text))


def _check_repair(text: str) -> None:
    lacking = _new(text)
    handler = lacking.handler(text)
    first, second, *_ = lacking.missing
    for root, va in ((lacking.task, first), (lacking.task | PCD, second)):
        if handler.load(root, va) != lacking.word(va):
            raise Lost(f"{FILE}: the load from {va:#x} finds another word than the reference's")
    handler.store(lacking.task, first, 1)
    if handler.load(lacking.reference, first) != 1:
        raise Lost(f"{FILE}: a store to {first:#x} goes to another page than the reference's")


def _check_only_that(text: str) -> None:
    lacking = _new(text)
    handler = lacking.handler(text)
    before = read_table(handler.memory, lacking.task)
    reference = read_table(handler.memory, lacking.reference)
    for touch in lacking.touches:
        handler.touch(touch)
    slots = {index(touch.va, 4) for touch in lacking.touches}
    lacking.require(handler, lacking.task, filled(before, reference, slots))
    lacking.require(handler, lacking.reference, reference)
    needed = len(slots - {index(lacking.shared, 4)})
    if handler.nr_faults != needed:
        raise Lost(f"{FILE}: {handler.nr_faults} page faults for {needed} missing entries")


def _check_refusals(text: str) -> None:
    lacking = _new(text)
    handler, task = lacking.handler(text), lacking.task
    handler.load(task, lacking.missing[0])
    before = read_table(handler.memory, task)
    nobodys = canonical(lacking.nobodys << page_shift(4), 4)
    handler.must_refuse("the reference has no entry for it, either", task, nobodys)
    handler.must_refuse("what is missing lies below the entry", task, lacking.unmapped)
    handler.must_refuse("it is a user's address", task, lacking.user)
    handler.must_refuse("its page is read-only", task, lacking.read_only, store=True)
    lacking.require(handler, task, before)


def _exercise(dice: Dice) -> Exercise:
    lacking = _Lacking(dice)
    first = lacking.missing[0]
    handler = (Source(FILE, "the function page_fault.", lacking.source(_TEXT.student)),)

    def solution() -> dict[str, Answer]:
        return {
            "error_code": lacking.error_code(),
            "entry_pa": entry_pa(lacking.task, index(first, 4)),
            "entry": lacking.board.words[entry_pa(lacking.reference, index(first, 4))],
            "faults": lacking.faults(),
            FILE: lacking.source(_TEXT.teacher),
        }

    return Exercise(
        parts=(
            Part(
                "What the CPU pushes",
                1,
                (Number("error_code", f"The error code of the first access, to {first:#x}."),),
                lacking.check_error_code,
            ),
            Part(
                "What a handler writes",
                1,
                (
                    Number("entry_pa", f"Where a handler must store to repair {first:#x}."),
                    Number("entry", "What it must store there."),
                ),
                lacking.check_entry,
            ),
            Part(
                "How often it is entered",
                1,
                (Number("faults", "How many page faults `main` takes if each is repaired."),),
                lacking.check_faults,
            ),
            Part("The repair", 3, handler, _check_repair),
            Part("Nothing but the repair", 2, handler, _check_only_that),
            Part("What cannot be repaired", 2, handler, _check_refusals),
        ),
        values={
            "reference": f"{lacking.reference:#x}",
            "task": f"{lacking.task:#x}",
            "first": f"{first:#x}",
            "touches": handling.told(lacking.touches, {lacking.task: "the task"}),
            "ram": lacking.board.listing((lacking.reference, lacking.task)),
        },
        solution=solution,
    )


LAB = Lab(
    number=10,
    name="lazy",
    title="A handler that repairs",
    idea="An entry that is missing can be filled in when it is needed: at the page fault.",
    points=10,
    exercise=_exercise,
)
