"""What the shell offers at TAB: names of commands and options, and the values that options take.

Knows what the word that stands for a value in the help, its metavar, can be. Refuses to know the
commands and the shells: `argcomplete` asks the parser, and speaks to them.
"""

import argparse
from collections.abc import Callable, Iterable
from typing import Any, Final

from argcomplete.completers import FilesCompleter, SuppressCompleter
from argcomplete.finders import CompletionFinder

SHELLS: Final = ("bash", "zsh", "fish", "powershell")

Completer = Callable[..., Iterable[str]]


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell, which has asked through the environment, and exit."""
    _teach(parser)
    # Options only where a dash was typed: else they would hide the names that are looked for.
    CompletionFinder()(parser, always_complete_options=False, default_completer=SuppressCompleter())


def script(shell: str) -> str:
    """Return what makes a shell ask `pagewalk`."""
    from argcomplete.shell_integration import shellcode

    return str(shellcode(["pagewalk"], shell=shell))


def _teach(parser: argparse.ArgumentParser) -> None:
    """Give every argument of a parser, and of those below it, its completer."""
    for action in parser._actions:  # noqa: SLF001 (argparse has no other list of them)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for sub in action.choices.values():
                _teach(sub)
        elif isinstance(action.metavar, str):
            action.completer = _completer(action.metavar)  # type: ignore[attr-defined]


def _completer(metavar: str) -> Completer:
    """Return what completes values that are called so, as in SCENARIO, or oops|ok|ADDR."""
    if metavar in _VALUES:
        return _VALUES[metavar]
    words = [word for word in metavar.split("|") if not word.isupper()]
    if "|" in metavar and words:
        return lambda **_: words
    return SuppressCompleter()


def _scenarios(**_: Any) -> Iterable[str]:
    from kernel_model.scenarios import SCENARIOS

    return SCENARIOS


def _releases(**_: Any) -> Iterable[str]:
    from kernel_model.releases import RELEASES

    return RELEASES


def _builds(**_: Any) -> Iterable[str]:
    from kernel_model.builds import BUILDS

    return BUILDS


def _labs(**_: Any) -> Iterable[str]:
    from pagewalk.labs import labs

    return [lab.name for lab in labs()]


def _init_mm(**_: Any) -> Iterable[str]:
    return ("init_mm",)  # the other tables are there when a scenario has run


def _settings(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Iterable[str]:
    """Offer the parameters of the scenario that was typed before, and their choices."""
    from kernel_model.scenarios import SCENARIOS

    typed = (getattr(parsed_args, name, None) for name in ("scenario", "name"))
    scenario = SCENARIOS.get(next(filter(None, typed), ""))
    if scenario is None:
        return ()
    if "=" not in prefix:
        return (f"{parameter.name}=" for parameter in scenario.parameters)
    return (
        f"{parameter.name}={parameter.show(choice)}"
        for parameter in scenario.parameters
        for choice in parameter.choices
    )


def _families(**_: Any) -> Iterable[str]:
    from pagewalk.sweep.families import families

    return families(5)


def _runs(prefix: str, **_: Any) -> Iterable[str]:
    return [*_scenarios(), *_traces(prefix), *_sources(prefix)]


_traces: Final = FilesCompleter(("jsonl.zst", "parquet"))
_sources: Final = FilesCompleter(("S", "s"))

_VALUES: Final[dict[str, Completer]] = {
    "SCENARIO": _scenarios,
    "S": _scenarios,
    "R": _releases,
    "BUILD": _builds,
    "KEY=VALUE": _settings,
    "T": _init_mm,
    "A": _init_mm,
    "B": _init_mm,
    "FAMILY": _families,
    "FILE": FilesCompleter(),
    "FILE.S": _sources,
    "TRACE": _traces,
    "SCENARIO|TRACE|FILE.S": _runs,
    "DIR": FilesCompleter(directories=True),
    "LAB": _labs,
    "SHELL": lambda **_: SHELLS,
}
