"""`pagewalk diff A B`: where two tables differ, as ranges, and at which entries.

Knows which two are asked for. Refuses to know how differences look (`render_ranges`), and which
table a name means (`whose`).
"""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kernel_model.scenarios.spec import SCHEMA
from pagewalk.playing import final_kernel
from pagewalk.whose import add_state_options, address_range, table

if TYPE_CHECKING:
    from emu import Differences, Paging
    from kernel_model import Kernel

    Named = tuple[str, Paging]

_EPILOG = """\
Tables differ where an address is mapped by one of them alone, or to another place, or with other
rights over all levels; the size of the page, A and D do not matter.

examples:
  pagewalk diff init_mm modprobe --scenario vmemmap-devdax
  pagewalk diff 0x2100000 0xfffb1000 --scenario vmemmap-devdax --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("a", metavar="A", help="a task, or the physical address of a table")
    parser.add_argument("b", metavar="B", help="the other one")
    add_state_options(parser)
    parser.add_argument("--range", metavar="A-B", help="what lies from A to B, which is the last")
    parser.add_argument("--exact", action="store_true", help="a line for each piece of RAM")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Print the differences; 0 if they could be looked for, whether there are any."""
    kernel, _ = final_kernel(args)
    a, b = table(kernel, "A", args.a), table(kernel, "B", args.b)
    bounds = None if args.range is None else address_range("--range", args.range, a[1])

    from emu import ranges
    from emu.differences import differences
    from pagewalk.render_ranges import difference_json, print_json

    both = [ranges(kernel.memory, paging) for _, paging in (a, b)]
    if bounds is not None:
        both = [found.within(*bounds) for found in both]
    found = differences(*both)
    levels = a[1].levels
    if args.json:
        head = {
            "schema": SCHEMA,
            "levels": levels,
            "a": {"task": a[0], "root": f"{a[1].root:#x}"},
            "b": {"task": b[0], "root": f"{b[1].root:#x}"},
            "complete": found.complete,
        }
        print_json(head, "differences", (difference_json(one, levels) for one in found))
        return 0
    _show(kernel, a, b, found, exact=args.exact)
    return 0


def _show(kernel: "Kernel", a: "Named", b: "Named", found: "Differences", *, exact: bool) -> None:
    from pagewalk.terminal import show

    show(f"{name}: CR3 = {paging.cr3:#x}, {paging.levels} levels" for name, paging in (a, b))
    show(_lines(kernel, a, b, found, exact=exact))
    if not len(found):
        show([f"{a[0]} and {b[0]} map the same"])
    if not found.complete:
        show(["not complete: what repeats, or was too much, is unexplored"])


def _lines(
    kernel: "Kernel", a: "Named", b: "Named", found: "Differences", *, exact: bool
) -> Iterator[str]:
    """Each difference, and below it the entry at which the walks part, if that is another one."""
    from pagewalk.render import difference_text
    from pagewalk.render_ranges import difference_lines

    (name_a, paging_a), (name_b, paging_b) = a, b
    last_parting = ""
    for line, first in difference_lines(found, kernel.layout, (name_a, name_b), exact=exact):
        yield line
        walks = kernel.walk_under(paging_a, first), kernel.walk_under(paging_b, first)
        parting = difference_text(*walks, name_a, name_b, paging_a.levels)
        if parting != last_parting:
            yield f"  {parting}"
        last_parting = parting
