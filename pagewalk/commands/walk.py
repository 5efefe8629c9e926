"""`pagewalk walk ADDR`: every entry read for an address, its bits, where the walk stops and why.

Knows what is told of a walk. Refuses to know how it looks (`render`), and which table is meant
(`whose`).
"""

import argparse
import json
from typing import TYPE_CHECKING, Any

from kernel_model.scenarios.spec import SCHEMA
from kernel_model.words import show_hex
from pagewalk.playing import final_kernel, read_address
from pagewalk.whose import add_table_options, chosen_table, named_mm, require_canonical

if TYPE_CHECKING:
    from emu import Paging
    from emu.walk import Walk
    from kernel_model import Kernel


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("address", metavar="ADDR", help="an address, or symbol+offset")
    add_table_options(parser)
    parser.add_argument(
        "--against", metavar="T", help="walk under this task's table, too: init_mm, for instance"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = (
        "example: pagewalk walk 0xffffe70000000034 --scenario vmemmap-devdax --against init_mm"
    )


def run(args: argparse.Namespace) -> int:
    """Print the walk; 0 if it could be made, wherever it ends."""
    kernel, finished = final_kernel(args)
    default = finished.ending.task.mm if finished else kernel.init_mm
    address = read_address(kernel, args.address)
    name, paging = chosen_table(kernel, args, default)
    require_canonical("ADDR", args.address, address, paging)
    found = kernel.walk_under(paging, address)
    other: tuple[str, Paging, Walk] | None = None
    if args.against is not None:
        mm = named_mm(kernel, "--against", args.against)
        other_paging = kernel.paging(mm)
        other = (args.against, other_paging, kernel.walk_under(other_paging, address))
    if args.json:
        document = {"schema": SCHEMA, "address": f"{address:#x}", **_walk_json(name, paging, found)}
        if other is not None:
            document["against"] = _walk_json(*other)
        print(json.dumps(document, indent=2))
        return 0
    _show(kernel, address, (name, paging, found), other)
    return 0


def _walk_json(name: str, paging: "Paging", found: "Walk") -> dict[str, Any]:
    from emu import Access, refusal
    from kernel_model.scenarios.outcome import walk_json

    rights: dict[str, Any] | None = None
    if found.verdict not in ("outside-ram", "non-canonical"):
        rights = {}
        for who in ("supervisor", "user"):
            for kind in ("read", "write", "fetch"):
                refused = refusal(found, Access(kind, who == "user"), paging)
                rights[f"{who}-{kind}"] = refused.reason if refused else None
    return {
        "task": name,
        "cr3": f"{paging.cr3:#x}",
        "levels": paging.levels,
        "verdict": found.verdict,
        "pa": show_hex(found.pa),
        "walk": walk_json(found, paging.levels),
        "refused_by": rights,
    }


def _show(
    kernel: "Kernel",
    address: int,
    one: "tuple[str, Paging, Walk]",
    other: "tuple[str, Paging, Walk] | None",
) -> None:
    from pagewalk import render
    from pagewalk.terminal import show

    name, paging, found = one
    lines = [f"{address:016x}: {kernel.layout.region(address)}"]
    column = [name, *render.walk_lines(found, paging), *render.rights_lines(found, paging)]
    if other is None:
        show([*lines, *column])
        return
    other_name, other_paging, other_walk = other
    beside = render.beside(
        column,
        [
            other_name,
            *render.walk_lines(other_walk, other_paging),
            *render.rights_lines(other_walk, other_paging),
        ],
    )
    difference = render.difference_text(found, other_walk, name, other_name, paging.levels)
    show([*lines, *beside, difference])
