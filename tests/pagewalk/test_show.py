"""`pagewalk show`: what it selects of a trace file, and how it prints it."""

import json
import os
import signal
import subprocess
import sys

import pytest
from support import traces
from support.cli import run_cli
from support.traces import CODE, OTHER_ROOT, ROOT

from emu import PageFault, Trap
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
from emu.walk import Step, Walk

DATA = 0xFFFF_8880_0000_1000
FAR = 0xFFFF_E700_0000_0034
STORE = Executed(CODE, b"\x48\x89\x07")  # mov [rdi], rax
LOAD = Executed(CODE + 0x100, b"\x48\x8b\x07")  # mov rax, [rdi]
STEP = WalkedStep(4, 0x1888, 0x2007, 0x2027)
ABSENT = Walk(FAR, (Step(4, 0x2E70, 0),), "not-present", 0x2000)
FAULT = PageFault(FAR, 2, CODE + 4, ABSENT, 0, OTHER_ROOT, "not-present")
EVENTS = [
    Walked(CODE, "fetch", False, (WalkedStep(4, 0x1FF8, 0x3027, 0x3027),)),
    STORE,
    Walked(DATA, "write", False, (STEP,)),
    Accessed(DATA, 0x5000, 8, 0x1122, "write"),
    LOAD,
    Accessed(DATA + 8, 0x5008, 8, 0x33, "read"),
    Accessed(None, 0x6000, 4, 0x44, "read"),
    Cr3Switch(ROOT, OTHER_ROOT),
    Edited(0x2E70, (0,), "pgd_ctor"),
    STORE,
    Accessed(DATA + 16, 0x5010, 8, 0x55, "write"),
    Invalidated("invlpg", DATA),
    Faulted(FAULT, b"\xc6\x07\x01"),
]


@pytest.fixture(params=[".jsonl.zst", ".parquet"])
def file(request, tmp_path):
    return traces.write(tmp_path / f"t{request.param}", EVENTS)


def shown(file, *options):
    """Show a file; return the events of the JSON."""
    status, document, errors = run_cli("show", file, "--json", *options)
    assert (status, errors) == (0, "")
    return document["events"]


def kinds(events):
    return [event["event"] for event in events]


# ------------------------------------------------------------------ all of it


def test_text_is_that_of_pagewalk_trace(file):
    status, text, errors = run_cli("show", file, parse=False)

    assert (status, errors) == (0, "")
    lines = text.splitlines()
    assert lines[0] == f"test.S: {CODE:#x}, CPL 0, 4 levels, CR3 0x1000"
    assert lines[3].split() == f"{CODE:x} first+0x0/0x100 48 89 07 mov qword ptr [rdi], rax".split()
    assert lines[4] == f"    walk for {DATA:016x} (supervisor write): PML4E @0x1888 = 0x2007+A"
    assert lines[5] == f"    write 8 at {DATA:016x} pa 0x5000  0x0000000000001122"
    assert lines[-1] == "completed: returned 0x0 after 2 instructions"


def test_a_fault_is_shown_with_its_walk_under_its_own_table(file):
    _, text, _ = run_cli("show", file, "--faults", parse=False)

    assert "mov byte ptr [rdi], 1   <-- faults" in text
    assert "CR3 = 0x2000, 4 levels" in text
    assert "PML4E pgd=p4d [462] at 0x2e70: 0x0" in text


def test_json_is_one_document_like_that_of_trace(file):
    _, document, _ = run_cli("show", file, "--json")

    assert kinds(document["events"]) == [
        *("walk", "instruction", "walk", "write", "instruction", "read", "read", "cr3"),
        *("edit", "instruction", "write", "invalidate", "fault"),
    ]
    assert document["file"] == "test.S"
    assert document["outcome"] == "completed"
    assert document["events"][7]["task"] == "early"


