"""`pagewalk doctor`: its two outputs, its exit status, and what a sick machine looks like."""

import importlib
import re
import subprocess
import sys

import pytest
from support.cli import run_cli

from asm import proofs as asm_proofs
from emu import Machine, _unicorn
from emu import proofs as emu_proofs
from emu.proofs import Proof
from pagewalk.commands import doctor

PAGEWALK = [sys.executable, "-m", "pagewalk"]
NAMES = [proof.name for proof in (*emu_proofs.PROOFS, *asm_proofs.PROOFS)]


def fails():
    raise ZeroDivisionError("one line\nand another")


def import_but_emu(name):
    if name == "emu.proofs":
        raise ImportError("libunicorn.so.2: cannot open shared object file")
    return importlib.import_module(name)


@pytest.fixture
def only(monkeypatch):
    """Leave only the proofs given; asm has none then."""

    def leave(*proofs):
        monkeypatch.setattr(emu_proofs, "PROOFS", proofs)
        monkeypatch.setattr(asm_proofs, "PROOFS", ())

    return leave


@pytest.fixture
def other_engine(monkeypatch):
    """One that says it is unknown, once it is loaded; before, every proof would refuse to."""
    with Machine():
        monkeypatch.setattr(_unicorn, "version", lambda: (2, 2, 0))
        yield


# -- a machine in good health


def test_every_proof_has_its_line_and_the_summary_names_the_versions():
    status, output, errors = run_cli("doctor", parse=False)

    *lines, empty, result, versions = output.splitlines()
    assert (status, errors, empty) == (0, "", "")
    assert [line.partition(":")[0] for line in lines] == [f"ok   {name}" for name in NAMES]
    assert re.match(rf"{len(NAMES)} proofs, all hold, \d+\.\d\d s$", result)
    assert re.match(
        r"unicorn 2\.1\.4, capstone [\d.]+, keystone-engine [\d.]+, Python 3\.", versions
    )


def test_json_is_one_document_of_schema_1():
    status, document, errors = run_cli("doctor", "--json")

    assert (status, errors) == (0, "")
    assert set(document) == {"schema", "holds", "proofs", "versions", "platform", "seconds"}
    assert (document["schema"], document["holds"]) == (1, True)
    assert [proof["name"] for proof in document["proofs"]] == NAMES
    assert {tuple(proof) for proof in document["proofs"]} == {
        ("name", "relies_on", "holds", "seen")
    }
    assert {proof["holds"] for proof in document["proofs"]} == {True}
    assert set(document["versions"]) == {"unicorn", "capstone", "keystone-engine", "Python"}
    assert 0 < document["seconds"] < 10  # 0.2 where nothing else runs


def test_names_are_unique_across_the_groups():
    assert len(set(NAMES)) == len(NAMES)


def test_both_groups_have_proofs_of_one_form():
    assert asm_proofs.Proof._fields == emu_proofs.Proof._fields


def test_the_output_is_ascii_for_any_terminal():
    done = subprocess.run(
        [*PAGEWALK, "doctor"], capture_output=True, env={"PYTHONIOENCODING": "ascii"}
    )

    assert (done.returncode, done.stderr) == (0, b"")


# -- a sick one


@pytest.mark.usefixtures("other_engine")
def test_an_unknown_engine_is_one_fail_line_and_status_1():
    status, output, _ = run_cli("doctor", parse=False)

    failed = [line for line in output.splitlines() if line.startswith("FAIL")]
    assert status == 1
    assert failed == [
        "FAIL version: unicorn 2.2.0; "
        "expected: the engine is one whose layout and behaviour are known"
    ]
    assert f"{len(NAMES)} proofs, 1 of {len(NAMES)} fail" in output


@pytest.mark.usefixtures("other_engine")
def test_a_failed_proof_is_in_the_json_and_makes_the_status_1():
    status, document, _ = run_cli("doctor", "--json")

    assert (status, document["holds"]) == (1, False)
    assert [proof for proof in document["proofs"] if not proof["holds"]] == [
        {
            "name": "version",
            "relies_on": "the engine is one whose layout and behaviour are known",
            "holds": False,
            "seen": "unicorn 2.2.0",
        }
    ]


def test_a_proof_that_crashes_has_failed_and_the_next_one_is_carried_out(only):
    only(Proof("bad", "nothing", fails), Proof("good", "nothing", lambda: "as it should be"))

    status, output, _ = run_cli("doctor", parse=False)

    assert status == 1
    assert output.splitlines()[:2] == [
        "FAIL bad: ZeroDivisionError: one line and another; expected: nothing",
        "ok   good: as it should be",
    ]


def test_an_engine_that_cannot_be_loaded_is_a_failure_and_no_traceback(monkeypatch, only):
    only()
    monkeypatch.setattr(doctor, "import_module", import_but_emu)

    status, output, errors = run_cli("doctor", parse=False)

    assert (status, errors) == (1, "")
    assert output.startswith("FAIL emu.proofs: ImportError: libunicorn.so.2: cannot open")


HANGS = """
import sys, time
from emu import proofs
from pagewalk.cli import main
from pagewalk.commands import doctor
doctor._PATIENCE = 0.1
first = proofs.Proof("quick", "nothing", lambda: "at once")
proofs.PROOFS = (first, proofs.Proof("hangs", "an end", lambda: time.sleep(60)))
sys.exit(main(["doctor"]))
"""


def test_a_proof_that_does_not_end_is_reported_and_ends_the_rest():
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30)

    assert done.returncode == 1
    assert done.stdout.splitlines()[:2] == [
        "ok   quick: at once",
        "FAIL hangs: no end within 0.1 seconds; expected: an end",
    ]


CRASHES = """
import ctypes, sys
from emu import proofs
from pagewalk.cli import main
def falls_over(): ctypes.string_at(0)
proofs.PROOFS = (proofs.Proof("crashes", "no crash", falls_over),)
sys.exit(main(["doctor"]))
"""


def test_an_engine_that_crashes_leaves_the_name_of_the_proof():
    done = subprocess.run([sys.executable, "-c", CRASHES], capture_output=True, text=True)

    assert done.returncode < 0
    assert "falls_over" in done.stderr
