"""The command line itself: usage, pipes, interrupts."""

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from support.cli import run_cli

from pagewalk.cli import COMMANDS, main

PAGEWALK = [sys.executable, "-m", "pagewalk"]
LONG = ["run", "vmemmap-devdax", "--release", "6.17", "--set", "ram=64G"]
LONG += ["--set", "start=128G", "--set", "size=6T"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND"]),
        (["zork"], ["'zork'", "run"]),
        (["--zork"], ["--zork", "COMMAND"]),
        (["--hlep"], ["did you mean --help?"]),
        (["--levels", "4", "run", "vmemmap-devdax"], ["--levels", "COMMAND before its options"]),
        (["walk"], ["ADDR"]),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments, words):
    status, output, errors = run_cli(*arguments, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_that_ends_in_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])

    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert end.value.code == 0
    assert last.split("pagewalk ", 1)[1].startswith(command)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("rnu vmemmap-devdax", "run"),
        ("run vmemap-devdax", "vmemmap-devdax"),
        ("run vmemmap-devdax --levls 5", "--levels"),
        ("run vmemmap-devdax --exepct=ok", "--expect"),
        ("run vmemmap-devdax --release 6.71", "6.17"),
        ("run vmemmap-devdax --build 6.9", "6.8"),
        ("run vmemmap-devdax --set stat=1", "start"),
        ("run vmemmap-devdax --set task=erly", "early"),
        ("walk __init_single_pge", "__init_single_page"),
        ("walk 0x1000 --task inti_mm", "init_mm"),
        ("matrix --scenario hot-raed", "hot-readd"),
        ("sweep --family uper", "upper"),
        ("sweep --case pte.pp", "pte.p"),
        ("access --va 0x1000 --entries 1 --kind wirte", "write"),
        ("trace docs/examples/stor.S", "store.S"),
        ("trace docs/examples/store.S --reg raxx=1", "rax"),
        ("oops docs/examples/oop.txt", "oops.txt"),
        ("completion bsh", "bash"),
    ],
)
def test_a_name_that_is_nearly_right_is_answered_with_the_nearest(arguments, meant, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])

    status, output, errors = run_cli(*arguments.split(), parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert f"did you mean {meant}?" in errors


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "zork"]])
def test_what_runs_nothing_loads_no_engine(arguments):
    code = (
        "import sys; from pagewalk.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "large = 'unicorn capstone keystone rich numpy zstandard pyarrow textual '\n"
        "large += 'importlib.metadata'\n"
        "print(sorted(set(large.split()) & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_that_of_the_distribution(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])

    assert (end.value.code, capsys.readouterr().out) == (0, f"pagewalk {version('pagewalk')}\n")


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
