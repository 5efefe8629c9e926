"""Which events of a long run are kept: the last ones, and before them those that tell most.

Knows how they share the room that there is, and which moment of the whole run is which of theirs.
Refuses to know where they come from.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from emu.events import Cr3Switch, Delivered, Edited, Event, Faulted

MOST: Final = 100_000
"""How many events are kept if nobody says otherwise."""
TELLING: Final = (Cr3Switch, Delivered, Edited, Faulted)
"""What tells most, beside what changes a table."""


class Kept(NamedTuple):
    """An event with its number in the whole run, from 1 on, and its CPU."""

    number: int
    cpu: int
    event: Event


def choose(
    telling: list[Kept], last: Sequence[tuple[int, Event]], total: int, most: int | None
) -> list[Kept]:
    """Return what is kept of `total` events: `most` of them, or all.

    `last` are the last ones with their CPUs, as many as may be kept. The `telling` ones before
    them, in order, get up to half of the room.
    """
    room = total if most is None else min(most, total)
    nr = room
    numbers = [one.number for one in telling[-(room // 2) or len(telling) :]]
    while nr + (before := bisect_right(numbers, total - nr)) > room:
        nr = room - before
    start = len(telling) - len(numbers)
    numbered = enumerate(last[len(last) - nr :], total - nr + 1)
    return [
        *telling[start : start + bisect_right(numbers, total - nr)],
        *(Kept(number, cpu, event) for number, (cpu, event) in numbered),
    ]


def has_all(first: int | None, numbers: Sequence[int]) -> bool:
    """Tell whether the first event that tells much is kept, if there was one: then all are."""
    return first is None or (bool(numbers) and numbers[0] <= first)


def moment(numbers: Sequence[int], at: int) -> int:
    """Return how many of the events with these numbers had happened when all had that go into `at`.

    That is with the next of them, at the end the last; 0 is before the first.
    """
    if not numbers or at < numbers[0]:
        return 0
    return min(bisect_left(numbers, at) + 1, len(numbers))
