"""Files that are damaged in one place: that is noticed, in one line."""

import random
from contextlib import suppress

import pytest
import zstandard
from support import traces
from support.cli import run_cli
from support.traces import CODE

from emu import Trap
from emu.events import (
    Accessed,
    Cr3Switch,
    Edited,
    Executed,
    Faulted,
    Invalidated,
    Walked,
    WalkedStep,
)
from pagewalk.arguments import BadInput
from pagewalk.traces import jsonl, parquet
from pagewalk.traces.reading import read_trace

STORE = Executed(CODE, b"\x48\x89\x07")  # mov [rdi], rax
STORES = [STORE, Accessed(0x10000, 0x5000, 8, 0x1122, "write")] * 60
SOME_OF_EACH = [
    Walked(0x10000, "write", False, (WalkedStep(4, 0x1000, 0x2007, 0x2027),)),
    Edited(0x1008, (0x67, 0x2067), "pgd_ctor"),
    Invalidated("invlpg", 0x10000),
    Cr3Switch(0x1000, 0x2000),
    Faulted(Trap(6, None, CODE), b"\x0f\x0b"),
]


@pytest.fixture
def small_frames(monkeypatch):
    """Frames and row groups of about 100 events, so that a small file has two."""
    monkeypatch.setattr(jsonl, "_FRAME", 100 * 80)
    monkeypatch.setattr(parquet, "ROWS", 100)


def read_until_damaged(path):
    with suppress(BadInput):
        yield from read_trace(str(path)).events()


def replace_last(path, old, new):
    before, found, after = path.read_bytes().rpartition(old)
    assert found
    path.write_bytes(before + new + after)


def refused(path):
    """Show a file that must be refused; return the one line."""
    status, _, errors = run_cli("show", str(path), parse=False)
    assert (status, errors.count("\n")) == (2, 1)
    return errors


def test_a_damaged_ending_is_noticed_behind_all_events(tmp_path):
    path = tmp_path / "t.parquet"
    traces.write(path, STORES)
    replace_last(path, b'"outcome":', b'"outcome" ')

    assert "damaged after 120 events: its ending cannot be read" in refused(path)


def test_a_footer_for_all_that_lost_its_mark_is_no_further_row_group(tmp_path, small_frames):
    path = tmp_path / "t.parquet"
    traces.write(path, STORES, STORES)
    replace_last(path, b"pagewalk.whole", b"pagewalk.while")

    words = "damaged after 240 events: the footer for all row groups"
    assert words in refused(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"level": 4', b'"level": 0'),
        (b'"what": "invlpg"', b'"what": "invlpf"'),
        (b'"entries": ["0x67", "0x2067"]', b'"entries": []'),
    ],
)
def test_a_line_of_what_there_is_not_is_damaged(tmp_path, old, new):
    path = tmp_path / "t.jsonl.zst"
    traces.write(path, SOME_OF_EACH)
    with zstandard.open(path) as file:
        text = file.read()
    assert old in text
    path.write_bytes(zstandard.compress(text.replace(old, new)))

    assert " is damaged: " in refused(path)


@pytest.mark.parametrize("ending", [".jsonl.zst", ".parquet"])
def test_one_flipped_bit_is_noticed_or_does_not_matter(tmp_path, ending, small_frames):
    """Never a traceback, never more than one line, never more events than there are."""
    path = tmp_path / f"t{ending}"
    traces.write(path, STORES, SOME_OF_EACH)
    whole, nr = path.read_bytes(), len(traces.read(path))
    rng = random.Random(ending)
    for at in rng.choices(range(len(whole)), k=200):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])

        status, text, errors = run_cli("show", str(path), parse=False)

        assert status in (0, 2), at
        assert errors.count("\n") <= 1, at
        assert text.count("mov qword ptr [rdi], rax") <= 60, at
        assert len(list(read_until_damaged(path))) <= nr, at
