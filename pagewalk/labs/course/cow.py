"""Lab 12: copy-on-write.

Two tasks right after a fork: a root and tables each, and the same frames below them, read-only. A
bit that the CPU ignores tells the pages that are to be copied from those that are read-only.
"""

from string import Template
from typing import Final

from emu.paging import ADDRESS, ENTRIES, FRAME_SIZE, RW, US, P, page_shift
from pagewalk.labs import handling
from pagewalk.labs.bench import Bench
from pagewalk.labs.board import Board
from pagewalk.labs.entries import flags_given, read_table
from pagewalk.labs.handling import Handler, Touch
from pagewalk.labs.lab import Answer, Exercise, Lab, Lost, Number, Part, Source
from pagewalk.labs.running import FREE
from pagewalk.labs.seeded import Dice
from pagewalk.labs.templates import course_file

FILE: Final = "cow.S"
COW: Final = 1 << 9  # of the bits that are software's
_FREE: Final = 6  # frames in the list
_TEXT: Final = course_file("cow", FILE)


class _Forked:
    """A parent and its child, which share two pages to be copied and one that is read-only."""

    def __init__(self, dice: Dice) -> None:
        self.board: Final = Board(dice, nr_frames=24, ram=FREE - FRAME_SIZE * dice.below(1 << 12))
        self.parent: Final = self.board.frame()
        self.child: Final = self.board.frame()
        base = dice.between(1, 255) << page_shift(4) | dice.below(1 << 18) << page_shift(2)
        pages = [base | at << page_shift(1) for at in dice.sample(range(ENTRIES), 4)]
        *self.copied, self.read_only, self.absent = pages
        self.shared: Final = {va: self._share(dice, va) for va in pages[:3]}
        self.free: Final = handling.chain(self.board, _FREE)

        words = [(va | dice.below(ENTRIES) << 3) for va in self.copied]
        for va in words:
            self.board.words[self.shared[va & -FRAME_SIZE] + va % FRAME_SIZE] = dice.word()
        self.last: Final = Touch(dice.choice((self.parent, self.child)), dice.choice(words))
        self.asked: Final = Touch(
            dice.choice((self.parent, self.child)), words[words.index(self.last.va) - 1]
        )
        first = Touch(dice.choice((self.parent, self.child)), self.last.va, dice.word())
        between = [
            Touch(
                dice.choice((self.parent, self.child)),
                dice.choice(words),
                dice.word() if dice.below(3) else None,
            )
            for _ in range(5)
        ]
        self.touches: Final = [first, *between, self.last]

    def _share(self, dice: Dice, va: int) -> int:
        """Map a page in both tasks, as a fork leaves it, and return its frame."""
        frame = self.board.frame()
        bits = US | (COW if va in self.copied else 0)
        for root in (self.parent, self.child):
            self.board.map(root, va, frame, flags=bits)
        for _ in range(3):
            self.board.words[frame + 8 * dice.between(1, ENTRIES - 2)] = dice.word()
        self.board.words[frame] = dice.word()
        self.board.words[frame + FRAME_SIZE - 8] = dice.word()
        return frame

    @property
    def names(self) -> dict[int, str]:
        """What the tasks are called, by their roots."""
        return {self.parent: "the parent", self.child: "the child"}

    def source(self, handler: Template) -> str:
        """Return the file, with this handler."""
        return handling.source(
            self.board, self.touches, handler, self.names, free_list=self.free[0]
        )

    def handler(self, text: str) -> Handler:
        """Return the handler of a file, on these tables."""
        handler = Handler(text, FILE, self.board, self.names)
        handler.set(free_list=self.free[0])
        return handler

    def after(self) -> Handler:
        """Have the CPU do what `main` does, with a handler that is right."""
        handler = self.handler(self.source(_TEXT.teacher))
        for touch in self.touches:
            handler.touch(touch)
        return handler

    # -- what the CPU says of an answer

    def error_code(self) -> int:
        """Have the CPU make the first store, with nobody to handle it."""
        from emu import PageFault

        first = self.touches[0]
        stop = Bench(self.board.ram, self.board.words).store(first.root, first.va, 0)
        assert isinstance(stop, PageFault)
        return stop.error_code

    def check_error_code(self, code: int) -> None:
        """Ask the CPU."""
        if self.error_code() != code:
            raise Lost(f"the CPU pushes another error code than {code:#x}")

    def check_faults(self, faults: int) -> None:
        """Count them."""
        if self.after().nr_faults != faults:
            raise Lost(f"a handler that copies each time is not entered {faults} times")

    def check_loaded(self, word: int) -> None:
        """Load it once more."""
        if self.after().touch(self.last) != word:
            raise Lost(f"at {self.last.va:#x}, {self.names[self.last.root]} finds another word")

    def check_frame(self, frame: int) -> None:
        """Change what is in that frame: does the task see it?"""
        handler, (root, va, _) = self.after(), self.asked
        pa = frame + va % FRAME_SIZE
        if frame % FRAME_SIZE or pa >= self.board.ram:
            raise Lost(f"{frame:#x} is no frame of this RAM")
        word = ~handler.word(pa) & (1 << 64) - 1
        handler.put({pa: word})
        if handler.load(root, va) != word:
            raise Lost(f"what is in the frame at {frame:#x} is not what the task finds at {va:#x}")


