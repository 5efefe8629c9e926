"""`pagewalk oops`: what it tells, its JSON, the test that it writes, and input of any kind."""

import io
import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.cli import run_cli
from support.oops_texts import ARM64, COMPOUND, FIVE_LEVELS, HANDLER, PLAIN, SUB_PMD, without

from kernel_model.reading.oopses import match_oops, read_oopses
from pagewalk.oops_json import oops_document
from pagewalk.render_oops import oops_lines

PAGEWALK = [sys.executable, "-m", "pagewalk", "oops"]
MIB = 1 << 20


@pytest.fixture
def oops(tmp_path):
    """Run the command on a text."""

    def run(text, *options):
        path = tmp_path / "oops.txt"
        path.write_bytes(text)
        return run_cli("oops", str(path), *options, parse="--json" in options)

    return run


# -- for people


def test_the_first_oops_is_explained_from_its_bits_to_its_scenario(oops):
    status, output, errors = oops(COMPOUND)

    assert (status, errors) == (0, "")
    for line in (
        "Error code 0x0002: supervisor write, the page is not present",
        "  p4d = 0x0: the top entry again, as the p4d is folded into the pgd, empty",
        "  4 levels, layout since 4.20: slot 462, with nokaslr: vmalloc",
        "An unsynced top-level entry: yes",
        "  pagewalk run vmemmap-devdax --release 6.8 --set vmemmap_base=0xffffe6ffc0000000 "
        "--set start=0xff0000000",
        "  it was run, and reproduces exactly: same address, error code and symbol+offset",
    ):
        assert line in output.splitlines()


def test_the_handlers_death_is_explained(oops):
    status, output, _ = oops(HANDLER)

    assert status == 0
    assert "the handler copied it from init_mm" in output
    assert "the 1G page at physical 0x840000000 was taken for a table, and pmd 511" in output
    assert "physical 0x87fe00000 - 0x87fffffff" in output


def test_frames_that_are_not_certain_are_kept_apart(oops):
    _, output, _ = oops(HANDLER)

    lines = output.splitlines()
    assert "  btt_log_read+0x63/0x140 [nd_btt]" in lines
    assert "  memcpy_erms+0x6/0x10" not in lines
    assert "perhaps left over: put_prev_entity+0x35/0x7a0, memcpy_erms+0x6/0x10" in output


def test_task_taint_and_registers_are_told(oops):
    _, output, _ = oops(PLAIN)

    assert "task daxctl (old), pid 4711, on CPU 3 of 5.16.9-1" in output
    assert "W (a warning before this)" in output
    assert "  rbx dead000000000100  rcx 3f  rbp ffffc900006dfd70  r8 8" in output.splitlines()


def test_the_command_that_it_gives_dies_alike(oops):
    _, output, _ = oops(SUB_PMD)
    (command,) = re.findall(r"^  pagewalk (run .*)$", output, re.MULTILINE)

    status, _, errors = run_cli(*command.split(), "--expect", "ffffeb3ff1200000", parse=False)

    assert (status, errors) == (0, "")


def test_the_others_are_listed_in_brief(oops):
    _, output, _ = oops(COMPOUND + SUB_PMD + HANDLER)

    assert "the first of 3 oopses" in output
    assert "  line 3: BUG: unable to handle page fault for address: ffffeb3ff1200000" in output


def test_half_an_oops_is_told_as_far_as_it_goes(oops):
    status, output, errors = oops(COMPOUND[: COMPOUND.index(b"PGD")])

    assert (status, errors) == (0, "")
    assert "Missing from the text: the line with the page-table entries (PGD …)" in output
    assert "An unsynced top-level entry: the text does not tell" in output


# -- JSON


@pytest.mark.parametrize(
    ("text", "unsynced"),
    [
        (COMPOUND, True),
        (SUB_PMD, True),
        (HANDLER, True),
        (FIVE_LEVELS, True),
        (COMPOUND.replace(b"PGD 0 P4D 0", b"PGD 1067 P4D 1067 PUD 0"), False),
        (without(PLAIN, b"PGD"), None),
        (b"kernel BUG at mm/slub.c:4021!\ninvalid opcode: 0000 [#1] SMP", False),
        (b"general protection fault: 0000 [#1] SMP", False),
        (b"PANIC: double fault, error_code: 0x0", None),
    ],
)
def test_the_answer_is_true_false_or_null(oops, text, unsynced):
    status, document, _ = oops(text, "--json")

    assert (status, document["schema"]) == (0, 1)
    assert document["unsynced_top_level"] is unsynced


