"""What page-table entries held at any moment of a run, forwards and backwards.

Knows what each word of a table's frame held first, and every change since, by the number of events
that had happened. Refuses to know which event changes what, and which frames are tables
(`choosing`). Where nobody has told, a value is None.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emu.paging import ADDRESS, ENTRIES, ENTRY_SIZE, FRAME_SIZE, PS, U64, P, PhysAddr, slot_of
from pagewalk.playback.chosen_events import moment
from pagewalk.traces.stores import bits_of_word

Words = Sequence[int] | NDArray[np.uint64]

_UNHEARD, _KNOWN, _LOST = range(3)  # of a word; lost is one that was written only in part


class Change(NamedTuple):
    """An entry was written by the last of the first `at` events; None is not known."""

    at: int
    entry_pa: PhysAddr
    before: int | None
    after: int | None

    def __repr__(self) -> str:
        before, after = ("?" if v is None else f"{v:#x}" for v in (self.before, self.after))
        return f"Change({self.at}, @{self.entry_pa:#x}: {before} -> {after})"


class _Frame:
    """512 words: what they held first, what they hold so far, and what is known of that."""

    __slots__ = ("base", "base_known", "now", "pa", "state")

    def __init__(self, pa: int) -> None:
        self.pa = pa
        self.base = np.zeros(ENTRIES, np.uint64)
        self.base_known = np.zeros(ENTRIES, np.bool_)
        self.now = np.zeros(ENTRIES, np.uint64)
        self.state = np.full(ENTRIES, _UNHEARD, np.uint8)


class EntryValues:
    """The words of the frames that were ever told of. What is told must be told in order."""

    def __init__(self) -> None:
        self._frames: Final[dict[int, _Frame]] = {}
        self.changes: Final[list[Change]] = []
        """Every change, in order."""
        # The same by their places, made when it is first asked for, after all was told.
        self._of_word: dict[int, list[Change]] | None = None
        self._in_frame: dict[int, list[int]] | None = None

    # -- telling

    def saw(self, at: int, pa: int, words: Words) -> None:
        """Learn that neighbouring words hold this: they always did, if nothing else was told."""
        for frame, first, part in self._parts(pa, words):
            place = slice(first, first + len(part))
            new = frame.state[place] == _UNHEARD
            for column in (frame.base, frame.now):
                column[place][new] = part[new]
            frame.base_known[place][new] = True
            frame.state[place][new] = _KNOWN
            self._put(at, frame, first, part)

    def wrote(self, at: int, pa: int, words: Words) -> None:
        """Learn that neighbouring words were written by the last of the first `at` events."""
        for frame, first, part in self._parts(pa, words):
            self._put(at, frame, first, part)

    def wrote_bytes(self, at: int, pa: int, size: int, value: int) -> None:
        """Learn of a store of up to 8 bytes, wherever it lies."""
        for word in range(pa & -ENTRY_SIZE, pa + size, ENTRY_SIZE):
            mask, bits = bits_of_word(word, pa, size, value)
            before = self.latest(word)
            if before is not None or mask == U64:
                self.wrote(at, word, ((before or 0) & ~mask | bits,))
            else:
                self._lose(at, word)

    def latest(self, pa: int) -> int | None:
        """Return what the word at `pa` holds after all that was told."""
        frame = self._frames.get(pa & -FRAME_SIZE)
        word = slot_of(pa)
        return int(frame.now[word]) if frame and frame.state[word] == _KNOWN else None

    def keep(self, numbers: Sequence[int]) -> None:
        """Let only some events count, by their numbers in order: `at` is how many of these.

        What an event that is left out has changed is there from the next of these on, or from the
        beginning.
        """
        kept = []
        for change in self.changes:
            at = moment(numbers, change.at)
            if at:
                kept.append(change._replace(at=at))
                continue
            frame, word = self._frames[change.entry_pa & -FRAME_SIZE], slot_of(change.entry_pa)
            frame.base[word] = change.after or 0
            frame.base_known[word] = change.after is not None
        self.changes[:] = kept
        self._of_word = self._in_frame = None

    def _parts(self, pa: int, words: Words) -> Iterator[tuple[_Frame, int, NDArray[np.uint64]]]:
        """Cut a run of words at the ends of frames."""
        values = np.asarray(words, np.uint64)
        while len(values):
            start, first = pa & -FRAME_SIZE, slot_of(pa)
            if start not in self._frames:
                self._frames[start] = _Frame(start)
            yield self._frames[start], first, values[: ENTRIES - first]
            values = values[ENTRIES - first :]
            pa = start + FRAME_SIZE

    def _put(self, at: int, frame: _Frame, first: int, part: NDArray[np.uint64]) -> None:
        place = slice(first, first + len(part))
        known = frame.state[place] == _KNOWN
        for i in np.flatnonzero((frame.now[place] != part) | ~known).tolist():
            entry_pa = PhysAddr(frame.pa + ENTRY_SIZE * (first + i))
            before = int(frame.now[first + i]) if known[i] else None
            self.changes.append(Change(at, entry_pa, before, int(part[i])))
        frame.now[place] = part
        frame.state[place] = _KNOWN

    def _lose(self, at: int, pa: int) -> None:
        """A part of a word was written, and nobody knows the rest."""
        self.wrote(at, pa, (0,))
        self.changes[-1] = self.changes[-1]._replace(after=None)
        self._frames[pa & -FRAME_SIZE].state[slot_of(pa)] = _LOST

    # -- asking

    @property
    def frames(self) -> list[PhysAddr]:
        """Every frame that was told of, lowest first."""
        return [PhysAddr(pa) for pa in sorted(self._frames)]

    def first(self, frame: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Return what a frame's 512 words held at first, and which of them are known."""
        found = self._frames[frame]
        return found.base, found.base_known

    def below(self, frame: int, level: int) -> list[int]:
        """Return the tables that a frame's words, as entries of `level`, lead to or once led to."""
        found = self._frames.get(frame)
        if found is None or level < 2:
            return []
        after = self._changes_in(frame)
        words = np.concatenate([found.base[found.base_known], np.array(after, np.uint64)])
        return tables_below(words)

    def value(self, at: int, pa: int) -> int | None:
        """Return what the word at `pa` held when `at` events had happened."""
        frame = self._frames.get(pa & -FRAME_SIZE)
        if frame is None:
            return None
        changes = self._changes_of(pa)
        nr = bisect_right(changes, at, key=lambda change: change.at)
        if nr:
            return changes[nr - 1].after
        return int(frame.base[slot_of(pa)]) if frame.base_known[slot_of(pa)] else None

    def _changes_of(self, pa: int) -> Sequence[Change]:
        if self._of_word is None:
            self._of_word = {}
            for change in self.changes:
                self._of_word.setdefault(change.entry_pa, []).append(change)
        return self._of_word.get(pa, ())

    def _changes_in(self, frame: int) -> Sequence[int]:
        """Return what a frame's words were changed to, wherever that is known."""
        if self._in_frame is None:
            self._in_frame = {}
            for change in self.changes:
                if change.after is not None:
                    place = self._in_frame.setdefault(change.entry_pa & -FRAME_SIZE, [])
                    place.append(change.after)
        return self._in_frame.get(frame, ())


def tables_below(entries: NDArray[np.uint64]) -> list[int]:
    """Return the tables that entries above level 1 lead to, each once, lowest first."""
    lead = entries[entries & np.uint64(P | PS) == P] & np.uint64(ADDRESS)
    return np.unique(lead).tolist()  # type: ignore[no-any-return]
