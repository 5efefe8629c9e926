"""`.parquet`: a row for each event, with typed columns.

Knows the columns, and fills them from a chunk's arrays. Refuses to know how a file is made of row
groups (`parquet_groups`) and how it is read (`parquet_reading`).
"""

import json
from typing import Any, Final

import numpy as np
import pyarrow as pa

from emu.chunks import Chunk
from emu.events import Cr3Switch, Delivered, Edited, Event, Executed, Faulted, Invalidated, Walked
from emu.registers import GENERAL
from pagewalk.objects import Objects
from pagewalk.render_trace import mnemonic
from pagewalk.traces import rows
from pagewalk.traces.header import Header, Names
from pagewalk.traces.output import Output
from pagewalk.traces.parquet_groups import Groups

ROWS: Final = 1 << 18
"""How many rows a row group has, or somewhat more; so many may be lost if the process is killed."""

HEADER: Final = b"pagewalk"  # keys of a footer's metadata, as JSON
ENDING: Final = b"pagewalk.end"

_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_STEP: Final = pa.struct(
    [
        ("level", pa.uint8()),
        ("entry_pa", pa.uint64()),
        ("entry", pa.uint64()),
        ("after", pa.uint64()),
    ]
)
_COLUMNS: Final = (
    ("number", pa.uint64()),
    ("cpu", pa.uint16()),
    ("cr3", pa.uint64()),
    ("task", _WORD),
    ("event", _WORD),
    ("rip", pa.uint64()),
    ("symbol", _WORD),
    ("bytes", pa.dictionary(pa.int32(), pa.binary())),
    ("text", _WORD),
    ("va", pa.uint64()),
    ("pa", pa.uint64()),
    ("size", pa.uint8()),
    ("value", pa.uint64()),
    ("old", pa.uint64()),
    ("what", _WORD),
    ("user", pa.bool_()),
    ("entries", pa.list_(_STEP)),
    ("edited", pa.list_(pa.uint64())),
    ("object", pa.string()),
)
_SPARSE: Final = frozenset(("entries", "edited", "object"))
"""What has no array while rows are filled."""
_FULL: Final = frozenset(("number", "cpu", "cr3", "task", "event"))
"""What every row has, if only no task's name."""
EVENTS: Final = (
    *("instruction", "read", "write", "walk", "invalidate", "edit", "cr3", "fault", "exception"),
)
_KIND: Final = {name: number for number, name in enumerate(EVENTS)}
_DTYPE: Final[dict[str, Any]] = {
    name: np.int32 if pa.types.is_dictionary(kind) else kind.to_pandas_dtype()
    for name, kind in _COLUMNS
    if name not in _SPARSE
}


def schema(registers: bool) -> Any:
    """Return the columns of a file, with or without registers."""
    more = [(name, pa.uint64()) for name in GENERAL] if registers else []
    return pa.schema([*_COLUMNS, *more])


