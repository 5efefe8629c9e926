"""Draw how fast this is, peers beside it: `python tools/plot.py FILE.svg`.

Everything is measured when it is drawn, in one run. Needs matplotlib (the extra `plot`); peers are
installed for the time, as by `bench.py --peers`.
"""

import platform
import sys
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
import peers
import recording
from in_bulk import BASE, per_address, scattered
from matplotlib.axes import Axes
from measuring import best

from emu import VirtAddr
from emu.walk import walk

OURS, THEIRS = "#2f6db5", "#9aa5b1"


def nanoseconds() -> dict[str, float]:
    """Return how long an address takes to be translated, in nanoseconds, by who does it."""
    peers.provide_all()
    memory, paging = scattered(1 << 14)
    _, theirs = peers.volatility3_seconds()
    return {
        "pagewalk, walk_many": per_address(),
        "pagewalk, walk: every entry read": 1e9
        * best(lambda: walk(memory.read_u64, paging, VirtAddr(BASE))),
        "volatility3, translate": theirs * 1e9,
    }


def draw(axes: Axes, title: str, figures: dict[str, float]) -> None:
    """Draw one measure as bars, longest first on a logarithmic axis, each with its figure."""
    names = list(figures)[::-1]
    values = [figures[name] for name in names]
    colours = [OURS if name.startswith("pagewalk") else THEIRS for name in names]
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, [f"{v:.3g}" if v < 1000 else f"{v:,.0f}" for v in values], padding=4)
    axes.set_xscale("log")
    axes.set_xlim(right=max(values) * 4)
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python tools/plot.py FILE.svg", file=sys.stderr)
        return 2
    mpl.rcParams["svg.hashsalt"] = "pagewalk"  # the same figures are the same file
    rates, times = recording.rates(), nanoseconds()
    figure, (upper, lower) = plt.subplots(
        2, figsize=(8, 4.5), height_ratios=(len(rates), len(times)), layout="constrained"
    )
    draw(upper, "A hot loop: millions of instructions a second (more is better)", rates)
    draw(lower, "Random addresses in 16 k pages: ns an address (less is better)", times)
    where = f"{platform.machine()}, Python {platform.python_version()}, {date.today()}"
    figure.supxlabel(where, fontsize="small", color="#555555")
    figure.savefig(sys.argv[1], metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
