"""Cases in a CSV file: a header row names the columns, and each row after it is one access.

Knows the columns and how a value is written. Refuses to know how an access is made and what
becomes of its verdict. A line is a row, so that a stray quote spoils no more than its own; of what
is wrong with a row, the first is told.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from emu import BadCase, Case, Verdict
from kernel_model.words import did_you_mean
from pagewalk.arguments import BadInput

LONGEST_LINE: Final = 4096  # characters: no case needs so many
_LONGEST: Final = 60  # characters of a value that an error shows


class BadRow(NamedTuple):
    """A row that is no case: the file, the row, the column, and what is wrong there."""

    text: str


def verdicts(
    lines: Iterable[str], file: str, access: Callable[[Case], Verdict]
) -> Iterator[Verdict | BadRow]:
    """Make the access of each row, and yield what it came to; BadInput if there is no header.

    Row 1 is the first line. Blank lines yield nothing.
    """
    rows = ((n, line) for n, line in enumerate(lines, 1) if not line.isspace())
    first, header = next(rows, (1, ""))
    try:
        names = _cells(header)
    except csv.Error as error:
        raise BadInput(f"{file}: row {first}: {error}: expected CSV") from None
    columns = _header(names, f"{file}: row {first}")
    for number, line in rows:
        try:
            case = _case(columns, _cells(line))
            verdict = access(case)
        except csv.Error as error:
            yield BadRow(f"{file}: row {number}, column {columns[0]}: {error}: expected CSV")
        except BadCase as error:
            at = f"e{case.levels - error.entry}" if error.field == "entries" else error.field
            what = f"{_cut(error.value)}: expected {error.expected}"
            yield BadRow(f"{file}: row {number}, column {at}: {what}")
        else:
            yield verdict


def _cells(line: str) -> list[str]:
    """Return the values of a line; csv.Error for one that is too long, or whose quotes are odd."""
    if len(line) > LONGEST_LINE:
        raise csv.Error(f"more than {LONGEST_LINE} characters")
    return [cell.strip() for cell in next(csv.reader((line,), strict=True), ())]


def _header(columns: list[str], where: str) -> list[str]:
    if not columns:
        raise BadInput(f"{where}: nothing there: expected a header that names the columns")
    for column in columns:
        if column not in _READ:
            known = f"one of {', '.join(_READ)}{did_you_mean(column, _READ)}"
            raise BadInput(f"{where}, column {_cut(ascii(column))}: expected {known}")
        if columns.count(column) > 1:
            raise BadInput(f"{where}, column {column}: expected no second one of that name")
    if "va" not in columns:
        raise BadInput(f"{where}, column va: expected one, as a case needs an address")
    return columns


def _case(columns: list[str], cells: list[str]) -> Case:
    """Return the case of a row; BadCase, with a column for a field, if it is none."""
    if len(cells) != len(columns):
        column = columns[len(cells)] if len(cells) < len(columns) else str(len(columns) + 1)
        raise BadCase(column, f"{len(cells)} values", f"{len(columns)}, as in the header")
    given: dict[str, Any] = {}
    for column, text in zip(columns, cells, strict=True):
        if text:
            try:
                given[column] = _READ[column](text)
            except (ValueError, KeyError):
                raise BadCase(column, ascii(text), _EXPECTED[column]) from None
    if "va" not in given:
        raise BadCase("va", "''", "an address")
    given["entries"] = _entries(given)
    return Case(**given)


def _entries(given: dict[str, Any]) -> tuple[int, ...]:
    """Take the entries out of `given`: the root's first, down to the last one given."""
    levels = given.get("levels", 4)
    if levels == 4 and given.pop("e5", 0):
        raise BadCase("e5", "an entry", "none with 4 levels")
    columns = _ENTRIES[-levels:]
    entries = [given.pop(column, None) for column in columns]
    while len(entries) > 1 and entries[-1] is None:
        entries.pop()
    if None in entries:
        below = ", as there is one below it" if len(entries) > 1 else ""
        raise BadCase(columns[entries.index(None)], "''", f"an entry{below}")
    return tuple(entries)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _hex(text: str) -> int:
    if not (text.isascii() and text.isalnum()):
        raise ValueError  # int() takes signs, underscores and other digits, too
    return int(text, 16)


def _one_of(*values: int) -> Callable[[str], int]:
    """Return how to read a number that is one of `values`."""
    return lambda text: values[values.index(_hex(text))]


_ENTRIES: Final = ("e5", "e4", "e3", "e2", "e1")
_FLAGS: Final = ("user", "wp", "smep", "smap", "nxe", "ac", "pke")
_KINDS: Final = {kind: kind for kind in ("read", "write", "fetch")}
_READ: Final[dict[str, Callable[[str], Any]]] = {
    **dict.fromkeys(("va", *_ENTRIES, "pkru"), _hex),
    "levels": _one_of(4, 5),
    "kind": _KINDS.__getitem__,
    **dict.fromkeys(_FLAGS, _one_of(False, True)),
}
_EXPECTED: Final = {
    **dict.fromkeys(_READ, "a hex number"),
    "levels": "4 or 5",
    "kind": " or ".join(_KINDS),
    **dict.fromkeys(_FLAGS, "0 or 1"),
}
