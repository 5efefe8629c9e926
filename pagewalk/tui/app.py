"""The app: what stands where in the terminal, what each key does, and the line one types into.

Knows how the panes share the room, be it 80x24 or a whole screen. Refuses to know what they show
(`moment`, `panes`, `tables`) and where a step leads (`going`).
"""

import asyncio
from time import monotonic
from typing import ClassVar, Final, Literal

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from emu.paging import VirtAddr
from pagewalk.arguments import BadInput
from pagewalk.playback.moments import Kind, Playback
from pagewalk.tui import going
from pagewalk.tui.keys import KEYS
from pagewalk.tui.moment import Moment
from pagewalk.tui.panes import (
    CHANGED,
    CURRENT,
    GAP,
    WALKED,
    EventsPane,
    RegistersPane,
    StatusLine,
    WalkPane,
)
from pagewalk.tui.tables import TablesPane

Pane = StatusLine | EventsPane | RegistersPane | WalkPane | TablesPane
Question = Literal["goto", "find", "walk"]

_SLICE: Final = 0.05  # seconds of looking for something, between
_PAUSE: Final = 0.01  # seconds for keys and the screen

_WHAT: Final[dict[Kind, str]] = {
    "fault": "fault or exception",
    "change": "write to a table",
    "switch": "switch of CR3",
}
_PROMPT: Final[dict[Question, str]] = {
    "goto": "an event's number, begin, end, fault, or an address or symbol that is executed",
    "find": "a text in the lines of events",
    "walk": "an address or a symbol; nothing: what the event is about",
}


