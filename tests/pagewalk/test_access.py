"""`pagewalk access`: a case as options, and cases as rows of a file."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import run_cli

EXAMPLES = Path(__file__).parents[2] / "docs/examples/cases.csv"
CASE = ("--va", "0x7f0012345678", "--entries", "0x1007,0x2007,0x3007,0x4005")
REFUSED = {
    "vector": 14,
    "error_code": 3,
    "cr2": "0x7f0012345678",
    "rule": "wp",
    "entries_after": ["0x1027", "0x2027", "0x3027", "0x4005"],
}
WENT_THROUGH = dict.fromkeys(("vector", "error_code", "cr2", "rule"))
ACCESS = [sys.executable, "-m", "pagewalk", "access", "--file"]
HEADER = "va,e4,e3,e2,e1,kind\n"
ROW = "7f0012345678,1007,2007,3007,4005,write\n"


def test_one_access_prints_its_verdict():
    status, verdict, errors = run_cli("access", *CASE, "--kind", "write")

    assert (status, verdict, errors) == (0, REFUSED, "")


def test_an_access_that_goes_through_has_nulls():
    _, verdict, _ = run_cli("access", *CASE, "--json")

    assert verdict == WENT_THROUGH | {"entries_after": ["0x1027", "0x2027", "0x3027", "0x4025"]}


@pytest.mark.parametrize(
    ("options", "error_code", "rule"),
    [
        (["--kind", "write", "--wp", "0"], None, None),
        (["--kind", "write", "--user"], 7, "rw"),
        (["--kind", "fetch", "--smep", "1"], 17, "smep"),
        (["--smap", "1"], 1, "smap"),
        (["--smap", "1", "--ac", "1"], None, None),
        (["--pke", "1", "--pkru", "1"], 33, "pk-ad"),
        (["--pkru", "1"], None, None),
        (["--levels", "5"], 0, "not-present"),
        (["--entries", "0x8000000000001007", "--nxe", "0"], 9, "rsvd-xd"),
    ],
)
def test_every_option_reaches_the_cpu(options, error_code, rule):
    _, verdict, _ = run_cli("access", *CASE, *options)

    assert (verdict["error_code"], verdict["rule"]) == (error_code, rule)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--va", "0"], ["--entries is missing"]),
        (["--entries", "1"], ["--va is missing"]),
        (["--va", "0", "--entries", ""], ["--entries ''"]),
        (["--va", "0", "--entries", "1,2,3,4,5"], ["--entries 5 of them", "1 to 4"]),
        (["--va", "0", "--entries", "0x1007,0x1007,0x1003"], ["--entries 0x1003", "0x1007"]),
        (["--va", "0x1" + "0" * 16, "--entries", "1"], ["--va"]),
        ([*CASE, "--kind", "execute"], ["--kind 'execute'", "read or write or fetch"]),
        ([*CASE, "--wp", "2"], ["--wp '2'", "0 or 1"]),
        ([*CASE, "--levels", "3"], ["--levels '3'", "4 or 5"]),
        ([*CASE, "--pkru", "0x100000000"], ["--pkru", "0xffffffff"]),
        ([*CASE, "--file", "x.csv"], ["--va: expected no case besides --file"]),
        (["--user", "--file", "x.csv"], ["--user"]),
        (["--file", "no-such-file.csv"], ["--file 'no-such-file.csv'", "No such file"]),
        (["--file", "."], ["--file '.'", "directory"]),
    ],
)
def test_bad_usage_is_one_line_that_names_it(arguments, words):
    status, output, errors = run_cli("access", *arguments, parse=False)

    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert [word for word in words if word not in errors] == []


# -- files


@pytest.fixture
def access(tmp_path):
    """Runs a file of this content; returns the status, the verdicts and what is on stderr."""
    file = tmp_path / "cases.csv"

    def run(content: str | bytes):
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        status, output, errors = run_cli("access", "--file", str(file), parse=False)
        return status, [*map(json.loads, output.splitlines())], errors.replace(str(file), "FILE")

    return run


def test_each_row_is_a_case_in_order(access):
    status, verdicts, errors = access(HEADER + ROW + ROW.replace("write", "read") + ROW)

    assert (status, errors) == (0, "")
    assert [verdict["rule"] for verdict in verdicts] == ["wp", None, "wp"]
    assert verdicts[0] == REFUSED


def test_the_examples_show_a_rule_each():
    status, output, errors = run_cli("access", "--file", str(EXAMPLES), parse=False)

    rules = [json.loads(line)["rule"] for line in output.splitlines()]
    assert (status, errors) == (0, "")
    assert [*filter(None, rules)] == (
        "wp smep smap xd pk-wd us rsvd-maxphyaddr not-present non-canonical".split()
    )


@pytest.mark.parametrize(
    "content",
    [
        "kind,e1,e2,e3,e4,va\nwrite,4005,3007,2007,1007,7f0012345678\n",
        f"{HEADER}\n  \n{ROW}\n",
        HEADER + ROW.strip(),
        (HEADER + ROW).replace("\n", "\r\n"),
        (HEADER + ROW).replace(",", " , "),
        "\ufeff" + HEADER + ROW,
        HEADER + '"0x7F0012345678","0X1007",2007,3007,4005,"write"\n',
        "va,levels,e5,e4,e3,e2,e1,kind,wp\n7f0012345678,,,1007,2007,3007,4005,write,\n",
        "va,levels,e5,e4,e3,e2,e1,kind\n7f0012345678,4,0,1007,2007,3007,4005,write\n",
    ],
    ids="any-order blank no-newline crlf spaces bom quotes defaults e5-of-4-levels".split(),
)
def test_the_same_case_may_be_written_so(access, content):
    assert access(content) == (0, [REFUSED], "")


def test_five_levels_begin_with_e5(access):
    _, verdicts, _ = access("va,levels,e5,e4\nff11000012345678,5,1007,2007\n")

    assert verdicts[0]["entries_after"] == ["0x1027", "0x2027"]


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        ("xyz,1007,2007,3007,4005,write", "va", "'xyz': expected a hex number"),
        (",1007,2007,3007,4005,write", "va", "expected an address"),
        ("-1,1007,2007,3007,4005,write", "va", "hex number"),
        ("1_0,1007,2007,3007,4005,write", "va", "hex number"),
        ("\u0663,1007,2007,3007,4005,write", "va", "hex number"),
        ("10000000000000000,1007,2007,3007,4005,write", "va", "64-bit"),
        ("0,1007,2007,30g7,4005,write", "e2", "'30g7'"),
        ("0,1007,,3007,4005,write", "e3", "one below it"),
        ("0,,,,,write", "e4", "expected an entry"),
        ("0,1007,1007,1003,,write", "e2", "0x1003: expected 0x1007, which lies in the same place"),
        ("0,1007,2007,3007,4005,execute", "kind", "read or write or fetch"),
        ("0,1007,2007,3007,4005,write,1", "7", "7 values: expected 6"),
        ("0,1007,2007,3007", "e1", "4 values: expected 6"),
        ('0,1007,"2007,3007,4005,write', "va", "unexpected end of data: expected CSV"),
        ("0,1007,20\x0007,3007,4005,write", "e3", "hex number"),
        (b"0,1007,20\xff07,3007,4005,write", "e3", "hex number"),
        (f"0,1007,{'1' * 2000},3007,4005,write", "e3", "..."),
        (f"{'1' * 2000}x,1007,2007,3007,4005,write", "va", "..."),
        (f"0,1007,{'1' * 200_000},3007,4005,write", "va", "more than 4096 characters"),
    ],
)
def test_a_malformed_row_is_told_and_the_rest_runs(access, row, column, words):
    middle = row if isinstance(row, bytes) else row.encode()

    status, verdicts, errors = access((HEADER + ROW).encode() + middle + f"\n{ROW}".encode())

    assert (status, verdicts, errors.count("\n")) == (2, [REFUSED, REFUSED], 1)
    assert errors.startswith(f"pagewalk: FILE: row 3, column {column}: ")
    assert words in errors
    assert len(errors) < 200


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("0,3,,1007,0,0", "levels"),
        ("0,4,1007,1007,0,0", "e5"),
        ("0,5,,1007,0,0", "e5"),
        ("0,4,,1007,2,0", "wp"),
        ("0,4,,1007,yes,0", "wp"),
        ("0,4,,1007,0,100000000", "pkru"),
    ],
)
def test_a_malformed_value_names_its_column(access, row, column):
    status, verdicts, errors = access(f"va,levels,e5,e4,wp,pkru\n{row}\n")

    assert (status, verdicts) == (2, [])
    assert f"row 2, column {column}: " in errors


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "row 1: nothing there"),
        ("\n\n", "nothing there"),
        ("va,e4,rights\n0,1,2\n", "column 'rights': expected one of va, "),
        ("va,e4,knid\n", "did you mean kind?"),
        ("va,e4,e4\n", "column e4"),
        ("e4,e3\n", "column va: expected one"),
        ("va,,e4\n", "column ''"),
        (b"va,\xff\n", "column '\\udcff'"),
        ("0x7f0012345678,0x1007\n", "column '0x7f0012345678'"),
    ],
)
def test_a_file_without_a_proper_header_runs_nothing(access, header, words):
    status, verdicts, errors = access(header)

    assert (status, verdicts, errors.count("\n")) == (2, [], 1)
    assert words in errors


# -- as a process


def test_a_pipe_is_answered_row_by_row():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*ACCESS, "-"], **pipes) as process:
        process.stdin.write((HEADER + ROW).encode())
        process.stdin.flush()
        first = json.loads(process.stdout.readline())
        process.stdin.write(ROW.replace("write", "read").encode())
        process.stdin.flush()
        second = json.loads(process.stdout.readline())
        process.stdin.close()

    assert (first["rule"], second["rule"], process.returncode) == ("wp", None, 0)


def test_ctrl_c_ends_it_while_it_waits_for_a_row():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*ACCESS, "-"], **pipes) as process:
        process.stdin.write((HEADER + ROW).encode())
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()

    assert (process.returncode, errors) == (130, b"pagewalk: interrupted\n")


def test_ctrl_c_ends_it_while_it_is_busy(tmp_path):
    file = tmp_path / "cases.csv"
    file.write_text(HEADER + ROW * 50_000)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*ACCESS, file], **pipes) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()

    assert (process.returncode, errors) == (130, b"pagewalk: interrupted\n")
    assert output.count(b"\n") < 25_000


def test_a_reader_that_leaves_ends_it_in_silence(tmp_path):
    file = tmp_path / "cases.csv"
    file.write_text(HEADER + ROW * 5000)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*ACCESS, file], **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert (process.returncode, errors) == (141, b"")
