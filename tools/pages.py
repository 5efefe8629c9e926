"""What the site takes from elsewhere: the commands from their parsers, sections from README.

Zensical calls `define_env` while it builds; a page that says `render_macros: true` may then have
`{{ commands() }}` and `{{ readme("A heading") }}`. Refuses to know what the pages say besides.
"""

import argparse
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from pagewalk.cli import COMMANDS, make_parser

README: Final = Path(__file__).parents[1] / "README.md"
INDENT: Final = " " * 4


def define_env(env: Any) -> None:
    """Offer the macros to the pages."""
    macros: tuple[Callable[..., str], ...] = (commands, readme)
    for macro in macros:
        env.macro(macro)


def readme(heading: str) -> str:
    """Return what stands under a heading of README, its links as they are from docs/."""
    _, _, below = README.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    section, _, _ = below.partition("\n## ")
    if not section:
        raise ValueError(f"README.md: expected a section {heading!r}")
    linked = section.replace("](docs/decisions)", "](decisions/index.md)")
    return linked.replace("](docs/", "](").strip()


def commands() -> str:
    """Describe every command as its parser does."""
    return "\n\n".join("\n".join(_command(name)) for name in COMMANDS)


def _command(name: str) -> Iterator[str]:
    parser = make_parser(name).commands[name]
    usage = parser.format_usage().split()[1:]  # as one line: argparse breaks it for a terminal
    yield f"## {name}\n\n{parser.description}\n"
    yield f"```text\n{textwrap.fill(' '.join(usage), 84, subsequent_indent=INDENT)}\n```\n"
    for action in parser._actions:  # noqa: SLF001
        if action.help:
            yield f"{_named(action)}\n:   {_plain(action.help)}\n"
    if parser.epilog:
        yield f"```text\n{parser.epilog.strip()}\n```"


def _named(action: argparse.Action) -> str:
    """Name an argument, with the value that it takes."""
    value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    if action.nargs == "?" and action.option_strings:
        value = f"[{value}]"
    if action.nargs == "+":
        value += " …"
    *others, last = action.option_strings or [""]
    return ", ".join(f"`{name}`" for name in (*others, f"{last} {value}".strip()))


def _plain(words: str) -> str:
    """Return words of which Markdown takes none for its own."""
    return re.sub(r"([*<>_])", r"\\\1", words)