class Help(ModalScreen[None]):
    """Every key, and what it does."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,question_mark,h,q", "dismiss", "Close")
    ]

    def compose(self) -> ComposeResult:
        """Make a line for each key that has something to say, and a legend."""
        lines = [
            Content.assemble((f"{key.shown:>10}", "bold $text-primary"), f"  {key.what}")
            for key in KEYS
            if key.what
        ]
        legend = (
            f"\n{CURRENT} current   {CHANGED} changed   {WALKED} on the walk that is shown   "
            f"{GAP} some are left out"
        )
        page = Static(Content("\n").join([*lines, Content.styled(legend, "$foreground-muted")]))
        page.border_title = "Keys"
        yield page


class Stepper(App[None]):
    """A run, forwards and backwards."""

    TITLE = "pagewalk"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (10, "-low"), (36, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        # Those with Ctrl are keys also while one types.
        Binding(key.keys, key.action, show=False, priority=key.keys.startswith("ctrl+"))
        for key in KEYS
    ]

    at: reactive[int] = reactive(0, init=False)
    """How many events have happened."""
    typed: reactive[VirtAddr | None] = reactive(None, init=False)
    """The address whose walk was asked for, if any."""

    def __init__(self, playback: Playback, at: int) -> None:
        super().__init__()
        self._playback: Final = playback
        self._asked: Question = "goto"
        self._text = ""  # that was looked for
        self._search: going.Search | None = None  # that goes on
        self.moment = moment = Moment(playback, at)
        self._events: Final = EventsPane(moment)
        self.tables: Final = TablesPane(moment)
        self._side: Final = RegistersPane(moment), WalkPane(moment), self.tables
        self._prompt: Final = Input(id="prompt")
        self._status: Final = StatusLine(moment)
        self._panes: Final[tuple[Pane, ...]] = self._status, self._events, *self._side
        self.set_reactive(Stepper.at, at)

    def compose(self) -> ComposeResult:
        """Put the status above, the events to the left, the others to the right or below."""
        yield self._status
        with Container(id="main"):
            yield self._events
            yield Vertical(*self._side, id="side", classes="walk")
        yield self._prompt
        keys = [(f" {key.shown[:1]} ", f"{key.footer} ") for key in KEYS if key.footer]
        parts = [part for key, what in keys for part in ((key, "bold $text-primary"), what)]
        yield Static(Content.assemble(*parts), id="keys")

    def on_mount(self) -> None:
        """Begin with the events; draw all of it again after a stop."""
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))
        self._events.focus()
        self._show()

    def watch_at(self) -> None:
        """Show where we are now; whoever went here looks for nothing any more."""
        self._search = None
        self._show()

    def watch_typed(self) -> None:
        """Show another walk."""
        self._show()

    def _show(self) -> None:
        self.moment = moment = Moment(self._playback, self.at, self.typed)
        for pane in self._panes:
            pane.show(moment)

    # -- going

    def _go(self, at: int | None, otherwise: str) -> None:
        """Go to a moment; if there is none, say so."""
        if at is None:
            self.notify(otherwise, severity="warning", timeout=2, markup=False)
        else:
            self.at = at

    def _look(self, search: going.Search, otherwise: str) -> None:
        """Go to what a search comes to; if that takes long, do what keys say in between."""
        self._search = search
        if not self._looked(search, otherwise):
            self.notify("still looking; Esc stops", timeout=2)
            self.run_worker(self._go_on_looking(search, otherwise))

    async def _go_on_looking(self, search: going.Search, otherwise: str) -> None:
        await asyncio.sleep(_PAUSE)
        while self._search is search and not self._looked(search, otherwise):
            await asyncio.sleep(_PAUSE)

    def _looked(self, search: going.Search, otherwise: str) -> bool:
        """Look for a while; tell whether that was the end of it."""
        until = monotonic() + _SLICE
        for at in search:
            if at is None and monotonic() < until:
                continue
            if at is None:
                return False
            self._go(at, otherwise)
            return True
        self._go(None, otherwise)
        return True

    def action_step(self, direction: int) -> None:
        """Go by an instruction."""
        if direction > 0:
            self._go(going.following_instruction(self._playback, self.at), "no instruction follows")
        else:
            self._go(going.preceding_instruction(self._playback, self.at), "no instruction before")

    def action_move(self, by: int) -> None:
        """Go by events."""
        self.at = min(max(self.at + by, 0), self._playback.nr_events)

    def action_go_to_next(self, kind: Kind) -> None:
        """Go to the next event of a kind."""
        self._go(self._playback.following(self.at, kind), f"no {_WHAT[kind]} follows")

    def action_go_to_previous(self, kind: Kind) -> None:
        """Go to the last event of a kind before this one."""
        self._go(self._playback.preceding(self.at, kind), f"no {_WHAT[kind]} before")

    def action_begin(self) -> None:
        """Go to the beginning."""
        self.at = 0

    def action_end(self) -> None:
        """Go to the end."""
        self.at = self._playback.nr_events

    def on_events_pane_chosen(self, chosen: EventsPane.Chosen) -> None:
        """Go to the event that was pointed at."""
        self.at = chosen.at

    # -- asking

    def action_ask(self, question: Question) -> None:
        """Open the line that one types into."""
        self._asked = question
        prompt = self._prompt
        prompt.border_title = question
        prompt.placeholder = _PROMPT[question]
        prompt.value = ""
        prompt.display = True
        prompt.focus()

    def on_input_submitted(self, submitted: Input.Submitted) -> None:
        """Do what was asked for; a line that means nothing stays, to be mended."""
        text = submitted.value.strip()
        try:
            if self._asked == "walk":
                self.typed = going.address(self._playback, text, "walk") if text else None
                self.action_pane("walk")
            elif self._asked == "find":
                self._text = text or self._text
                self.action_find_again(1)
            elif text:
                search = going.place(self._playback, self.at, text, "goto")
                self._look(search, f"nothing is executed at {text}")
        except BadInput as error:
            self.notify(str(error), severity="error", markup=False)
        else:
            self._close()

    def action_find_again(self, direction: int) -> None:
        """Go to the next event with the text that was looked for, or to the last one before."""
        if self._text:
            search = going.find(self._playback, self.at, self._text, forward=direction > 0)
            where = "follows" if direction > 0 else "comes before"
            self._look(search, f"no {self._text!r} {where}")

    def action_leave(self) -> None:
        """Close the line, stop looking, and go back to the events."""
        self._search = None
        self._close()

    def _close(self) -> None:
        self._prompt.display = False
        self._events.focus()

    # -- looking

    def action_pane(self, name: str) -> None:
        """Show a pane where there is room for one only; the tables are for moving in, too."""
        self.query_one("#side").set_classes(name)
        self._show()
        (self.tables if name == "tables" else self._events).focus()

    def action_theme(self) -> None:
        """Change from dark to light, or back."""
        self.theme = "textual-light" if self.current_theme.dark else "textual-dark"

    def action_help(self) -> None:
        """Show every key."""
        self.push_screen(Help())
