"""Files that were cut off, ended by a full disk, or are something else."""

import errno
import json
import os
from functools import partial

import numpy as np
import pytest
import zstandard
from support import traces
from support.cli import run_cli
from support.traces import CODE

from emu.chunks import chunk_of
from emu.events import Accessed, Executed
from pagewalk.arguments import BadInput
from pagewalk.traces import jsonl, output, parquet
from pagewalk.traces.files import TraceFile
from pagewalk.traces.header import Names
from pagewalk.traces.reading import read_trace

FORMATS = pytest.mark.parametrize("ending", [".jsonl.zst", ".parquet"])
WRITTEN = pytest.mark.parametrize("ending", [".jsonl.zst", ".parquet", ".tenet", ".json"])


def stretch(nr, *, seed=0, registers=None):
    """So many stores of random values."""
    values = np.random.default_rng(seed).integers(0, 1 << 63, nr).tolist()
    store = Executed(CODE, b"\x48\x89\x07", registers)
    for i, value in enumerate(values):
        yield store
        yield Accessed(0x10000 + 8 * i, 0x5000 + 8 * i, 8, value, "write")


@pytest.fixture
def small_frames(monkeypatch):
    """Frames and row groups of about 100 events, so that a small file has many."""
    monkeypatch.setattr(jsonl, "_FRAME", 100 * 80)
    monkeypatch.setattr(parquet, "ROWS", 100)


@pytest.fixture
def streams(small_frames):
    return [list(stretch(50, seed=seed)) for seed in range(6)]


def everything(streams):
    return [event for events in streams for event in events]


# ------------------------------------------------------------------ cut off


