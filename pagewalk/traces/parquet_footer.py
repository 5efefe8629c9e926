"""Where a Parquet file's footers are, and moving what they point to.

Knows the frame around a footer, and of its Thrift as much as it takes to find the offsets: the
rest is copied as it is. Refuses to know what is in the columns. Source: the Apache Parquet
format's README.md, "File format", and src/main/thrift/parquet.thrift; the Apache Thrift compact
protocol's specification, doc/specs/thrift-compact-protocol.md.
"""

from typing import Final

MAGIC: Final = b"PAR1"
_TAIL: Final = 8  # the footer's size, and the magic

# FileMetaData.row_groups.columns.meta_data and so on, by the fields' numbers; those that pyarrow
# writes as 0 for "none" stay 0.
_OFFSETS: Final = frozenset(
    (
        (4, 5),  # RowGroup.file_offset
        (4, 1, 2),  # ColumnChunk.file_offset
        (4, 1, 4),  # ColumnChunk.offset_index_offset
        (4, 1, 6),  # ColumnChunk.column_index_offset
        (4, 1, 3, 9),  # ColumnMetaData.data_page_offset
        (4, 1, 3, 10),  # ColumnMetaData.index_page_offset
        (4, 1, 3, 11),  # ColumnMetaData.dictionary_page_offset
        (4, 1, 3, 14),  # ColumnMetaData.bloom_filter_offset
    )
)
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


def find_magic(data: memoryview, at: int) -> int:
    """Find the next magic from `at` on, without copying the file; -1 for none."""
    step = 1 << 20
    while at < len(data):
        found = bytes(data[at : at + step + 3]).find(MAGIC)
        if found >= 0:
            return at + found
        at += step
    return -1


def moved(file: bytes, by: int) -> tuple[bytes, bytes]:
    """Return a Parquet file as it is `by` bytes into another file: all to its footer, and the rest.

    The offsets in its footer are those in the other file.
    """
    length = int.from_bytes(file[-_TAIL:-4], "little")
    start = len(file) - _TAIL - length
    footer = _Copy(file[start:-_TAIL], by).struct()
    return file[:start], footer + len(footer).to_bytes(4, "little") + MAGIC


class _Copy:
    """Copies a struct in Thrift's compact protocol, and moves the offsets in it."""

    def __init__(self, data: bytes, by: int) -> None:
        self._data = data
        self._at = 0
        self._by = by
        self._out = bytearray()

    def struct(self) -> bytes:
        self._struct(())
        return bytes(self._out)

    def _struct(self, path: tuple[int, ...]) -> None:
        field = 0
        while (header := self._bytes(1)[0]) & 15:
            if header >> 4:
                field += header >> 4
            else:
                number = self._varint()
                field = (number >> 1) ^ -(number & 1)
            if header & 15 not in (_TRUE, _FALSE):  # which have their value in the header
                self._value(header & 15, (*path, field))

    def _value(self, kind: int, path: tuple[int, ...]) -> None:
        if kind == _I64 and path in _OFFSETS:
            self._offset()
        elif kind in (_I16, _I32, _I64):
            self._varint()
        elif kind in (_TRUE, _FALSE, _BYTE):
            self._bytes(1)
        elif kind == _DOUBLE:
            self._bytes(8)
        elif kind == _BINARY:
            self._bytes(self._varint())
        elif kind in (_LIST, _SET):
            header = self._bytes(1)[0]
            nr = header >> 4 if header >> 4 < 15 else self._varint()
            for _ in range(nr):
                self._value(header & 15, path)
        elif kind == _MAP:
            nr = self._varint()
            kinds = self._bytes(1)[0] if nr else 0
            for _ in range(nr):
                self._value(kinds >> 4, path)
                self._value(kinds & 15, path)
        elif kind == _STRUCT:
            self._struct(path)
        else:
            raise ValueError(f"{kind} is no type of Thrift's compact protocol")

    def _bytes(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        self._at += size
        self._out += found
        return found

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._bytes(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _offset(self) -> None:
        """Copy an offset, which is zigzag-encoded and never negative, moved unless it is 0."""
        before = len(self._out)
        value = self._varint() >> 1
        if value:
            value += self._by
            del self._out[before:]
            value <<= 1
            while value > 127:
                self._out.append(value & 127 | 128)
                value >>= 7
            self._out.append(value)
