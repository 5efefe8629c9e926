"""Rows of `bench.py --peers`: what others do that do the same, beside this, in one run.

A peer is data: what to install, and a function that measures it. What is not there already is
installed into a directory of its own, which is gone with the process; nothing else is changed, and
it is said. Before a peer is timed it must give the same answers.
"""

import importlib
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import cycle
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import NamedTuple

from in_bulk import addresses, scattered
from measuring import Row, seconds
from recording import times_as_fast_as_python_hooks

from emu import PhysAddr, walk_many

NR_PAGES = 1 << 14
_kept: list[TemporaryDirectory[str]] = []  # until the process ends


class Peer(NamedTuple):
    """Another project: `requirement` is what pip is asked for, empty if it comes with this one."""

    module: str
    requirement: str
    what: str
    at_least: float  # how many times as fast this is meant to be
    measure: Callable[[], float]


@cache
def provide(module: str, requirement: str) -> None:
    """Make `module` importable in this process, and say how."""
    if find_spec(module):
        print(f"{module}: as it is installed here", file=sys.stderr)
        return
    directory = TemporaryDirectory(prefix=f"peer-{module}-")
    _kept.append(directory)
    print(f"{module}: pip install {requirement}, into {directory.name} for now", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "install", "-qq", "--target", directory.name]
    subprocess.run([*command, requirement], check=True, stdout=sys.stderr)
    sys.path.append(directory.name)  # behind our own: numpy stays what it is
    importlib.invalidate_caches()


def imported(name: str) -> ModuleType:
    return importlib.import_module(name)


def volatility3_translate() -> float:
    """Translate random addresses in 16 k pages: one by one there, at once here; how much longer."""
    ours, theirs = volatility3_seconds()
    return theirs / ours


def volatility3_seconds() -> tuple[float, float]:
    """Return how long an address takes, here and there; taken in turns.

    Its layer reads the same RAM, as bytes, and wants the pages to be in it, too; it keeps the last
    1024 translations.
    """
    memory, paging = scattered(NR_PAGES, ram=128 << 20)
    layers = "volatility3.framework.layers"
    context = imported("volatility3.framework.contexts").Context()
    ram = memory.read(PhysAddr(0), memory.size)
    context.add_layer(imported(f"{layers}.physical").BufferDataLayer(context, "ram", "ram", ram))
    context.config["table.memory_layer"] = "ram"
    context.config["table.page_map_offset"] = paging.root
    layer = imported(f"{layers}.intel").Intel32e(context, "table", "table")
    context.add_layer(layer)

    vas = addresses(100_000, NR_PAGES)
    translate = layer.translate
    some = vas[:5000]
    found = walk_many(memory, paging, some)
    assert [translate(va)[0] for va in some.tolist()] == found.pa.tolist()

    one_by_one = cycle(some.tolist())

    def one() -> object:
        return translate(next(one_by_one))

    times = [
        (seconds(lambda: walk_many(memory, paging, vas), 1), seconds(one, 100)) for _ in range(200)
    ]
    return min(ours for ours, _ in times) / len(vas), min(theirs for _, theirs in times)


PEERS = (
    Peer(
        module="volatility3",
        requirement="volatility3>=2.7,<3",
        what="walk_many, times as fast as volatility3's translate",
        at_least=80,
        measure=volatility3_translate,
    ),
    Peer(
        module="unicorn",
        requirement="",
        what="full trace, times as fast as a Unicorn script with Python hooks",
        at_least=12,
        measure=times_as_fast_as_python_hooks,
    ),
)


def provide_all() -> None:
    """Make every peer importable."""
    for peer in PEERS:
        if peer.requirement:
            provide(peer.module, peer.requirement)


def _row(peer: Peer) -> Row:
    def measure() -> float:
        if peer.requirement:
            provide(peer.module, peer.requirement)
        return peer.measure()

    return Row(peer.what, peer.at_least, "x", measure, at_least=True)


ROWS = tuple(map(_row, PEERS))
