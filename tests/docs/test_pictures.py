"""The pictures are what tools/pictures.py draws, and everybody can read them."""

import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def contents(directory):
    return {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.svg")}


def test_the_pictures_are_those_that_the_tool_draws(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.setattr(sys, "argv", ["pictures.py", str(tmp_path)])
    draw = runpy.run_path(str(ROOT / "tools" / "pictures.py"))["main"]

    draw()

    assert contents(tmp_path) == contents(ROOT / "docs" / "pictures")


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_says_in_words_what_it_shows(path):
    picture = ElementTree.parse(path).getroot()

    assert picture.findtext(f"{SVG}title")
    assert picture.findtext(f"{SVG}desc")


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_has_colours_for_dark_pages_too(path):
    assert "prefers-color-scheme: dark" in path.read_text(encoding="utf-8")
