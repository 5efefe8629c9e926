"""A document as text: what is small as JSON, what is large as columns, all of it compressed.

Knows the container, which `unpack` in data.js opens. Refuses to know what is in it.

    4 bytes: the length n of the JSON; n bytes of JSON; zeros up to a multiple of 8; the columns

Compressed (zlib), and in base64. The JSON's "columns" says of each its type, where it begins behind
the zeros, and how many numbers it has.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_TYPES: Final = {"u1": "<u1", "u4": "<u4", "u8": "<u8"}
_ALIGN: Final = 8
_LEVEL: Final = 6  # of compression: 9 takes four times as long for two percent


def pack(document: Mapping[str, Any], columns: Mapping[str, tuple[str, Any]]) -> str:
    """Return the text; `columns` has numbers by name, with their type: u1, u4 or u8."""
    parts: list[bytes] = []
    described: dict[str, list[Any]] = {}
    offset = 0
    for name, (kind, numbers) in columns.items():
        column: NDArray[Any] = np.asarray(numbers, _TYPES[kind])
        data = column.tobytes()
        described[name] = [kind, offset, len(column)]
        parts.append(data + bytes(-len(data) % _ALIGN))
        offset += len(parts[-1])
    head = json.dumps({**document, "columns": described}, separators=(",", ":")).encode()
    head = len(head).to_bytes(4, "little") + head
    packed = zlib.compress(b"".join((head, bytes(-len(head) % _ALIGN), *parts)), _LEVEL)
    return base64.b64encode(packed).decode("ascii")
