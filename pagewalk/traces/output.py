"""The file that a writer fills, from front to back.

Knows how far it has been written, and how to take back what was begun. Refuses to know formats.
"""

import os
from contextlib import suppress
from typing import Protocol

from emu.chunks import Chunk
from pagewalk.traces.header import Header, Names


class Output:
    """A file that is written from front to back, without a buffer: what is written is in it."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self.size = 0

    def write(self, data: bytes) -> None:
        """Write all of it. Raises OSError; some of it may be in the file then."""
        view = memoryview(data)
        while view:
            nr = os.write(self._fd, view)
            self.size += nr
            view = view[nr:]

    def cut(self, size: int) -> None:
        """Take back what is behind the first `size` bytes, where the file can do that."""
        with suppress(OSError):  # a pipe, a device: what is written stays
            os.ftruncate(self._fd, size)
            os.lseek(self._fd, size, os.SEEK_SET)
            self.size = size

    def close(self) -> None:
        """Close the file. Raises OSError where the disk finds out only now."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class Writer(Protocol):
    """What each format offers. Only `Output` raises OSError: then `rescue` is called, and no more.

    `events` and `instructions` are how many of them are in the file and can be read, whatever
    comes next.
    """

    events: int
    instructions: int

    def __init__(self, output: Output, header: Header, names: Names) -> None:
        """Write what comes first."""

    def write(self, chunk: Chunk) -> None:
        """Write what has happened."""

    def close(self, ending: dict[str, object]) -> None:
        """Write what is left, and what comes last. The output is not closed."""

    def rescue(self) -> None:
        """Take back what was begun, so that the rest can be read."""