def _new(text: str) -> _Forked:
    """Return tasks that the student has never seen."""
    return _Forked(Dice(FILE, text))


def _check_copies(text: str) -> None:
    """Store in one task, and look in both: at the word, and at all around it."""
    forked = _new(text)
    handler = forked.handler(text)
    for cpl, page, writer, reader in (
        (3, forked.copied[0], forked.parent, forked.child),
        (0, forked.copied[1], forked.child, forked.parent),
    ):
        before = _contents(handler, reader, page)
        va = page + 0x7F8
        if handler.load(writer, va) != before[0xFF]:  # and the translation may be remembered
            raise Lost(f"{FILE}: {va:#x} is changed by a load")
        handler.store(writer, va, page, cpl=cpl)
        if handler.load(writer, va, cpl=3) != page:
            raise Lost(f"{FILE}: {va:#x} does not hold what was stored there")
        if _contents(handler, writer, page) != [*before[:0xFF], page, *before[0x100:]]:
            raise Lost(f"{FILE}: the copy of {page:#x} is not what the page was, and the new word")
        if handler.load(reader, va) != before[0xFF] or _contents(handler, reader, page) != before:
            raise Lost(f"{FILE}: a store to {page:#x} changes what the other task finds there")


def _contents(handler: Handler, root: int, page: int) -> list[int]:
    """Return the words of the frame that the CPU comes to for `page`."""
    handler.load(root, page)
    return read_table(handler.memory, handler.pa(root, page))


def _check_once(text: str) -> None:
    """Count faults and frames, and look at the entries that are left."""
    forked = _new(text)
    handler = forked.handler(text)
    used = []
    for nr, root in enumerate((forked.child, forked.parent), 1):
        for page in forked.copied:
            for offset in (0, 8, 0xFF8):
                handler.store(root, page + offset, offset)
            *_, (_, _, entry) = handler.walk(root, page).steps
            if flags_given(entry) != P | RW | US:
                raise Lost(f"{FILE}: the PTE is {entry:#x} then: expected P, RW and US alone")
            used.append(entry & ADDRESS)
        if handler.nr_faults != nr * len(forked.copied):
            raise Lost(f"{FILE}: a second store to the same page faults again")
    if used != forked.free[: len(used)]:
        raise Lost(f"{FILE}: the copies are not in the first {len(used)} frames of the list")
    if handler.variable("free_list") != forked.free[len(used)]:
        raise Lost(f"{FILE}: free_list does not lead to the next free frame")


def _check_refusals(text: str) -> None:
    forked = _new(text)
    handler, child = forked.handler(text), forked.child
    handler.store(child, forked.copied[0], 1)
    head = handler.variable("free_list")
    for cpl in (0, 3):
        handler.must_refuse(
            "it is read-only, without bit 9", child, forked.read_only, store=True, cpl=cpl
        )
        handler.must_refuse("nothing is mapped there", child, forked.absent, store=True, cpl=cpl)
        handler.must_refuse("nothing is mapped there", child, forked.absent, cpl=cpl)
    if handler.variable("free_list") != head:
        raise Lost(f"{FILE}: takes frames for what it refuses")
    handler.set(free_list=0)
    handler.must_refuse("no frame is free", child, forked.copied[1], store=True)


def _exercise(dice: Dice) -> Exercise:
    forked = _Forked(dice)
    (asked_root, asked, _), (last_root, last, _) = forked.asked, forked.last
    handler = (Source(FILE, "the function page_fault.", forked.source(_TEXT.student)),)

    def solution() -> dict[str, Answer]:
        after = forked.after()
        pa = after.pa(asked_root, asked)
        return {
            "error_code": forked.error_code(),
            "faults": after.nr_faults,
            "loaded": after.touch(forked.last),
            "frame": pa & -FRAME_SIZE,
            FILE: forked.source(_TEXT.teacher),
        }

    return Exercise(
        parts=(
            Part(
                "What the CPU pushes",
                1,
                (Number("error_code", "The error code at the first store of `main`."),),
                forked.check_error_code,
            ),
            Part(
                "How often a page is copied",
                1,
                (Number("faults", "How many page faults `main` takes."),),
                forked.check_faults,
            ),
            Part(
                "Whose word it is",
                1,
                (Number("loaded", f"What {forked.names[last_root]} loads from {last:#x} last."),),
                forked.check_loaded,
            ),
            Part(
                "Whose frame it is",
                1,
                (
                    Number(
                        "frame",
                        f"The frame in which {forked.names[asked_root]} has {asked:#x} then.",
                    ),
                ),
                forked.check_frame,
            ),
            Part("A copy for who writes", 3, handler, _check_copies),
            Part("Once for each", 2, handler, _check_once),
            Part("What is read-only stays so", 1, handler, _check_refusals),
        ),
        values={
            "parent": f"{forked.parent:#x}",
            "child": f"{forked.child:#x}",
            "ram": forked.board.listing(),
            "free": " -> ".join(f"{frame:#x}" for frame in forked.free),
            "asked": f"{asked:#x}",
            "asked_by": forked.names[asked_root],
            "touches": handling.told(forked.touches, forked.names),
        },
        solution=solution,
    )


LAB = Lab(
    number=12,
    name="cow",
    title="Copy-on-write",
    idea="A fork copies entries, not pages: a page is copied when somebody writes to it.",
    points=10,
    exercise=_exercise,
)
