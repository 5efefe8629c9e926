"""The documentation is true: every command, every snippet and every output in it, as it stands."""

import re
import subprocess
from shutil import copytree, ignore_patterns

import pytest
from support.cli import run_cli
from support.pages import ROOT, Reader, blocks, run_line

from pagewalk.cli import COMMANDS, make_parser

DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(DOCS)): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
}
TUTORIAL = PAGES["tutorial.md"]
LANGUAGES = {"console", "json", "python", "sh", "text"}  # what a reader does, or sees
FILES = {"asm", "python", "toml"}  # what a block with a title may be
SOURCES = "emu asm kernel_model pagewalk pyproject.toml README.md LICENSE".split()


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A directory where files may be written, with the examples in it."""
    (tmp_path / "docs").symlink_to(DOCS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [n for n in PAGES if blocks(PAGES[n], "console", "python")])
def test_what_a_page_says_is_so(name, desk):
    assert Reader().complaints(PAGES[name]) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_block_that_nobody_runs(name):
    found = {(bool(block.title), block.language) for block in blocks(PAGES[name])}

    assert found <= {(False, each) for each in LANGUAGES} | {(True, each) for each in FILES}


@pytest.mark.parametrize("name", PAGES)
def test_every_fence_of_a_page_belongs_to_a_block(name):
    assert PAGES[name].count("```") == 2 * len(blocks(PAGES[name]))


def examples(command):
    """The commands at the end of a command's help, which the reference shows."""
    _, text = re.split(r"^examples?:", make_parser(command).commands[command].epilog, flags=re.M)
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.fixture
def what_examples_name(desk):
    """The files that the examples of the commands' helps name."""
    (desk / "dmesg.txt").write_bytes((DOCS / "examples" / "oops.txt").read_bytes())
    (desk / "copy.S").write_text("copy:  rep movsb\n       ret\n", encoding="utf-8")
    run_cli("trace", "copy.S", "-o", "run.jsonl.zst", parse=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_in_a_commands_help_run(command, what_examples_name):
    ends = [run_line(example) for example in examples(command)]

    assert {status for status, _, _ in ends} <= {0, 1}
    assert {errors for _, _, errors in ends} == {""}


def test_the_tutorial_installs_as_readme_does():
    (installation,) = blocks(TUTORIAL, "sh")
    main_job, *_ = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "sh")

    assert main_job.text.startswith(installation.text.rstrip())


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "emu").exists(), reason="there is no checkout to install from")
def test_the_tutorials_installation_is_all_that_its_first_command_needs(tmp_path):
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            copytree(source, tmp_path / name, ignore=ignore_patterns("__pycache__"))
        else:
            (tmp_path / name).write_bytes(source.read_bytes())
    (installation,) = blocks(TUTORIAL, "sh")

    subprocess.run(["bash", "-euc", installation.text], cwd=tmp_path, check=True)

    pagewalk = tmp_path / ".venv" / "bin" / "pagewalk"
    assert subprocess.run([pagewalk, "run", "vmemmap-devdax", "--expect", "oops"]).returncode == 0
