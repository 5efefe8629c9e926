"""`pagewalk why ADDR`: an address under every table: where they part, who wrote what, and why.

Knows which kernel is asked. Refuses to judge (`kernel_model.auditing`) and to word (`render_why`).
"""

import argparse
import json

from kernel_model.scenarios.spec import SCHEMA
from pagewalk.arguments import bad
from pagewalk.playing import add_scenario_options, final_kernel, read_address


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("address", metavar="ADDR", help="an address, or symbol+offset")
    parser.add_argument(
        "--scenario", metavar="S", help="ask in the state that a scenario ends in (default: boot)"
    )
    add_scenario_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = "example: pagewalk why 0xffffe70000000034 --scenario vmemmap-devdax"


def run(args: argparse.Namespace) -> int:
    """Print the answer; 0 if there is one, however the scenario ended."""
    kernel, _ = final_kernel(args)
    address = read_address(kernel, args.address)
    paging = kernel.boot_paging
    if not paging.is_canonical(address):
        bad("ADDR", args.address, f"a canonical address of {12 + 9 * paging.levels} bits")

    from kernel_model import why
    from pagewalk.render_why import why_lines
    from pagewalk.terminal import show
    from pagewalk.why_json import why_json

    found = why(kernel, address)
    if args.json:
        print(json.dumps({"schema": SCHEMA, **why_json(kernel, found)}, indent=2))
    else:
        show(why_lines(kernel, found))
    return 0
