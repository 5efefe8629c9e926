"""`pagewalk trace` as a process: Ctrl-C, closed pipes, terminals."""

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

PAGEWALK = [sys.executable, "-m", "pagewalk"]


@pytest.fixture
def spin(tmp_path):
    """A routine that never returns."""
    file = tmp_path / "spin.S"
    file.write_text("spin: jmp spin\n")
    return str(file)


def interrupted(*arguments, output):
    """Start pagewalk, interrupt it once it prints, and return status, seconds, and stderr."""
    command = [*PAGEWALK, *arguments]
    with subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while not os.fstat(output.fileno()).st_size and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    return process.returncode, time.monotonic() - start, errors


def test_ctrl_c_ends_a_run_and_leaves_a_whole_document(spin, tmp_path):
    with (tmp_path / "out").open("w+b") as output:
        status, seconds, errors = interrupted("trace", spin, "--json", output=output)
        output.seek(0)
        document = json.load(output)

    assert (status, errors) == (130, b"pagewalk: interrupted\n")
    assert seconds < 1
    assert document["outcome"] == "limit"
    executed = [event for event in document["events"] if event["event"] == "instruction"]
    assert document["instructions"] == len(executed) > 0


def test_ctrl_c_ends_a_run_that_prints_text(spin, tmp_path):
    with (tmp_path / "out").open("w+b") as output:
        status, seconds, errors = interrupted("trace", spin, output=output)

    assert (status, errors) == (130, b"pagewalk: interrupted\n")
    assert seconds < 1


def test_a_closed_pipe_ends_quietly(spin):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*PAGEWALK, "trace", spin], **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert (process.returncode, errors) == (141, b"")


@pytest.mark.parametrize(
    ("settings", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=["plain", "NO_COLOR"]
)
def test_colour_is_for_terminals_that_want_it(spin, settings, coloured):
    environment = {**os.environ, "TERM": "xterm-256color", **settings}
    ours, theirs = pty.openpty()
    command = [*PAGEWALK, "trace", spin, "--max-steps", "1"]
    subprocess.run(command, stdout=theirs, env=environment)
    os.close(theirs)

    assert (b"\x1b[" in os.read(ours, 65536)) == coloured
    os.close(ours)
