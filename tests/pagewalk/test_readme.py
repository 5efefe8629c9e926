"""README is true: its first output, its commands, its Python."""

import pytest
from support.cli import run_cli
from support.pages import ROOT, Reader, blocks, not_printed

README = (ROOT / "README.md").read_text(encoding="utf-8")
TOUR = README[README.index("## What it is for") :]


def test_the_first_two_blocks_are_the_main_job_and_the_tests():
    main_job, tests = (block.text for block in blocks(README, "sh")[:2])

    assert main_job.rstrip().endswith("pagewalk run vmemmap-devdax")
    assert "pytest" in tests


def test_the_output_shown_is_the_output():
    _, text, _ = run_cli("run", "vmemmap-devdax", parse=False)

    assert not_printed(blocks(README, "text")[0].text.splitlines(), text) == []


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A directory where files may be written, with the examples in it."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)


def test_every_command_every_output_and_all_python_is_as_shown(elsewhere):
    assert Reader().complaints(TOUR) == []
