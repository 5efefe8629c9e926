"""The events as lines, one each: where an instruction is, and what happened.

Knows what is said of an event in one line; what has more to say says it in the other panes, and how
that is worded is `render_trace`'s. Refuses to know how a line looks (`panes`) and who looks for
something in it (`going`).
"""

from functools import lru_cache
from typing import Final, Literal, NamedTuple

from emu.events import Accessed, Delivered, Executed, Faulted, Walked
from pagewalk.playback.moments import Playback
from pagewalk.render_trace import Faults, Lines, mnemonic

Kind = Literal["beginning", "instruction", "read", "write", "walk", "other"]


class Line(NamedTuple):
    """What is said of an event. `raised` is what its instruction raised instead of completing."""

    kind: Kind
    text: str
    place: str = ""
    raised: str = ""

    def has(self, text: str) -> bool:
        """Tell whether a text, in lower case, occurs in it, in whatever case."""
        return any(text in part.lower() for part in (self.text, self.place, self.raised))


class EventLines:
    """The lines of a playback's events. Instructions are formatted once for each place."""

    def __init__(self, playback: Playback) -> None:
        self._playback: Final = playback
        self._others: Final = Lines(playback.symbolise, lambda: playback.paging(0))
        self._instruction = lru_cache(maxsize=1 << 16)(self._formatted)

    def of(self, at: int) -> Line:
        """Return the line of the event that made it `at`; 0 is the beginning."""
        event = self._playback.event(at)
        match event:
            case None:
                left_out = self._playback.nr_left_out
                text = f"the beginning; {left_out:,} events are left out"
                return Line("beginning", text if left_out else "the beginning")
            case Executed(rip, code):
                return self._instruction(rip, code)
            case Faulted(stop, code):
                return self._faulted(stop, code)
            case Delivered(delivery, code):
                first = self._faulted(delivery.exceptions[0], code)
                return first._replace(raised=" -> ".join(map(str, delivery.exceptions)))
        kind: Kind = "other"
        if isinstance(event, Accessed):
            kind = event.kind
        elif isinstance(event, Walked):
            kind = "walk"
        return Line(kind, next(self._others.of(event)))

    def _formatted(self, rip: int, code: bytes) -> Line:
        name = self._playback.symbolise(rip)
        place = name.partition("/")[0] if name else f"{rip:016x}"
        return Line("instruction", mnemonic(rip, code) if code else "", place)

    def _faulted(self, stop: Faults, code: bytes) -> Line:
        return self._instruction(stop.rip, code)._replace(raised=str(stop))
