"""Lab 1: CR3 names the root, and another CR3 is another memory.

Two roots, which select three pages among them; what lies below the roots is the next lab's subject.
"""

from functools import partial
from string import Template
from typing import Final

from emu.paging import ENTRY_SIZE, FRAME_SIZE, PCD, PWT, index
from pagewalk.labs.bench import Bench
from pagewalk.labs.board import Board
from pagewalk.labs.lab import Answer, Exercise, Lab, Lost, Number, Part, Source
from pagewalk.labs.running import FREE, Routine
from pagewalk.labs.seeded import Dice
from pagewalk.labs.templates import course_file

_SEE: Final = course_file("cr3", "see.S").student
_LOAD_UNDER: Final = course_file("cr3", "load_under.S")


class _Tasks:
    """Tasks A and B: their roots, the address that both use, and one that only B has."""

    def __init__(self, dice: Dice, *, ram: int | None = None) -> None:
        slot, other = dice.sample(range(1, 256), 2)
        below = dice.below(1 << 36) << 3
        self.va: Final = slot << 39 | below
        self.only_b: Final = other << 39 | below
        self.board: Final = Board(dice, nr_frames=16, ram=ram)
        self.a: Final = self.board.frame()
        self.b: Final = self.board.frame()
        for root, va in ((self.a, self.va), (self.b, self.va), (self.b, self.only_b)):
            page = self.board.frame()
            self.board.map(root, va & -FRAME_SIZE, page)
            self.board.words[page + va % FRAME_SIZE] = dice.word()
        self.cr3: Final = self.a | dice.choice((PWT, PCD, PWT | PCD))
        self.entry_pa: Final = self.a + ENTRY_SIZE * slot
        self.entry: Final = self.board.words[self.entry_pa]

    def word(self, root: int, va: int) -> int:
        """Return what the tables under `root` say that `va` holds."""
        return self.board.words[self.board.pa(root, va)]

    def source(self, body: Template) -> str:
        """Return a file with these tables, and with `body` filled in."""
        filled = body.substitute(va=hex(self.va), a=hex(self.a), b=hex(self.b))
        return self.board.source(filled, roots=(self.a, self.b))

    # -- what the CPU says of an answer

    def check_root(self, root: int) -> None:
        """Put a table at `root`: is it the one that the CPU walks?"""
        if root % FRAME_SIZE:
            raise Lost(f"root {root:#x}: a table is 4 KiB aligned")
        self.check_entry_pa(root + ENTRY_SIZE * index(self.va, 4))

    def check_entry_pa(self, entry_pa: int) -> None:
        """Put the entry at `entry_pa`, and none elsewhere: does the CPU find it?"""
        bench = Bench(self.board.ram, self.board.without(self.a))
        bench.put(entry_pa, self.entry)
        try:
            bench.value(self.cr3, self.va)
        except Lost as lost:
            raise Lost(f"the CPU does not come by {entry_pa:#x}: {lost}") from None

    def check_word(self, root: int, word: int) -> None:
        """Load from the address under `root`: is it this word?"""
        if Bench(self.board.ram, self.board.words).value(root, self.va) != word:
            raise Lost(f"with CR3 = {root:#x}, the CPU loads another word than {word:#x}")

    def check_entry(self, entry: int) -> None:
        """Put `entry` into A's root: does A load the word that only B has?"""
        bench = Bench(self.board.ram, self.board.words)
        wanted = bench.value(self.b, self.only_b)
        bench.put(self.entry_pa, entry)
        if bench.value(self.a, self.va) != wanted:
            raise Lost(f"with {entry:#x} in A's root, A loads another word")


def _check_load_under(text: str) -> None:
    """Call the student's routine in tasks that it has never seen."""
    tasks = _Tasks(Dice("load_under", text), ram=FREE)
    routine = Routine(text, "load_under.S", "load_under")
    routine.put(tasks.board.words)
    for root in (tasks.a, tasks.b):
        routine.lend_kernel_half(root)
    for here, there in ((tasks.a, tasks.b), (tasks.b, tasks.a)):
        routine.cpu.cr3 = here
        word = routine.call(rdi=tasks.va, rsi=there)
        if word != tasks.word(there, tasks.va):
            raise Lost(f"load_under returns {word:#x}, which is not the other task's word")
        if routine.cpu.cr3 != here:
            raise Lost(f"load_under leaves CR3 = {routine.cpu.cr3:#x}, and found {here:#x}")


def _exercise(dice: Dice) -> Exercise:
    tasks = _Tasks(dice)
    board, a, b = tasks.board, tasks.a, tasks.b
    load_under = Source(
        "load_under.S", "the function load_under.", tasks.source(_LOAD_UNDER.student)
    )

    def solution() -> dict[str, Answer]:
        return {
            "root": a,
            "entry_pa": tasks.entry_pa,
            "word_a": tasks.word(a, tasks.va),
            "word_b": tasks.word(b, tasks.va),
            "entry": board.words[b + ENTRY_SIZE * index(tasks.only_b, 4)],
            "load_under.S": tasks.source(_LOAD_UNDER.teacher),
        }

    return Exercise(
        parts=(
            Part(
                "The root that CR3 names",
                1,
                (Number("root", f"CR3 holds {tasks.cr3:#x}: the pa of the root table."),),
                tasks.check_root,
            ),
            Part(
                "The first entry that the CPU reads",
                2,
                (Number("entry_pa", f"The pa of the PML4E for {tasks.va:#x} in that table."),),
                tasks.check_entry_pa,
            ),
            Part(
                "What A loads",
                1,
                (Number("word_a", f"The 8 bytes at {tasks.va:#x} while A runs."),),
                partial(tasks.check_word, a),
            ),
            Part(
                "What B loads",
                1,
                (Number("word_b", "The 8 bytes at the same address while B runs."),),
                partial(tasks.check_word, b),
            ),
            Part(
                "Another entry, another memory",
                2,
                (
                    Number(
                        "entry",
                        f"A PML4E for A's root that makes A's load from {tasks.va:#x} find what "
                        f"B has at {tasks.only_b:#x}.",
                    ),
                ),
                tasks.check_entry,
            ),
            Part("Load as another task", 3, (load_under,), _check_load_under),
        ),
        values={
            "va": f"{tasks.va:#x}",
            "only_b": f"{tasks.only_b:#x}",
            "cr3": f"{tasks.cr3:#x}",
            "b": f"{b:#x}",
            "roots": board.listing((a, b)),
            "below": "\n".join(
                f"{board.words[root + ENTRY_SIZE * index(va, 4)]:#x} leads, for an address that "
                f"ends in {va % (1 << 39):#x}, to the word {tasks.word(root, va):#x}"
                for root, va in ((a, tasks.va), (b, tasks.va), (b, tasks.only_b))
            ),
        },
        solution=solution,
        files={"see.S": tasks.source(_SEE)},
    )


LAB = Lab(
    number=1,
    name="cr3",
    title="CR3 and the root",
    idea="CR3 holds the physical address of the root table; another CR3 is another memory.",
    points=10,
    exercise=_exercise,
)
