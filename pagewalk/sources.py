"""A user's `.S` file: read, its header options, assembled; every complaint is one line.

Knows what a file may be, and the header lines that say how it wants to be run:

    # pagewalk: --map 0x1000=0x2000:rw --reg rdi=0x1000

Such a comment line may stand anywhere in the file; the command line outranks it. Knows the names
of these options, and refuses to know what they mean: that is `tracing` and `bare`.
"""

import argparse
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from pagewalk.arguments import BadInput, bad, number, why_unreadable

if TYPE_CHECKING:
    from asm import Program

_HEADER = re.compile(r"[ \t]*#[ \t]*pagewalk:(.*)")
_NAME = re.compile(r"[A-Za-z_.$][\w.$]*\Z", re.ASCII)


class _HeaderParser(argparse.ArgumentParser):
    """Parses what stands in a file; nobody is there to be shown a usage."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(message)


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """Add --set, which `trace` and `asm` have."""
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="define a constant for the source, as `as --defsym` does; may be repeated",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how a file is run: `trace` takes it, and so do the header lines of a file."""
    parser.add_argument("--levels", metavar="4|5", help="paging levels (default: 4)")
    parser.add_argument(
        "--map",
        metavar="VA=PA[+SIZE]:rwxu",
        action="append",
        default=[],
        help="map a 4 KiB page, or SIZE bytes; may be repeated",
    )
    parser.add_argument(
        "--reg",
        metavar="R=VALUE",
        action="append",
        default=[],
        help="set a register; may be repeated",
    )
    parser.add_argument(
        "--user", action=argparse.BooleanOptionalAction, help="run at CPL 3, in user pages"
    )
    parser.add_argument("--entry", metavar="NAME", help="the symbol to run")
    parser.add_argument(
        "--max-steps", metavar="N", help="stop after so many steps (default: 10000000)"
    )
    parser.add_argument("--ram", metavar="SIZE", help="bytes of RAM, from 0 on (default: 1G)")
    add_set_option(parser)


def constants(items: Iterable[str]) -> dict[str, int]:
    """Read the values of --set."""
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not _NAME.match(name.strip()):
            bad("--set", repr(item), "NAME=VALUE")
        found[name.strip()] = number(f"--set {name.strip()}", value)
    return found


def read_source(file: str) -> str:
    """Return the text of a file; BadInput for anything that is none."""
    from asm import source

    try:
        with open(file, "rb") as opened:
            raw = opened.read(source.LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = why_unreadable(file, error)
        bad("FILE", shown(file), f"an assembly source that can be read: {reason}")
    with one_line(file):
        return source.decoded(raw, file=file)


def header_options(text: str, file: str) -> argparse.Namespace:
    """Return what the file's own header lines say, by the options of `add_run_options`."""
    parser = _run_parser()
    options = parser.parse_args([])
    for line, words in enumerate(text.split("\n"), 1):
        header = _HEADER.match(words.rstrip("\r"))
        if header is None:
            continue
        try:
            parser.parse_args(shlex.split(header[1]), options)
        except (BadInput, ValueError) as error:
            what = shown(str(error))
            raise BadInput(f"{shown(file)}:{line}: {what}: `{shown(words.strip())}`") from None
    return options


def run_options(file: str) -> argparse.Namespace:
    """Return what a command line says that names a file, and nothing else."""
    return _run_parser().parse_args([], argparse.Namespace(file=file))


def _run_parser() -> _HeaderParser:
    parser = _HeaderParser(prog="pagewalk", add_help=False, allow_abbrev=False)
    add_run_options(parser)
    return parser


@contextmanager
def one_line(file: str) -> Iterator[None]:
    """Turn what the assembler or the linker says against the source into a BadInput."""
    from asm import AssemblyError

    try:
        yield
    except AssemblyError as error:
        place = f"{shown(file)}:{error.line}" if error.line else shown(file)
        source = f": `{shown(error.source)}`" if error.source else ""
        raise BadInput(f"{place}: {shown(error.message)}{source}") from None
    except ValueError as error:
        raise BadInput(f"{shown(file)}: {shown(str(error))}") from None


def assemble_source(text: str, file: str, values: Mapping[str, int]) -> "Program":
    """Assemble; BadInput with file, line and the source line for what cannot be."""
    from asm import assemble

    with one_line(file):
        return assemble(text, name=shown(file), constants=values)


def shown(text: str) -> str:
    """Return text for one line of a terminal: nothing in it moves the cursor."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
