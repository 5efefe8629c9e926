"""`pagewalk view`: what it writes, and what it refuses. What the page does: test_view_browser."""

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from support import traces
from support.cli import run_cli

from emu import Paging
from emu.events import Executed
from emu.paging import PS, P
from pagewalk.entry_fields import fields, sort
from pagewalk.playback.of_scenario import play_back
from pagewalk.view.document import document
from pagewalk.view.packing import pack

NOP = Executed(traces.CODE, b"\x90")


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Outline(HTMLParser):
    """The tags of a page with their attributes, and the text in each script and style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags:
            tag, attributes = self.tags[-1]
            self.texts.setdefault(attributes.get("id", tag), data)


def unpacked(text):
    """Return the facts and the columns that `pack` was given: the container's own description."""
    data = zlib.decompress(base64.b64decode(text))
    size = int.from_bytes(data[:4], "little")
    facts = json.loads(data[4 : 4 + size])
    start = -(-(4 + size) // 8) * 8
    return facts, {
        name: np.frombuffer(data, f"<{kind}", length, start + offset).tolist()
        for name, (kind, offset, length) in facts["columns"].items()
    }


# ------------------------------------------------------------------ what is written


def test_a_scenario_becomes_one_page(in_tmp):
    status, text, errors = run_cli("view", "sync-race", parse=False)

    size = (in_tmp / "sync-race.html").stat().st_size
    assert (status, errors) == (0, "")
    assert text == f"sync-race.html: 152 events, {size} bytes\n"


def test_a_trace_does_too(in_tmp):
    traces.write(in_tmp / "run.jsonl.zst", [NOP] * 7)

    status, document, errors = run_cli("view", "run.jsonl.zst", "-o", "out.html", "--json")

    assert (status, errors) == (0, "")
    assert document == {
        "schema": 1,
        "of": "run.jsonl.zst",
        "file": "out.html",
        "bytes": (in_tmp / "out.html").stat().st_size,
        "events": 7,
        "events_left_out": 0,
        "instructions": 7,
        "tables": 0,
        "changes": 0,
    }


def test_the_page_has_all_in_it_and_forbids_the_rest(in_tmp):
    run_cli("view", "sync-race", parse=False)

    outline = Outline((in_tmp / "sync-race.html").read_text())

    linked = [(tag, a) for tag, a in outline.tags if {"src", "srcset", "action"} & a.keys()]
    links = [a["href"] for _, a in outline.tags if "href" in a]
    policy = next(a["content"] for _, a in outline.tags if a.get("http-equiv"))
    script = hashlib.sha256(outline.texts["script"].encode()).digest()
    assert (linked, links) == ([], ["#walk"])
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{base64.b64encode(script).decode()}'" in policy


def test_the_last_events_and_the_telling_ones_are_in_it(in_tmp):
    _, document, _ = run_cli("view", "trace-fault-loop", "--events", "500", "--json")

    assert (document["events"], document["events_left_out"]) == (500, 6599)


def test_all_of_them_are_on_demand(in_tmp):
    _, document, _ = run_cli("view", "trace-fault-loop", "--events", "all", "--json")

    assert (document["events"], document["events_left_out"]) == (7099, 0)


def test_a_scenario_s_options_count(in_tmp):
    arguments = ("--levels", "5", "--set", "task=late", "--release", "6.13", "-o", "x.html")

    status, _, errors = run_cli(
        "view", "vmemmap-devdax", "--events", "100", *arguments, parse=False
    )

    page = (in_tmp / "x.html").read_text()
    assert (status, errors) == (0, "")
    assert "<title>vmemmap-devdax, release 6.13, build 6.13-drm-tip, 5 levels" in page


def test_a_trace_that_was_cut_off_is_shown_up_to_there(in_tmp):
    traces.write(in_tmp / "run.jsonl.zst", [NOP] * 70_000, ending=None)

    status, _, errors = run_cli("view", "run.jsonl.zst", parse=False)

    assert status == 0
    assert errors.startswith("pagewalk: run.jsonl.zst was cut off: it was read up to there, ")
    assert (in_tmp / "run.html").exists()


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sync-rac"], ["SCENARIO|TRACE|FILE.S 'sync-rac'", "did you mean sync-race?"]),
        (["./zork"], ["TRACE './zork'", ".jsonl.zst or .parquet"]),
        (["none.jsonl.zst"], ["FILE 'none.jsonl.zst'", "No such file"]),
        (["run.drcov"], ["FILE 'run.drcov'", ".jsonl.zst or .parquet"]),
        (["sync-race", "-o", "x.htm"], ["-o 'x.htm'", ".html"]),
        (["sync-race", "-o", "none/x.html"], ["-o 'none/x.html'", "No such file"]),
        (["sync-race", "-o", "a.html"], ["-o 'a.html'", "Is a directory"]),
        (["sync-race", "--events", "0"], ["--events '0'"]),
        (["sync-race", "--events", "many"], ["--events 'many'"]),
        (["sync-race", "--levels", "6"], ["--levels '6'", "4 or 5"]),
        (["sync-race", "--set", "zork=1"], ["zork"]),
        (["sync-race", "--release", "5.0"], ["release", "'5.0'"]),
        (["run.parquet", "--release", "6.8"], ["--release '6.8'", "scenario"]),
        (["run.parquet", "--set", "a=1"], ["--set 'a=1'", "scenario"]),
        (["run.parquet", "--levels", "5"], ["--levels '5'", "scenario"]),
        (["foreign.jsonl.zst"], ["FILE 'foreign.jsonl.zst'", "pagewalk trace"]),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_nothing_is_written(in_tmp, arguments, words):
    (in_tmp / "a.html").mkdir()
    (in_tmp / "foreign.jsonl.zst").write_text("no trace")
    before = sorted(os.listdir(in_tmp))

    status, output, errors = run_cli("view", *arguments, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []
    assert sorted(os.listdir(in_tmp)) == before


def test_a_full_disk_leaves_no_half_of_a_page(in_tmp):
    os.symlink("/dev/full", in_tmp / "x.html")

    status, _, errors = run_cli("view", "sync-race", "-o", "x.html", parse=False)

    assert status == 2
    assert errors == "pagewalk: -o 'x.html': No space left on device; nothing is in it\n"


def test_ctrl_c_ends_it_and_leaves_the_old_page(in_tmp):
    (in_tmp / "vmemmap-devdax.html").write_text("old")
    command = [sys.executable, "-m", "pagewalk", "view", "vmemmap-devdax", "--set", "size=512G"]

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert (process.returncode, errors) == (130, "pagewalk: interrupted\n")
    assert (in_tmp / "vmemmap-devdax.html").read_text() == "old"


# ------------------------------------------------------------------ what is in it


@pytest.fixture(scope="module")
def played():
    return play_back(
        "vmemmap-subpmd", {"release": None, "build": None, "levels": 4, "settings": {}}
    )[0]


def test_the_document_says_what_a_terminal_does(in_tmp, played):
    _, text, _ = run_cli("run", "vmemmap-subpmd", "--trace=all", parse=False)
    facts, columns = document(played)

    shown = [facts["texts"][number] for number in columns["eventText"][1]]

    assert [line for one in shown for line in one.splitlines() if line not in text] == []


def test_what_is_packed_comes_back(played):
    facts, columns = document(played)

    unpacked_facts, unpacked_columns = unpacked(pack(facts, columns))

    assert unpacked_facts["texts"] == facts["texts"]
    assert unpacked_columns == {
        name: np.asarray(numbers).tolist() for name, (_, numbers) in columns.items()
    }


def test_tables_beyond_the_most_are_left_out_from_below(played, monkeypatch):
    monkeypatch.setattr("pagewalk.view.document.MOST_TABLES", 3)

    facts, columns = document(played)

    roots = {int(root, 16) >> 12 for _, root, _ in facts["tasks"]}
    assert roots <= set(columns["tableFrame"][1])
    assert (len(columns["tableFrame"][1]), facts["nrTables"]) == (3, 80)


# ------------------------------------------------------------------ fields of an entry


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("entry", [0, P, P | PS, 0xFFFF_FFFF_FFFF_FFFF])
def test_the_fields_of_an_entry_cover_each_bit_once(levels, entry):
    paging = Paging.long_mode(0, levels=levels)

    covered = {
        level: [
            bit
            for field in fields(level, sort(entry, level), paging)
            for bit in range(field.high, field.low - 1, -1)
        ]
        for level in range(levels, 0, -1)
    }

    assert set(map(tuple, covered.values())) == {tuple(range(63, -1, -1))}


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("entry", [P, P | PS])
def test_what_is_named_reserved_is_what_faults(level, entry):
    paging = Paging.long_mode(0)
    bit7 = entry >> 7 & 1

    named = sum(
        ((1 << field.high - field.low + 1) - 1) << field.low
        for field in fields(level, sort(entry, level), paging)
        if field.name == "reserved"
    )

    assert named & ~PS == paging.reserved_by_level[2 * level + bit7] & ~PS
    assert bool(named & PS) == (level == 4)
