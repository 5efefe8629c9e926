"""Text and JSON for ranges of an address space, and for the differences of two.

Knows how they look, for people and for programs. Refuses to know which tables they were read from.
Lines and objects come one by one: a space may have millions.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from emu.paging import ENTRY_NAME, KEY_SHIFT, RW, US, XD, G, page_size
from kernel_model.layout import Layout
from kernel_model.pgtable import linux_name
from kernel_model.words import show_hex, show_size

if TYPE_CHECKING:
    from emu import Difference, Differences, Range, Ranges


def range_lines(ranges: "Ranges", layout: Layout, *, exact: bool) -> Iterator[str]:
    """One line for each range; if not `exact`, for each run that differs in its place alone."""
    import numpy as np

    starts = np.arange(len(ranges)) if exact else ranges.shapes()
    ends = np.append(starts, len(ranges))[1:]
    lasts, numbers = ranges.last[ends - 1].tolist(), (ends - starts).tolist()
    for one, last, nr in zip(ranges.only(starts), lasts, numbers, strict=True):
        how, region = side_text(one, layout.levels, nr), _region(layout, one.first, last)
        yield f"{span_text(one.first, last)}  {how}  {region}".rstrip()


def span_text(first: int, last: int) -> str:
    """Where, and how much: "ffff888000000000 - ffff8880ffffffff        4G"."""
    return f"{first:016x} - {last:016x} {show_size(last - first + 1):>9}"


def side_text(one: "Range", levels: int, nr: int = 1) -> str:
    """How it is mapped, or that it is not; `nr` ranges, of which this is the first."""
    if one.pa is None:
        return one.kind.replace("-", " ").replace("ram", "RAM")
    size, names = show_size(page_size(one.level)), _names(one.level, levels)
    place = f"pa {one.pa:#x}" + (f" and {nr - 1} more" if nr > 1 else "")
    return f"{size:>2} {names:10} {rights_text(one.rights)}  {place:29}"


def rights_text(rights: int) -> str:
    """Name the rights in columns, with a dash for what is not there: "RW -- XD G"."""
    flags = ((RW, "RW"), (US, "US"), (XD, "XD"), (G, "G"))
    key = rights >> KEY_SHIFT & 15
    columns = [name if rights & bit else "-" * len(name) for bit, name in flags]
    return " ".join(columns) + (f" key {key}" if key else "")


def _names(level: int, levels: int) -> str:
    return f"{ENTRY_NAME[level]:5} {linux_name(level, levels)}"


def _region(layout: Layout, first: int, last: int) -> str:
    name = layout.region(first)
    return name if name == layout.region(last) and name != "no region" else ""


def difference_lines(
    found: "Differences", layout: Layout, names: tuple[str, str], *, exact: bool
) -> Iterator[tuple[str, int]]:
    """One line for each difference, or for each run that differs in its place alone; and where."""
    import numpy as np

    starts = np.arange(len(found)) if exact else found.shapes()
    ends = np.append(starts, len(found))[1:]
    lasts, numbers = found.a.last[ends - 1].tolist(), (ends - starts).tolist()
    for at, last, nr in zip(starts.tolist(), lasts, numbers, strict=True):
        one = found[at]
        what = _difference_text(one, names, layout.levels, nr)
        region = _region(layout, one.first, last)
        yield f"{span_text(one.first, last)}  {what}  {region}".rstrip(), one.first


def _difference_text(one: "Difference", names: tuple[str, str], levels: int, nr: int) -> str:
    name_a, name_b = names
    if one.what == "only-a":
        return f"only in {name_a}: {side_text(one.a, levels, nr)}"
    if one.what == "only-b":
        return f"only in {name_b}: {side_text(one.b, levels, nr)}"
    if one.what == "pa":
        more = f", and {nr - 1} more" if nr > 1 else ""
        return f"pa {one.a.pa:#x} in {name_a}, {one.b.pa:#x} in {name_b}{more}"
    side_a, side_b = (" ".join(side_text(side, levels, nr).split()) for side in (one.a, one.b))
    return f"{side_a} in {name_a}, {side_b} in {name_b}"


def difference_json(one: "Difference", levels: int) -> dict[str, Any]:
    """Return what is known of a difference, as JSON has it."""
    sides = {"a": range_json(one.a, levels), "b": range_json(one.b, levels)}
    for side in sides.values():
        del side["first"], side["last"], side["size"]
    place = {"first": f"{one.first:#x}", "last": f"{one.last:#x}", "size": one.size}
    return {**place, "what": one.what, **sides}


def print_json(head: Mapping[str, Any], name: str, objects: Iterable[Mapping[str, Any]]) -> None:
    """Print a document that ends in a list, of which little is ever held."""
    write = sys.stdout.write
    write(json.dumps(head)[:-1] + f', "{name}": [')
    separator = "\n"
    for one in objects:
        write(separator + json.dumps(one))
        separator = ",\n"
    write("\n]}\n")


def range_json(one: "Range", levels: int) -> dict[str, Any]:
    """Return what is known of a range, as JSON has it."""
    mapped = one.pa is not None
    return {
        "first": f"{one.first:#x}",
        "last": f"{one.last:#x}",
        "size": one.size,
        "kind": one.kind,
        "level": one.level if mapped else None,
        "entry_name": ENTRY_NAME[one.level] if mapped else None,
        "linux_name": linux_name(one.level, levels) if mapped else None,
        "page_size": page_size(one.level) if mapped else None,
        "pa": show_hex(one.pa),
        "writable": bool(one.rights & RW) if mapped else None,
        "user": bool(one.rights & US) if mapped else None,
        "executable": not one.rights & XD if mapped else None,
        "global": bool(one.rights & G) if mapped else None,
        "key": one.key if mapped else None,
    }
