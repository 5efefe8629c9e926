"""`pagewalk lab`: its subcommands, and the commands that the labs' texts tell students to run."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from support.cli import run_cli

from pagewalk.labs import find, labs
from pagewalk.labs.directory import solved, write

NAMES = [lab.name for lab in labs()]
COMMAND = re.compile(r"^\s*(pagewalk .*)$", re.MULTILINE)


@pytest.fixture
def lab1(tmp_path):
    """Lab 1 with every answer, made and filled in by the command line."""
    run_cli("lab", "new", "cr3", "--seed", "ada", "--dir", str(tmp_path / "d"), parse=False)
    _, answers, _ = run_cli("lab", "answers", "1", "--seed", "ada", "--json")
    for name, text in answers["files"].items():
        (tmp_path / "d" / name).write_text(text)
    return tmp_path / "d"


# ------------------------------------------------------------------ list


def test_list_has_every_lab_in_the_order_of_the_course():
    status, document, _ = run_cli("lab", "list", "--json")

    assert status == 0
    assert [lab["name"] for lab in document["labs"]] == NAMES
    assert [lab["number"] for lab in document["labs"]] == list(range(1, len(NAMES) + 1))


def test_list_shows_name_points_and_idea():
    _, text, _ = run_cli("lab", "list", parse=False)

    assert " 1  cr3              10 points  CR3 and the root: CR3 holds" in text


@pytest.mark.parametrize("arguments", [["lab", "list"], ["lab", "check", "D"]])
def test_what_runs_nothing_itself_loads_no_engine(arguments, tmp_path):
    write(tmp_path / "D", find("rights"), "ada")
    code = (
        "import sys; from pagewalk.cli import main\n"
        f"main({arguments!r})\n"
        "large = 'unicorn capstone keystone rich numpy zstandard pyarrow'\n"
        "print(sorted(set(large.split()) & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )

    assert done.stdout.splitlines()[-1] == "[]"


# ------------------------------------------------------------------ new


def test_new_says_where_to_begin(tmp_path):
    where = tmp_path / "deep" / "d"

    status, text, _ = run_cli("lab", "new", "1", "--seed", "x", "--dir", str(where), parse=False)

    assert status == 0
    assert text.splitlines()[-1] == f"begin with {where}/README.md"
    assert sorted(path.name for path in where.iterdir()) == [
        *("README.md", "answers.toml", "lab.toml", "load_under.S", "see.S"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_new_writes_has_an_answer_that_only_the_teacher_has(name, tmp_path):
    names = write(tmp_path, find(name), "ada")

    theirs = solved(find(name), "ada")

    assert [file for file in theirs if (tmp_path / file).read_text() == theirs[file]] == []
    assert set(theirs) <= set(names)


# ------------------------------------------------------------------ check


def test_check_tells_every_part_and_the_total(lab1):
    status, text, _ = run_cli("lab", "check", str(lab1), parse=False)

    assert status == 0
    assert " 6.  3 of  3  Load as another task\n" in text
    assert text.endswith("\n10 of 10 points\n")


def test_a_lost_part_is_told_with_its_reason(lab1):
    (lab1 / "load_under.S").write_text("load_under: jmp load_under")

    status, text, _ = run_cli("lab", "check", str(lab1), parse=False)

    assert status == 0
    assert " 6.  0 of  3  Load as another task\n" in text
    assert "stopped after 100000 steps at rip 0xffffffff81000000 (load_under+0x0)\n" in text
    assert text.endswith("\n7 of 10 points\n")


@pytest.fixture(scope="module")
def gradescope(tmp_path_factory):
    """What `lab check --json -o FILE` prints, and FILE, for lab 1 with one wrong answer."""
    directory = tmp_path_factory.mktemp("gradescope")
    write(directory, find("cr3"), "ada")
    (directory / "answers.toml").write_text(solved(find("cr3"), "ada")["answers.toml"])
    (directory / "load_under.S").write_text("load_under: ud2")
    file = directory / "results.json"
    _, document, _ = run_cli("lab", "check", str(directory), "--json", "-o", str(file))
    return document, file


def test_the_json_has_the_points_of_all_parts(gradescope):
    document, _ = gradescope

    assert document["score"] == sum(test["score"] for test in document["tests"]) == 7
    assert sum(test["max_score"] for test in document["tests"]) == 10
    assert document["visibility"] == "visible"
    assert document["extra_data"] == {"lab": "cr3", "seed": "ada", "edition": 1}


def test_the_json_tells_of_a_part_as_gradescope_reads_it(gradescope):
    document, _ = gradescope

    assert document["tests"][-1] == {
        "number": "6",
        "name": "Load as another task",
        "score": 0,
        "max_score": 3,
        "status": "failed",
        "output": "load_under.S does not return: #UD at rip 0xffffffff81000000 (load_under+0x0)",
        "output_format": "text",
        "visibility": "visible",
    }


def test_the_same_document_goes_to_a_file(gradescope):
    document, file = gradescope

    assert json.loads(file.read_text()) == document


def test_expect_full_holds_with_all_points(lab1):
    status, _, _ = run_cli("lab", "check", str(lab1), "--expect", "full", parse=False)

    assert status == 0


@pytest.mark.parametrize(("least", "status"), [("full", 1), ("7", 0)])
def test_expect_is_told_by_the_status(lab1, least, status):
    (lab1 / "load_under.S").unlink()

    found, _, _ = run_cli("lab", "check", str(lab1), "--expect", least, parse=False)

    assert found == status


def test_a_seed_that_the_teacher_gives_outranks_the_one_in_the_directory(lab1):
    _, document, _ = run_cli("lab", "check", str(lab1), "--seed", "bob", "--json")

    assert document["extra_data"]["seed"] == "bob"
    assert document["score"] == 3  # what is asked of load_under is the same for everybody


def test_a_lab_file_that_is_none_does_not_matter_where_lab_and_seed_are_given(lab1):
    (lab1 / "lab.toml").write_text("zork")

    status, document, _ = run_cli(
        *("lab", "check", str(lab1), "--lab", "1", "--seed", "ada", "--json")
    )

    assert (status, document["score"]) == (0, 10)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["ACTION"]),
        (["zork"], ["'zork'", "list"]),
        (["new", "cr4", "--seed", "x", "--dir", "new"], ["LAB", "'cr4'", "did you mean cr3?"]),
        (["new", "99", "--seed", "x", "--dir", "new"], ["LAB", "'99'", "number"]),
        (["new", "1", "--dir", "new"], ["--seed"]),
        (["new", "1", "--seed", "", "--dir", "new"], ["--seed", "''", "printable"]),
        (["new", "1", "--seed", "a\nb", "--dir", "new"], ["--seed", "'a\\nb'", "printable"]),
        (["new", "1", "--seed", "\udcff", "--dir", "new"], ["--seed", "'\\udcff'", "printable"]),
        (["new", "1", "--seed", "x" * 101, "--dir", "new"], ["--seed", "1 to 100"]),
        (["new", "1", "--seed", "x", "--dir", "lab"], ["--dir", "lab", "empty"]),
        (["new", "1", "--seed", "x", "--dir", "lab/README.md"], ["--dir", "README.md"]),
        (["new", "1", "--seed", "x", "--dir", "a\0b"], ["--dir", "a\\x00b"]),
        (["check", "nowhere"], ["DIR nowhere", "lab.toml"]),
        (["check", "."], ["DIR .", "lab new", "lab.toml"]),
        (["check", "lab", "--expect", "11"], ["--expect", "'11'", "0 to 10"]),
        (["check", "lab", "--expect", "all"], ["--expect", "'all'", "full"]),
        (["check", "lab", "--lab", "zork"], ["--lab", "'zork'", "four-levels"]),
        (["check", "lab", "-o", "no/file"], ["-o", "no/file", "No such file"]),
        (["answers", "four-level", "--seed", "x"], ["LAB", "did you mean four-levels?"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "lab", find("cr3"), "ada")

    status, output, errors = run_cli("lab", *arguments, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lab.toml: lab: expected"),
        ("zork", "expected TOML"),
        ('lab = "cr4"\nseed = "x"\nedition = 1', "did you mean cr3?"),
        ('lab = "cr3"\nseed = 1\nedition = 1', "lab.toml: seed: expected"),
        ('lab = "cr3"\nseed = "a\\nb"\nedition = 1', "lab.toml: seed 'a\\nb': expected"),
        ('lab = "cr3"\nseed = "x"\nedition = 7', "lab.toml: edition 7: expected 1"),
        ('lab = "cr3"\nseed = "x"\nedition = true', "lab.toml: edition: expected"),
        ("#" * (1 << 17), "lab.toml: more than"),
    ],
)
def test_a_lab_file_that_says_nothing_of_use_is_bad_input(text, words, lab1):
    (lab1 / "lab.toml").write_text(text)

    status, output, errors = run_cli("lab", "check", str(lab1), parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert words in errors


# ------------------------------------------------------------------ help, and the labs' texts


@pytest.mark.parametrize("action", ["list", "new", "check", "answers"])
def test_each_action_has_help_with_an_example(action):
    done = subprocess.run(
        [sys.executable, "-m", "pagewalk", "lab", action, "--help"], capture_output=True, text=True
    )

    assert done.returncode == 0
    assert f"example: pagewalk lab {action}" in done.stdout


def outcomes(directory):
    """Run every command of a lab's text in its directory; return those that were bad input."""
    text = (directory / "README.md").read_text(encoding="utf-8")
    commands = [match[1] for match in COMMAND.finditer(text)]
    assert commands
    found = {command: run_cli(*shlex.split(command)[1:], parse=False) for command in commands}
    return {command: errors for command, (_, _, errors) in found.items() if errors}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", ["ada", "bob"])
def test_every_command_in_a_lab_s_text_runs(name, seed, tmp_path, monkeypatch):
    write(tmp_path, find(name), seed)
    monkeypatch.chdir(tmp_path)

    assert outcomes(tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [str(number) for number in range(20)])
def test_every_command_in_a_lab_s_text_runs_with_other_seeds(name, seed, tmp_path, monkeypatch):
    write(tmp_path, find(name), seed)
    monkeypatch.chdir(tmp_path)

    assert outcomes(tmp_path) == {}