@FORMATS
def test_a_file_that_is_cut_off_is_read_up_to_there(tmp_path, ending, streams):
    path = traces.write(tmp_path / f"t{ending}", *streams)
    whole = (tmp_path / f"t{ending}").read_bytes()
    cut = tmp_path / f"cut{ending}"
    counts = []

    for size in range(0, len(whole), len(whole) // 40):
        cut.write_bytes(whole[:size])
        try:
            found = traces.read(cut)
        except BadInput:  # it ends before its first events
            continue
        counts.append(len(found))
        assert found == everything(streams)[: len(found)]

    assert counts == sorted(counts)
    assert len(set(counts)) > 5
    assert traces.read(path) == everything(streams)


@FORMATS
def test_a_file_that_lacks_its_last_byte_lacks_its_ending_at_most(tmp_path, ending, streams):
    path = traces.write(tmp_path / f"t{ending}", *streams)
    os.truncate(path, os.path.getsize(path) - 1)
    trace = read_trace(path)

    assert list(trace.events())
    assert trace.nr_events == 600


@FORMATS
def test_a_file_whose_writer_was_killed_is_cut_off(tmp_path, ending, streams):
    trace = read_trace(traces.write(tmp_path / f"t{ending}", *streams, ending=None))
    found = [seen.event for seen in trace.events()]

    assert found == everything(streams)[: len(found)]
    assert len(found) >= 400
    assert trace.cut_off


@FORMATS
def test_show_says_after_how_many_events_a_file_ends(tmp_path, ending, streams):
    path = traces.write(tmp_path / f"t{ending}", *streams)
    os.truncate(path, os.path.getsize(path) * 2 // 3)
    nr = len(traces.read(path))

    status, text, errors = run_cli("show", path, parse=False)

    assert status == 0
    assert text.count("mov qword ptr [rdi], rax") in (nr // 2, nr // 2 + 1)
    assert errors.startswith(f"pagewalk: {path} was cut off: it was read up to there, {nr} events ")
    assert errors.count("\n") == 1


def test_a_parquet_file_that_ends_with_a_row_group_is_no_whole_file(tmp_path, streams):
    """Its end looks like that of a Parquet file, of one that has this row group alone."""
    path = traces.write(tmp_path / "t.parquet", *streams, ending=None)
    trace = read_trace(path)

    assert len(list(trace.events())) > 100
    assert trace.cut_off


# ------------------------------------------------------------------ a full disk


class FullDisk:
    """os.write, on a disk that has room for so many bytes."""

    def __init__(self, room):
        self._size = self._room = room
        self._write, self._truncate = os.write, os.ftruncate

    def __call__(self, fd, data):
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        nr = self._write(fd, data[: self._room])
        self._room -= nr
        return nr

    def truncate(self, fd, size):
        self._room = self._size - size
        self._truncate(fd, size)


def write_until_full(path, streams, *, registers=False):
    """Write until the disk is full; return what is said then."""
    file = TraceFile(path, traces.header(registers=registers), Names(traces.symbol))

    def write_all():
        for events in streams:
            file.write(chunk_of(events))
        file.close(traces.ENDING)

    with pytest.raises(BadInput) as said:
        write_all()
    file.write(chunk_of([]))  # by whoever has not heard of it
    file.close(traces.ENDING)
    return str(said.value)


@FORMATS
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.99])
def test_on_a_full_disk_what_was_written_can_be_read(tmp_path, ending, share, streams, monkeypatch):
    path = traces.write(tmp_path / f"t{ending}", *streams)
    monkeypatch.setattr(output.os, "write", FullDisk(int(os.path.getsize(path) * share)))

    said = write_until_full(path, streams)

    found = traces.read(path)
    assert found == everything(streams)[: len(found)]
    assert said == (
        f"-o {path!r}: No space left on device; the first {len(found)} events "
        f"({len(found) // 2} instructions) are in it"
    )


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_parquet_file_of_a_full_disk_is_one_for_others_too(tmp_path, share, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr(parquet, "ROWS", 10_000)
    streams = [list(stretch(5_000, seed=seed)) for seed in range(5)]
    path = traces.write(tmp_path / "t.parquet", *streams)
    disk = FullDisk(int(os.path.getsize(path) * share))
    monkeypatch.setattr(output.os, "write", disk)
    monkeypatch.setattr(output.os, "ftruncate", disk.truncate)

    write_until_full(path, streams)

    table = pq.read_table(path)
    assert len(table) == len(traces.read(path)) > 0
    values = [event.value for event in traces.read(path) if isinstance(event, Accessed)]
    assert table.column("value").drop_null().to_pylist() == values


@pytest.mark.parametrize("ending", [".tenet", ".json"])
def test_on_a_full_disk_an_export_has_whole_lines(tmp_path, ending, small_frames, monkeypatch):
    streams = [list(stretch(50, registers=tuple(range(16)))) for _ in range(3)]
    write = partial(traces.write, registers=True)
    path = tmp_path / f"t{ending}"
    write(path, *streams)
    monkeypatch.setattr(output.os, "write", FullDisk(path.stat().st_size * 3 // 4))

    said = write_until_full(str(path), streams, registers=True)

    assert "No space left on device; the first " in said
    assert path.read_bytes()[-1:] in (b"\n", b"}")


@WRITTEN
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_dev_full_is_one_line(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    path.symlink_to("/dev/full")

    with pytest.raises(BadInput, match="No space left on device; the first 0 events"):
        traces.write(path, list(stretch(1, registers=(0,) * 16)), registers=True)


# ------------------------------------------------------------------ something else


def refused(path):
    """Show a file that must be refused; return the one line."""
    status, _, errors = run_cli("show", str(path), parse=False)
    assert status == 2
    assert errors.startswith(f"pagewalk: FILE {str(path)!r}: ")
    assert errors.count("\n") == 1
    return errors


@pytest.mark.parametrize("name", ["t.json", "t.tenet", "t.drcov", "t", "t.jsonl", "t.zst"])
def test_only_two_formats_are_read(tmp_path, name):
    assert "expected a trace to read: .jsonl.zst or .parquet" in refused(tmp_path / name)


@FORMATS
def test_what_is_missing_and_what_is_no_regular_file(tmp_path, ending):
    (tmp_path / f"d{ending}").mkdir()
    os.mkfifo(tmp_path / f"p{ending}")

    assert "No such file or directory" in refused(tmp_path / f"t{ending}")
    assert "expected a regular file" in refused(tmp_path / f"d{ending}")
    assert "expected a regular file" in refused(tmp_path / f"p{ending}")


@FORMATS
@pytest.mark.parametrize("content", [b"", b"PAR1", b"\x28\xb5\x2f\xfd", b"zork" * 1000])
def test_other_content(tmp_path, ending, content):
    path = tmp_path / f"t{ending}"
    path.write_bytes(content)

    assert "expected a pagewalk trace: it " in refused(path)


def lines(*objects):
    return zstandard.compress("".join(json.dumps(o) + "\n" for o in objects).encode())


HEADER = traces.header().as_json()
END = {"end": traces.ENDING}


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([{"zork": 1}], "it is no pagewalk trace"),
        ([[1, 2]], "it is no pagewalk trace"),
        ([{**HEADER, "schema": 2}], "its schema is 2, and only 1 can be read"),
        ([{**HEADER, "cr3": 5}], "its header is damaged"),
        ([HEADER, {"event": "zork"}], "damaged after 0 events: line 2 is damaged"),
        ([HEADER, {"event": "read"}, END], "damaged after 0 events: line 2 is damaged"),
        ([HEADER, "event", END], "damaged after 0 events: line 2 is damaged"),
        ([HEADER, END, END], "something follows its ending"),
        ([HEADER, {"end": {}}], "its ending is damaged"),
    ],
)
def test_lines_that_are_none_of_ours(tmp_path, objects, words):
    path = tmp_path / "t.jsonl.zst"
    path.write_bytes(lines(*objects))

    assert words in refused(path)


def test_a_parquet_file_that_is_no_trace(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")

    assert "expected a pagewalk trace: it is no pagewalk trace" in refused(tmp_path / "t.parquet")


@pytest.mark.parametrize("place", [0.4, 0.6, 0.8])
def test_garbage_in_the_middle_of_lines_is_noticed(tmp_path, place, streams):
    path = tmp_path / "t.jsonl.zst"
    traces.write(path, *streams)
    spoil(path, int(path.stat().st_size * place))

    assert "damaged after " in refused(path)
    assert "damaged after 0 events" not in refused(path)


@pytest.mark.parametrize("column", ["event", "value", "bytes"])
def test_garbage_in_a_column_is_noticed(tmp_path, column, streams):
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    traces.write(path, *streams)
    group = pq.read_metadata(path).row_group(3)
    found = next(group.column(i) for i in range(22) if group.column(i).path_in_schema == column)
    spoil(path, found.data_page_offset + found.total_compressed_size // 2)

    assert "damaged after 300 events" in refused(path)


def spoil(path, at):
    data = bytearray(path.read_bytes())
    data[at : at + 16] = bytes(16)
    path.write_bytes(data)
