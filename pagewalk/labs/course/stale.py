"""Lab 7: the TLB keeps what the CPU has used, until it is told to forget.

Entries are changed behind the CPU's back; what it reads then is predicted, and at last the student
changes one as it must be done.
"""

from functools import partial
from string import Template
from typing import Final

from emu.paging import ENTRY_SIZE, FRAME_SIZE, RW, P, PhysAddr, VirtAddr
from emu.walk import walk
from pagewalk.labs import orders
from pagewalk.labs.bench import INVLPG, LOAD, Bench, loaded
from pagewalk.labs.board import DIRECT, Board
from pagewalk.labs.cases import require_error_code
from pagewalk.labs.lab import (
    Answer,
    ErrorCode,
    Exercise,
    Lab,
    Lost,
    Number,
    Numbers,
    Part,
    Source,
)
from pagewalk.labs.orders import Order, Subject
from pagewalk.labs.running import Routine
from pagewalk.labs.seeded import Dice
from pagewalk.labs.templates import course_file

_HEAD: Final = course_file("stale", "head.S").student
_SEE: Final = course_file("stale", "see.S").student
_ORDER: Final = course_file("stale", "order.S").student
_REMAP: Final = course_file("stale", "remap.S")
_REMAP_VA: Final = 0x3000_0000_0000
_REMAP_PA: Final = 0x10_0000
_NEW: Final = _REMAP_PA + 2 * FRAME_SIZE


def _value(machine: Bench | Routine, va: int) -> int:
    """Have the CPU load 8 bytes, with the TLB that it has, and return them."""
    return loaded(machine.access(LOAD, va), f"a load from {va:#x}")


class _Pages:
    """Pages p and q, the frames that they are in, and the frames that they will be in."""

    def __init__(self, dice: Dice) -> None:
        self.board: Final = Board(dice, nr_frames=16)
        board = self.board
        self.root: Final = board.frame()
        pt = dice.between(1, 255) << 39 | dice.below(1 << 18) << 21
        at = [page << 12 | dice.below(512) * ENTRY_SIZE for page in dice.sample(range(512), 2)]
        self.p, self.q = (pt | offset for offset in at)
        self.new: Final[dict[int, int]] = {}
        for va in (self.p, self.q):
            old, new = board.frame(), board.frame()
            board.map(self.root, va & -FRAME_SIZE, old)
            for frame in (old, new):
                board.words[frame + va % FRAME_SIZE] = dice.word()
            self.new[va] = new | RW | P
        self.told: Final = dice.choice(("p", "q"))
        drawn = [*dice.sample(orders.REMEMBERED, 2), *dice.sample(orders.FORGOTTEN, 2)]
        self.orders: Final = dict(zip("abcd", dice.sample(drawn, 4), strict=True))

    def pte_pa(self, va: int) -> int:
        """Return where the PTE for `va` lies."""
        return self.board.walk(self.root, va).steps[-1].entry_pa

    def source(self, body: Template, steps: str = "") -> str:
        """Return a file with these tables that does what `body` says, or these steps in it."""
        numbers = {
            "root": hex(self.root),
            "p": hex(self.p),
            "q": hex(self.q),
            "pte": hex(DIRECT + self.pte_pa(self.p)),
            "new": hex(self.new[self.p]),
            "steps": steps,
        }
        filled = (text.substitute(numbers) for text in (_HEAD, body))
        return self.board.source("".join(filled), roots=(self.root,))

    # -- what the CPU does

    def changed(self) -> Bench:
        """Load from both pages, then write both PTEs from outside."""
        bench = Bench(self.board.ram, self.board.words)
        bench.cr3 = self.root
        for va, pte in self.new.items():
            bench.access(LOAD, va)
            bench.put(self.pte_pa(va), pte)
        return bench

    def without_invlpg(self) -> int:
        """Return what the CPU then loads from p."""
        return _value(self.changed(), self.p)

    def with_invlpg(self) -> int:
        """Return what it loads after an invlpg."""
        bench = self.changed()
        bench.access(INVLPG, self.p)
        return _value(bench, self.p)

    def one_invlpg(self) -> list[int]:
        """Return what it loads from both pages after an invlpg of one."""
        bench = self.changed()
        bench.access(INVLPG, self.p if self.told == "p" else self.q)
        return [_value(bench, va) for va in (self.p, self.q)]

    def error_code(self, order: Order) -> int | None:
        """Return what the last access of an order comes to."""
        bench = Bench(self.board.ram, self.board.words)
        subject = Subject(self.root, self.p, self.pte_pa(self.p), self.q)
        return orders.error_code(order, bench, subject)

    # -- what that says of an answer

    def check_without(self, word: int) -> None:
        """Is that what it loads?"""
        if word != self.without_invlpg():
            raise Lost(f"without an invlpg, the CPU loads another word than {word:#x}")

    def check_with(self, word: int) -> None:
        """Is that what it loads?"""
        if word != self.with_invlpg():
            raise Lost(f"after the invlpg, the CPU loads another word than {word:#x}")

    def check_one(self, words: list[int]) -> None:
        """Are those the words?"""
        if words != self.one_invlpg():
            raise Lost(f"after an invlpg of {self.told}, the CPU loads other words than these")

    def check_order(self, order: Order, code: int | None) -> None:
        """Is that what it comes to?"""
        require_error_code(self.error_code(order), code)


