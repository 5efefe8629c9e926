"""The manual pages are what the parsers say."""

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAN = ROOT / "docs" / "man"
PAGES = runpy.run_path(str(ROOT / "tools" / "man.py"))["pages"]()


def test_there_is_a_page_for_each_command_and_no_other():
    assert sorted(page.name for page in MAN.iterdir()) == sorted(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_tools_man_writes(name):
    assert (MAN / name).read_text(encoding="utf-8") == PAGES[name]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_ends_its_notes_with_examples(name):
    first = PAGES[name].partition(".SH EXAMPLES\n.nf\n")[2].partition("\n")[0]

    assert "pagewalk" in first


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
@pytest.mark.parametrize("name", PAGES)
def test_man_reads_a_page_without_a_warning(name):
    done = subprocess.run(
        ["man", "--warnings", "-l", str(MAN / name)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
