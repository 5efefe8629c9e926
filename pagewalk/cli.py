"""The command line: arguments and exit codes; each command is one call into the layers.

Knows the commands' names, and what an error looks like: one line on stderr. Refuses to know what
the commands do; a command's module is loaded when it is the one that runs.

Exit status: 0 done, 1 the guest did not run to its end (or --expect did not hold), 2 bad usage
or bad input (or a reader of --json that left too early), 130 interrupted, 141 closed pipe.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from kernel_model.words import did_you_mean
from pagewalk.arguments import BadInput, bad_name

FAILED, BAD_INPUT, INTERRUPTED, CLOSED_PIPE = 1, 2, 130, 141

COMMANDS = {
    "list": "scenarios, releases and routines",
    "run": "run a scenario and tell its story",
    "matrix": "run every scenario on every release, at 4 and 5 levels",
    "walk": "show every entry read for an address, and where the walk stops",
    "dump": "list what a table maps: ranges with their rights, page sizes and places",
    "diff": "list where two tables differ: what only one maps, or they map otherwise",
    "why": "walk an address under every table: where they part, who wrote what, and why",
    "audit": "list every top-level slot that some table lacks after a scenario",
    "oops": "explain an oops text, and find the scenario that dies like it",
    "trace": "run a .S file of your own and print every instruction and access",
    "view": "make a page to look at: tables, walks and events of a scenario or a trace",
    "show": "print a trace file, or what of it is looked for; tell who wrote an entry",
    "tui": "step through a run in a terminal, forwards and backwards",
    "access": "make one access on the CPU, under raw entries; or one for each row of a file",
    "sweep": "judge a matrix of accesses by the CPU, the walk and an oracle",
    "asm": "list a .S file: offsets, bytes, mnemonics, symbols",
    "lab": "exercises for courses: list them, make one, check one, answer one",
    "doctor": "prove, on this machine, every engine behaviour that is relied upon",
    "completion": "print what makes a shell complete commands, options and values",
}


_EPILOG = """\
exit status: 0 done, 1 the guest did not run to its end (or --expect did not hold), 2 bad usage or
bad input, 130 interrupted

example: pagewalk run vmemmap-devdax"""


class Version(argparse.Action):
    """Prints the version, and loads only then what knows it: a third of the time to the help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it, and exit."""
        from importlib.metadata import version

        print(f"pagewalk {version('pagewalk')}")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """Reports a usage error in one line, as every other error, with the name that was meant."""

    commands: dict[str, "Parser"]
    """The parsers of the commands, by name."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Refuse what was typed."""
        raise BadInput(f"{message} (try {self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, as argparse does; but no option is left to others."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = next((word for word in unknown if word.startswith("-")), "")
            near = did_you_mean(option.partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            bad_name(str(action.metavar), str(value), action.choices)


def make_parser(command: str | None = None) -> Parser:
    """Return the parser; only `command`'s own arguments are filled in, or nobody's."""
    parser = Parser(
        prog="pagewalk",
        description="An x86-64 MMU emulator with real page walks, and Linux's bugs on it.",
        epilog=_EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=Version, nargs=0, help="show program's version number and exit"
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == command:
            import_module(f"pagewalk.commands.{name}").configure(sub)
    parser.commands = commands.choices
    return parser


def _with_trace_joined(words: Sequence[str]) -> Iterator[str]:
    """Join --trace with its value, if it has one: argparse would take SCENARIO for it."""
    waiting = False
    for word in words:
        if waiting:
            waiting = False
            if word == "all" or word[:1].isdigit():
                yield f"--trace={word}"
                continue
            yield "--trace=200"
        if word == "--trace":
            waiting = True
        else:
            yield word
    if waiting:
        yield "--trace=200"


def _complete(line: str) -> None:
    """Tell the shell that asks what may stand at the end of a line, and exit."""
    from pagewalk.completion import complete

    complete(make_parser(next((word for word in line.split() if word in COMMANDS), None)))


def _expect_command_first(arguments: Sequence[str]) -> None:
    """Refuse an option that stands before the command: argparse would take its value for one."""
    first = next(iter(arguments), "")
    own = ("-h", "--help", "--version")
    if first.startswith("-") and first not in (*own, "--"):
        near = did_you_mean(first.partition("=")[0], own)
        raise BadInput(f"{first}: expected COMMAND before its options{near} (try pagewalk --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if "_ARGCOMPLETE" in os.environ:
        _complete(os.environ.get("COMP_LINE", ""))
    command = next((word for word in arguments if word in COMMANDS), None)
    if command == "run":
        arguments = list(_with_trace_joined(arguments))
    try:
        if sys.stdout is None:
            raise BadInput("standard output is closed: expected somewhere to write to")
        _expect_command_first(arguments)
        args = make_parser(command).parse_args(arguments)
        status = import_module(f"pagewalk.commands.{args.command}").run(args)
        sys.stdout.flush()
    except BadInput as error:
        print(f"pagewalk: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        # Keep the interpreter from failing once more at its own flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"pagewalk: {error.strerror or error}", file=sys.stderr)
        elif "--json" not in arguments:
            return CLOSED_PIPE  # as with `| head`: nothing to tell
        else:
            print("pagewalk: standard output was closed before all was written", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("pagewalk: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        from emu import EmuError  # not before it is needed: --help loads little

        if not isinstance(error, EmuError):
            raise
        print(f"pagewalk: cannot go on: {error}", file=sys.stderr)
        return FAILED
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