def test_the_document_has_what_the_text_says(oops):
    _, document, _ = oops(PLAIN, "--json")

    assert (document["address"], document["error_code"]) == ("0xffffe70000000034", 2)
    assert document["symbol"] == "__init_single_page+0x9/0x6d"
    assert document["task"] == {
        "cpu": 3,
        "uid": None,
        "pid": 4711,
        "comm": "daxctl (old)",
        "taint": "PWOE",
        "release": "5.16.9-1",
    }
    assert [bit["name"] for bit in document["error_bits"] if bit["set"]] == ["W"]
    assert [entry["entry"] for entry in document["table"]["entries"]] == ["0x0", "0x0"]
    assert (document["levels"], document["missing"]) == (4, [])
    assert document["registers"]["cr4"] == "0x750ef0"


def test_the_match_has_what_runs_it_and_how_far_it_goes(oops):
    _, document, _ = oops(COMPOUND, "--json")

    match = document["match"]
    assert (match["scenario"], match["release"], match["levels"]) == ("vmemmap-devdax", "6.8", 4)
    assert match["settings"]["vmemmap_base"] == "0xffffe6ffc0000000"
    assert match["reproduces"]["exactly"] is True
    assert match["reproduces"]["differences"] == []


def test_nothing_that_dies_alike_is_null(oops):
    _, document, _ = oops(b"general protection fault: 0000 [#1] SMP", "--json")

    assert document["match"] is None


def test_the_page_that_was_taken_for_a_table_is_there(oops):
    _, document, _ = oops(HANDLER, "--json")

    assert document["large_page"] == {
        "pa": "0x840000000",
        "size": 1 << 30,
        "entry": "pmd",
        "index": 511,
        "accessed_from": "0x87fe00000",
        "accessed_below": "0x880000000",
    }


def test_the_others_are_there_in_brief(oops):
    _, document, _ = oops(COMPOUND + SUB_PMD + HANDLER, "--json")

    assert document["nr_others"] == 2
    assert [other["address"] for other in document["others"]] == [
        "0xffffeb3ff1200000",
        "0xffff880840000ff8",
    ]
    assert document["others"][0]["unsynced_top_level"] is True


# -- the test that it writes


@pytest.mark.parametrize("text", [COMPOUND, SUB_PMD, FIVE_LEVELS, PLAIN])
def test_the_test_that_it_writes_passes(oops, tmp_path, text):
    status, written, errors = oops(text, "--test")
    assert (status, errors) == (0, "")
    path = tmp_path / "test_reproduced.py"
    path.write_text(written)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )

    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "    assert fault.address == 0xffffe70000000034",
        "    assert fault.error_code == 0x2",
        '    assert fault.symbol == "__init_single_page+0x9/0x6d"',
        '    " dev_dax_probe+0xce/0x2ec [device_dax]",',
        '    "PGD 0 P4D 0",',
        '    "Oops: 0002 [#1] SMP NOPTI",',
    ],
)
def test_it_asserts_what_the_text_has(oops, line):
    _, written, _ = oops(COMPOUND, "--test")

    assert line in written.splitlines()


def test_it_fails_on_another_kernel(oops, tmp_path):
    _, written, _ = oops(COMPOUND, "--test")
    scope = {}
    exec(compile(written.replace('"6.8"', '"6.17"'), "written", "exec"), scope)

    with pytest.raises(AssertionError):
        scope["test_the_reported_oops_is_reproduced"]()


def test_it_says_what_it_does_not_reproduce(oops):
    text = COMPOUND.replace(b"__init_single_page+0x9/0x6d", b"__init_single_page+0x1b/0x90")

    _, written, _ = oops(text, "--test")

    assert "# not reproduced: RIP: __init_single_page+0x1b/0x90 in the text" in written
    assert "fault.symbol" not in written


def test_there_is_none_for_what_no_scenario_does(oops):
    status, output, errors = oops(b"general protection fault: 0000 [#1] SMP", "--test")

    assert (status, output) == (2, "")
    assert "expected an oops that a scenario reproduces" in errors


