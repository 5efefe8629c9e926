"""Reading a `.parquet` trace: events from rows.

Knows the columns of `parquet`, and where the row groups of a file are that was cut off. Refuses
to know what is done with the events.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from emu import VirtAddr
from emu.events import Accessed, Cr3Switch, Event, Executed, Walked
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
    with open(path, "rb") as file:
        magic = file.read(len(MAGIC))
    if magic not in (b"", MAGIC):
        raise Damaged("it is no Parquet file")
    try:
        yield from _parts(path) if magic else ()
    except Damaged:
        raise
    except (pa.ArrowException, OSError) as error:
        raise Damaged(str(error)) from None
    except Exception as error:  # noqa: BLE001 (there is nothing that pyarrow does not raise then)
        raise Damaged(f"a row is damaged: {error!r}") from None


def _parts(path: str) -> Iterator[Part]:
    footers, tail = _footers(path)
    if not footers:
        return
    metadata = footers[0].metadata or {}
    yield _json(metadata, HEADER, "it is no pagewalk trace")
    names: dict[int, str] = {}
    for footer in footers:
        file = pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)
        for group in range(footer.num_row_groups):
            for batch in file.iter_batches(_BATCH, row_groups=[group]):
                yield from _events(batch, names)
    if tail.endswith(MAGIC):
        raise Damaged("the footer for all row groups cannot be read")
    if ENDING in metadata:
        yield {"end": _json(metadata, ENDING, "its ending cannot be read")}


def _json(metadata: dict[bytes, bytes], key: bytes, otherwise: str) -> Object:
    try:
        return json.loads(metadata[key])  # type: ignore[no-any-return]
    except (KeyError, ValueError):
        raise Damaged(otherwise) from None


def _footers(path: str) -> tuple[list[Any], bytes]:
    """Return the footer for all row groups; if there is none, those of the small files that are
    whole, and the last bytes behind them."""
    try:
        footer = pq.read_metadata(path)
        if WHOLE in (footer.metadata or {}):
            return [footer], b""
    except (pa.ArrowException, OSError):
        pass  # it was cut off, or that footer is damaged
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
            if _is_behind(footer, start):
                footers.append(footer)
                start = at = end
        return footers, bytes(memoryview(data)[start:][-len(MAGIC) :])


def _is_behind(footer: Any, start: int) -> bool:
    """Tell whether all columns lie behind `start`; of the footer for all, only the last do."""
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    return all(column.data_page_offset > start for column in columns)


def _events(batch: Any, names: dict[int, str]) -> Iterator[Part]:
    """Yield the events of some rows; a name with the first event at its address."""
    kinds, codes = _words(batch, "event"), _words(batch, "bytes")
    symbols, tasks = _words(batch, "symbol"), _words(batch, "task")
    cpus, rips, vas, pas, sizes, values = (
        _numbers(batch, name) for name in ("cpu", "rip", "va", "pa", "size", "value")
    )
    has_va = batch.column("va").is_valid().to_pylist()
    general = [name for name in GENERAL if name in batch.schema.names]
    registers = list(zip(*(_numbers(batch, name) for name in general), strict=True))
    others = [row for row, kind in enumerate(kinds) if kind not in _FREQUENT]
    other_rows = dict(zip(others, batch.take(others).to_pylist(), strict=True)) if others else {}
    for row, kind in enumerate(kinds):
        rip = rips[row]
        found: Object | None = None
        event: Event
        if kind == "instruction":
            event = Executed(rip, codes[row], registers[row] if registers else None)
            if rip not in names and symbols[row] is not None:
                names[rip] = symbols[row]
                found = {"rip": f"{rip:#x}", "symbol": symbols[row]}
        elif kind in _FREQUENT:
            va = vas[row] if has_va[row] else None
            event = Accessed(va, pas[row], sizes[row], values[row], kind)
        elif kind in ("fault", "exception"):
            found = json.loads(other_rows[row]["object"])
            event = parsing.read_event(found)
        else:
            event = _OTHERS[kind](other_rows[row])
            found = {"task": tasks[row]} if kind == "cr3" else None
        yield cpus[row], event, found


def _numbers(batch: Any, name: str) -> list[Any]:
    """Return a column; 0 where there is nothing."""
    return batch.column(name).fill_null(0).to_numpy().tolist()  # type: ignore[no-any-return]


def _words(batch: Any, name: str) -> list[Any]:
    """Return a column of words; None where there is none."""
    column = batch.column(name)
    words = [*column.dictionary.to_pylist(), None]
    return [words[i] for i in column.indices.fill_null(-1).to_numpy().tolist()]


def _walked(row: Row) -> Walked:
    steps = tuple(
        parsing.walked_step(one["level"], one["entry_pa"], one["entry"], one["after"])
        for one in row["entries"]
    )
    return Walked(VirtAddr(row["va"]), row["what"], row["user"], steps)


_FREQUENT: Final = frozenset(("instruction", "read", "write"))
_OTHERS: Final[dict[str, Callable[[Row], Event]]] = {
    "walk": _walked,
    "invalidate": lambda row: parsing.invalidated(row["what"], row["value"]),
    "edit": lambda row: parsing.edited(row["pa"], row["edited"], row["what"]),
    "cr3": lambda row: Cr3Switch(row["old"], row["value"]),
}
