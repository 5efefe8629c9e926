"""A playback of a routine of one's own, from its source: a `.S` file, run now.

Knows that what is left out of a trace can still be asked of the machine that has just run: what its
tables hold which nobody wrote, where there is RAM, and what addresses are called. Refuses to know
how the run is made (`tracing`), and what is asked of it (`moments`).
"""

import os
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from emu.paging import FRAME_SIZE
from pagewalk.playback.entry_values import tables_below
from pagewalk.playback.moments import Playback
from pagewalk.playback.of_trace import read_back
from pagewalk.recording import open_bare
from pagewalk.sources import run_options, shown
from pagewalk.traces.reading import read_trace
from pagewalk.tracing import Tracing, prepare

if TYPE_CHECKING:
    from emu import PhysMemory
    from pagewalk.playback.entry_values import EntryValues


def run_back(path: str, *, keep: int | None) -> Playback:
    """Run a source as `pagewalk trace` does, by its own header lines, and return its playback.

    It has `keep` events at most, as with `read_back`, and registers.
    """
    bare, max_steps = prepare(run_options(path))
    try:
        tracing = Tracing(bare, max_steps, registers=True)
        with TemporaryDirectory() as directory:
            trace = os.path.join(directory, "run.jsonl.zst")
            tracing.write(open_bare(trace, bare, shown(path), registers=True))
            if tracing.interrupted:
                raise KeyboardInterrupt
            playback = read_back(read_trace(trace), keep=keep)
        memory = bare.cpu.memory
        for root in {paging.root for known in playback.pagings.values() for _, paging in known}:
            _tell(playback.values, playback.nr_events, memory, root, playback.levels)
        symbols = {name: one.address for name, one in bare.image.symbols.items()}
        return replace(playback, symbolise=bare.symbol, symbols=symbols, ram=memory.pieces)
    finally:
        bare.close()


def _tell(values: "EntryValues", at: int, memory: "PhysMemory", root: int, levels: int) -> None:
    """Tell what tables hold, from a root on: where nobody wrote, it was there from the first."""
    waiting, met = [(root, levels)], set()
    while waiting:
        frame, level = waiting.pop()
        if frame in met or not memory.holds(frame, FRAME_SIZE):
            continue
        met.add(frame)
        words = np.frombuffer(memory.peek(frame, FRAME_SIZE), np.uint64)
        values.saw(at, frame, words)
        if level > 1:
            waiting += [(table, level - 1) for table in tables_below(words)]
