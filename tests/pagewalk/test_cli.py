"""The command line itself: usage, pipes, interrupts."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support.cli import run_cli

PAGEWALK = [sys.executable, "-m", "pagewalk"]
LONG = ["run", "vmemmap-devdax", "--release", "6.17", "--set", "ram=64G"]
LONG += ["--set", "start=128G", "--set", "size=6T"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND"]),
        (["zork"], ["'zork'", "run"]),
        (["--zork"], ["COMMAND"]),
        (["walk"], ["ADDR"]),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments, words):
    status, output, errors = run_cli(*arguments, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []


@pytest.mark.parametrize(
    "command", ["list", "run", "walk", "trace", "show", "asm", "doctor", "oops"]
)
def test_each_command_has_help_with_an_example(command):
    done = subprocess.run([*PAGEWALK, command, "--help"], capture_output=True, text=True)

    assert done.returncode == 0
    assert "example: pagewalk " + command in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "zork"]])
def test_what_runs_nothing_loads_no_engine(arguments):
    code = (
        "import sys; from pagewalk.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "large = 'unicorn capstone keystone rich numpy zstandard pyarrow'\n"
        "print(sorted(set(large.split()) & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_gets_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run([*PAGEWALK, "list", "--json"], stdout=writer, stderr=subprocess.PIPE)

    os.close(writer)
    assert done.returncode == 2
    assert done.stderr == b"pagewalk: standard output was closed before all was written\n"


def test_ctrl_c_ends_a_long_run_at_once():
    process = subprocess.Popen([*PAGEWALK, *LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()

    output, errors = process.communicate(timeout=20)

    assert time.monotonic() - sent < 1.5
    assert (process.returncode, output, errors) == (130, b"", b"pagewalk: interrupted\n")


def test_no_colour_when_output_is_not_a_terminal():
    _, text, _ = run_cli("run", "vmemmap-devdax", parse=False)

    assert "\x1b" not in text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["list"], ["run", "vmemmap-devdax", "--json"], ["doctor"]])
def test_output_that_cannot_be_written_is_one_line(arguments):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PAGEWALK, *arguments], stdout=full, stderr=subprocess.PIPE)

    assert (done.returncode, done.stderr) == (2, b"pagewalk: No space left on device\n")
