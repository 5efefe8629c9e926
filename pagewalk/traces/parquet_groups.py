"""The row groups of a `.parquet` file, and its footers.

Knows how a Parquet file is written that can be read wherever it ends: as whole small files, one for
each row group, and behind them a footer for all. To a reader that does not know that, it is one
file. Refuses to know the columns. (pyarrow keeps a file's footer to itself until the file is
closed, and begins a file only at offset 0: apache/arrow issue 42729.)
"""

import io
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pagewalk.traces.behind import Behind
from pagewalk.traces.output import Output
from pagewalk.traces.parquet_footer import MAGIC, moved

WHOLE: Final = b"pagewalk.whole"
"""A key of a footer's metadata that only a footer for all row groups has."""


class _Group(NamedTuple):
    """A row group in the file: its footer, the byte behind it, and what is in it."""

    footer: Any
    end: int
    events: int
    instructions: int


class Groups:
    """Writes tables as row groups; one is encoded while the next is being filled."""

    def __init__(self, output: Output, schema: Any, metadata: dict[bytes, bytes]) -> None:
        self._output = output
        self._schema = schema
        self._metadata = metadata
        self._behind: Behind[bytes] = Behind()
        self._counts = 0, 0
        self._groups: list[_Group] = []

    @property
    def events(self) -> int:
        """How many are in the file."""
        return sum(group.events for group in self._groups)

    @property
    def instructions(self) -> int:
        """How many are in the file."""
        return sum(group.instructions for group in self._groups)

    def put(self, tables: list[Any], events: int, instructions: int) -> None:
        """Begin a row group of some tables, and write the one before it."""
        self._write_group()
        table = pa.concat_tables(tables or [self._schema.empty_table()])
        wanted = self._schema.with_metadata(self._metadata)
        self._behind.begin(lambda: _file(table.unify_dictionaries(), wanted))
        self._counts = events, instructions

    def close(self, more: dict[bytes, bytes]) -> None:
        """Write the last row group, and a footer for all, which has more metadata."""
        self._write_group()
        self._behind.stop()
        self._write_footer(more)

    def rescue(self) -> None:
        """Take back the row group that was begun, and write a footer for the others.

        Where there is no room for it, the last of them makes room; where that does not help, there
        is no footer for all.
        """
        self._behind.stop()
        for _ in range(2):
            self._output.cut(self._groups[-1].end if self._groups else 0)
            try:
                self._write_footer({})
            except OSError:
                self._groups = self._groups[:-1] or self._groups
            else:
                return
        self._output.cut(self._groups[-1].end if self._groups else 0)

    def _write_group(self) -> None:
        file = self._behind.result()
        if file is not None:
            body, footer = moved(file, self._output.size)
            self._output.write(body + footer)
            found = pq.read_metadata(pa.BufferReader(MAGIC + footer))
            self._groups.append(_Group(found, self._output.size, *self._counts))

    def _write_footer(self, more: dict[bytes, bytes]) -> None:
        metadata = {**self._metadata, WHOLE: b"1", **more}
        file = _file(self._schema.empty_table(), self._schema.with_metadata(metadata))
        footer = pq.read_metadata(pa.BufferReader(file))
        for group in self._groups:
            footer.append_row_groups(group.footer)
        sink = io.BytesIO()
        footer.write_metadata_file(sink)
        self._output.write(sink.getvalue())


def _file(table: Any, wanted: Any) -> bytes:
    """Return a table as a Parquet file."""
    words = [field.name for field in wanted if pa.types.is_dictionary(field.type)]
    numbers = [field.name for field in wanted if pa.types.is_uint64(field.type)]
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        wanted,
        compression="zstd",
        compression_level=1,
        use_dictionary=words,
        column_encoding=dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
        write_page_checksum=True,
    ) as writer:
        if table.num_rows:
            writer.write_table(table.replace_schema_metadata(wanted.metadata), len(table))
    return sink.getvalue()
