"""`pagewalk matrix`: every scenario on every release, at 4 and 5 levels, as a table.

Knows the table. Refuses to know what a cell says (`kernel_model.scenarios.matrix`) and how the work
is spread over cores (`workers`).
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from kernel_model.scenarios.spec import SCHEMA
from pagewalk.arguments import bad, bad_name, number
from pagewalk.terminal import progress, show

if TYPE_CHECKING:
    from kernel_model.scenarios.matrix import Cell

_ALONE = 40  # runs that one process has done before others have started


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--scenario", metavar="S", action="extend", nargs="+", help="only these scenarios"
    )
    parser.add_argument(
        "--release", metavar="R", action="extend", nargs="+", help="only these releases"
    )
    parser.add_argument("--levels", metavar="4|5", help="one depth only (default: both)")
    parser.add_argument("--jobs", metavar="N", help="worker processes (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = "example: pagewalk matrix --scenario vmemmap-devdax --levels 4"


def run(args: argparse.Namespace) -> int:
    """Make all runs and print what became of them; 0 once that is done."""
    from kernel_model.releases import RELEASES
    from kernel_model.scenarios import SCENARIOS
    from kernel_model.scenarios.matrix import cells
    from pagewalk.workers import nr_cores, on_cores

    scenarios = _chosen("--scenario", args.scenario, list(SCENARIOS))
    releases = _chosen("--release", args.release, list(RELEASES))
    if args.levels not in (None, "4", "5"):
        bad("--levels", repr(args.levels), "4 or 5")
    levels = (4, 5) if args.levels is None else (int(args.levels),)
    jobs = nr_cores() if args.jobs is None else number("--jobs", args.jobs, least=1, most=1024)

    units = dict(enumerate(cells(scenarios, releases, levels)))
    if len(units) <= _ALONE and args.jobs is None:
        jobs = 1
    found: dict[int, Cell] = {}
    with (
        progress("runs", len(units), _ALONE) as advance,
        closing(on_cores(_run, units, jobs=jobs)) as done,
    ):
        for at, cell in done:
            found[at] = cell
            if advance is not None:
                advance(1)
    table = [found[at] for at in units]
    if args.json:
        document = {"schema": SCHEMA, "cells": [cell.as_json() for cell in table]}
        print(json.dumps(document, indent=2))
    else:
        show(_lines(table))
    return 0


def _run(unit: tuple[str, str, int]) -> "Cell":
    from kernel_model.scenarios.matrix import run_cell

    return run_cell(*unit)


def _chosen(argument: str, given: list[str] | None, known: list[str]) -> list[str]:
    """Return the names that were given, once each and in the order of `known`; or all."""
    for name in given or ():
        if name not in known:
            bad_name(argument, name, known)
    return [name for name in known if given is None or name in given]


def _lines(table: "list[Cell]") -> Iterator[str]:
    """One table for each depth: scenarios down, releases across."""
    for levels in sorted({cell.levels for cell in table}):
        part = [cell for cell in table if cell.levels == levels]
        releases = list(dict.fromkeys(cell.release for cell in part))
        scenarios = list(dict.fromkeys(cell.scenario for cell in part))
        words = {(cell.scenario, cell.release): cell.word for cell in part}
        first = max(map(len, scenarios))
        widths = {r: max(len(r), *(len(words[s, r]) for s in scenarios)) for r in releases}
        yield f"{levels} levels"
        yield "  ".join((" " * first, *(f"{r:{widths[r]}}" for r in releases))).rstrip()
        for scenario in scenarios:
            row = (f"{words[scenario, release]:{widths[release]}}" for release in releases)
            yield "  ".join((f"{scenario:{first}}", *row)).rstrip()
        yield ""
    yield from _legend(table)


def _legend(table: "list[Cell]") -> Iterator[str]:
    """Say where those died that did: once for each place."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for cell in table:
        if cell.detail and cell.word != "n/a":
            where = f"{cell.detail}"
            if cell.address is not None:
                where += f", at {cell.address:016x}"
            runs = places.setdefault((cell.scenario, cell.word, where), [])
            runs.append(f"{cell.release}/{cell.levels}")
    if places:
        yield "Where they died"
    for (scenario, word, where), runs in places.items():
        yield f"  {scenario}: {word} in {where} ({', '.join(runs)})"
