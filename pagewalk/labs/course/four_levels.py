"""Lab 2: a walk by hand: four indices of nine bits, four entries, one offset.

Two addresses share the upper tables of one root; a third one's tables are the student's to fill.
"""

from functools import partial
from typing import Final

from emu.paging import ENTRY_NAME, ENTRY_SIZE, FRAME_SIZE, PS, index, page_size
from pagewalk.labs.bench import Bench
from pagewalk.labs.board import TABLE, Board
from pagewalk.labs.lab import Answer, Exercise, Lab, Lost, Number, Numbers, Part
from pagewalk.labs.seeded import Dice
from pagewalk.labs.templates import course_file

_LEVELS: Final = (4, 3, 2, 1)
_INDEX: Final = {4: "pml4", 3: "pdpt", 2: "pd", 1: "pt"}
_SEE: Final = course_file("four_levels", "see.S").student


class _Walks:
    """A root with pages at `one`, `two` and elsewhere, and free frames for the way to `three`."""

    def __init__(self, dice: Dice) -> None:
        pml4, other = dice.sample(range(1, 256), 2)
        pdpt, near = dice.sample(range(512), 2)
        one = pml4 << 18 | pdpt << 9 | dice.below(512)
        two = pml4 << 18 | near << 9 | dice.below(512)
        self.one: Final = self._va(dice, one)
        self.two: Final = self._va(dice, two)
        self.three: Final = self._va(dice, other << 18 | dice.below(1 << 18))
        self.board: Final = Board(dice, nr_frames=20)
        self.root: Final = self.board.frame()
        # `two` has a neighbour in its page table: one entry off is another page.
        beside = self.two ^ FRAME_SIZE
        for va in (self.one, self.two, beside):
            page = self.board.frame()
            self.board.map(self.root, va & -FRAME_SIZE, page)
            self.board.words[page + va % FRAME_SIZE] = dice.word()
        self.own: Final = tuple(self.board.frame() for _ in range(4))  # PDPT, PD, PT, the page
        self.spare: Final = self.board.frame()
        self.target: Final = self.board.pa(self.root, self.two)

    @staticmethod
    def _va(dice: Dice, upper: int) -> int:
        """Return an aligned address below these three indices; its PTE is none of the outermost."""
        return upper << 21 | dice.between(2, 509) << 12 | dice.below(512) * ENTRY_SIZE

    def bench(self) -> Bench:
        """Return the lab's machine."""
        return Bench(self.board.ram, self.board.words)

    def entry_pa(self, va: int, level: int) -> int:
        """Return where the entry of `level` for `va` lies."""
        return self.board.walk(self.root, va).steps[4 - level].entry_pa

    # -- what the CPU says of an answer

    def check_index(self, level: int, answer: int) -> None:
        """Make a walk for `one` with the student's index at one level: does the CPU get through?"""
        tables = (self.root, *self.own)
        words = {}
        for at, table, below in zip(_LEVELS, tables, tables[1:], strict=False):
            slot = answer if at == level else index(self.one, at)
            words[table + ENTRY_SIZE * slot] = below | TABLE
        try:
            Bench(self.board.ram, words).value(self.root, self.one)
        except Lost as lost:
            name = ENTRY_NAME[level]
            raise Lost(f"with the {name} at [{answer}] and no other in its table: {lost}") from None

    def check_pa(self, pa: int) -> None:
        """Does `one` lead there?"""
        self.bench().check_translation(self.root, self.one, pa)

    def check_pte_pa(self, entry_pa: int) -> None:
        """Write another PTE there: does the load from `two` find the other page?"""
        bench = self.bench()
        bench.put(entry_pa, self.spare | TABLE)
        try:
            bench.check_translation(self.root, self.two, self.spare + self.two % FRAME_SIZE)
        except Lost:
            raise Lost(f"the CPU takes no PTE for {self.two:#x} from {entry_pa:#x}") from None

    def check_va(self, va: int) -> None:
        """Does the address lead to the target?"""
        self.bench().check_translation(self.root, va, self.target)

    def check_entries(self, entries: list[int]) -> None:
        """Put them into root, PDPT, PD and PT: does `three` lead to the page?"""
        bench = self.bench()
        for level, table, entry in zip(_LEVELS, (self.root, *self.own), entries, strict=False):
            bench.put(table + ENTRY_SIZE * index(self.three, level), entry)
        bench.check_translation(self.root, self.three, self.own[-1] + self.three % FRAME_SIZE)

    def check_span(self, first: int, last: int) -> None:
        """Leave nothing but the PDE of `one`, as a page: where does it begin and end?"""
        from emu import Returned

        bench = self.bench()
        pde_pa, page = self.entry_pa(self.one, 2), page_size(2)
        for slot in range(FRAME_SIZE // ENTRY_SIZE):
            bench.put(pde_pa - pde_pa % FRAME_SIZE + ENTRY_SIZE * slot, 0)
        bench.put(pde_pa, page | TABLE | PS)
        for va, inside in ((first, True), (first - 8, False), (last - 7, True), (last + 1, False)):
            if isinstance(bench.load(self.root, max(va, 0)), Returned) != inside:
                how = "does not translate" if inside else "translates"
                raise Lost(f"{first:#x} to {last:#x}: this PDE {how} {va:#x}")


def _exercise(dice: Dice) -> Exercise:
    walks = _Walks(dice)
    one, two, three, board, root = walks.one, walks.two, walks.three, walks.board, walks.root

    def solution() -> dict[str, Answer]:
        return {
            **{name: index(one, level) for level, name in _INDEX.items()},
            "pa": board.pa(root, one),
            "pte_pa": walks.entry_pa(two, 1),
            "va": two,
            "entries": [table | TABLE for table in walks.own],
            "first": one & -page_size(2),
            "last": one | page_size(2) - 1,
        }

    indices = [
        Part(
            f"The index in the {name.upper()}",
            1,
            (Number(name, f"Which {ENTRY_NAME[level]} does the CPU read for {one:#x}?", 511),),
            partial(walks.check_index, level),
        )
        for level, name in _INDEX.items()
    ]
    target, own = walks.target, walks.own
    return Exercise(
        parts=(
            *indices,
            Part(
                "Where the walk leads",
                2,
                (Number("pa", f"The pa that {one:#x} is translated to."),),
                walks.check_pa,
            ),
            Part(
                "Where the last entry lies",
                2,
                (Number("pte_pa", f"The pa of the PTE for {two:#x}."),),
                walks.check_pte_pa,
            ),
            Part(
                "Back from pa to va",
                2,
                (Number("va", f"An address that is translated to {target:#x}."),),
                walks.check_va,
            ),
            Part(
                "Four entries of your own",
                3,
                (
                    Numbers(
                        "entries",
                        f"PML4E, PDPTE, PDE and PTE for {three:#x}, so that it is translated into "
                        f"the frame {own[3]:#x}, by way of tables in {own[0]:#x} (PDPT), "
                        f"{own[1]:#x} (PD) and {own[2]:#x} (PT).",
                        4,
                    ),
                ),
                walks.check_entries,
            ),
            Part(
                "What one PDE is for",
                2,
                (
                    Number("first", f"The first address that the PDE for {one:#x} translates."),
                    Number("last", "The last address that it translates."),
                ),
                walks.check_span,
            ),
        ),
        values={
            "one": f"{one:#x}",
            "two": f"{two:#x}",
            "three": f"{three:#x}",
            "root": f"{root:#x}",
            "target": f"{target:#x}",
            "ram": board.listing(),
            "entries": ",".join(f"{step.entry:#x}" for step in board.walk(root, one).steps),
            "pdpt": f"{own[0]:#x}",
            "pd": f"{own[1]:#x}",
            "pt": f"{own[2]:#x}",
            "page": f"{own[3]:#x}",
        },
        solution=solution,
        files={
            "see.S": board.source(
                _SEE.substitute(root=hex(root), one=hex(one), two=hex(two)), roots=(root,)
            )
        },
    )


LAB = Lab(
    number=2,
    name="four-levels",
    title="Four levels by hand",
    idea="An address is four indices and an offset; each index picks the entry that leads on.",
    points=15,
    exercise=_exercise,
)