# -- input of any kind


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "it is empty"),
        (b"hello\n", "found no 'BUG: unable to handle', no 'Oops:'"),
        (b"\0" * 5000, "found no"),
        (bytes(range(256)) * 40, "found no"),
        (b"\xff\xfe" + "Größe".encode("utf-16-le"), "found no"),
        (ARM64, "found one of arm64"),
        (b"BUG: unable to handle\nEIP: 0060:[<c0101010>]", "found one of 32-bit x86"),
    ],
)
def test_a_text_without_an_oops_is_bad_input(oops, text, words):
    status, output, errors = oops(text)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert "expected an x86-64 oops text; " + words in errors


@pytest.mark.parametrize("path", [".", "no-such-file", "a\0b", "/proc/self/mem"])
def test_a_file_that_cannot_be_read_is_bad_input(path):
    status, output, errors = run_cli("oops", path, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert f"FILE {path!r}: expected a file that can be read" in errors


def test_it_is_json_or_a_test():
    status, _, errors = run_cli("oops", "x", "--json", "--test", parse=False)

    assert status == 2
    assert errors.count("\n") == 1


def test_standard_input_is_read():
    done = subprocess.run([*PAGEWALK, "-", "--json"], input=COMPOUND, capture_output=True)

    assert done.returncode == 0
    assert json.loads(done.stdout)["unsynced_top_level"] is True


def test_bytes_that_are_no_text_spoil_only_themselves(oops):
    text = b"\xff\xfe\x80 \xc3( \0\0" * 3000 + b"\n" + PLAIN.replace(b"Code: ", b"Code: \xff\x80")

    _, document, _ = oops(text, "--json")

    assert document["match"]["reproduces"]["exactly"] is True


@pytest.mark.parametrize(
    "filler",
    [b"x" * 100, b"\0" * 100, b"Jan 1 00:00:00 host kernel: usb 1-1: new [#] BUG: PGD \n" * 2],
    ids=["one line", "nothing", "a log"],
)
def test_a_long_input_is_read_in_little_memory(tmp_path, filler):
    path = tmp_path / "long.log"
    with path.open("wb") as file:
        file.writelines([filler * (MIB // len(filler))] * 100)
        file.write(b"\n" + COMPOUND)
    code = (
        "import sys, time; from pagewalk.cli import main\n"
        f"main(['oops', {str(path)!r}, '--json'])\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(peak.split()[1], time.process_time(), file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True)

    peak, seconds = done.stderr.split()
    assert json.loads(done.stdout)["match"]["reproduces"]["exactly"] is True
    assert int(peak) < 200 * 1024
    assert float(seconds) < 10


def test_nothing_loads_an_engine_before_a_match_is_run(tmp_path):
    path = tmp_path / "oops.txt"
    path.write_bytes(b"general protection fault: 0000 [#1] SMP")
    code = (
        "import sys; from pagewalk.cli import main\n"
        f"main(['oops', {str(path)!r}])\n"
        "print(sorted({'unicorn', 'capstone', 'keystone', 'rich'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "[]"


@given(
    st.sampled_from((COMPOUND, SUB_PMD, HANDLER, PLAIN, FIVE_LEVELS)),
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 40), st.binary(max_size=8))),
)
def test_whatever_is_read_can_be_told(text, cuts):
    for at, length, instead in cuts:
        text = text[:at] + instead + text[at + length :]
    reading = read_oopses(io.BytesIO(text).read)
    assume(reading.first)

    assert json.loads(json.dumps(oops_document(reading, None)))["schema"] == 1
    assert next(oops_lines("a text", reading, None)).startswith("a text, line ")
    assert list(oops_lines("a text", reading, None))[-1]


@settings(max_examples=20)
@given(address=st.integers(0xFF << 56, (1 << 64) - 1), text=st.sampled_from((COMPOUND, SUB_PMD)))
def test_any_address_can_be_matched_or_not(address, text):
    head, _, rest = text.partition(b"address: ")
    reading = read_oopses(io.BytesIO(head + b"address: %016x" % address + rest[16:]).read)

    match = match_oops(reading.first)

    assert oops_document(reading, match)["address"] == f"{address:#x}"
    assert list(oops_lines("a text", reading, match))
