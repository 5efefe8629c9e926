"""docs/sources.md is complete: it has what the code cites, and the code cites what it has."""

import re
from pathlib import Path

import asm
import emu
import kernel_model

PACKAGES = [Path(package.__file__).parent for package in (emu, asm, kernel_model)]
FILES = [
    path for package in PACKAGES for path in package.rglob("*.*") if path.suffix in (".py", ".S")
]
PAGE = (Path(__file__).parents[1] / "docs" / "sources.md").read_text(encoding="utf-8")

_CITED = re.compile(r'\b([0-9a-f]{12}) "([^"]+)"')
_LISTED = re.compile(r"^\| ([0-9a-f]{12}) \| (.+?) \|", re.MULTILINE)
_TITLE = r'"[A-Z0-9][^"]*"'  # what starts otherwise is code between two strings
_SECTIONS = re.compile(rf'\bSDM\b[^".;)|]*(?:{_TITLE}[^".;)|]*)+')


def running_text(path):
    """A file's text on one line: comment signs and the seams of strings are left out."""
    joined = re.sub(r"""['"]\n +['"]""", "", path.read_text(encoding="utf-8"))
    return re.sub(r"\n\s*(?:#\s*)?", " ", joined)


def titles(text):
    """The quoted titles of every sentence that names the SDM."""
    return {
        title.strip('"') for found in _SECTIONS.findall(text) for title in re.findall(_TITLE, found)
    }


def cited(found):
    """What `found` finds in any file."""
    return {each for path in FILES for each in found(running_text(path))}


def test_every_commit_cited_is_on_the_page_with_its_subject():
    assert cited(_CITED.findall) - set(_LISTED.findall(PAGE)) == set()


def test_every_commit_on_the_page_is_cited():
    assert set(_LISTED.findall(PAGE)) - cited(_CITED.findall) == set()


def test_every_section_of_the_manual_that_is_cited_is_on_the_page():
    assert cited(titles) - titles(PAGE) == set()


def test_every_section_of_the_manual_on_the_page_is_cited():
    assert titles(PAGE) - cited(titles) == set()
