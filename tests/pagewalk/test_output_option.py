"""`pagewalk trace -o FILE` and `pagewalk run SCENARIO -o FILE`: files that are written by a run."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.cli import run_cli

from emu.events import Executed
from pagewalk.traces.reading import read_trace

PAGEWALK = [sys.executable, "-m", "pagewalk"]
READ = pytest.mark.parametrize("ending", [".jsonl.zst", ".parquet"])
STORE = "# pagewalk: --map 0x1000=0x2000:rw --reg rdi=0x1000\nf: mov [rdi], eax\n ret\n"
FAULT = "f: mov [rdi], eax\n"


@pytest.fixture
def source(tmp_path):
    """Write a source, and return its path."""

    def write(text):
        path = tmp_path / "file.S"
        path.write_text(text)
        return str(path)

    return write


# ------------------------------------------------------------------ trace


@READ
@pytest.mark.parametrize("text", [STORE, FAULT])
def test_the_file_has_the_events_that_are_printed_otherwise(tmp_path, source, ending, text):
    path, output = source(text), str(tmp_path / f"t{ending}")
    status, document, _ = run_cli("trace", path, "--json")

    written, _, errors = run_cli("trace", path, "-o", output, parse=False)
    _, shown, _ = run_cli("show", output, "--json")

    assert (written, errors) == (status, "")
    assert shown["events"] == document["events"]
    for key in ("file", "levels", "cpl", "cr3", "entry", "instructions", "outcome", "stop"):
        assert shown[key] == document[key]


@READ
def test_only_the_outcome_and_what_was_written_are_printed(tmp_path, source, ending):
    output = str(tmp_path / f"t{ending}")

    _, text, _ = run_cli("trace", source(STORE), "-o", output, parse=False)

    assert text == (
        "completed: returned 0x0 after 2 instructions\n"
        f"{output}: {len(list(read_trace(output).events()))} events, 2 instructions, "
        f"{os.path.getsize(output)} bytes\n"
    )


def test_with_json_it_is_one_document_without_events(tmp_path, source):
    output = str(tmp_path / "t.drcov")

    _, document, _ = run_cli("trace", source(STORE), "-o", output, "--json")

    assert "events" not in document
    assert (document["outcome"], document["stop"]["kind"]) == ("completed", "returned")
    assert document["written"]["instructions"] == 2
    assert document["written"]["bytes"] == os.path.getsize(output)


@pytest.mark.parametrize("name", ["t.txt", "t", "t.jsonl", "t.zst", "parquet"])
def test_an_unknown_ending_is_refused_before_anything_runs(tmp_path, source, name):
    output = tmp_path / name

    for command in (("trace", source(STORE)), ("run", "vmemmap-devdax")):
        status, text, errors = run_cli(*command, "-o", str(output), parse=False)
        assert (status, text) == (2, "")
        assert errors == (
            f"pagewalk: -o {str(output)!r}: expected a name that ends in one of "
            ".jsonl.zst, .parquet, .tenet, .json, .drcov\n"
        )
    assert not output.exists()


def test_a_file_that_cannot_be_written_is_refused(tmp_path, source):
    output = str(tmp_path / "missing" / "t.json")

    status, text, errors = run_cli("trace", source(STORE), "-o", output, parse=False)

    assert (status, text) == (2, "")
    assert errors == (
        f"pagewalk: -o {output!r}: expected a file that can be written: No such file or directory\n"
    )


@pytest.mark.parametrize("command", ["trace", "show"])
def test_without_pyarrow_the_remedy_is_named(tmp_path, source, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    output = str(tmp_path / "t.parquet")
    arguments = ["show", output] if command == "show" else ["trace", source(STORE), "-o", output]

    status, _, errors = run_cli(*arguments, parse=False)

    assert status == 2
    assert errors == "pagewalk: a .parquet file needs pyarrow: pip install 'pagewalk[parquet]'\n"


def executed(path):
    """The instructions in a trace file."""
    return [
        seen.event for seen in read_trace(str(path)).events() if isinstance(seen.event, Executed)
    ]


@READ
def test_registers_are_recorded(tmp_path, source, ending):
    output = tmp_path / f"t{ending}"

    run_cli("trace", source(STORE), "-o", str(output), "--registers", parse=False)

    store, _ = executed(output)
    assert store.registers[7] == 0x1000


def test_registers_are_recorded_where_python_writes_before_any_instruction(tmp_path):
    output = str(tmp_path / "run.jsonl.zst")

    _, text, _ = run_cli("run", "sync-race", "-o", output, "--registers", parse=False)

    assert f"\n{output}: 152 events, 87 instructions" in text


def test_a_tenet_trace_has_registers_without_being_asked(tmp_path, source):
    output = tmp_path / "t.tenet"

    run_cli("trace", source(STORE), "-o", str(output), parse=False)

    assert "rdi=0x1000" in output.read_text().splitlines()[0]


# ------------------------------------------------------------------ run


@READ
def test_a_scenario_is_recorded_and_its_story_told(tmp_path, ending):
    output = str(tmp_path / f"t{ending}")

    status, text, errors = run_cli("run", "vmemmap-subpmd", "-o", output, parse=False)

    assert (status, errors) == (1, "")
    assert "BUG: unable to handle page fault" in text
    assert text.splitlines()[-1].startswith(f"{output}: ")
    trace = read_trace(output)
    assert trace.header.source["scenario"] == "vmemmap-subpmd"
    *_, last = trace.events()
    assert last.event.stop.address == trace.ending.stop.address
    assert trace.ending.outcome == "oops"


def test_tasks_have_their_names(tmp_path):
    output = str(tmp_path / "t.jsonl.zst")
    run_cli("run", "vmemmap-devdax", "-o", output, parse=False)

    trace = read_trace(output)
    names = dict.fromkeys(seen.task for seen in trace.events())

    assert list(names) == ["init_mm", "modprobe"]
    assert "init_mm" in trace.ending.tasks.values()


def test_the_isolated_tables_have_names_too(tmp_path):
    output = str(tmp_path / "t.parquet")
    run_cli("run", "pti-user-half", "-o", output, parse=False)

    trace = read_trace(output)
    list(trace.events())

    assert any(name.endswith("(user)") for name in trace.tasks.values())


def test_the_document_says_what_was_written(tmp_path):
    output = str(tmp_path / "t.json")

    _, document, _ = run_cli("run", "vmemmap-subpmd", "-o", output, "--json")

    assert document["outcome"] == "oops"
    assert document["written"]["file"] == output
    assert document["written"]["instructions"] == document["instructions"] > 0
    assert json.loads(Path(output).read_text(encoding="utf-8"))


def test_trace_and_o_are_not_for_the_same_run(tmp_path):
    output = str(tmp_path / "t.json")

    status, _, errors = run_cli("run", "vmemmap-subpmd", "--trace", "-o", output, parse=False)

    assert (status, errors.count("\n")) == (2, 1)
    assert "--trace beside -o" in errors


# ------------------------------------------------------------------ interrupted


@READ
def test_ctrl_c_leaves_a_file_with_an_ending(tmp_path, source, ending):
    output = tmp_path / f"t{ending}"
    command = [*PAGEWALK, "trace", source("spin: jmp spin\n"), "-o", str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while not output.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)

    trace = read_trace(str(output))
    nr = sum(isinstance(seen.event, Executed) for seen in trace.events())
    assert (process.returncode, errors) == (130, b"pagewalk: interrupted\n")
    assert trace.ending.outcome == "limit"
    assert trace.ending.instructions == nr > 0


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_ctrl_c_in_a_scenario_says_what_is_in_the_file(tmp_path, form):
    output = tmp_path / "t.jsonl.zst"
    command = [*PAGEWALK, "run", "vmemmap-devdax", "--set", "size=8G", "-o", str(output), *form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while not (output.exists() and output.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        text, errors = process.communicate(timeout=30)

    trace = read_trace(str(output))
    nr = len(list(trace.events()))
    assert (process.returncode, errors) == (130, b"pagewalk: interrupted\n")
    assert trace.ending.outcome == "limit"
    if form:
        document = json.loads(text)
        assert (document["outcome"], document["written"]["events"]) == ("limit", nr)
    else:
        assert text.decode().startswith(f"{output}: {nr} events, ")


@READ
def test_a_file_that_grows_too_large_is_one_line_and_can_be_read(tmp_path, source, ending):
    output = str(tmp_path / f"t{ending}")
    text = "f: mov ecx, 400000\n1: imul rax, rax, 0x12345\n add rax, rcx\n push rax; pop rbx\n"
    command = [*PAGEWALK, "trace", source(text + " loop 1b\n ret\n"), "-o", output]
    size = 300_000

    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )

    trace = read_trace(output)
    nr = len(list(trace.events()))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"pagewalk: -o {output!r}: File too large; the first {nr} events "
        f"({trace.nr_instructions} instructions) are in it\n"
    )
    assert trace.cut_off
