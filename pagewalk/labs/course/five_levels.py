"""Lab 3: one more table above, nine more bits of address, and the same RAM read otherwise.

With CR4.LA57 the root is a PML5. Addresses are drawn that are canonical at both depths, at one, or
at none; and one chain of tables is walked at both.
"""

from functools import partial
from typing import Final

from emu.fault import GP, Trap
from emu.paging import ENTRY_NAME, ENTRY_SIZE, FRAME_SIZE, canonical, index, is_canonical
from pagewalk.labs.bench import Bench, stop_text
from pagewalk.labs.board import TABLE, Board
from pagewalk.labs.lab import Answer, Exercise, Lab, Lost, Number, Part, Word
from pagewalk.labs.seeded import Dice
from pagewalk.labs.templates import course_file

_DEPTHS: Final = {
    "both": (4, 5),
    "only 5": (5,),
    "only 4": (4,),
    "neither": (),
}
_SEE: Final = course_file("five_levels", "see.S").student


class _Walks:
    """A PML5 with a page at `va`; four addresses; and a kernel whose root was made for 4 levels."""

    def __init__(self, dice: Dice) -> None:
        top = dice.choice((dice.between(1, 255), dice.between(310, 510)))
        slots = top << 36 | dice.below(1 << 36)
        self.va: Final = canonical(slots << 12 | dice.below(512) * ENTRY_SIZE, 5)
        self.board: Final = Board(dice, nr_frames=16, levels=5)
        self.root: Final = _mapped(self.board, dice, self.va)
        # One index less: what was the last table is the page now.
        self.shorter: Final = canonical(slots >> 9 << 12 | (slots & 511) * ENTRY_SIZE, 4)
        self.addresses: Final = dict(zip("abcd", _addresses(dice), strict=True))
        self.kernel: Final = canonical(dice.between(310, 510) << 39 | dice.below(1 << 36) << 3, 4)
        self.kernel_board: Final = Board(dice, nr_frames=16)
        self.pml4: Final = _mapped(self.kernel_board, dice, self.kernel)
        self.pml5: Final = self.kernel_board.frame()

    def bench(self, levels: int) -> Bench:
        """Return a machine with the PML5 and what is below it, at one depth or the other."""
        return Bench(self.board.ram, self.board.words, levels=levels)

    def depths(self, va: int) -> str:
        """Return the word for the depths at which an address is canonical."""
        found = tuple(levels for levels in (4, 5) if is_canonical(va, levels))
        return next(word for word, depths in _DEPTHS.items() if depths == found)

    # -- what the CPU says of an answer

    def check_index(self, answer: int) -> None:
        """Put the entry at the student's index, and none elsewhere: does the CPU find it?"""
        words = self.board.without(self.root)
        words[self.root + ENTRY_SIZE * answer] = self.board.walk(self.root, self.va).steps[0].entry
        try:
            Bench(self.board.ram, words, levels=5).value(self.root, self.va)
        except Lost as lost:
            raise Lost(f"with the PML5E at [{answer}] and no other in the root: {lost}") from None

    def check_pa(self, pa: int) -> None:
        """Does the address lead there?"""
        self.bench(5).check_translation(self.root, self.va, pa)

    def check_shorter(self, word: int) -> None:
        """Load with LA57 off: is it this word?"""
        if self.bench(4).value(self.root, self.shorter) != word:
            raise Lost(f"with LA57 = 0, the CPU loads another word than {word:#x}")

    def check_depths(self, va: int, word: str) -> None:
        """Load at both depths: a #GP is for an address that is not canonical."""
        for levels in (4, 5):
            stop = self.bench(levels).load(self.root, va)
            refused = isinstance(stop, Trap) and stop.vector == GP
            if refused == (levels in _DEPTHS[word]):
                raise Lost(f"{word!r}: with {levels} levels, {va:#x} gives {stop_text(stop)}")

    def check_pml5e(self, entry_pa: int, entry: int) -> None:
        """Put the entry there, and load from the kernel's address: is it as it was?"""
        board = self.kernel_board
        before, after = (Bench(board.ram, board.words, levels=levels) for levels in (4, 5))
        after.put(entry_pa, entry)
        if after.value(self.pml5, self.kernel) != before.value(self.pml4, self.kernel):
            raise Lost(f"with {entry:#x} at {entry_pa:#x}, the CPU loads another word")