def test_the_cpu_is_named_where_it_changes(tmp_path):
    path = traces.write(tmp_path / "t.parquet", [STORE], [LOAD], [STORE], cpus=[0, 1, 0])

    _, text, _ = run_cli("show", path, parse=False)

    assert [line for line in text.splitlines() if line.startswith("CPU")] == ["CPU 1", "CPU 0"]


# ------------------------------------------------------------------ what is selected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (f"{CODE:#x}", "walk instruction walk write instruction write invalidate"),
        (f"{CODE:x}", "walk instruction walk write instruction write invalidate"),
        (f"{CODE + 1:#x}-{CODE + 0x1000:#x}", "instruction read read cr3 fault"),
        ("first", "walk instruction walk write instruction write invalidate fault"),
        ("first+0x4", "fault"),
        ("second", "instruction read read cr3"),
        ("second+0x0/0x100", "instruction read read cr3"),
    ],
)  # fmt: skip
def test_rip_selects_instructions_and_all_that_belongs_to_them(file, condition, expected):
    assert kinds(shown(file, "--rip", condition)) == expected.split()


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (f"{DATA:#x}", "instruction walk write instruction invalidate"),
        (f"{DATA + 7:#x}", "instruction walk write instruction invalidate"),
        (f"{DATA + 8:#x}", "instruction walk instruction read instruction invalidate"),
        (f"{DATA + 0xFFF:#x}", "instruction walk instruction invalidate"),
        (f"{DATA + 0x1000:#x}", ""),
        (f"{DATA - 1:#x}", ""),
        (f"{FAR:#x}", "fault"),
        (f"{CODE:#x}", "walk instruction"),
        ("0x1000", ""),
    ],
)  # fmt: skip
def test_va_selects_accesses_walks_and_faults_with_their_instruction(file, condition, expected):
    assert kinds(shown(file, "--va", condition)) == expected.split()


def test_a_task_is_where_its_table_is_active(file):
    early = shown(file, "--task", "early")

    assert kinds(early) == ["edit", "instruction", "write", "invalidate", "fault"]
    assert len(shown(file, "--task", "init_mm")) == len(EVENTS) - len(early)


def test_faults_are_faults_and_exceptions(file):
    assert kinds(shown(file, "--faults")) == ["fault"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--rip", "first", "--task", "early"], "instruction write invalidate fault"),
        (["--rip", "second", "--va", f"{DATA:#x}-{DATA + 64:#x}"], "instruction read"),
        (["--faults", "--va", f"{DATA:#x}"], ""),
        (["--faults", "--task", "early", "--va", f"{FAR:#x}"], "fault"),
        (["--rip", "second", "--last", "2"], "read cr3"),
        (["--last", "1"], "fault"),
    ],
)
def test_conditions_combine(file, options, expected):
    assert kinds(shown(file, *options)) == expected.split()