class Writer:
    """Writes row groups, and in the end a footer for all of them."""

    def __init__(self, output: Output, header: Header, names: Names) -> None:
        self._names = names
        self._schema = schema(header.registers)
        metadata = {HEADER: json.dumps(header.as_json()).encode()}
        self._groups = Groups(output, self._schema, metadata)
        self._objects = Objects(names.symbolise, header.paging.levels, names.task)
        words = {name: _Words() for name, kind in _COLUMNS if pa.types.is_dictionary(kind)}
        words["event"].numbers.update(_KIND)
        self._words = words
        self._shapes = rows.Shapes(self._known)
        self._cr3 = dict(enumerate(header.cr3))
        self._last: dict[int, tuple[int, int]] = {}  # of each CPU: the last rip and its symbol
        self._waiting: list[Any] = []
        self._waits = [0, 0]  # events, instructions
        self._put_group()

    def write(self, chunk: Chunk) -> None:
        """Write the events' rows; the last of them wait until they are enough for a row group."""
        for piece in rows.pieces(chunk, ROWS // 2):
            self._waiting.append(self._table(piece))
            self._waits[0] += len(piece)
            self._waits[1] += len(piece.instructions)
            if self._waits[0] >= ROWS:
                self._put_group()

    def close(self, ending: dict[str, object]) -> None:
        """Write the last row group, and the footer, which has the ending."""
        if self._waiting:
            self._put_group()
        self._groups.close({ENDING: json.dumps(ending).encode()})

    def rescue(self) -> None:
        """Take back the row group that was begun, and write a footer for the others."""
        self._groups.rescue()

    @property
    def events(self) -> int:
        """How many are in the file."""
        return self._groups.events

    @property
    def instructions(self) -> int:
        """How many are in the file."""
        return self._groups.instructions

    def _put_group(self) -> None:
        self._groups.put(self._waiting, *self._waits)
        self._waiting, self._waits = [], [0, 0]

    def _known(self, shape: Executed) -> tuple[int, int, int, int]:
        """Return an instruction's RIP, and the numbers of its symbol, bytes and text."""
        rip, code, _ = shape
        words = {"symbol": self._names.symbolise(rip), "bytes": code, "text": mnemonic(rip, code)}
        symbol, number, text = (self._words[name].number(word) for name, word in words.items())
        return rip, symbol, number, text

    def _table(self, chunk: Chunk) -> Any:
        """Return a chunk's rows."""
        instructions, accesses, others = rows.order(chunk)
        table = _Table(len(chunk))
        known = [one or (0, 0, 0, 0) for one in self._shapes.of(chunk)]
        rips = np.array([one[0] for one in known], np.uint64)[chunk.instructions]
        words = np.array([one[1:] for one in known], np.int32).reshape(-1, 3)[chunk.instructions]
        begun = np.zeros(len(chunk), np.uint64)
        begun[instructions] = 1

        table.put("number", np.cumsum(begun) + np.uint64(chunk.first))
        table.put("cpu", chunk.cpu)
        table.put("event", _KIND["instruction"], instructions)
        table.put("rip", rips, instructions)
        for i, name in enumerate(("symbol", "bytes", "text")):
            table.put(name, words[:, i], instructions)
        if chunk.registers is not None:
            for i, name in enumerate(GENERAL):
                table.put(name, chunk.registers[:, i], instructions)
        self._put_accesses(table, chunk, accesses, rips, words[:, 0])
        self._put_others(table, chunk, others.tolist())
        return table.arrow(self._schema, self._words)

    def _put_accesses(self, table: "_Table", chunk: Chunk, at: Any, rips: Any, names: Any) -> None:
        columns = chunk.accesses
        table.put("event", np.where(columns["is_write"], _KIND["write"], _KIND["read"]), at)
        shown = columns["has_va"]
        table.put("va", columns["va"][shown], at[shown])
        for name in ("pa", "size", "value"):
            table.put(name, columns[name], at)
        # Of those before the first instruction of the chunk, it is the last of the one before.
        last = self._last.get(chunk.cpu)
        instruction = columns["at"].astype(np.int64)
        known = instruction > (0 if last is None else -1)
        rips = np.insert(rips, 0, last[0] if last else 0)
        names = np.insert(names, 0, last[1] if last else -1)
        table.put("rip", rips[instruction[known]], at[known])
        table.put("symbol", names[instruction[known]], at[known])
        if len(chunk.instructions) or last:
            self._last[chunk.cpu] = int(rips[-1]), int(names[-1])

    def _put_others(self, table: "_Table", chunk: Chunk, at: list[int]) -> None:
        """Fill the rows of other events, and in all rows whose table was active."""
        cr3, since = self._cr3.get(chunk.cpu, 0), 0
        for row, (_, _, event) in zip(at, chunk.others, strict=True):
            if isinstance(event, Cr3Switch):
                self._put_task(table, cr3, slice(since, row))
                cr3, since = event.new, row
            for name, value in self._fields(event).items():
                if name in _SPARSE:
                    table.put_one(name, value, row)
                elif value is not None:
                    words = self._words.get(name)
                    table.put(name, value if words is None else words.number(value), row)
        self._put_task(table, cr3, slice(since, None))
        self._cr3[chunk.cpu] = cr3

    def _put_task(self, table: "_Table", cr3: int, where: slice) -> None:
        table.put("cr3", cr3, where)
        table.put("task", self._words["task"].number(self._names.task(cr3)), where)

    def _fields(self, event: Event) -> dict[str, Any]:
        match event:
            case Walked(va, kind, user, steps):
                entries = [dict(zip(_STEP.names, step, strict=True)) for step in steps]
                return {"event": "walk", "va": va, "what": kind, "user": user, "entries": entries}
            case Invalidated(what, value):
                return {"event": "invalidate", "what": what, "value": value}
            case Edited(entry_pa, entries, by):
                return {"event": "edit", "pa": entry_pa, "edited": entries, "what": by}
            case Cr3Switch(old, new):
                return {"event": "cr3", "old": old, "value": new}
            case Faulted(stop):
                return self._fault("fault", event, stop)
            case Delivered(delivery):
                return self._fault("exception", event, delivery.exceptions[0])
        raise TypeError(f"{event!r} is not among the others")

    def _fault(self, kind: str, event: Event, stop: Any) -> dict[str, Any]:
        """A fault has its address and its RIP in columns, and all else in its object."""
        return {
            "event": kind,
            "rip": stop.rip,
            "symbol": self._names.symbolise(stop.rip),
            "va": getattr(stop, "address", None),
            "object": self._objects.of(event),
        }


class _Words:
    """The words of one column, by number; -1 is none."""

    def __init__(self) -> None:
        self.numbers: dict[str | bytes, int] = {}

    def number(self, word: str | bytes | None) -> int:
        return -1 if word is None else self.numbers.setdefault(word, len(self.numbers))


class _Table:
    """Rows that are being filled, column by column."""

    def __init__(self, nr: int) -> None:
        self._nr = nr
        self._columns: dict[str, Any] = {}
        self._missing: dict[str, Any] = {}
        self._sparse: dict[str, dict[int, Any]] = {}

    def put_one(self, name: str, value: Any, row: int) -> None:
        """Fill one row of a column that has no array."""
        self._sparse.setdefault(name, {})[row] = value

    def put(self, name: str, values: Any, at: Any = slice(None)) -> None:
        if name not in self._columns:
            self._columns[name] = np.zeros(self._nr, _DTYPE.get(name, np.uint64))
            self._missing[name] = None if name in _FULL else np.ones(self._nr, bool)
        self._columns[name][at] = values
        if self._missing[name] is not None:
            self._missing[name][at] = False

    def arrow(self, wanted: Any, words: dict[str, _Words]) -> Any:
        return pa.Table.from_arrays([self._array(field, words) for field in wanted], schema=wanted)

    def _array(self, field: Any, words: dict[str, _Words]) -> Any:
        sparse = self._sparse.get(field.name)
        if sparse is not None:
            return pa.array([sparse.get(row) for row in range(self._nr)], field.type)
        if field.name not in self._columns:
            return pa.nulls(self._nr, field.type)
        values, missing = self._columns[field.name], self._missing[field.name]
        if field.name not in words:
            return pa.array(values, field.type, mask=missing)
        missing = values < 0 if missing is None else missing | (values < 0)
        known = pa.array(list(words[field.name].numbers), field.type.value_type)
        return pa.DictionaryArray.from_arrays(pa.array(values, mask=missing), known)
