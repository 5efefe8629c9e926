"""Write the manual pages, docs/man/*.1, from the parsers: one for `pagewalk`, one for each command.

Knows how a page is laid out: a parser's epilog ends in its examples, and what is before them are
notes. Refuses to know the commands. The wheel installs the pages where `man` finds them.
"""

import argparse
import re
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Final

from argparse_manpage.manpage import Manpage

from pagewalk.cli import COMMANDS, Parser, make_parser

PAGES: Final = Path(__file__).parents[1] / "docs" / "man"
_EXAMPLES: Final = re.compile(r"^examples?:\s+", re.M)


def pages() -> dict[str, str]:
    """Return the text of each page, by its file's name."""
    names = sorted(f"pagewalk-{name}" for name in COMMANDS)
    whole = make_parser()
    whole.commands.clear()  # what they take is told in pages of their own
    found = {"pagewalk.1": _page(whole, "an x86-64 MMU emulator with real page walks", names)}
    for name, summary in COMMANDS.items():
        parser = make_parser(name).commands[name]
        found[f"pagewalk-{name}.1"] = _page(parser, summary, ["pagewalk"])
    return found


def _page(parser: Parser, summary: str, see_also: list[str]) -> str:
    """Return the page of one parser, which is of no other use after it."""
    below = _below(parser)
    notes: list[str] = []
    examples: list[str] = []
    for each in (parser, *below):
        note, *commands = _EXAMPLES.split(each.epilog or "")
        notes += [textwrap.dedent(note).strip("\n")] if note.strip() else []
        examples += [line.strip() for text in commands for line in text.strip().splitlines()]
        each.epilog = None
        # One line for each text: a line that began with a dot would be a command to `man`.
        each.formatter_class = partial(argparse.HelpFormatter, width=1 << 20)
    typed, parser.prog = parser.prog, parser.prog.replace(" ", "-", 1)
    data = {
        "description": summary,
        "manual_title": "pagewalk",
        "project_name": "pagewalk",
    }
    page = Manpage(parser, _data=data)
    page.date = ""  # the same text on every day
    page.synopsis[:1] = page.prog.split("-", 1)
    sections = {"notes": _as_it_is("\n\n".join(notes)), "examples": _as_it_is("\n".join(examples))}
    sections["see also"] = ".nh\n" + ",\n".join(f".BR {_escaped(name)} (1)" for name in see_also)
    for heading, text in sections.items():
        if text:
            page.add_section(heading, ">", text)
    text = str(page)
    for sub in below:  # only the page is called with a dash: what is typed is not
        name = sub.prog.rpartition(" ")[2]
        for between in (" ", r"\fR \fI\,"):
            text = text.replace(_escaped(parser.prog) + between + name, typed + between + name)
    return text


def _below(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of a command's own commands."""
    return [
        sub
        for action in parser._actions  # noqa: SLF001 (argparse has no other list of them)
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
        for sub in action.choices.values()
    ]


def _as_it_is(text: str) -> str:
    """Return text that `man` neither fills nor reads commands from; nothing of nothing."""
    return f".nf\n{_escaped(text)}\n.fi" if text.strip() else ""


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.M)


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(COMMANDS) + 1} pages in {PAGES}\n")
