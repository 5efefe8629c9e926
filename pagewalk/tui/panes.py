"""The panes: events around the current one, registers, a walk.

Knows how a moment looks in each of them, in the theme's own colours. Colour is never all that tells
something: what is current or has changed has a mark, too. Refuses to know where one goes from here
(`going`) and how the panes share a terminal (`app`). The tree of tables is `tables`.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Final

from textual import events
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from emu import Walk
from emu.paging import ENTRY_NAME, flags_text
from kernel_model.pgtable import folded_name
from pagewalk.playback.moments import Untold
from pagewalk.render import ENDS, end_text, rights_lines
from pagewalk.render_trace import refusal_text
from pagewalk.tui.lines import EventLines, Kind, Line
from pagewalk.tui.moment import Moment, number

CURRENT: Final = "▶"
WALKED: Final = "→"
CHANGED: Final = "●"
GAP: Final = "⋮"
_CHANGES: Final = 3  # that are told; the tree marks all
_REGISTER_WIDTH: Final = 23  # columns: a mark, a name, sixteen digits, gaps

_MUTED: Final = "$foreground-muted"
_STYLE: Final[dict[Kind, str]] = {
    "beginning": f"italic {_MUTED}",
    "instruction": "",
    "read": "$text-success",
    "write": "$text-warning",
    "walk": _MUTED,
    "other": "$text-secondary",
}


class StatusLine(Static):
    """What was run and how it ended; and where in it we are."""

    def __init__(self, moment: Moment) -> None:
        super().__init__()
        self.show(moment)

    def show(self, moment: Moment) -> None:
        """Show another moment."""
        playback, at = moment.playback, moment.at
        total = playback.nr_left_out + playback.nr_events
        task = f"   {name}" if (name := playback.task(at)) else ""
        run = Content.assemble((playback.title, "bold"), (f"   {playback.ending}", _MUTED))
        here = Content.assemble(
            "event ",
            (f"{moment.number:,}", "bold $text-accent"),
            f" of {total:,}   CPU {playback.cpu(at)}{task}   CR3 {moment.paging.cr3:#x}",
        )
        self.update(Content("\n").join([run, here]))


class EventsPane(Widget, can_focus=True):
    """What happened around the current event, one line each; the current one is in the middle.

    Events that have changed an entry of a table are marked.
    """

    class Chosen(Message):
        """Somebody pointed at a moment."""

        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at

    def __init__(self, moment: Moment) -> None:
        super().__init__()
        self.border_title = "Events"
        self._moment = moment
        self._lines: Final = EventLines(moment.playback)
        self._top = 0

    def show(self, moment: Moment) -> None:
        """Show another moment."""
        self._moment = moment
        self.refresh()

    def render(self) -> Content:
        """Return as many lines as there is room for."""
        nr_moments, at = self._moment.playback.nr_events + 1, self._moment.at
        height = max(self.size.height, 1)
        self._top = top = min(max(at - height // 2, 0), max(nr_moments - height, 0))
        moments = range(top, min(top + height, nr_moments))
        lines = [self._lines.of(n) for n in moments]
        width = max((len(line.place) for line in lines), default=0)
        rows = (self._row(n, line, width) for n, line in zip(moments, lines, strict=True))
        return Content("\n").join(rows)

    def _row(self, at: int, line: Line, width: int) -> Content:
        playback, is_current = self._moment.playback, at == self._moment.at
        here, before = number(playback, at), number(playback, max(at - 1, 0))
        text = f"{GAP if here > before + 1 else ''}{here}"
        digits = len(f" {number(playback, playback.nr_events)}")
        row = Content.assemble(
            (f"{CURRENT if is_current else ' '}{text:>{digits}}", "" if is_current else _MUTED),
            (CHANGED if playback.changes(at) else " ", "bold $text-warning"),
            (f"{line.place:{width}}  " if line.place else "", "$text-primary"),
            (line.text, _STYLE[line.kind]),
            (f"  {CHANGED} {line.raised}" if line.raised else "", "bold $text-error"),
        ).truncate(self.size.width, ellipsis=True, pad=True)
        return row.stylize("bold on $primary-muted") if is_current else row

    def on_click(self, event: events.Click) -> None:
        """Go to the line that was pointed at."""
        offset = event.get_content_offset(self)
        at = self._top + offset.y if offset else -1
        if 0 <= at <= self._moment.playback.nr_events:
            self.post_message(self.Chosen(at))

    def on_mouse_scroll_down(self) -> None:
        """Go on by an event."""
        self.post_message(self.Chosen(min(self._moment.at + 1, self._moment.playback.nr_events)))

    def on_mouse_scroll_up(self) -> None:
        """Go back by an event."""
        self.post_message(self.Chosen(max(self._moment.at - 1, 0)))


class RegistersPane(Widget):
    """The registers before the current instruction. What the one before has changed is marked."""

    def __init__(self, moment: Moment) -> None:
        super().__init__()
        self.border_title = "Registers"
        self._moment = moment

    def show(self, moment: Moment) -> None:
        """Show another moment; that of a fault has more registers, and needs more room."""
        more = len(moment.registers or ()) != len(self._moment.registers or ())
        self._moment = moment
        self.refresh(layout=more)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return how many rows it takes at a width."""
        return len(self._rows(width))

    def render(self) -> Content:
        """Return as many columns as there is room for."""
        return Content("\n").join(self._rows(self.size.width))

    def _rows(self, width: int) -> list[Content]:
        found = list((self._moment.registers or {}).items())
        if not found:
            return [Content.styled("not recorded", f"italic {_MUTED}")]
        nr_rows = -(-len(found) // max(width // _REGISTER_WIDTH, 1))
        columns = [found[first : first + nr_rows] for first in range(0, len(found), nr_rows)]
        cells = [list(self._cells(column)) for column in columns]
        return [Content("").join(row) for row in zip_longest(*cells, fillvalue=Content(""))]

    def _cells(self, column: list[tuple[str, int]]) -> Iterator[Content]:
        longest = max(len(name) for name, _ in column)
        for name, value in column:
            changed = name in self._moment.changed_registers
            mark, style = (CHANGED, "bold $text-warning") if changed else (" ", "")
            label, digits = f"{name:>{longest}} ", f"{value:016x} "
            yield Content.assemble((mark, style), (label, _MUTED), (digits, style))


class WalkPane(Widget):
    """The walk for the address that the event is about, or that somebody asked for."""

    def __init__(self, moment: Moment) -> None:
        super().__init__()
        self.border_title = "Walk"
        self._moment = moment

    def show(self, moment: Moment) -> None:
        """Show another moment."""
        self._moment = moment
        self.refresh()

    def render(self) -> Content:
        """Return a line an entry, and what the walk came to."""
        subject = self._moment.subject
        lines = list(self._changes())
        if subject is not None:
            head = Content.assemble((f"{subject.va:016x}", "bold"), (f"  {subject.what}", _MUTED))
            lines = [head, *self._lines(subject.walk), *lines, *self._rights(subject.walk)]
        return Content("\n").join(
            lines or [Content.styled("no address yet: a asks for one", f"italic {_MUTED}")]
        )

    def _changes(self) -> Iterator[Content]:
        """Say what the event has changed in tables."""
        changes = self._moment.changes
        for change in changes[:_CHANGES]:
            before, after = ("?" if v is None else f"{v:#x}" for v in change[2:])
            text = f"entry at {change.entry_pa:#x}: {before} → {after}"
            yield Content.assemble((CHANGED, "bold $text-warning"), text)
        if changes[_CHANGES:]:
            yield Content.styled(f"… and {len(changes) - _CHANGES:,} more", _MUTED)

    def _rights(self, walk: Walk | Untold) -> Iterator[Content]:
        """Say who may use a page, and what keeps the others off."""
        if isinstance(walk, Walk) and walk.verdict == "mapped":
            yield from (
                Content.styled(line, _MUTED) for line in rights_lines(walk, self._moment.paging)
            )

    def _lines(self, walk: Walk | Untold) -> Iterator[Content]:
        paging, changed = self._moment.paging, self._moment.changed_entries
        width = max((len(f"{step.entry:#x}") for step in walk.steps), default=0)
        for step in walk.steps:
            names = f"{ENTRY_NAME[step.level]:5} {folded_name(step.level, paging.levels):7}"
            mark = CHANGED if step.entry_pa in changed else " "
            yield Content.assemble(
                (mark, "bold $text-warning"),
                (f"{names} {step.slot:3} ", "$text-primary"),
                (f"{step.entry:#{width}x}", "bold" if step is walk.steps[-1] else ""),
                f" {flags_text(step.entry, step.level)}",
                (f"  at {step.entry_pa:#x}", _MUTED),
            )
        if isinstance(walk, Untold):
            name = f"{ENTRY_NAME[walk.level]} at {walk.entry_pa:#x}"
            yield Content.styled(f"→ {name}: {ENDS['untold']}", f"italic {_MUTED}")
            return
        style = "$text-success" if walk.verdict == "mapped" else "bold $text-error"
        yield Content.styled(f"→ {end_text(walk, paging)}", style)
        fault = self._moment.fault
        if fault is not None and fault.walk is walk and (why := refusal_text(fault)):
            yield Content.styled(why, "bold $text-error")