class _Remapped:
    """The student's routine on two pages that the CPU has used, after it was called for one."""

    def __init__(self, text: str) -> None:
        dice = Dice("remap", text)
        size = 2 * FRAME_SIZE
        self._routine: Final = Routine(
            text, "remap.S", "remap", maps=[f"{_REMAP_VA:#x}={_REMAP_PA:#x}+{size:#x}:rw"]
        )
        memory, paging = self._routine.memory, self._routine.cpu.paging
        self.page, self.beside = _REMAP_VA, _REMAP_VA + FRAME_SIZE
        ptes = [
            walk(memory.read_u64, paging, VirtAddr(va)).steps[-1].entry_pa
            for va in (self.page, self.beside)
        ]
        self.words: Final = [dice.word() for _ in range(4)]  # in the two old frames, in the new
        for number, word in enumerate(self.words):
            memory.write_u64(PhysAddr(_REMAP_PA + number * FRAME_SIZE), word)
        self._routine.access(LOAD, self.page)
        self._routine.access(LOAD, self.beside)
        memory.write_u64(ptes[1], _NEW + FRAME_SIZE | RW | P)
        self.returned: Final = self._routine.call(
            rdi=self.page, rsi=DIRECT + ptes[0], rdx=_NEW | RW | P
        )

    def value(self, va: int) -> int:
        """Have the CPU load from one of the pages."""
        return _value(self._routine, va)


def _check_remap(text: str) -> None:
    """Call remap for a page that the CPU has used: does it load from the new frame?"""
    remapped = _Remapped(text)
    old, _, new, _ = remapped.words
    if remapped.returned != new:
        which = "the old frame's" if remapped.returned == old else "neither frame's"
        raise Lost(f"remap returns {which} word, and not the new frame's")
    if remapped.value(remapped.page) != new:
        raise Lost("after remap, the CPU does not load from the new frame")


def _check_no_other(text: str) -> None:
    """Change the page beside it, too: is that still unknown to the CPU?"""
    _check_remap(text)
    remapped = _Remapped(text)
    if remapped.value(remapped.beside) != remapped.words[1]:
        raise Lost("remap has the CPU forget the page beside it, too")


def _exercise(dice: Dice) -> Exercise:
    pages = _Pages(dice)
    board, root, new = pages.board, pages.root, pages.new[pages.p]

    def solution() -> dict[str, Answer]:
        return {
            "without": pages.without_invlpg(),
            "with": pages.with_invlpg(),
            "one": pages.one_invlpg(),
            **{name: pages.error_code(order) for name, order in pages.orders.items()},
            "remap.S": pages.source(_REMAP.teacher),
        }

    remap = Source("remap.S", "the function remap.", pages.source(_REMAP.student))
    return Exercise(
        parts=(
            Part(
                "Changed without invlpg",
                1,
                (Number("without", "What the CPU then loads from p."),),
                pages.check_without,
            ),
            Part(
                "Changed with invlpg",
                1,
                (Number("with", "What the CPU then loads from p."),),
                pages.check_with,
            ),
            Part(
                "Two changes, one invlpg",
                2,
                (
                    Numbers(
                        "one",
                        f"Both PTEs are changed, and {pages.told} is invalidated: what the CPU "
                        "loads from p and from q.",
                        2,
                    ),
                ),
                pages.check_one,
            ),
            *(
                Part(
                    f"Order {name}",
                    1,
                    (ErrorCode(name, f"What the last access of order {name} comes to."),),
                    partial(pages.check_order, order),
                )
                for name, order in pages.orders.items()
            ),
            Part("Change it, and be believed", 3, (remap,), _check_remap),
            Part("… and forget nothing else", 1, (remap,), _check_no_other),
        ),
        values={
            "root": f"{root:#x}",
            "ram": board.listing(),
            "p": f"{pages.p:#x}",
            "q": f"{pages.q:#x}",
            "new_p": f"{new:#x}",
            "new_q": f"{pages.new[pages.q]:#x}",
            "told": pages.told,
            "orders": "\n".join(
                f"{name}    {', then '.join(order)}" for name, order in pages.orders.items()
            ),
        },
        solution=solution,
        files={
            "see.S": pages.source(_SEE),
            **{
                f"{name}.S": pages.source(_ORDER, orders.code(order))
                for name, order in pages.orders.items()
            },
        },
    )


LAB = Lab(
    number=7,
    name="stale",
    title="The TLB and stale entries",
    idea="The CPU remembers translations; whoever takes one away must tell it.",
    points=12,
    exercise=_exercise,
)