def _mapped(board: Board, dice: Dice, va: int) -> int:
    """Return a root with a page at `va` that holds a word there."""
    root, page = board.frame(), board.frame()
    board.map(root, va & -FRAME_SIZE, page)
    board.words[page + va % FRAME_SIZE] = dice.word()
    return root


def _addresses(dice: Dice) -> list[int]:
    """Draw four addresses, which are canonical at both depths, with 5 levels only, or at none."""
    wide = [canonical(dice.between(1, 510) << 48 | dice.below(1 << 45) << 3, 5) for _ in range(3)]
    narrow = canonical(dice.below(1 << 45) << 3, 4)
    neither = wide[1] ^ dice.between(1, 126) << 57
    return dice.sample((narrow, wide[0], neither, dice.choice((narrow ^ 1 << 12, wide[2]))), 4)


def _exercise(dice: Dice) -> Exercise:
    walks = _Walks(dice)
    board, root, va = walks.board, walks.root, walks.va

    def solution() -> dict[str, Answer]:
        bottom = board.walk(root, va).steps[-1]
        return {
            "pml5": index(va, 5),
            "pa": board.pa(root, va),
            "word": bottom.entry,
            **{name: walks.depths(address) for name, address in walks.addresses.items()},
            "pml5e_pa": walks.pml5 + ENTRY_SIZE * index(walks.kernel, 5),
            "pml5e": walks.pml4 | TABLE,
        }

    return Exercise(
        parts=(
            Part(
                "The index in the PML5",
                1,
                (Number("pml5", f"Which {ENTRY_NAME[5]} does the CPU read for {va:#x}?", 511),),
                walks.check_index,
            ),
            Part(
                "Where five levels lead",
                2,
                (Number("pa", f"The pa that {va:#x} is translated to."),),
                walks.check_pa,
            ),
            *(
                Part(
                    f"Canonical or not: {name}",
                    1,
                    (Word(name, f"The depths at which {address:#x} is canonical.", (*_DEPTHS,)),),
                    partial(walks.check_depths, address),
                )
                for name, address in walks.addresses.items()
            ),
            Part(
                "The same tables at four levels",
                3,
                (
                    Number(
                        "word",
                        f"CR4.LA57 = 0 and the same CR3: the 8 bytes that a load from "
                        f"{walks.shorter:#x} finds.",
                    ),
                ),
                walks.check_shorter,
            ),
            Part(
                "A kernel for four levels under a PML5",
                3,
                (
                    Number("pml5e_pa", f"The pa of the entry to fill in, in {walks.pml5:#x}."),
                    Number("pml5e", "What to write there."),
                ),
                walks.check_pml5e,
            ),
        ),
        values={
            "va": f"{va:#x}",
            "root": f"{root:#x}",
            "ram": board.listing(),
            "addresses": "\n".join(f"{n}    {a:#018x}" for n, a in walks.addresses.items()),
            "shorter": f"{walks.shorter:#x}",
            "kernel": f"{walks.kernel:#x}",
            "pml4": f"{walks.pml4:#x}",
            "pml5": f"{walks.pml5:#x}",
            "entries": ",".join(f"{step.entry:#x}" for step in board.walk(root, va).steps),
        },
        solution=solution,
        files={"see.S": board.source(_SEE.substitute(root=hex(root), va=hex(va)), roots=(root,))},
    )


LAB = Lab(
    number=3,
    name="five-levels",
    title="Five levels",
    idea="CR4.LA57 puts one more table above the others: nine more bits, another canonical form.",
    points=13,
    exercise=_exercise,
)
