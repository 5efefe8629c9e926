"""What each key does.

One table: the app binds it, its footer shows a part of it, and its help all. An action is a method
of `app.Stepper`.
"""

from typing import Final, NamedTuple


class Key(NamedTuple):
    """A key, or several that do the same. A second key of a pair says nothing in the help."""

    keys: str
    action: str
    shown: str = ""
    what: str = ""
    footer: str = ""


KEYS: Final = (
    Key("n,right", "step(1)", "n p", "the next instruction, the previous one (also → ←)", "Next"),
    Key("p,left", "step(-1)", "p", footer="Prev"),
    Key("j,down", "move(1)", "j k", "the next event, the previous one (also ↓ ↑)"),
    Key("k,up", "move(-1)"),
    Key("pagedown", "move(20)", "PgDn PgUp", "twenty events on, back"),
    Key("pageup", "move(-20)"),
    Key(
        "f", "go_to_next('fault')", "f F", "the next fault or exception, the previous one", "Fault"
    ),
    Key("F", "go_to_previous('fault')"),
    Key(
        "c", "go_to_next('change')", "c C", "the next write to a table, the previous one", "Change"
    ),
    Key("C", "go_to_previous('change')"),
    Key("s", "go_to_next('switch')", "s S", "the next switch of CR3, the previous one", "CR3"),
    Key("S", "go_to_previous('switch')"),
    Key("home", "begin", "Home End", "the beginning, the end"),
    Key("end", "end"),
    Key(
        "g", "ask('goto')", "g", "go to an event's number, or to an address that is executed", "Go"
    ),
    Key("slash", "ask('find')", "/", "find a text in the events", "Find"),
    Key("full_stop", "find_again(1)", ". ,", "the same text once more, and backwards"),
    Key("comma", "find_again(-1)"),
    Key("a", "ask('walk')", "a", "walk an address of your own under the current CR3", "Walk"),
    Key("r", "pane('registers')", "r w t", "show registers, walk, tables, where only one has room"),
    Key("w", "pane('walk')"),
    Key("t", "pane('tables')"),
    Key("tab", "app.focus_next", "Tab Enter", "to the tables and back; Enter unfolds an entry"),
    Key("escape", "leave", "Esc", "back to the events; do not ask, do not look any further"),
    Key("d", "theme", "d", "dark or light"),
    Key("question_mark,h", "help", "?", "this", "Help"),
    Key("ctrl+z", "suspend_process", "Ctrl-Z", "to the shell; fg comes back"),
    Key("q", "quit", "q", "quit (also Ctrl-C)", "Quit"),
    Key("ctrl+c", "quit"),
)
