"""README is true: its first output, its commands, its Python."""

import re
import shlex
from pathlib import Path

import pytest
from support.cli import run_cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def commands():
    """The lines of the console blocks, each with the exit status that it promises.

    Before it come the lines of its block that write the files that it reads.
    """
    found = []
    for block in blocks("console"):
        before = []
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ pagewalk "), comments=True)
            promised = int("# exits with 1" in line)
            found.append(pytest.param(list(before), words, promised, id=line))
            if "-o" in words:
                before.append(words)
    return found


def test_the_first_two_blocks_are_the_main_job_and_the_tests():
    main_job, tests = blocks("sh")[:2]

    assert main_job.rstrip().endswith("pagewalk run vmemmap-devdax")
    assert "pytest" in tests


def test_the_output_shown_is_the_output_in_its_order():
    shown = [line.rstrip() for line in blocks("text")[0].rstrip("\n").split("\n")]

    _, text, _ = run_cli("run", "vmemmap-devdax", parse=False)

    printed = iter([line.rstrip() for line in text.split("\n")])  # `in` goes on from the last find
    assert [line for line in shown if line != "…" and line not in printed] == []


def test_the_difference_shown_is_the_output():
    _, text, _ = run_cli("diff", "init_mm", "modprobe", "--scenario", "vmemmap-devdax", parse=False)

    assert blocks("text")[1] == text


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A directory where files may be written, with the examples in it."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)


def test_what_show_prints_is_what_it_prints(elsewhere):
    write, show = (c.values[1] for c in commands() if "handler.jsonl.zst" in c.id)
    run_cli(*write, parse=False)

    _, text, _ = run_cli(*show, parse=False)

    assert blocks("text")[2] == text


@pytest.mark.parametrize(("before", "arguments", "promised"), commands())
def test_every_command_shown_runs(before, arguments, promised, elsewhere):
    for words in before:
        run_cli(*words, parse=False)

    status, output, errors = run_cli(*arguments, parse=False)

    assert status == promised
    assert output
    assert errors == ""


@pytest.mark.parametrize(
    ("code", "printed"),
    list(zip(blocks("python"), ["__init_single_page+0x9/0x6d", "", "", ""], strict=True)),
    ids=["kernel", "probe", "bulk", "recording"],
)
def test_the_python_shown_runs(code, printed, capsys):
    exec(compile(code, "README.md", "exec"), {})

    assert printed in capsys.readouterr().out
