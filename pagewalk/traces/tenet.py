"""`.tenet`: a text trace for Tenet, a plugin of IDA.

Knows Tenet's lines: the registers that have changed, RIP, and the memory that was read and
written, each line being what one instruction left. Refuses to know anything else of a run: there is
no place for it. Source: tracers/README.md of github.com/gaasedelen/tenet. A trace there is one
thread's: of several CPUs the first is written.
"""

from typing import Any, Final

import numpy as np

from emu.chunks import Chunk
from emu.events import Delivered
from emu.registers import GENERAL
from pagewalk.traces import rows
from pagewalk.traces.header import Header, Names
from pagewalk.traces.output import Output

_PIECE: Final = 1 << 14
_PAGE: Final = 0xFFF
_FRAME_SIZE: Final = 6 * 8  # SS, RSP, RFLAGS, CS, RIP and an error code


class Writer:
    """Writes a line when the next instruction tells what the one before it left."""

    def __init__(self, output: Output, header: Header, names: Names) -> None:
        self.events = self.instructions = 0
        self._output = output
        self._whole = 0
        self._registers: Any = None
        self._memory: list[str] = []  # what the last instruction touched
        self._behind = 0  # the address behind it

    def write(self, chunk: Chunk) -> None:
        """Write the lines of the first CPU."""
        if chunk.cpu == 0:
            for piece in rows.pieces(chunk, _PIECE):
                self._write(piece)

    def close(self, ending: dict[str, Any]) -> None:
        """Write what the last instruction touched."""
        if self._memory:
            rip = int(ending.get("stop", {}).get("rip", f"{self._behind:#x}"), 16)
            self._put([",".join([f"rip={rip:#x}", *self._memory])])

    def rescue(self) -> None:
        """Take back lines that are not whole."""
        self._output.cut(self._whole)

    def _write(self, chunk: Chunk) -> None:
        values = chunk.registers
        if values is None:
            assert not len(chunk.instructions)
            values = np.empty((0, len(GENERAL)), np.uint64)
        memory: dict[int, list[str]] = {0: self._memory}
        for line, text in _touched(chunk):
            memory.setdefault(line, []).append(text)
        nr = len(chunk.instructions)
        registers = _changed(values, self._registers)
        shapes = chunk.shapes
        lines = []
        for line, number in enumerate(chunk.instructions.tolist()):
            parts = registers.get(line, [])
            lines.append(",".join([*parts, f"rip={shapes[number].rip:#x}", *memory.pop(line, [])]))
        if nr:
            self._registers = values[-1].copy()
            last = shapes[chunk.instructions[-1]]
            self._behind = last.rip + len(last.code)
        self._memory = memory.pop(nr, [])
        self._put(lines)
        self.events += len(chunk)
        self.instructions += nr

    def _put(self, lines: list[str]) -> None:
        if lines:
            self._output.write(("\n".join(lines) + "\n").encode())
            self._whole = self._output.size


def _changed(registers: Any, before: Any) -> dict[int, list[str]]:
    """Return the registers of each line that are others than on the line before; first, all."""
    changes = np.ones(registers.shape, bool)
    changes[1:] = registers[1:] != registers[:-1]
    if before is not None and len(registers):
        changes[0] = registers[0] != before
    lines, columns = np.nonzero(changes)
    found: dict[int, list[str]] = {}
    values = registers[lines, columns]
    for line, column, value in zip(lines.tolist(), columns.tolist(), values.tolist(), strict=True):
        found.setdefault(line, []).append(f"{GENERAL[column]}={value:#x}")
    return found


def _touched(chunk: Chunk) -> list[tuple[int, str]]:
    """Return each access with the line that tells of it, that of the next instruction."""
    columns = (chunk.accesses[name].tolist() for name in ("at", "is_write", "va", "size", "value"))
    found = [
        (at, f"{'mw' if is_write else 'mr'}={va:#x}:{value.to_bytes(size, 'little').hex()}")
        for at, is_write, va, size, value in zip(*columns, strict=True)
    ]
    hidden = np.flatnonzero(~chunk.accesses["has_va"]).tolist()
    for i in reversed(hidden):
        del found[i]
    for at, _, event in chunk.others:
        if isinstance(event, Delivered):
            found += ((at, text) for text in _frame(event))
    return found


def _frame(event: Delivered) -> list[str]:
    """Return what the delivery of an exception has put on the stack, of all that it stored."""
    rsp, stores = event.delivery.rsp, event.delivery.stores
    pages = {pa & ~_PAGE for pa in stores if pa & _PAGE == rsp & _PAGE}
    found = []
    for pa, value in stores.items():
        offset = (pa - rsp) & _PAGE
        crosses = (rsp & _PAGE) + offset > _PAGE
        if offset < _FRAME_SIZE and (pa & ~_PAGE in pages) != crosses:
            found.append(f"mw={rsp + offset:#x}:{value.to_bytes(8, 'little').hex()}")
    return found
