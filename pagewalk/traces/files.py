"""Trace files by their names' endings, and what is said when one cannot be written.

Knows which formats there are. Refuses to know what is in them: each has a file of its own, which
is loaded when it is the one that is asked for.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

from pagewalk.arguments import BadInput, bad, reason

if TYPE_CHECKING:
    from emu.chunks import Chunk
    from pagewalk.traces.header import Header, Names
    from pagewalk.traces.output import Writer


class Format(NamedTuple):
    """One kind of file. `reads` tells whether `pagewalk show` reads it, too."""

    module: str
    summary: str
    registers: bool = False
    """Whether it is nothing without the registers."""
    reads: bool = False


FORMATS: Final = {
    ".jsonl.zst": Format("jsonl", "a JSON object a line, compressed", reads=True),
    ".parquet": Format("parquet", "a table for pandas, DuckDB, Polars", reads=True),
    ".tenet": Format("tenet", "for the Tenet plugin of IDA", registers=True),
    ".json": Format("perfetto", "for ui.perfetto.dev and chrome://tracing"),
    ".drcov": Format("drcov", "coverage, for Lighthouse and its like"),
}
NAMES: Final = ", ".join(FORMATS)


def format_of(path: str) -> Format | None:
    """Return the format that a file's name asks for."""
    return next((one for ending, one in FORMATS.items() if path.endswith(ending)), None)


def wanted_format(path: str) -> Format:
    """Return the format for `-o`, with what it needs at hand; BadInput if that cannot be."""
    found = format_of(path)
    if found is None:
        bad("-o", repr(path), f"a name that ends in one of {NAMES}")
    needed(found)
    return found


def needed(wanted: Format) -> None:
    """Load what is needed beyond the core; BadInput, with the remedy, where it is missing."""
    if wanted.module == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise BadInput(
                "a .parquet file needs pyarrow: pip install 'pagewalk[parquet]'"
            ) from None


class TraceFile:
    """A trace file that is being written.

    Whoever is done calls `close`, also after Ctrl-C; what `write` and `close` raise is BadInput,
    and says how much of the trace is in the file.
    """

    def __init__(self, path: str, header: "Header", names: "Names") -> None:
        module = import_module(f"pagewalk.traces.{wanted_format(path).module}")
        from pagewalk.traces.output import Output

        self.path: Final = path
        self.events = 0
        self.instructions = 0
        self._writer: Writer | None = None
        try:
            self._output = Output(path)
        except (OSError, ValueError) as error:
            bad("-o", repr(path), f"a file that can be written: {reason(error)}")
        with self._told():
            self._writer = module.Writer(self._output, header, names)

    @property
    def size(self) -> int:
        """Its bytes so far."""
        return self._output.size

    def write(self, chunk: "Chunk") -> None:
        """Write what has happened. Once that has failed, nothing is written any more."""
        if self._writer is None:
            return
        with self._told():
            self._writer.write(chunk)
        self.events += len(chunk)
        self.instructions += len(chunk.instructions)

    def close(self, ending: dict[str, object]) -> None:
        """Write how the run ended: `instructions`, `outcome`, `stop`, as `trace --json` has them.

        A file that could not be written has been closed already.
        """
        if self._writer is not None:
            with self._told():
                self._writer.close({**ending, "nr_events": self.events})
                self._output.close()
            self._writer = None

    def as_json(self) -> dict[str, object]:
        """Return what was written."""
        return {
            "file": self.path,
            "events": self.events,
            "instructions": self.instructions,
            "bytes": self.size,
        }

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.rescue()
            with suppress(OSError):
                self._output.close()
            events, instructions = (writer.events, writer.instructions) if writer else (0, 0)
            raise BadInput(
                f"-o {self.path!r}: {reason(error)}; the first {events} events "
                f"({instructions} instructions) are in it"
            ) from None

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.events} events, {self.instructions} instructions, "
            f"{self.size} bytes"
        )
