"""Reading a `.parquet` trace: events from rows.

Knows the columns of `parquet`, and where the row groups of a file are that was cut off. Refuses
to know what is done with the events.
"""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from emu import PhysAddr, VirtAddr
from emu.events import (
    Accessed,
    Cr3Switch,
    Edited,
    Event,
    Executed,
    Invalidated,
    Walked,
    WalkedStep,
)
from emu.registers import GENERAL
from pagewalk.traces import parsing
from pagewalk.traces.parquet import ENDING, HEADER
from pagewalk.traces.parquet_footer import MAGIC, find_magic
from pagewalk.traces.parquet_groups import WHOLE
from pagewalk.traces.stream import Damaged, Object, Part

_BATCH: Final = 1 << 14  # rows that are in memory as Python's objects
Row = dict[str, Any]


def read_parts(path: str) -> Iterator[Part]:
    """Yield header, events and ending, as far as the file goes.

    Raises Damaged where something else is in it.
    """
    if not os.path.getsize(path):
        return
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise Damaged("it is no Parquet file")
    try:
        whole = pq.ParquetFile(path, page_checksum_verification=True)
        metadata = whole.metadata.metadata or {}
        footers = [whole.metadata] if WHOLE in metadata else None
    except pa.ArrowInvalid:
        footers = None
    if footers is None:
        footers = _whole_footers(path)
        if not footers:
            return
        metadata = footers[0].metadata or {}
    try:
        yield json.loads(metadata[HEADER])
    except (KeyError, ValueError):
        raise Damaged("it is no pagewalk trace") from None
    names: dict[int, str] = {}
    try:
        for footer in footers:
            file = pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)
            for group in range(footer.num_row_groups):
                for batch in file.iter_batches(_BATCH, row_groups=[group]):
                    yield from _events(batch.to_pydict(), names)
    except (pa.ArrowException, OSError) as error:
        raise Damaged(" ".join(str(error).split())) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"a row is damaged: {error!r}") from None
    if ENDING in metadata:
        yield {"end": json.loads(metadata[ENDING])}


def _whole_footers(path: str) -> list[Any]:
    """Return the footers of the small files that are whole, of one that has none for all."""
    footers = []
    with pa.memory_map(path) as mapped:
        data = mapped.read_buffer()
        start = at = 0
        while (at := find_magic(memoryview(data), at + 1)) >= 0:
            end = at + len(MAGIC)
            try:
                footer = pq.read_metadata(pa.BufferReader(data.slice(start, end - start)))
            except (pa.ArrowException, OSError):
                continue  # it only looks like an end
            footers.append(footer)
            start = at = end
    return footers


def _events(columns: dict[str, list[Any]], names: dict[int, str]) -> Iterator[Part]:
    """Yield the events of some rows; a name with the first event at its address."""
    kinds, cpus, rips, symbols = (columns[n] for n in ("event", "cpu", "rip", "symbol"))
    values = [columns[name] for name in _VALUES]
    registers = zip(*(columns[name] for name in GENERAL if name in columns), strict=True)
    general = list(registers) or [()] * len(kinds)
    for row, kind in enumerate(kinds):
        rip = rips[row]
        found: Object | None = None
        if kind == "instruction":
            event: Event = Executed(VirtAddr(rip), columns["bytes"][row], general[row] or None)
        elif kind in ("read", "write"):
            va, pa_, size, value = (column[row] for column in values)
            event = Accessed(None if va is None else VirtAddr(va), PhysAddr(pa_), size, value, kind)
        elif kind in ("fault", "exception"):
            found = json.loads(columns["object"][row])
            event = parsing.read_event(found)
        else:
            event = _OTHERS[kind]({name: column[row] for name, column in columns.items()})
            found = {"task": columns["task"][row]} if kind == "cr3" else None
        if found is None and symbols[row] is not None and rip not in names:
            names[rip] = symbols[row]
            found = {"rip": f"{rip:#x}", "symbol": symbols[row]}
        yield cpus[row], event, found


def _walked(row: Row) -> Walked:
    steps = tuple(
        WalkedStep(one["level"], PhysAddr(one["entry_pa"]), one["entry"], one["after"])
        for one in row["entries"]
    )
    return Walked(VirtAddr(row["va"]), row["what"], row["user"], steps)


_VALUES: Final = "va", "pa", "size", "value"
_OTHERS: Final[dict[str, Callable[[Row], Event]]] = {
    "walk": _walked,
    "invalidate": lambda row: Invalidated(row["what"], row["value"]),
    "edit": lambda row: Edited(PhysAddr(row["pa"]), row["nr"], row["value"], row["what"]),
    "cr3": lambda row: Cr3Switch(row["old"], row["value"]),
}
