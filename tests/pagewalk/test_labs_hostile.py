"""What students may leave in a lab's directory: it costs points, and never the checker."""

import os

import pytest

from pagewalk.labs import find
from pagewalk.labs.checking import check
from pagewalk.labs.directory import Given, solved, write
from pagewalk.labs.judge import judge
from pagewalk.labs.submission import MOST_SOURCE, MOST_TOML, Submission

LAB = find("cr3")
BIG = "9" * 5000  # more digits than Python turns into a number


@pytest.fixture
def directory(tmp_path):
    write(tmp_path, LAB, "ada")
    return tmp_path


def reasons(directory):
    exercise, submission = LAB.of_seed("ada"), Submission(directory)
    return {part.asks[0].key: judge(part, submission) for part in exercise.parts}


def all_questions_lost(found):
    return all(reason for key, reason in found.items() if "." not in key)


# ------------------------------------------------------------------ answers.toml


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('""', "root is not answered"),
        ("[]", "root is []: expected a number"),
        ("-1", "root is -1: expected a number"),
        ("0x10000000000000000", "root is 0x10000000000000000: expected a number"),
        ("nan", "root is nan: expected a number"),
        ("1.0", "root is 1.0"),
        ("true", "root is True"),
        ("1979-05-27", "root is datetime.date"),
        ('"0x1000"', "root is '0x1000': expected a number; a number has no quotes"),
        ('"a table"', "root is 'a table': expected a number"),
        ("{ a = 1 }", "root is {'a': 1}"),
        ('"\\u001b[2J"', "root is '\\x1b[2J'"),
        (f'"{"x" * 9999}"', "…: expected a number"),
        ("0x12345678", "a table is 4 KiB aligned"),
        ("0xfffffffffffff000", "is outside RAM"),
        ("0x1000", "not-present"),
    ],
)
def test_an_answer_that_is_none_is_shown_with_what_was_expected(directory, value, words):
    (directory / "answers.toml").write_text(f"root = {value}\n")

    found = reasons(directory)

    assert words in found["root"]
    assert "\n" not in found["root"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "root is not answered"),
        ("root = ", "answers.toml is not TOML"),
        (f"root = {BIG}", "answers.toml is not TOML"),
        ("root = 1\nroot = 2", "answers.toml is not TOML"),
        ("root = " + "[" * 9999, "answers.toml is not TOML"),
        (".".join("a" * 999) + " = 1", "root is not answered"),
        ("#" * (MOST_TOML + 1), "answers.toml: more than"),
    ],
)
def test_a_file_of_answers_that_is_none_loses_every_question(directory, text, words):
    (directory / "answers.toml").write_text(text)

    found = reasons(directory)

    assert words in found["root"]
    assert all_questions_lost(found)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"\0" * 100, bytes(range(256))])
def test_bytes_that_are_no_text_lose_every_question(directory, raw):
    (directory / "answers.toml").write_bytes(raw)

    assert all_questions_lost(reasons(directory))


# ------------------------------------------------------------------ no regular files


def link(path):
    path.with_name("elsewhere").write_text("root = 1")
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("name", ["answers.toml", "load_under.S"])
@pytest.mark.parametrize(
    ("put", "words"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "no regular file"),
        (os.mkfifo, "no regular file"),
        (link, "symbolic link"),
        (lambda path: path.symlink_to(path.name), "symbolic link"),
        (lambda path: path.symlink_to("/dev/zero"), "symbolic link"),
    ],
)
def test_what_is_no_regular_file_is_not_read(directory, name, put, words):
    (directory / name).unlink()
    put(directory / name)

    found = reasons(directory)

    assert words in found["root" if name == "answers.toml" else name]


def test_a_mark_of_utf_8_is_no_part_of_a_file(directory):
    for name, text in solved(LAB, "ada").items():
        (directory / name).write_text(text, encoding="utf-8-sig")

    assert set(reasons(directory).values()) == {None}


