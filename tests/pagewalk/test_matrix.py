"""`pagewalk matrix`: the table, its JSON, and what is refused."""

import pytest
from support.cli import run_cli

from kernel_model import RELEASES
from kernel_model.scenarios import SCENARIOS
from kernel_model.scenarios.matrix import cells, run_cell

WORDS = {"completed", "fixed up", "fault", "BUG", "double fault", "n/a"}


def test_a_row_has_a_word_for_each_release():
    status, text, _ = run_cli(
        "matrix", "--scenario", "ioremap-512g", "--levels", "4", "--jobs", "1", parse=False
    )

    row = next(line for line in text.splitlines() if line.startswith("ioremap-512g "))
    assert status == 0
    assert row.split(None, 1)[1].startswith("fault  fixed up  fixed up")


def test_each_place_where_something_died_is_named_once():
    _, text, _ = run_cli(
        "matrix", "--scenario", "vmemmap-devdax", "--levels", "4", "--jobs", "1", parse=False
    )

    assert text.splitlines()[-1] == (
        "  vmemmap-devdax: fault in __init_single_page+0x9/0x6d, at ffffe70000000034 "
        "(6.8/4, 6.13/4, 6.16/4)"
    )


def test_the_json_has_a_cell_for_each_run():
    status, document, _ = run_cli(
        *("matrix", "--json", "--jobs", "1", "--scenario", "prealloc-nonpresent"),
        *("--release", "5.6", "--release", "5.9-mw"),
    )

    found = [(c["release"], c["levels"], c["cell"], c["address"]) for c in document["cells"]]
    assert status == 0
    assert document["schema"] == 1
    assert found == [
        ("5.6", 4, "fixed up", None),
        ("5.6", 5, "fixed up", None),
        ("5.9-mw", 4, "fault", "0xffffe8ffffd00608"),
        ("5.9-mw", 5, "fault", "0xffd1ffffffd00608"),
    ]


def test_what_a_release_lacks_is_said():
    cell = run_cell("ioremap-512g", "4.4", 5)

    assert (cell.word, cell.detail) == ("n/a", "release 4.4 has no 5-level paging")


def test_several_processes_come_to_the_same():
    chosen = ("matrix", "--json", "--scenario", "vmemmap-subpmd", "--levels", "4")

    assert run_cli(*chosen, "--jobs", "2") == run_cli(*chosen, "--jobs", "1")


def test_every_scenario_and_release_is_in_it():
    assert len(list(cells(SCENARIOS))) == len(SCENARIOS) * len(RELEASES) * 2


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_cell_is_one_of_six_words(scenario):
    words = {run_cell(*unit).word for unit in cells([scenario])}

    assert words <= WORDS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "ioremap"], "--scenario 'ioremap': expected one of"),
        (["--release", "4.5"], "--release '4.5': expected one of 4.4, 4.6"),
        (["--levels", "6"], "--levels '6': expected 4 or 5"),
        (["--jobs", "0"], "--jobs '0': expected a number from 1"),
        (["extra"], "unrecognized arguments: extra"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    status, text, errors = run_cli("matrix", *arguments, parse=False)

    assert (status, text, errors.count("\n")) == (2, "", 1)
    assert message in errors
