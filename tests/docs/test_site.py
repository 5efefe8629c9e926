"""The site builds without a warning, fetches nothing, and has every page, command and name."""

import fcntl
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from shutil import copytree
from urllib.parse import urlsplit

import pytest
from support.pages import ROOT

import asm
import emu
import kernel_model
from kernel_model.scenarios import SCENARIOS
from pagewalk.cli import COMMANDS

DOCS = ROOT / "docs"
CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
PUBLIC = [
    f"{package.__name__}.{name}" for package in (emu, asm, kernel_model) for name in package.__all__
]


class Fetches(HTMLParser):
    """What a browser loads with a page: all but what is behind a link."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        names = ("href",) if tag == "link" else ("src", "srcset", "data", "poster")
        self.found += [value for name, value in attributes if tag != "a" and name in names]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The directory of the site, which is built once, however many processes the tests run in."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = shared / "built"
        if not built.exists():
            build(tmp_path_factory.mktemp("site")).rename(built)
    return built


def build(where):
    """Build the site below a directory; the build says that there is nothing to complain of."""
    for name in ("docs", "tools"):
        copytree(ROOT / name, where / name)
    for name in ("README.md", "mkdocs.yml"):
        (where / name).write_bytes((ROOT / name).read_bytes())
    zensical = Path(sys.executable).with_name("zensical")
    done = subprocess.run(
        [zensical, "build", "--strict"], cwd=where, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return where / "site"


def pages(site):
    return {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def test_nothing_is_fetched_from_elsewhere(site):
    fetched = {each for page in pages(site).values() for each in Fetches(page).found}

    assert {each for each in fetched if urlsplit(each).netloc or each.startswith("//")} == set()


def test_no_style_sheet_fetches_anything_from_elsewhere(site):
    sheets = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]

    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", "".join(sheets)) == []


def test_every_picture_is_there(site):
    shown = [
        (path.parent / each)
        for path, page in pages(site).items()
        for each in Fetches(page).found
        if each.endswith(".svg")
    ]

    assert len(shown) >= 5
    assert [path for path in shown if not path.exists()] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_in_the_reference(site, name):
    package = name.partition(".")[0]
    page = (site / "reference" / package / "index.html").read_text(encoding="utf-8")

    assert f'id="{name}"' in page


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_reference(site, command):
    page = (site / "reference" / "command-line" / "index.html").read_text(encoding="utf-8")

    assert f'<h2 id="{command}">' in page
    assert f"pagewalk {command} [-h]" in page


@pytest.mark.parametrize("action", ["list", "new", "check", "answers"])
def test_a_command_below_a_command_is_there_with_its_options(site, action):
    page = (site / "reference" / "command-line" / "index.html").read_text(encoding="utf-8")

    assert f'<h3 id="lab-{action}">' in page
    assert f"pagewalk lab {action} [-h]" in page


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_is_in_the_reference(site, scenario):
    page = (site / "reference" / "scenarios" / "index.html").read_text(encoding="utf-8")

    assert f'<h2 id="{scenario}">' in page


@pytest.mark.parametrize("package", ["emu", "asm", "kernel_model", "pytest"])
def test_no_name_with_underscores_is_taken_for_emphasis(site, package):
    page = (site / "reference" / package / "index.html").read_text(encoding="utf-8")

    assert re.findall("<(?:em|strong)>.*", page) == []


def test_the_readers_order_is_that_of_readme(site):
    page = (site / "reading-the-source" / "index.html").read_text(encoding="utf-8")

    assert "<code>emu/paging.py</code>: what the bits mean, drawn once." in page


def test_every_page_is_in_the_navigation_once():
    listed = re.findall(r"^ +- ([\w/.-]+\.md)$", CONFIG, flags=re.M)

    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
