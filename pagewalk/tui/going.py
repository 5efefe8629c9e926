"""Where one may go in a run: to the next instruction, to a number, to an address, to a text.

Knows what people type to say where. Refuses to know what is shown there. A place is a moment's
number of events, as `playback.moments` has it; where there is none, None, and where what was typed
means nothing, BadInput.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from emu.events import Delivered, Event, Executed, Faulted
from emu.paging import VirtAddr
from kernel_model.words import did_you_mean, is_number, parse_number
from pagewalk.arguments import bad
from pagewalk.playback.chosen_events import moment
from pagewalk.playback.moments import Playback
from pagewalk.tui.lines import EventLines

Search = Iterator[int | None]
"""What looks for a moment: None for each event that it is not, so that one may stop in between."""

_DIGITS: Final = 16  # of an address, as an oops prints it


def first(search: Search) -> int | None:
    """Return the moment that a search comes to, if there is one."""
    return next((at for at in search if at is not None), None)


def following_instruction(playback: Playback, at: int) -> int | None:
    """Return the next moment at which an instruction has begun, or has faulted instead."""
    return next(_instructions(playback, range(at + 1, playback.nr_events + 1)), None)


def preceding_instruction(playback: Playback, at: int) -> int | None:
    """Return the last such moment before `at`."""
    return next(_instructions(playback, range(at - 1, 0, -1)), None)


def first_look(playback: Playback) -> int:
    """Return where to begin: at the last fault, or at the end if there was none."""
    return playback.preceding(playback.nr_events + 1, "fault") or playback.nr_events


def place(playback: Playback, at: int, text: str, argument: str) -> Search:
    """Look for the moment that is meant: an event's number, or "begin", "end", "fault"; or the next
    instruction at an address or symbol, from `at` on, and then from the beginning.

    If the event was left out, it is the next one that was not.
    """
    named = {"begin": 0, "end": playback.nr_events, "fault": first_look(playback)}
    if text in named:
        return iter((named[text],))
    if text.isdecimal() and len(text) < _DIGITS:
        last = playback.nr_left_out + playback.nr_events
        if int(text) > last:
            bad(argument, text, f"an event's number, {last} at most")
        return iter((moment(playback.numbers, int(text)),))
    rip = address(playback, text, argument)
    around = chain(range(at + 1, playback.nr_events + 1), range(1, at + 1))
    return (n if _rip(playback.event(n)) == rip else None for n in around)


def address(playback: Playback, text: str, argument: str) -> VirtAddr:
    """Read an address, or a symbol with or without an offset."""
    if is_number(text):
        va = parse_number(text)
        if not playback.paging(0).is_canonical(va):
            bad(argument, text, "a canonical address")
        return VirtAddr(va)
    name, plus, offset = text.partition("/")[0].partition("+")
    if name not in playback.symbols or (plus and not is_number(offset)):
        hint = did_you_mean(name, playback.symbols)
        bad(argument, repr(text), f"an address, or a symbol of the run{hint}")
    return VirtAddr(playback.symbols[name] + (parse_number(offset) if plus else 0))


def find(playback: Playback, at: int, text: str, *, forward: bool) -> Search:
    """Look for the next event, or the last one before `at`, in whose line a text occurs."""
    lines, text = EventLines(playback), text.lower()
    moments = range(at + 1, playback.nr_events + 1) if forward else range(at - 1, 0, -1)
    return (n if lines.of(n).has(text) else None for n in moments)


def _instructions(playback: Playback, moments: range) -> Iterator[int]:
    """Yield those of the moments at which an instruction has begun, or has faulted instead."""
    return (n for n in moments if isinstance(playback.event(n), Executed | Faulted | Delivered))


def _rip(event: Event | None) -> int | None:
    match event:
        case Executed(rip):
            return rip
        case Faulted(stop):
            return stop.rip
        case Delivered(delivery):
            return delivery.exceptions[0].rip
    return None