def test_registers_come_with_their_instruction(tmp_path):
    path = traces.write(
        tmp_path / "t.parquet",
        [STORE._replace(registers=tuple(range(16))), Accessed(DATA, 0x5000, 8, 1, "write")],
        registers=True,
    )

    _, text, _ = run_cli("show", path, "--va", f"{DATA:#x}", parse=False)

    assert "    rax=0 rcx=1 rdx=2 rbx=3 rsp=4 rbp=5 rsi=6 rdi=7\n    r8=8 " in text


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rip", "0x"], "--rip '0x': expected a number"),
        (["--rip", "0x20-0x10"], "--rip '0x20-0x10': expected A-B with B not below A"),
        (["--rip", "frist"], "an address, or a symbol that the trace has; did you mean first"),
        (["--va", "zork"], "--va 'zork': expected a number"),
        (["--va", "-1"], "--va"),
        (["--task", "zork"], "--task 'zork': expected one of init_mm, early"),
        (["--last", "0"], "--last '0': expected a number from 1"),
        (["--last", "x"], "--last 'x': expected a number"),
        (["--writes-to", "0x2001"], "--writes-to '0x2001': expected a multiple of 8"),
        (["--writes-to", "zork:0x1000"], "expected a physical address, or LEVEL:VA, LEVEL being"),
        (["--writes-to", "PML5E:0x1000"], "LEVEL:VA, LEVEL being one of"),
        (["--writes-to", "pgd:zork"], "--writes-to 'pgd:zork': expected VA to be a canonical"),
        (["--writes-to", "pgd:"], "--writes-to 'pgd:': expected VA to be a canonical address"),
        (["--writes-to", "pgd:0x1000000000000"], "a canonical address of 4 levels"),
        (["--writes-to", "0x10000000000000"], "expected a number from 0x0 to 0xfffffffffffff"),
        (["--writes-to", "0x2000", "--task", "zork"], "--task 'zork': expected one of init_mm"),
        (["--writes-to", "pgd:0x1000"], "expected --task, one of init_mm, early"),
        (["--writes-to", "pgd:0x1000", "--task", "zork"], "--task 'zork': expected one of init_mm"),
        (["--writes-to", "pte:0x1000", "--task", "early"], "it does not say which table the PML4E"),
        (["--writes-to", "0x2000", "--faults"], "expected no --faults beside it"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(file, options, words):
    status, _, errors = run_cli("show", file, *options, parse=False)

    assert (status, errors.count("\n")) == (2, 1)
    assert words in errors


@pytest.mark.parametrize("options", [["--rip", "frist"], ["--task", "zork"]])
def test_a_name_that_is_nowhere_is_refused_before_anything_is_printed(file, options):
    for form in ([], ["--json"]):
        status, text, _ = run_cli("show", file, *options, *form, parse=False)
        assert (status, text) == (2, "")


def test_without_tasks_none_can_be_named(tmp_path):
    path = traces.write(tmp_path / "t.parquet", [STORE], tasks={})

    for options in ([], ["--writes-to", "pgd:0x1000"]):
        _, _, errors = run_cli("show", path, "--task", "x", *options, parse=False)
        assert errors == "pagewalk: --task 'x': expected no --task: this trace has no tasks\n"


# ------------------------------------------------------------------ as a process


@pytest.fixture
def long(tmp_path):
    """A file of half a million events."""
    events = [STORE, Accessed(DATA, 0x5000, 8, 0x1122, "write")] * 25_000
    return traces.write(tmp_path / "long.jsonl.zst", *[events] * 10)


def test_a_closed_pipe_ends_quietly_and_at_once(long):
    command = [sys.executable, "-m", "pagewalk", "show", long]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert (process.returncode, errors) == (141, b"")


def test_ctrl_c_ends_it(long):
    command = [sys.executable, "-m", "pagewalk", "show", long, "--va", "0x1234"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.set_blocking(process.stderr.fileno(), True)
        process.stdout.read(0)
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)

    assert (process.returncode, errors) in ((130, b"pagewalk: interrupted\n"), (0, b""))


def test_ctrl_c_leaves_a_whole_document(long):
    command = [sys.executable, "-m", "pagewalk", "show", long, "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen(command, **pipes) as process:
        begun = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)

    document = json.loads(begun + rest)
    assert (process.returncode, errors) == (130, b"pagewalk: interrupted\n")
    assert document["outcome"] == "interrupted"
    assert 0 < len(document["events"]) < 500_000


def test_a_trap_has_no_address_and_is_selected_by_its_rip(tmp_path):
    path = traces.write(tmp_path / "t.parquet", [Faulted(Trap(6, None, CODE), b"\x0f\x0b")])

    assert kinds(shown(path, "--rip", f"{CODE:#x}")) == ["fault"]
    assert shown(path, "--va", f"{CODE:#x}") == []


def test_help_loads_nothing_that_is_large():
    code = (
        "import sys; from pagewalk.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted({'numpy', 'zstandard', 'pyarrow', 'unicorn'} & set(sys.modules))))"
    )
    for command in ([], ["trace"], ["run"], ["show"]):
        arguments = [sys.executable, "-c", "import json\n" + code, *command, "--help"]
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert json.loads(done.stdout.splitlines()[-1]) == []
