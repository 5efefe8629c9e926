"""Which events of a trace somebody wants to see.

Knows which instruction an event belongs to, and the conditions. Refuses to know where the events
are from and how they look.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from emu.events import (
    Accessed,
    Delivered,
    Edited,
    Event,
    Executed,
    Faulted,
    Invalidated,
    Walked,
)
from emu.paging import FRAME_SIZE
from pagewalk.traces.reading import Seen


class Span(NamedTuple):
    """Addresses: the first and the last."""

    first: int
    last: int

    def touches(self, address: int, size: int = 1) -> bool:
        """Tell whether any of `size` bytes from an address on is among these."""
        return address <= self.last and self.first < address + size


@dataclass(frozen=True)
class Selection:
    """What is wanted: all of it at once; None is no matter."""

    rip: Span | None = None
    symbol: str | None = None
    """A function's name, or with an offset: "memcpy+0x9"."""
    va: Span | None = None
    task: str | None = None
    faults: bool = False

    def of(self, group: "Group", symbols: dict[int, str]) -> list[Seen]:
        """Return what is wanted of a group: with an event comes the instruction it belongs to."""
        if self.task is not None and group.events[0].task != self.task:
            return []
        if self.rip is not None and not (group.rip is not None and self.rip.touches(group.rip)):
            return []
        if self.symbol is not None and not _is_at(symbols.get(group.rip or 0, ""), self.symbol):
            return []
        if self.va is None and not self.faults:
            return group.events
        wanted = [self._wants(seen.event) for seen in group.events]
        if not any(wanted):
            return []
        return [
            s for s, is_it in zip(group.events, wanted, strict=True) if is_it or s is group.leader
        ]

    def _wants(self, event: Event) -> bool:
        if self.faults and not isinstance(event, (Faulted, Delivered)):
            return False
        return self.va is None or any(self.va.touches(*one) for one in _touched(event))


@dataclass
class Group:
    """An instruction and what belongs to it, or an event that belongs to none."""

    events: list[Seen] = field(default_factory=list)
    leader: Seen | None = None

    @property
    def rip(self) -> int | None:
        """The instruction's address, also of one that faulted instead."""
        for _, _, _, event in self.events:
            if isinstance(event, Executed):
                return event.rip
            if isinstance(event, Faulted):
                return event.stop.rip
            if isinstance(event, Delivered):
                return event.delivery.exceptions[0].rip
        return None


def groups(events: Iterable[Seen]) -> Iterator[Group]:
    """Yield the events by the instruction that they belong to, in order.

    A fetch's walk belongs to the instruction behind it, all else to the one before it; a fault and
    an exception have the walks right before them, which no access followed; what is written from
    outside the CPU stands for itself.
    """
    group = Group()
    for seen in events:
        event = seen.event
        alone = isinstance(event, (Faulted, Delivered, Edited))
        fetches = isinstance(event, Walked) and event.kind == "fetch"
        begins = fetches and group.leader is not None
        begins |= isinstance(event, Executed) and not _are_fetches(group.events)
        begins |= bool(group.events) and group.events[-1].cpu != seen.cpu
        if (begins or alone) and group.events:
            walks = _last_walks(group) if isinstance(event, (Faulted, Delivered)) else []
            if group.events:
                yield group
            group = Group(walks)
        group.events.append(seen)
        if isinstance(event, Executed):
            group.leader = seen
        if alone:
            yield group
            group = Group()
    if group.events:
        yield group


def _last_walks(group: Group) -> list[Seen]:
    """Take the walks at the end of a group out of it."""
    taken: list[Seen] = []
    while group.events and isinstance(group.events[-1].event, Walked):
        taken.insert(0, group.events.pop())
    return taken


def _are_fetches(events: list[Seen]) -> bool:
    return all(isinstance(e.event, Walked) and e.event.kind == "fetch" for e in events)


def _touched(event: Event) -> Iterator[tuple[int, int]]:
    """Yield the addresses that an event is about, with their sizes."""
    match event:
        case Accessed(va, _, size) if va is not None:
            yield va, size
        case Walked(va) | Invalidated("invlpg", va):
            yield va & -FRAME_SIZE, FRAME_SIZE  # of the page
        case Faulted(stop):
            yield from _touched_by(stop)
        case Delivered(delivery):
            for exc in delivery.exceptions:
                yield from _touched_by(exc)


def _touched_by(stop: object) -> Iterator[tuple[int, int]]:
    address = getattr(stop, "address", None)
    walk = getattr(stop, "walk", None)
    if address is None and walk is not None:
        address = walk.va
    if address is not None:
        yield address, 1


def _is_at(found: str, wanted: str) -> bool:
    place = found.partition("/")[0]
    return place == wanted or place.partition("+")[0] == wanted
