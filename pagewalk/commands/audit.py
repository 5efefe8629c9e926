"""`pagewalk audit`: every top-level slot in which some table has not what init_mm has.

Knows which kernel is asked. Refuses to judge (`kernel_model.auditing`) and to word (`render_why`).
"""

import argparse
import json

from kernel_model.scenarios.spec import SCHEMA
from pagewalk.arguments import bad
from pagewalk.playing import add_scenario_options, final_kernel


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "name", metavar="SCENARIO", nargs="?", help="a scenario, whose final state is looked at"
    )
    parser.add_argument("--scenario", metavar="S", help="the same (default: a kernel after boot)")
    add_scenario_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = "example: pagewalk audit vmemmap-devdax"


def run(args: argparse.Namespace) -> int:
    """Print what was found; 0 if it could be looked for, whatever it is."""
    if args.name is not None and args.scenario not in (None, args.name):
        bad("--scenario", repr(args.scenario), f"one scenario: {args.name!r} is given already")
    args.scenario = args.name if args.scenario is None else args.scenario
    kernel, finished = final_kernel(args)

    from kernel_model import audit
    from kernel_model.auditing import tables
    from pagewalk.render_why import audit_lines
    from pagewalk.terminal import show
    from pagewalk.why_json import audit_json

    found, nr_tables = audit(kernel), sum(1 for _ in tables(kernel))
    outcome = finished and finished.outcome
    if args.json:
        document = {
            "schema": SCHEMA,
            "scenario": args.scenario,
            "release": kernel.release.name,
            "build": kernel.build.name,
            "levels": kernel.layout.levels,
            "outcome": outcome,
            "first_slot": kernel.layout.kernel_pgd_boundary,
            "tables": nr_tables,
            "slots": audit_json(found),
        }
        print(json.dumps(document, indent=2))
        return 0
    state = f"{args.scenario}: {outcome}" if finished else "after boot"
    head = f"{state} (release {kernel.release.name}, {kernel.layout.levels} levels)"
    show([head, *audit_lines(kernel, found, nr_tables)])
    return 0
