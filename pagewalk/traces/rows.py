"""A chunk's events as rows: which comes where, in pieces of a bounded size.

Knows how the three kinds of events of a `Chunk` fall into one order, without making the events.
Refuses to know what is written of a row.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from emu.chunks import Chunk
from emu.events import Executed

T = TypeVar("T")
Rows = NDArray[np.int64]


def order(chunk: Chunk) -> tuple[Rows, Rows, Rows]:
    """Return the row of each instruction, of each access and of each other event."""
    nr = len(chunk.instructions), len(chunk.accesses), len(chunk.others)
    places = np.array([one[:2] for one in chunk.others], np.int64).reshape(-1, 2)
    # An event comes behind all accesses of the instructions before the last, whatever it counted.
    before = np.searchsorted(chunk.accesses["at"], places[:, 0], "left")
    others = places[:, 0] + np.maximum(places[:, 1], before) + np.arange(nr[2])
    free = np.ones(sum(nr), bool)
    free[others] = False
    rest = np.flatnonzero(free)
    among = chunk.accesses["at"].astype(np.int64) + np.arange(nr[1])
    is_access = np.zeros(len(rest), bool)
    is_access[among] = True
    return rest[~is_access], rest[among], others


def pieces(chunk: Chunk, most: int) -> Iterator[Chunk]:
    """Yield the same events in chunks of about `most` instructions."""
    nr = len(chunk.instructions)
    if nr <= most:
        yield chunk
        return
    at = chunk.accesses["at"]
    counts = [one[0] for one in chunk.others]
    done = other = 0
    for start in range(0, nr, most):
        end = min(start + most, nr)
        access = int(np.searchsorted(at, end, "right")) if end < nr else len(at)
        accesses = chunk.accesses[done:access].copy()
        accesses["at"] -= start
        upto = other
        while upto < len(counts) and (counts[upto] <= end or end == nr):
            upto += 1
        yield Chunk(
            cpu=chunk.cpu,
            first=chunk.first + start,
            shapes=chunk.shapes,
            instructions=chunk.instructions[start:end],
            registers=None if chunk.registers is None else chunk.registers[start:end],
            accesses=accesses,
            others=[(n - start, m - done, event) for n, m, event in chunk.others[other:upto]],
        )
        done, other = access, upto


class Shapes(Generic[T]):
    """What is known of each instruction, worked out once for all chunks."""

    def __init__(self, make: Callable[[Executed], T]) -> None:
        self._make = make
        self._known: dict[Executed, T] = {}

    def of(self, chunk: Chunk) -> list[T]:
        """Return it for every shape of a chunk, by number; None for one that it does not use."""
        known, make, shapes = self._known, self._make, chunk.shapes
        found: list[T] = [None] * len(shapes)  # type: ignore[list-item]
        for number in np.flatnonzero(np.bincount(chunk.instructions, minlength=1)).tolist():
            shape = shapes[number]
            if shape not in known:
                known[shape] = make(shape)
            found[number] = known[shape]
        return found


def objects(items: list[T]) -> NDArray[np.object_]:
    """Return a list as an array, whatever its items are."""
    found = np.empty(len(items), object)
    found[:] = items
    return found
