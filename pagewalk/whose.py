"""Which tables are meant, and which part of them: --task, --cr3, A-B.

Knows how a user names a table of a kernel. Refuses to know what is read from it.
"""

import argparse
from typing import TYPE_CHECKING

from kernel_model.words import is_number
from pagewalk.arguments import bad, bad_name, number
from pagewalk.playing import add_scenario_options

if TYPE_CHECKING:
    from emu import Paging
    from kernel_model import Kernel, Mm


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add what chooses a kernel, and one table of it."""
    add_state_options(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--task", metavar="T", help="whose table (default: the scenario's task)")
    which.add_argument("--cr3", metavar="PA", help="the table at this physical address")


def add_state_options(parser: argparse.ArgumentParser) -> None:
    """Add what chooses a kernel."""
    parser.add_argument(
        "--scenario", metavar="S", help="look at the state that a scenario ends in (default: boot)"
    )
    add_scenario_options(parser)


def chosen_table(kernel: "Kernel", args: argparse.Namespace, default: "Mm") -> "tuple[str, Paging]":
    """Return the name and the control registers that --task or --cr3 asks for."""
    if args.task is not None:
        return args.task, kernel.paging(named_mm(kernel, "--task", args.task))
    if args.cr3 is not None:
        return table_at(kernel, "--cr3", args.cr3)
    return default.name, kernel.paging(default)


def table(kernel: "Kernel", argument: str, text: str) -> "tuple[str, Paging]":
    """Return the same of a table that is named by its task or by its address."""
    if is_number(text):
        return table_at(kernel, argument, text)
    return text, kernel.paging(named_mm(kernel, argument, text))


def named_mm(kernel: "Kernel", argument: str, name: str) -> "Mm":
    """Return the mm of a task, or that which is known by a name of its own."""
    tables = {mm.name: mm for mm in kernel.outside}
    tables |= {task.comm: task.mm for task in (*kernel.tasks, kernel.init_task)}
    if name not in tables:
        bad_name(argument, name, tables)
    return tables[name]


def table_at(kernel: "Kernel", argument: str, text: str) -> "tuple[str, Paging]":
    """Return a table by its physical address."""
    pa = number(argument, text)
    if pa & 0xFFF:
        bad(argument, text, "a 4 KiB aligned physical address")
    if not kernel.memory.holds(pa, 4096):
        bad(argument, text, f"an address in RAM, which ends at {kernel.ram:#x}")
    return f"cr3 {pa:#x}", kernel.cpu.paging.with_root(pa)


def require_canonical(argument: str, text: str, address: int, paging: "Paging") -> int:
    """Return the address, if there is a walk for it."""
    if not paging.is_canonical(address):
        bad(argument, text, f"a canonical address of {12 + 9 * paging.levels} bits")
    return address


def address_range(argument: str, text: str, paging: "Paging") -> tuple[int, int]:
    """Read A-B: the first address and the last, as `pagewalk dump` prints them."""
    first, dash, last = text.partition("-")
    if not (dash and is_number(first) and is_number(last)):
        bad(argument, repr(text), "A-B, such as 0xffff888000000000-0xffff8880ffffffff")
    ends = [number(argument, end) for end in (first, last)]
    if ends[0] > ends[1]:
        bad(argument, text, "A-B with A no higher than B, which is the last address")
    for end in ends:
        require_canonical(argument, f"{text} ({end:#x})", end, paging)
    return ends[0], ends[1]
