"""`.drcov`: which code was run, for Lighthouse, Cartographer, bncov and others.

Knows version 2 of DynamoRIO's coverage files, with version 2 of the module table, which all of them
read: modules as text, then 8 bytes a basic block. Basic blocks are found in the stream of
instructions. Refuses to know what the blocks did, and how often. Source: DynamoRIO's drcov, as
Lighthouse's reader/parsers/drcov.py describes it. The table begins with its size, so that the
file is written in the end.
"""

from typing import Final

import numpy as np

from emu.chunks import Chunk
from emu.events import Delivered, Executed, Faulted
from emu.instruction import decode
from pagewalk.traces import rows
from pagewalk.traces.header import Header, Names, Region
from pagewalk.traces.output import Output

_PIECE: Final = 1 << 20
_BLOCK: Final = np.dtype([("start", "<u4"), ("size", "<u2"), ("module", "<u2")])
_MOST: Final = 0xFFFF  # bytes of a block
_EXCEPTIONS: Final = (Faulted, Delivered)
_SPAN: Final = 1 << 32  # of a module that is made up for code outside all regions


class Writer:
    """Collects basic blocks, and writes them in the end."""

    def __init__(self, output: Output, header: Header, names: Names) -> None:
        self.events = self.instructions = 0
        self._output = output
        self._regions = list(header.regions)
        self._entry = header.entry or 0
        self._shapes = rows.Shapes(_known)
        self._blocks: set[tuple[int, int]] = set()  # start, end
        self._open: dict[int, tuple[np.uint64, np.uint64, bool]] = {}

    def write(self, chunk: Chunk) -> None:
        """Collect the blocks of a chunk; the last one may go on in the next."""
        for piece in rows.pieces(chunk, _PIECE):
            self._collect(piece)

    def close(self, ending: dict[str, object]) -> None:
        """Write all modules and all blocks."""
        for start, end, _ in self._open.values():
            self._blocks.add((int(start), int(end)))
        table = self._table()
        modules = [
            f"{number}, {start:#018x}, {end:#018x}, {self._entry_of(start, end):#018x}, {name}"
            for number, (name, start, end) in enumerate(self._regions)
        ]
        lines = [
            "DRCOV VERSION: 2",
            "DRCOV FLAVOR: drcov",
            f"Module Table: version 2, count {len(modules)}",
            "Columns: id, base, end, entry, path",
            *modules,
            f"BB Table: {len(table)} bbs",
        ]
        self._output.write(("\n".join(lines) + "\n").encode() + table.tobytes())

    def rescue(self) -> None:
        """Take everything back: half a table cannot be read."""
        self._output.cut(0)
        self.events = self.instructions = 0

    def _entry_of(self, start: int, end: int) -> int:
        return self._entry if start <= self._entry < end else 0

    def _collect(self, chunk: Chunk) -> None:
        """Add the blocks of a chunk; the last one is open, and goes first into the next chunk."""
        nr = len(chunk.instructions)
        known = [one or (0, 0, False) for one in self._shapes.of(chunk)]
        rips = np.array([one[0] for one in known], np.uint64)[chunk.instructions]
        ends = np.array([one[1] for one in known], np.uint64)[chunk.instructions]
        over = np.array([one[2] for one in known], bool)[chunk.instructions]
        opened = self._open.get(chunk.cpu)
        if opened is not None:
            start, end, is_over = opened
            rips, ends, over = (
                np.append(start, rips),
                np.append(end, ends),
                np.append(is_over, over),
            )
        if not len(rips):
            return
        ahead = len(rips) - nr  # the one that was open

        # A block begins behind one that ends, where the address is not the next one (a rep's
        # iterations are one instruction), and behind an exception.
        repeats = (rips[1:] == rips[:-1]) & ~over[:-1]
        begins = np.append(True, over[:-1] | ((rips[1:] != ends[:-1]) & ~repeats))
        exceptions = {at for at, _, event in chunk.others if isinstance(event, _EXCEPTIONS)}
        begins[[at + ahead for at in exceptions if at < nr]] = True

        first = np.flatnonzero(begins)
        blocks = np.stack([rips[first], ends[np.append(first[1:], len(rips)) - 1]], axis=1)
        self._blocks.update(map(tuple, np.unique(blocks[:-1], axis=0).tolist()))
        start, end = blocks[-1]
        self._open[chunk.cpu] = start, end, bool(over[-1]) or nr in exceptions
        self.events += len(chunk)
        self.instructions += nr

    def _table(self) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """Return the blocks by module; code outside all regions gets modules that are made up."""
        found = []
        for start, end in sorted(self._blocks):
            module = self._module(start)
            base = self._regions[module].start
            for at in range(start, end, _MOST):
                found.append((at - base, min(_MOST, end - at), module))
        return np.array(found, _BLOCK)

    def _module(self, address: int) -> int:
        for number, region in enumerate(self._regions):
            if region.start <= address < region.end:
                return number
        start = address & -_SPAN
        self._regions.append(Region(f"code-{start:#x}", start, start + _SPAN))
        return len(self._regions) - 1


def _known(shape: Executed) -> tuple[int, int, bool]:
    """Return where an instruction begins and ends, and whether it ends its block."""
    instruction = decode(shape.code)
    is_last = instruction is None or instruction.ends_block
    return shape.rip, shape.rip + len(shape.code), is_last
