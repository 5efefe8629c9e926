"""`pagewalk dump`: what a table maps, as ranges.

Knows which ranges are asked for. Refuses to know how they look (`render_ranges`), and which table
is meant (`whose`).
"""

import argparse
from typing import TYPE_CHECKING

from kernel_model.scenarios.spec import SCHEMA
from pagewalk.playing import final_kernel, read_address
from pagewalk.whose import add_table_options, address_range, chosen_table, require_canonical

if TYPE_CHECKING:
    from emu import Paging, Ranges
    from kernel_model import Kernel

_EPILOG = """\
Without a filter everything is listed but for what is not present (--gaps). A line is a run of pages
of one size with the same rights, wherever in RAM they lie; with --exact, and in JSON, one that lies
there in one piece. Rights are those over all levels.

examples:
  pagewalk dump --scenario vmemmap-devdax --task init_mm
  pagewalk dump --writable --executable
  pagewalk dump --has __init_single_page --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_table_options(parser)
    parser.add_argument("--range", metavar="A-B", help="what lies from A to B, which is the last")
    parser.add_argument("--has", metavar="VA", help="the range that has this address, or symbol")
    parser.add_argument("--user", action="store_true", help="what user mode may access")
    parser.add_argument("--writable", action="store_true", help="what may be written")
    parser.add_argument("--executable", action="store_true", help="what may be executed")
    parser.add_argument("--gaps", action="store_true", help="list what is not present, too")
    parser.add_argument("--exact", action="store_true", help="a line for each piece of RAM")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Print the ranges; 0 if they could be read, whatever they are."""
    kernel, finished = final_kernel(args)
    default = finished.ending.task.mm if finished else kernel.init_mm
    name, paging = chosen_table(kernel, args, default)
    bounds = None if args.range is None else address_range("--range", args.range, paging)
    has = None
    if args.has is not None:
        has = read_address(kernel, args.has, "--has")
        require_canonical("--has", args.has, has, paging)

    from emu import ranges
    from pagewalk.render_ranges import print_json, range_json

    found = ranges(kernel.memory, paging)
    if bounds is not None:
        found = found.within(*bounds)
    listed = _filtered(found, args, has)
    if args.json:
        head = {
            "schema": SCHEMA,
            "task": name,
            "root": f"{paging.root:#x}",
            "levels": paging.levels,
            "complete": found.complete,
        }
        print_json(head, "ranges", (range_json(one, paging.levels) for one in listed))
        return 0
    _show(kernel, name, paging, found, listed, args)
    return 0


def _filtered(found: "Ranges", args: argparse.Namespace, has: int | None) -> "Ranges":
    """Return the ranges that every filter lets through."""
    import numpy as np

    from emu.bulk import MAPPED, NOT_PRESENT
    from emu.paging import RW, US, XD

    listed = np.ones(len(found), np.bool_)
    if has is not None:
        listed &= np.arange(len(found)) == found.find(np.uint64(has))
    elif not args.gaps:
        listed &= found.kind != NOT_PRESENT
    for wanted, bit, value in (
        (args.user, US, US),
        (args.writable, RW, RW),
        (args.executable, XD, 0),
    ):
        if wanted:
            listed &= (found.kind == MAPPED) & (found.rights & np.uint64(bit) == value)
    return found.only(listed)


def _show(
    kernel: "Kernel",
    name: str,
    paging: "Paging",
    found: "Ranges",
    listed: "Ranges",
    args: argparse.Namespace,
) -> None:
    from emu.bulk import MAPPED, NOT_PRESENT
    from pagewalk.render_ranges import range_lines
    from pagewalk.terminal import show

    head = f"{name}: CR3 = {paging.cr3:#x}, {paging.levels} levels"
    nr_mapped, nr_gaps = ((found.kind == kind).sum() for kind in (MAPPED, NOT_PRESENT))
    show([head])
    show(range_lines(listed, kernel.layout, exact=args.exact))
    rest = "" if args.gaps else " (--gaps lists them)"
    show([f"ranges: {len(listed)} listed, {nr_mapped} mapped; gaps: {nr_gaps}{rest}"])
    if not found.complete:
        show(["not complete: what repeats, or was too much, is unexplored"])
