"""`.jsonl.zst`: a header, an object for each event, and an ending; each in a line; compressed.

Knows the lines and the frames. Refuses to know how an event's object looks (`objects`,
`parsing`). A frame is whole for itself and has a checksum, so that a file that was cut off can be
read up to there, and damage is noticed.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import zstandard

from emu.chunks import Chunk
from emu.events import Accessed, Event, Executed
from emu.registers import GENERAL
from pagewalk.objects import Objects, access_objects, register_text, with_registers
from pagewalk.traces import parsing, rows
from pagewalk.traces.behind import Behind
from pagewalk.traces.header import Header, Names
from pagewalk.traces.output import Output
from pagewalk.traces.stream import Damaged, Part

_PIECE: Final = 1 << 15  # instructions that are formatted at once
_FRAME: Final = 4 << 20  # bytes of text in a frame, or a little more
_GROUP: Final = 4  # registers that are formatted together
_BLOCK: Final = 1 << 20  # bytes of text that are read at once
_LONGEST: Final = 16 << 20  # bytes of a line that may still be one of ours


def _compressor() -> zstandard.ZstdCompressor:
    """Return one that is set for lines that differ in a few digits: half of what level 3 leaves."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3,
        strategy=zstandard.STRATEGY_LAZY2,
        min_match=6,
        search_log=1,
        window_log=21,
        hash_log=17,
        chain_log=17,
        write_checksum=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


class Writer:
    """Writes lines, in frames; one is compressed while the lines of the next are formatted."""

    def __init__(self, output: Output, header: Header, names: Names) -> None:
        self.events = self.instructions = 0
        self._output = output
        self._compressor = _compressor()
        self._behind: Behind[bytes] = Behind()
        self._in_frame = 0, 0
        self._objects = Objects(names.symbolise, header.paging.levels, names.task)
        self._shapes = rows.Shapes(self._objects.instruction)
        self._cpu = 0
        self._waiting: list[bytes] = []
        self._waits = [0, 0, 0]  # bytes, events, instructions
        self._whole = 0
        self._put([json.dumps(header.as_json())], 0, 0)
        self._compress()

    def write(self, chunk: Chunk) -> None:
        """Write the events' lines; those of the last few MiB wait for their frame."""
        if chunk.cpu != self._cpu:
            self._cpu = chunk.cpu
            self._put([json.dumps({"event": "cpu", "cpu": chunk.cpu})], 0, 0)
        for piece in rows.pieces(chunk, _PIECE):
            self._put(self._lines(piece), len(piece), len(piece.instructions))
            if self._waits[0] >= _FRAME:
                self._compress()

    def close(self, ending: dict[str, object]) -> None:
        """Write the last frame, with the ending in its last line."""
        self._put([json.dumps({"end": ending})], 0, 0)
        self._compress()
        self._write_frame()
        self._behind.stop()

    def rescue(self) -> None:
        """Take back the frame that was begun."""
        self._behind.stop()
        self._output.cut(self._whole)

    def _put(self, lines: list[str], events: int, instructions: int) -> None:
        if lines:
            text = ("\n".join(lines) + "\n").encode()
            self._waiting.append(text)
            for i, nr in enumerate((len(text), events, instructions)):
                self._waits[i] += nr

    def _compress(self) -> None:
        """Begin to compress what waits, and write the frame before it."""
        self._write_frame()
        text = b"".join(self._waiting)
        self._behind.begin(lambda: self._compressor.compress(text))
        self._in_frame = self._waits[1], self._waits[2]
        self._waiting, self._waits = [], [0, 0, 0]

    def _write_frame(self) -> None:
        frame = self._behind.result()
        if frame is not None:
            self._output.write(frame)
            self._whole = self._output.size
            self.events += self._in_frame[0]
            self.instructions += self._in_frame[1]

    def _lines(self, chunk: Chunk) -> list[str]:
        lines = np.empty(len(chunk), object)
        instructions, accesses, others = rows.order(chunk)
        texts = rows.objects(self._shapes.of(chunk))[chunk.instructions]
        if chunk.registers is not None and len(chunk.instructions):
            firsts = range(0, len(GENERAL), _GROUP)
            groups = zip(*(_register_texts(i, chunk.registers) for i in firsts), strict=True)
            texts = rows.objects(list(map(with_registers, texts.tolist(), map(", ".join, groups))))
        lines[instructions] = texts
        lines[accesses] = access_objects(chunk)
        lines[others] = [self._objects.of(event) for _, _, event in chunk.others]
        return lines.tolist()


def _register_texts(first: int, registers: Any) -> list[str]:
    """Return the texts of a group of registers; most are those of the instruction before."""
    group = registers[:, first : first + _GROUP]
    changes = np.flatnonzero(np.concatenate([[True], (group[1:] != group[:-1]).any(axis=1)]))
    names = GENERAL[first : first + _GROUP]
    texts = [register_text(names, values) for values in group[changes].tolist()]
    lasts = np.diff(changes, append=len(group))
    return np.repeat(rows.objects(texts), lasts).tolist()


# ------------------------------------------------------------------ reading


def read_parts(path: str) -> Iterator[Part]:
    """Yield header, events and ending, as far as the file goes.

    Raises Damaged where something else is in it.
    """
    known: dict[bytes, Event] = {}
    cpu = 0
    for number, line in enumerate(_lines(path), 1):
        event = known.get(line) or parsing.read_access(line)
        if event is not None:
            yield cpu, event, None
            continue
        try:
            found = json.loads(line)
            if number == 1:
                yield found
            elif "end" in found:
                yield {"end": found["end"]}
            elif found["event"] == "cpu":
                cpu = int(found["cpu"])
            else:
                event = parsing.read_event(found)
                if type(event) is Executed and event.registers is None and len(known) < 1 << 16:
                    known[line] = event
                yield cpu, event, None if type(event) is Accessed else found
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Damaged(f"line {number} is damaged: {_excerpt(line)}") from None


def _lines(path: str) -> Iterator[bytes]:
    """Yield the lines that are whole. Raises Damaged, where what is read is no frame."""
    rest = b""
    for text in _texts(path):
        rest += text
        *lines, rest = rest.split(b"\n")
        yield from lines
        if len(rest) > _LONGEST:
            raise Damaged("it has no lines")


def _texts(path: str) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    with open(path, "rb") as file:
        reader = decompressor.stream_reader(file, read_across_frames=True)
        try:
            while text := reader.read1(_BLOCK):
                yield text
        except zstandard.ZstdError as error:
            raise Damaged(f"it cannot be decompressed: {error}") from None


def _excerpt(line: bytes) -> str:
    return repr(line[:40].decode(errors="replace")) + ("…" if len(line) > 40 else "")
