"""A moment of a run, as somebody looks at it: what the panes show of it.

Knows which instruction and which address an event is about, and what the registers were. Refuses to
know how that looks (`panes`), where one may go from here (`going`), and how a run is kept
(`playback.moments`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from emu import PageFault, Paging, Trap, Walk
from emu.events import Accessed, Delivered, Edited, Event, Executed, Faulted, Walked
from emu.paging import PhysAddr, VirtAddr
from emu.registers import GENERAL
from pagewalk.playback.entry_values import Change
from pagewalk.playback.moments import Playback, Untold


@dataclass(frozen=True)
class Subject:
    """The address whose walk is shown, what it is to the event, and the walk."""

    va: VirtAddr
    what: str
    walk: Walk | Untold


@dataclass(frozen=True)
class Moment:
    """A run after `at` of its events; `typed` is an address that somebody asked for."""

    playback: Playback
    at: int
    typed: VirtAddr | None = None

    @property
    def event(self) -> Event | None:
        """The event that has just happened."""
        return self.playback.event(self.at)

    @property
    def number(self) -> int:
        """The event's number in the whole run, from 1 on; 0 at the beginning."""
        return number(self.playback, self.at)

    @cached_property
    def paging(self) -> Paging:
        """The control registers of the CPU that the event is about."""
        return self.playback.paging(self.at)

    @cached_property
    def fault(self) -> PageFault | None:
        """The page fault that the event is, or began with."""
        stop = next(self._stops(), None)
        return stop if isinstance(stop, PageFault) else None

    @cached_property
    def registers(self) -> dict[str, int] | None:
        """The registers before the instruction, if they are known."""
        for stop in self._stops():
            if isinstance(stop, PageFault | Trap) and stop.registers is not None:
                found = stop.registers._asdict()
                return {name: found[name] for name in (*GENERAL, "rip", "rflags")}
        return _general(self.playback.instruction(self.at))

    @cached_property
    def changed_registers(self) -> frozenset[str]:
        """Those that the instruction before it has changed."""
        now, before = self.registers, self._registers_before()
        if now is None or before is None:
            return frozenset()
        return frozenset(name for name in GENERAL if now[name] != before[name])

    @cached_property
    def subject(self) -> Subject | None:
        """What to walk: the address that was asked for, or else the one that the event is about."""
        if self.typed is not None:
            return self._walked(self.typed, "asked for")
        if isinstance(self.event, Edited):
            return None  # no instruction wrote that
        fault = self.fault
        if fault is not None and fault.walk is not None:
            return Subject(
                fault.address,
                f"a {fault.access} that faults, error code {fault.error_code:#x}",
                fault.walk,
            )
        for event in self._about():
            if isinstance(event, Accessed) and event.va is not None:
                return self._walked(event.va, f"a {event.kind}")
            if isinstance(event, Walked):
                return self._walked(event.va, f"the page of a {event.kind}")
        executed = self.playback.instruction(self.at)
        return None if executed is None else self._walked(executed.rip, "the instruction")

    @cached_property
    def changes(self) -> list[Change]:
        """The entries that the event has changed."""
        return self.playback.changes(self.at)

    @cached_property
    def changed_entries(self) -> frozenset[PhysAddr]:
        """Where they lie."""
        return frozenset(change.entry_pa for change in self.changes)

    def _walked(self, va: VirtAddr, what: str) -> Subject:
        return Subject(va, what, self.playback.walk(self.at, self.paging, va))

    def _stops(self) -> Iterator[object]:
        event = self.event
        if isinstance(event, Faulted):
            yield event.stop
        elif isinstance(event, Delivered):
            yield from event.delivery.exceptions

    def _about(self) -> Iterator[Event]:
        """Yield the event; if it is an instruction, the accesses that follow, which are its own."""
        if not isinstance(self.event, Executed):
            yield from () if self.event is None else (self.event,)
            return
        for later in range(self.at + 1, self.playback.nr_events + 1):
            event = self.playback.event(later)
            if isinstance(event, Accessed):
                yield event
            elif not isinstance(event, Walked) or event.kind == "fetch":
                return

    def _registers_before(self) -> dict[str, int] | None:
        """Return the registers before the instruction before this one, on the same CPU.

        If something between them was left out, nobody knows which instruction that was.
        """
        playback, cpu = self.playback, self.playback.cpu(self.at)
        to_pass = 0 if next(self._stops(), None) else 1
        for at in range(self.at, 0, -1):
            event = playback.event(at)
            if number(playback, self.at) - number(playback, at) > self.at - at:
                return None
            if isinstance(event, Executed) and playback.cpu(at) == cpu:
                if not to_pass:
                    return _general(event)
                to_pass -= 1
        return None


def number(playback: Playback, at: int) -> int:
    """Return the number in the whole run of the event that made it `at`; 0 at the beginning."""
    return playback.numbers[at - 1] if at else 0


def _general(executed: Executed | None) -> dict[str, int] | None:
    if executed is None or executed.registers is None:
        return None
    return dict(zip(GENERAL, executed.registers, strict=True))
