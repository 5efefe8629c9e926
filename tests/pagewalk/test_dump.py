"""`pagewalk dump`: what a table maps."""

import json
import signal
import subprocess
import sys
import time

import pytest
from support.cli import run_cli

from emu.paging import halves

PAGEWALK = [sys.executable, "-m", "pagewalk"]
TEXT = "0xffffffff81000000"
LARGE = ("dump", "--scenario", "vmemmap-devdax", "--set", "size=8G", "--task", "init_mm", "--exact")


def lines(*arguments):
    """The lines that list a range."""
    _, text, _ = run_cli("dump", *arguments, parse=False)
    return [line for line in text.splitlines() if line[16:19] == " - "]


def dumped(*arguments):
    """The document."""
    status, document, errors = run_cli("dump", *arguments, "--json")
    assert (status, errors) == (0, "")
    return document


def test_a_line_says_where_how_large_how_mapped_and_to_what():
    text, *_ = lines("--executable")

    assert text.split() == [
        *("ffffffff81000000", "-", "ffffffff811fffff", "2M", "2M", "PDE", "pmd"),
        *("--", "--", "--", "G", "pa", "0x1000000", "kernel", "text", "and", "data"),
    ]


def test_pages_that_differ_in_their_place_alone_share_a_line():
    shared = lines("--range", "ffffea0000000000-ffffea0003ffffff")
    exact = lines("--range", "ffffea0000000000-ffffea0003ffffff", "--exact")

    assert [line.split()[3] for line in shared] == ["64M"]
    assert "and 31 more" in shared[0]
    assert [line.split()[3] for line in exact] == ["2M"] * 32


def test_gaps_are_counted_and_listed_when_asked_for():
    _, text, _ = run_cli("dump", parse=False)

    gaps = [line for line in lines("--gaps") if "not present" in line]
    assert f"gaps: {len(gaps)} (--gaps lists them)" in text
    assert not any("not present" in line for line in lines())


@pytest.mark.parametrize("levels", [4, 5])
def test_with_gaps_the_ranges_tile_the_space(levels):
    found = dumped("--gaps", "--levels", str(levels))["ranges"]

    lower, _ = halves(levels)
    total = sum(one["size"] for one in found)
    assert total == 2 * len(range(0, lower.stop, 4096)) * 4096
    assert (found[0]["first"], found[-1]["last"]) == ("0x0", "0xffffffffffffffff")


def test_the_document_says_whose_table_it_is_and_that_it_is_whole():
    document = dumped("--has", TEXT, "--levels", "5")

    (one,) = document.pop("ranges")
    root = document.pop("root")
    assert document == {"schema": 1, "task": "init_mm", "levels": 5, "complete": True}
    assert dumped("--has", TEXT, "--levels", "5", "--cr3", root)["ranges"] == [one]
    assert one == {
        "first": TEXT,
        "last": "0xffffffff811fffff",
        "size": 2 << 20,
        "kind": "mapped",
        "level": 2,
        "entry_name": "PDE",
        "linux_name": "pmd",
        "page_size": 2 << 20,
        "pa": "0x1000000",
        "writable": False,
        "user": False,
        "executable": True,
        "global": True,
        "key": 0,
    }


def test_filters_combine():
    writable = dumped("--writable")["ranges"]
    executable = dumped("--executable")["ranges"]

    assert dumped("--writable", "--executable")["ranges"] == []
    assert {one["writable"] for one in writable} == {True}
    assert {one["executable"] for one in executable} == {True}
    assert dumped("--executable", "--range", f"{TEXT}-{TEXT}")["ranges"][0]["size"] == 1


def test_user_pages_are_those_that_user_mode_may_access():
    found = dumped("--scenario", "ioremap-512g", "--user")["ranges"]

    assert {one["user"] for one in found} <= {True}


def test_a_symbol_and_a_gap_are_found_by_an_address_in_them():
    by_symbol = dumped("--has", "__init_single_page")["ranges"]
    gap = dumped("--has", "0x1234")["ranges"]

    assert by_symbol == dumped("--has", TEXT)["ranges"]
    assert [(one["kind"], one["pa"], one["key"]) for one in gap] == [("not-present", None, None)]


def test_a_part_of_a_range_lies_where_it_lay():
    _, text, _ = run_cli("dump", "--range", "ffff888000001800-ffff888000001fff", parse=False)

    assert "pa 0x1800 " in text


def test_what_is_there_a_million_times_is_left_out_and_said_to_be():
    _, text, _ = run_cli("dump", "--scenario", "kasan-zero-shadow", parse=False)

    assert "not complete" in text
    assert "unexplored" in text
    assert "kernel text and data" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "zork"], ["--task", "'zork'", "swapper/0"]),
        (["--task", "init_mm", "--cr3", "0x1000"], ["--cr3", "--task"]),
        (["--cr3", "0x123"], ["--cr3", "0x123", "4 KiB aligned"]),
        (["--cr3", "0x100000000"], ["--cr3", "RAM"]),
        (["--range", "5"], ["--range", "'5'", "A-B"]),
        (["--range", "x-y"], ["--range", "'x-y'", "A-B"]),
        (["--range=-5-6"], ["--range", "'-5-6'", "A-B"]),
        (["--range", "0x2000-0x1000"], ["--range", "0x2000-0x1000", "no higher"]),
        (["--range", "0-0x800000000000"], ["--range", "0x800000000000", "canonical", "48 bits"]),
        (["--range", "0-0x10000000000000000"], ["--range", "0xffffffffffffffff"]),
        (["--has", "zork"], ["--has", "'zork'", "address"]),
        (["--has", "0x8000000000000000"], ["--has", "canonical", "48 bits"]),
        (["--has", "0x100000000000000", "--levels", "5"], ["--has", "canonical", "57 bits"]),
        (["--levels", "6"], ["--levels", "'6'"]),
        (["zork"], ["zork"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words):
    status, output, errors = run_cli("dump", *arguments, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []


def test_a_large_dump_streams_and_a_closed_pipe_ends_it_quietly():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*PAGEWALK, *LARGE], **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert (process.returncode, errors) == (141, b"")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_ctrl_c_ends_a_large_dump_at_once(form):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*PAGEWALK, *LARGE, *form], **pipes) as process:
        process.stdout.read(1 << 14)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        seconds = time.monotonic() - begin

    assert (process.returncode, errors) == (130, b"pagewalk: interrupted\n")
    assert seconds < 1


def test_a_large_document_is_whole():
    done = subprocess.run([*PAGEWALK, *LARGE, "--json"], capture_output=True, check=True)

    assert len(json.loads(done.stdout)["ranges"]) > 10_000
