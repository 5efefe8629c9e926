"""What the site takes from elsewhere: commands from their parsers, stories from their modules.

Zensical calls `define_env` while it builds; a page that says `render_macros: true` may then have
`{{ commands() }}`, `{{ scenarios() }}`, `{{ releases() }}` and `{{ readme("A heading") }}`. Refuses
to know what the pages say besides.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from kernel_model.releases import RELEASES
from kernel_model.scenarios import SCENARIOS, Scenario
from pagewalk.cli import COMMANDS, make_parser

README: Final = Path(__file__).parents[1] / "README.md"
INDENT: Final = " " * 4


def define_env(env: Any) -> None:
    """Offer the macros to the pages."""
    macros: tuple[Callable[..., str], ...] = (commands, readme, releases, scenarios)
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
    """Describe every command, and those below it, as their parsers do."""
    return "\n\n".join("\n".join(_command(make_parser(n).commands[n], "##")) for n in COMMANDS)


def scenarios() -> str:
    """Describe every scenario as its module does, with its parameters."""
    return "\n\n".join("\n".join(_scenario(each)) for each in SCENARIOS.values())


def releases() -> str:
    """Tabulate the releases."""
    rows = (f"| {each.name} | {each.summary} | {each.build} |" for each in RELEASES.values())
    return "\n".join(["| release | | build |", "| --- | --- | --- |", *rows])


def _scenario(scenario: Scenario) -> Iterator[str]:
    story = sys.modules[scenario.play.__module__].__doc__ or ""
    yield f"## {scenario.name}\n\n{_plain(story)}"
    broke = [f"{name}: {by}" if name else by for name, by in scenario.broke.items()]
    fixed = (
        scenario.fixed
        if isinstance(scenario.fixed, str)
        else "; ".join(f"{name}: {by}" for name, by in scenario.fixed.items())
    )
    yield f"Plays on {scenario.release} unless told otherwise.\n"
    yield f"Broke\n:   {_plain('; '.join(broke))}\n\nFixed\n:   {_plain(fixed)}\n"
    for parameter in scenario.parameters:
        values = dict.fromkeys(parameter.show(parameter.default_at(levels)) for levels in (4, 5))
        choices = ", ".join(map(parameter.show, parameter.choices))
        one_of = f"; one of {choices}" if choices else ""
        yield f"`{parameter.name}={' / '.join(values)}`\n:   {_plain(parameter.help + one_of)}\n"


def _command(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    usage = parser.format_usage().split()[1:]  # as one line: argparse breaks it for a terminal
    yield f"{heading} {parser.prog.removeprefix('pagewalk ')}\n\n{parser.description}\n"
    yield f"```text\n{textwrap.fill(' '.join(usage), 84, subsequent_indent=INDENT)}\n```\n"
    for action in parser._actions:  # noqa: SLF001
        if action.help:
            yield f"{_named(action)}\n:   {_plain(action.help)}\n"
    if parser.epilog:
        yield f"```text\n{parser.epilog.strip()}\n```\n"
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for sub in action.choices.values():
                yield from _command(sub, f"{heading}#")


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
