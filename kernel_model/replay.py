"""Who wrote the top-level entries of tasks' tables, told once more from the history.

Knows what each event did to a slot of every table: a fork copies, a sync fills what is missing, and
neither costs a note an entry, since there are ten thousand. Refuses to know values: what an entry
holds is in RAM. Linux vocabulary.
"""

from typing import TYPE_CHECKING, Final

from emu import PhysAddr
from emu.paging import ENTRY_SIZE, FRAME_SIZE
from kernel_model.history import Cleared, Event, Forked, Populated, SyncDied, Synced
from kernel_model.writers import Write

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


class Replay:
    """The history of a kernel as it is now, by tables and slots."""

    def __init__(self, kernel: "Kernel") -> None:
        self._layout: Final = kernel.layout
        self._history: Final = kernel.history
        self._forks: Final[dict[int, list[int]]] = {}
        self._changes: Final[list[tuple[int, Event]]] = []
        self._of_slot: Final[dict[int, list[tuple[int, Event]]]] = {}
        for at, event in enumerate(kernel.history):
            match event:
                case Forked(pgd=pgd):
                    self._forks.setdefault(pgd, []).append(at)
                case Populated() | Cleared() | SyncDied():
                    self._changes.append((at, event))
                case Synced() if event.filled:
                    self._changes.append((at, event))
        tops = {*(mm.pgd for mm in kernel.pgd_list), *(mm.pgd for mm in kernel.outside)}
        self._noted: Final = {
            entry_pa: write
            for first, end, write in kernel.pgtable.writers.records()
            for table in range(first & -FRAME_SIZE, end, FRAME_SIZE)
            if table in tops
            for entry_pa in range(max(first, table), min(end, table + FRAME_SIZE), ENTRY_SIZE)
        }

    def forked(self, pgd: PhysAddr) -> int | None:
        """Return the event by which the table at `pgd` came to be; None if it was no fork."""
        return self._forks[pgd][-1] if pgd in self._forks else None

    def written(self, pgd: PhysAddr, slot: int) -> Write | None:
        """Return who wrote a slot of a task's table last; None if nobody did since the fork."""
        born = self.forked(pgd)
        noted = self._noted.get(pgd + ENTRY_SIZE * slot)
        if born is None:
            return noted
        if noted is not None and noted.at <= born:
            noted = None  # of the frame's former life
        filled = self.filled(slot, before=born)
        in_init_mm = filled is not None and isinstance(filled[1], Populated)
        last = Write("pgd_ctor", "forked", born) if in_init_mm else None
        for at, event in self.changes(slot):
            if at < born:
                continue
            if noted is not None and noted.at <= at:
                last, noted = noted, None
            is_empty = last is None or last.how == "cleared"
            match event:
                case Populated():
                    in_init_mm = True
                case Cleared(path=path, tables=tables):
                    in_init_mm = False
                    if tables and not is_empty:
                        last = Write(path, "cleared", at)
                case Synced(by=by) | SyncDied(by=by):
                    if in_init_mm and is_empty and self._reached(born, slot, at, event):
                        last = Write(by, "synced", at)
        return noted or last

    def changes(self, slot: int) -> list[tuple[int, Event]]:
        """Return the events that changed a slot of any table, forks aside, with their numbers."""
        if slot not in self._of_slot:
            self._of_slot[slot] = [
                (at, event) for at, event in self._changes if self._touches(event, slot)
            ]
        return self._of_slot[slot]

    def filled(
        self, slot: int, *, before: int | None = None
    ) -> tuple[int, Populated | Cleared] | None:
        """Return the last event that wrote a slot of init_mm, with its number."""
        for at, event in reversed(self.changes(slot)):
            if (before is None or at < before) and isinstance(event, Populated | Cleared):
                return at, event
        return None

    def synced_since(self, slot: int, event: int) -> Synced | SyncDied | None:
        """Return the first sync of a slot after an event, whether it had anything to do or not."""
        for later in self._history[event + 1 :]:
            if isinstance(later, Synced | SyncDied) and self._touches(later, slot):
                return later
        return None

    def forks_around(self, event: int) -> tuple[str | None, str | None]:
        """Return who was forked last before an event, and first after it."""
        before = (e.comm for e in reversed(self._history[:event]) if isinstance(e, Forked))
        after = (e.comm for e in self._history[event:] if isinstance(e, Forked))
        return next(before, None), next(after, None)

    def _touches(self, event: Event, slot: int) -> bool:
        index = self._layout.pgd_index
        match event:
            case Populated() | Cleared():
                return event.slot == slot
            case Synced(start, end):
                return start <= end and index(start) <= slot <= index(end)
            case SyncDied(start, addr):
                return index(start) <= slot <= index(addr)
        return False

    def _reached(self, born: int, slot: int, at: int, event: Synced | SyncDied) -> bool:
        """Tell whether a sync came to a table before a BUG ended it: tables go by age."""
        if isinstance(event, Synced) or slot < self._layout.pgd_index(event.addr):
            return True
        stopped_at = max((fork for fork in self._forks.get(event.pgd, ()) if fork < at), default=0)
        return born < stopped_at
