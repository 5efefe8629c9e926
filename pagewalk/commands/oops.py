"""`pagewalk oops FILE`: explain an oops that somebody has sent, and find the scenario for it.

Knows where the text comes from, and what is said when there is no oops in it. Refuses to know how
an oops is read (`kernel_model.reading.oopses`) and shown (`render_oops`).
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

from pagewalk.arguments import BadInput, why_unreadable

if TYPE_CHECKING:
    from kernel_model.reading.oopses import Reading

_EXPECTED: Final = "expected an x86-64 oops text"
_EPILOG: Final = """\
FILE is a log, a mail, anything that has an oops in it, of 4.4 to 6.17; - is standard input. It
tells the error code bit by bit, what the line with PGD says, where the address lies, and whether
the pattern is that of a top-level entry that was never synced. A scenario that dies alike is run,
and compared with the text.

example: pagewalk oops dmesg.txt"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", metavar="FILE", help="where the text is; - for standard input")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON document")
    how.add_argument(
        "--test", action="store_true", help="print a pytest test that reproduces the oops"
    )
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Explain the first oops; 0 if there is one, or half of one."""
    from kernel_model.reading.oopses import match_oops, read_oopses

    shown = "standard input" if args.file == "-" else repr(args.file)
    with _opened(args.file, shown) as source:
        reading = read_oopses(source.read)
    if reading.first is None:
        raise BadInput(f"FILE {shown}: {_EXPECTED}; {_what_instead(reading)}")
    match = match_oops(reading.first)
    if args.json:
        from pagewalk.oops_json import oops_document

        print(json.dumps(oops_document(reading, match), indent=2))
        return 0
    if args.test:
        from pagewalk.reproducer import test_lines

        if match is None or not match.reproduces:
            raise BadInput(f"FILE {shown}: expected an oops that a scenario reproduces; none does")
        print("\n".join(test_lines(match)))
        return 0
    from pagewalk.render_oops import oops_lines
    from pagewalk.terminal import show

    show(oops_lines(shown, reading, match))
    return 0


def _what_instead(reading: "Reading") -> str:
    """Say what was found, since it was no oops."""
    if not reading.size:
        return "it is empty"
    if reading.architecture:
        return f"found one of {reading.architecture}"
    return "found no 'BUG: unable to handle', no 'Oops:', and no other '[#1]'"


@contextmanager
def _opened(file: str, shown: str) -> Iterator[BinaryIO]:
    """Open a file, or standard input; BadInput for one that cannot be read to its end."""
    try:
        with open(0 if file == "-" else file, "rb", closefd=file != "-") as source:
            yield source
    except (OSError, ValueError) as error:
        reason = why_unreadable(file, error)
        raise BadInput(f"FILE {shown}: expected a file that can be read: {reason}") from None
