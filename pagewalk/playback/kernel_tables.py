"""A kernel's page tables as RAM has them, looked at while the guest stands still.

Knows which frames are or were tables, since when, and whose. It stands still when Python has just
written entries for it, which is when one looks. Refuses to know what happens in between
(`of_scenario`).
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emu.paging import ENTRY_SIZE, FRAME_SIZE
from pagewalk.playback.entry_values import tables_below
from pagewalk.recording import tables

if TYPE_CHECKING:
    from kernel_model import Kernel

Seen = list[tuple[int, bytes]]
"""Frames, and what RAM held there."""


class Look(NamedTuple):
    """What was found in RAM: what a new table was before the write, and what others are after."""

    before: Seen
    after: Seen


class KernelTables:
    """The frames that are or were tables, as they are met. `edits` counts Python's writes."""

    def __init__(self, kernel: "Kernel") -> None:
        self._kernel: Final = kernel
        self._memory: Final = kernel.memory
        self._held: Final[dict[int, bytes]] = {}
        self._level: Final[dict[int, int]] = {}
        self.edits = 0
        self._last_edit: Final[dict[int, int]] = defaultdict(int)  # of a frame
        self._roots: dict[int, str] = {}
        self._roots_of: tuple[int, ...] = ()  # what had happened when these were found
        self.names: Final[list[tuple[int, int, str | None]]] = []
        """Whose a root is, from which edit on; nobody's if it is None."""

    def __contains__(self, frame: int) -> bool:
        return frame in self._held

    @property
    def frames(self) -> NDArray[np.uint64]:
        """All of them, lowest first."""
        return np.array(sorted(self._held), np.uint64)

    def edited(self, pa: int, nr: int) -> Look:
        """Look into and below a table of which Python has just written `nr` entries from `pa`."""
        self.edits += 1
        frame = pa & -FRAME_SIZE
        self._last_edit[frame] = self.edits
        before: Seen = []
        after: Seen = []
        if frame in self:
            after += self._look(frame)
        else:
            ((_, held),) = self._look(frame)
            offset = pa - frame
            empty = bytes(min(ENTRY_SIZE * nr, FRAME_SIZE - offset))  # as a new table's are
            before.append((frame, held[:offset] + empty + held[offset + len(empty) :]))
        for child, level in self.below(pa, self._memory.words[pa >> 3 : (pa >> 3) + nr]):
            after += self.reach(child, level)
        return Look(before, after + self.find_roots())

    def find_roots(self) -> Seen:
        """Note which top tables have come and gone; return what RAM holds of the new ones."""
        kernel = self._kernel
        state = len(kernel.history), len(kernel.pgd_list), len(kernel.outside)
        if self._roots_of == state:
            return []
        self._roots_of = state
        seen: Seen = []
        roots: dict[int, str] = dict(tables(kernel))
        for root, name in roots.items():
            if self._roots.get(root) != name:
                self.names.append((self._last_edit[root], root, name))
                seen += self.reach(root, kernel.layout.levels)
        self.names.extend((self.edits, root, None) for root in self._roots.keys() - roots.keys())
        self._roots = roots
        return seen

    def reach(self, frame: int, level: int) -> Seen:
        """Meet a table of `level` and all below it; return those that RAM has something new of."""
        seen: Seen = []
        waiting = [(frame, level)]
        while waiting:
            frame, level = waiting.pop()
            if not self._memory.holds(frame, FRAME_SIZE):
                continue
            seen += self._look(frame)
            if frame not in self._level:
                self._level[frame] = level
                waiting += self.below(frame, memoryview(self._held[frame]).cast("Q"))
        return seen

    def below(self, pa: int, entries: "memoryview | Sequence[int]") -> list[tuple[int, int]]:
        """Return the tables that entries from `pa` on lead to, with their level."""
        level = self._level.get(pa & -FRAME_SIZE, 0)
        if level < 2:
            return []
        return [(frame, level - 1) for frame in tables_below(np.array(entries, np.uint64))]

    def _look(self, frame: int) -> Seen:
        """Read a table; return it if it holds something else than when it was read last."""
        held = self._memory.peek(frame, FRAME_SIZE)
        if self._held.get(frame) == held:
            return []
        self._held[frame] = held
        return [(frame, held)]
