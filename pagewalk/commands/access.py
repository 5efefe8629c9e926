"""`pagewalk access`: one access on the CPU, under raw entries; or one for each row of a file.

Knows how a case is given on the command line, and prints each verdict as one JSON line. Refuses
to know what a verdict means, and how a row is read (`cases`).
"""

import argparse
import io
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from kernel_model.words import did_you_mean, show_hex
from pagewalk.arguments import BadInput, bad, number, why_unreadable

if TYPE_CHECKING:
    from emu import Case, Verdict

_OK, _BAD_INPUT = 0, 2
_FLAGS: Final = {
    "wp": "CR0.WP: the supervisor, too, needs RW to write (default: 1)",
    "smep": "CR4.SMEP: the supervisor fetches from no user page",
    "smap": "CR4.SMAP: the supervisor reads and writes no user page, unless --ac 1",
    "nxe": "EFER.NXE: bit 63 of an entry is XD, and not reserved (default: 1)",
    "ac": "RFLAGS.AC",
    "pke": "CR4.PKE: the protection keys of user pages count",
}
_CHOICES: Final[dict[str, dict[str, Any]]] = {
    "levels": {"4": 4, "5": 5},
    "kind": {kind: kind for kind in ("read", "write", "fetch")},
    **{name: {"0": False, "1": True} for name in _FLAGS},
}
_EPILOG: Final = """\
Entries are raw 64-bit values, the root's first; the last one given need not map a page. Each names
a frame with its bits 39:12, whatever its P and PS say, and the next one is stored there, at the
index that VA selects. The rest of RAM is zeros, 1 TiB of them; MAXPHYADDR is 40. The access is one
byte: a write stores the byte that is there, a fetch executes an instruction that is put there.

It prints, with null for what there is none of:
  {"vector": 14, "error_code": 3, "cr2": "0x…", "rule": "wp", "entries_after": ["0x…", …]}

FILE is CSV, in UTF-8; - is standard input. Its header row names columns, in any order, of
  va,levels,e5,e4,e3,e2,e1,kind,user,wp,smep,smap,nxe,ac,pke,pkru
Numbers are hex there, with 0x or without; as options, hex needs its 0x. A missing column or an
empty value is the default; entries below the last one given are empty. Each row gives one JSON
line, in order. A row that is no case gives none, but a line on standard error that names file, row
and column, and exit status 2 at the end; row 1 is the first line of the file.

example: pagewalk access --va 0x7f0012345678 --entries 0x1007,0x2007,0x3007,0x4005 --kind write"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments. None has a default: with --file, none of a case may be given."""
    case = parser.add_argument_group("a case")
    case.add_argument("--va", metavar="VA", help="the address of the access")
    case.add_argument("--entries", metavar="E4,E3,...", help="the entries on its way")
    case.add_argument("--levels", metavar="4|5", help="paging levels (default: 4)")
    case.add_argument("--kind", metavar="read|write|fetch", help="what for (default: read)")
    case.add_argument("--user", action="store_true", default=None, help="at CPL 3 instead of 0")
    for name, what in _FLAGS.items():
        case.add_argument(f"--{name}", metavar="0|1", help=what)
    case.add_argument("--pkru", metavar="V", help="the rights of the protection keys")
    parser.add_argument("--file", metavar="FILE", help="make the access of each row instead")
    parser.add_argument("--json", action="store_true", help="is what it always prints")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Print the verdict of each case; 2 at the end if something was none."""
    names = ("va", "entries", *_CHOICES, "user", "pkru")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.file is None:
        return _one(given)
    if given:
        raise BadInput(f"--{next(iter(given))}: expected no case besides --file")
    return _file(args.file)


def _one(given: dict[str, Any]) -> int:
    from emu import BadCase, Probe

    case = _case(given)
    with Probe() as probe:
        try:
            verdict = probe.access(case)
        except BadCase as error:
            bad(f"--{error.field}", error.value, error.expected)
    print(_line(verdict))
    return _OK


def _case(given: dict[str, Any]) -> "Case":
    """Read the options of a case."""
    from emu import Case

    for name in ("va", "entries"):
        if name not in given:
            raise BadInput(f"--{name} is missing: expected a case, or --file (see --help)")
    read = dict(given)
    read["va"] = number("--va", given["va"])
    read["entries"] = tuple([number("--entries", text) for text in given["entries"].split(",")])
    for name, choices in _CHOICES.items():
        if name in given:
            if given[name] not in choices:
                near = did_you_mean(given[name], choices)
                bad(f"--{name}", repr(given[name]), " or ".join(choices) + near)
            read[name] = choices[given[name]]
    if "pkru" in given:
        read["pkru"] = number("--pkru", given["pkru"], most=(1 << 32) - 1)
    return Case(**read)


def _file(file: str) -> int:
    """Print a line for each row; none is held back while more input is awaited."""
    from emu import Probe
    from pagewalk.cases import LONGEST_LINE, BadRow, verdicts
    from pagewalk.guard import uninterrupted

    status = _OK
    with _opened(file) as lines, Probe() as probe, uninterrupted(probe.access) as access:
        for found in verdicts(_bounded(lines, LONGEST_LINE), ascii(file)[1:-1], access):
            if isinstance(found, BadRow):
                print(f"pagewalk: {found.text}", file=sys.stderr)
                status = _BAD_INPUT
            else:
                print(_line(found))
    return status


def _opened(file: str) -> io.TextIOWrapper:
    """Open a file, or standard input; bytes that are no UTF-8 spoil their own row alone."""
    try:
        source = _Source(0 if file == "-" else file, closefd=file != "-")
    except (OSError, ValueError) as error:
        bad("--file", ascii(file), f"a file that can be read: {why_unreadable(file, error)}")
    return io.TextIOWrapper(
        io.BufferedReader(source), "utf-8-sig", errors="surrogateescape", newline=""
    )


def _bounded(lines: io.TextIOWrapper, longest: int) -> Iterator[str]:
    """Yield the lines, and of one that is too long no more than shows it."""
    while line := lines.readline(longest + 1):
        rest = line
        while len(rest) > longest and rest[-1] not in "\r\n":
            rest = lines.readline(longest + 1)
        yield line


class _Source(io.FileIO):
    """A file that has what is ready printed before it waits for more."""

    def readinto(self, buffer: Any) -> int | None:
        sys.stdout.flush()
        return super().readinto(buffer)


def _line(verdict: "Verdict") -> str:
    cr2 = verdict.cr2
    return json.dumps(
        {
            "vector": verdict.vector,
            "error_code": verdict.error_code,
            "cr2": show_hex(cr2),
            "rule": verdict.rule,
            "entries_after": [f"{entry:#x}" for entry in verdict.entries_after],
        }
    )