# ------------------------------------------------------------------ a source


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing to assemble"),
        ("nop", "has no function load_under"),
        ("load_under = 5\n nop", "not return: #PF at 0x5"),
        (".data\nload_under: .quad 5", "does not return: #PF"),
        ("load_under:", ""),
        (".rept 100000000\nnop\n.endr", ".rept makes more than"),
        ("load_under: .zero 1 << 40", "at most"),
        (".macro m\nm\n.endm\nload_under: m", "load_under.S:"),
        (
            "load_under: ret\n.data\n" + '.zero 1 << 24\n.section .d1, "aw"\n.zero 1 << 24\n'
            '.section .d2, "aw"\n.zero 1 << 24\n.section .d3, "aw"\n.zero 1 << 24',
            "--ram",
        ),
        ("\N{SNOWMAN}", "load_under.S:1"),
        ("#" * (MOST_SOURCE + 1), "more than"),
        ("load_under: mov rax, cr3\n mov cr3, rsi\n xor eax, eax\n mov cr3, rax\n ret", "#PF"),
        (
            "load_under: mov rdi, 0xffff888000000000\n mov ecx, 0x4000000\n rep stosb\n ret",
            "stopped after 100000 steps",
        ),
        ("load_under: mov rax, cr0\n btr rax, 31\n mov cr0, rax\n ret", "#GP"),
        ("load_under: push 0x2b\n push rsp\n push 2\n push 0x33\n push 0\n iretq", "#"),
    ],
)
def test_a_source_that_is_none_loses_its_part_alone(directory, text, words):
    (directory / "answers.toml").write_text(solved(LAB, "ada")["answers.toml"])
    (directory / "load_under.S").write_text(text, encoding="utf-8")

    found = reasons(directory)

    assert words in found.pop("load_under.S")
    assert set(found.values()) == {None}


def test_a_source_that_asks_for_all_memory_is_refused(directory):
    sections = "".join(f'.section .d{n}, "aw"\n.zero 1 << 24\n' for n in range(100))
    (directory / "load_under.S").write_text(f"load_under: ret\n{sections}")

    found = reasons(directory)

    assert found["load_under.S"] == "this takes more memory than there is for it"


def test_a_reason_is_no_longer_than_a_line(directory):
    (directory / "load_under.S").write_text("x" * (MOST_SOURCE - 1))

    found = reasons(directory)

    assert len(found["load_under.S"]) < 400


# ------------------------------------------------------------------ a process of its own


@pytest.mark.parametrize("name", ["cr3", "rights"])  # code of the student's, and a terabyte of RAM
def test_a_process_of_its_own_judges_as_this_one_does(name, tmp_path):
    write(tmp_path, find(name), "ada")
    for file, text in solved(find(name), "ada").items():
        (tmp_path / file).write_text(text)

    report = check(tmp_path, Given(find(name), "ada"))

    assert [result.reason for result in report.results if result.reason] == []


def test_a_part_that_ends_the_emulator_is_lost_and_the_others_are_not(directory):
    texts = solved(LAB, "ada")
    (directory / "answers.toml").write_text(texts["answers.toml"])
    aborts = texts["load_under.S"].replace("mov     cr3, rsi", ".byte 0xf0, 0x0f, 0xba, 0xe8, 1")
    (directory / "load_under.S").write_text(aborts)

    report = check(directory, Given(LAB, "ada"))

    assert report.results[-1].reason.startswith("it ended the emulator (SIG")
    assert report.earned == LAB.points - 3


def test_a_part_that_takes_too_long_is_ended(directory):
    report = check(directory, Given(LAB, "ada"), seconds=0.0)

    assert {result.reason for result in report.results} == {"it takes longer than 0 seconds"}


def test_modules_in_the_directory_are_not_those_that_are_imported(directory, monkeypatch):
    (directory / "json.py").write_text("raise SystemExit('mine')")
    (directory / "answers.toml").write_text(solved(LAB, "ada")["answers.toml"])
    monkeypatch.chdir(directory)

    report = check(directory, Given(LAB, "ada"))

    assert report.earned == LAB.points - 3


def test_no_process_is_left_behind(directory):
    check(directory, Given(LAB, "ada"), seconds=0.0)

    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
