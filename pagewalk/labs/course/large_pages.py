"""Lab 4: an entry with PS ends the walk early, and what it leaves of the address is the offset.

A page of 2 MiB, one of 1 GiB, a page directory to fill in, and one large page to take apart.
"""

from functools import partial
from typing import Final

from emu.case import Case
from emu.paging import ENTRIES, ENTRY_SIZE, FRAME_SIZE, PS, RW, P, index, page_size
from pagewalk.labs.bench import Bench
from pagewalk.labs.board import TABLE, Board
from pagewalk.labs.cases import check_error_code, command, entries_text, verdict
from pagewalk.labs.lab import Answer, ErrorCode, Exercise, Lab, Lost, Number, Part
from pagewalk.labs.seeded import Dice
from pagewalk.labs.templates import course_file

_MIB2: Final = page_size(2)
_PAT: Final = 1 << 12  # of an entry that maps a large page
_SEE: Final = course_file("large_pages", "see.S").student


class _Pages:
    """A root with a page of 2 MiB, one of 1 GiB at pa 0, and an empty PD."""

    def __init__(self, dice: Dice) -> None:
        slots = dice.sample(range(1, 256), 3)
        self.board: Final = Board(dice, nr_frames=16)
        board = self.board
        self.root: Final = board.frame()
        # RAM in units of 2 MiB: one for each use, and none where the frames are.
        page, far, target = dice.sample(range(1, board.below // _MIB2), 3)
        self.page_pa: Final = page * _MIB2
        self.two_mib: Final = slots[0] << 39 | dice.below(1 << 36) << 3
        self.gib: Final = slots[1] << 39 | dice.below(512) << 30 | far * _MIB2 | _offset(dice)
        board.map(self.root, self.two_mib & -_MIB2, self.page_pa, level=2)
        board.map(self.root, self.gib & -page_size(3), 0, level=3)
        for va in (self.two_mib, self.gib):
            board.words[board.pa(self.root, va)] = dice.word()
        self.empty: Final = slots[2] << 39 | dice.below(1 << 18) << 21
        self.target: Final = target * _MIB2
        self.empty_pd: Final = _without_leaf(board, self.root, self.empty)
        self.pt: Final = board.frame()
        self.cases: Final = dict(zip("xyz", _cases(dice, self), strict=True))

    def bench(self) -> Bench:
        """Return the lab's machine."""
        return Bench(self.board.ram, self.board.words)

    # -- what the CPU says of an answer

    def check_pa(self, va: int, pa: int) -> None:
        """Does the address lead there?"""
        self.bench().check_translation(self.root, va, pa)

    def check_pde(self, pde: int) -> None:
        """Put the PDE into the empty PD: are all 2 MiB where they should be?"""
        bench = self.bench()
        bench.put(self.empty_pd + ENTRY_SIZE * index(self.empty, 2), pde)
        for offset in (0, FRAME_SIZE, _MIB2 // 2, _MIB2 - ENTRY_SIZE):
            bench.check_translation(self.root, self.empty + offset, self.target + offset)

    def check_split(self, pde: int, pte: int) -> None:
        """Put both into place, and all other PTEs: is everything as it was, but 4 KiB at a time?"""
        from emu import Returned

        bench, slot = self.bench(), index(self.two_mib, 1)
        for other in range(ENTRIES):
            at = self.page_pa + FRAME_SIZE * other | RW | P
            bench.put(self.pt + ENTRY_SIZE * other, pte if other == slot else at)
        bench.put(self.board.walk(self.root, self.two_mib).steps[-1].entry_pa, pde)
        bench.check_translation(self.root, self.two_mib, self.page_pa + self.two_mib % _MIB2)
        beside = self.two_mib ^ FRAME_SIZE
        bench.check_translation(self.root, beside, self.page_pa + beside % _MIB2)
        bench.put(self.pt + ENTRY_SIZE * index(beside, 1), 0)
        if isinstance(bench.load(self.root, beside), Returned):
            raise Lost(f"the page at {beside & -FRAME_SIZE:#x} cannot be unmapped alone")


def _offset(dice: Dice) -> int:
    return dice.below(_MIB2 // ENTRY_SIZE) * ENTRY_SIZE


def _without_leaf(board: Board, root: int, va: int) -> int:
    """Make the tables for a page of 2 MiB, and return the PD, which is empty."""
    board.map(root, va, 0, level=2)
    entry_pa = board.walk(root, va).steps[-1].entry_pa
    del board.words[entry_pa]
    return entry_pa & -FRAME_SIZE


def _cases(dice: Dice, pages: _Pages) -> list[Case]:
    """Draw two accesses by way of an entry with a reserved bit, and one that only looks like it."""
    va = pages.empty | _offset(dice)
    tables = [(at << 16 | dice.below(1 << 16)) << 12 | TABLE for at in (1, 2, 3)]
    large = pages.target | PS | TABLE
    odd = [
        (tables[0], tables[1], large | 1 << dice.between(13, 20)),
        (tables[0], large | 1 << dice.between(21, 29)),
        (tables[0] | PS, tables[1], large),
    ]
    even = [
        (tables[0], tables[1], large | _PAT),
        (*tables, pages.target | PS | TABLE),  # bit 7 of a PTE is PAT
    ]
    drawn = [*dice.sample(odd, 2), dice.choice(even)]
    return [
        Case(va, entries, kind=dice.choice(("read", "write"))) for entries in dice.sample(drawn, 3)
    ]


def _exercise(dice: Dice) -> Exercise:
    pages = _Pages(dice)
    board, root, two_mib, gib = pages.board, pages.root, pages.two_mib, pages.gib

    def solution() -> dict[str, Answer]:
        return {
            "pa_2m": board.pa(root, two_mib),
            "pa_1g": board.pa(root, gib),
            "pde": pages.target | PS | TABLE,
            **{name: verdict(case).error_code for name, case in pages.cases.items()},
            "split_pde": pages.pt | TABLE,
            "split_pte": pages.page_pa | two_mib % _MIB2 & -FRAME_SIZE | RW | P,
        }

    return Exercise(
        parts=(
            Part(
                "In a page of 2 MiB",
                2,
                (Number("pa_2m", f"The pa that {two_mib:#x} is translated to."),),
                partial(pages.check_pa, two_mib),
            ),
            Part(
                "In a page of 1 GiB",
                2,
                (Number("pa_1g", f"The pa that {gib:#x} is translated to."),),
                partial(pages.check_pa, gib),
            ),
            Part(
                "512 pages with one entry",
                2,
                (
                    Number(
                        "pde",
                        f"A PDE that maps the 2 MiB from {pages.empty:#x} on, to those from pa "
                        f"{pages.target:#x} on.",
                    ),
                ),
                pages.check_pde,
            ),
            *(
                Part(
                    f"Reserved or not: {name}",
                    1,
                    (
                        ErrorCode(
                            name, f"What a {case.kind} at CPL 0 by {entries_text(case)} comes to."
                        ),
                    ),
                    partial(check_error_code, case),
                )
                for name, case in pages.cases.items()
            ),
            Part(
                "A large page taken apart",
                3,
                (
                    Number("split_pde", f"The PDE for {two_mib:#x} when the PT is {pages.pt:#x}."),
                    Number("split_pte", "The PTE for the same address, in that PT."),
                ),
                pages.check_split,
            ),
        ),
        values={
            "two_mib": f"{two_mib:#x}",
            "gib": f"{gib:#x}",
            "root": f"{root:#x}",
            "ram": board.listing(),
            "empty": f"{pages.empty:#x}",
            "target": f"{pages.target:#x}",
            "pt": f"{pages.pt:#x}",
            "cases": "\n".join(
                f"{name}    {case.kind:5} {entries_text(case)}"
                for name, case in pages.cases.items()
            ),
            "commands": "\n".join(f"    {command(case)}" for case in pages.cases.values()),
        },
        solution=solution,
        files={
            "see.S": board.source(
                _SEE.substitute(root=hex(root), two_mib=hex(two_mib), gib=hex(gib)), roots=(root,)
            )
        },
    )


LAB = Lab(
    number=4,
    name="large-pages",
    title="Large pages",
    idea="An entry with PS = 1 maps a page itself, and the rest of the address is the offset.",
    points=12,
    exercise=_exercise,
)
