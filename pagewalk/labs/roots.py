"""A reference root and some tasks', which lack a part of its entries: lab 9, on a bare machine.

Knows which entries those are, and what lies below. Refuses to know who is to copy them.
"""

from typing import Final

from emu.paging import FRAME_SIZE, RW, P, canonical, page_shift
from pagewalk.labs.board import DIRECT, Board
from pagewalk.labs.entries import entry_pa
from pagewalk.labs.seeded import Dice

_SLOTS: Final = range(320, 396)  # of the kernel's, those that nothing else here is in


class Roots:
    """A reference root and three tasks', which lack some of its entries, or none."""

    def __init__(self, dice: Dice, *, ram: int | None = None) -> None:
        self.board: Final = Board(dice, nr_frames=24, ram=ram)
        words = self.board.words
        self.reference: Final = self.board.frame()
        self.tasks: Final = [self.board.frame() for _ in range(3)]
        self.list: Final = self.board.frame()
        for number, root in enumerate(self.tasks):
            words[entry_pa(self.list, number)] = DIRECT + root

        base = dice.choice(_SLOTS)
        self.slots: Final = range(base, base + 4)
        empty = base + dice.between(1, 2)
        self.vas: Final = [self._page(dice, slot) for slot in self.slots if slot != empty]
        for slot in self.slots:  # the first task has none of them, the last has them all
            for number, root in enumerate(self.tasks[1:]):
                if number or dice.below(2):
                    self._copy(root, slot)
        for root in self.tasks:
            for slot in (dice.between(1, 255), 272):
                words[entry_pa(root, slot)] = self.board.ram - FRAME_SIZE | RW | P
        self.first: Final = self._address(dice, self.slots[0])
        self.last: Final = self._address(dice, self.slots[-1])

    def _address(self, dice: Dice, slot: int) -> int:
        return canonical(slot << page_shift(4), 4) | dice.below(1 << 36) << 3

    def _page(self, dice: Dice, slot: int) -> int:
        va, page = self._address(dice, slot), self.board.frame()
        self.board.map(self.reference, va & -FRAME_SIZE, page)
        self.board.words[page + va % FRAME_SIZE] = dice.word()
        return va

    def _copy(self, root: int, slot: int) -> None:
        entry = self.board.words.get(entry_pa(self.reference, slot))
        if entry is not None:
            self.board.words[entry_pa(root, slot)] = entry

    def word(self, va: int) -> int:
        """Return what the reference has at `va`."""
        return self.board.words[self.board.pa(self.reference, va)]
