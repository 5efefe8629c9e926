"""`pagewalk diff A B`: where two tables differ."""

import pytest
from support.cli import run_cli

DEVDAX = ("--scenario", "vmemmap-devdax")


def diffed(*arguments):
    """The document."""
    status, document, errors = run_cli("diff", *arguments, "--json")
    assert (status, errors) == (0, "")
    return document


@pytest.mark.parametrize(
    ("levels", "entry"), [("4", "PML4E (pgd) slot 462"), ("5", "PML5E (pgd) slot 468")]
)
def test_what_a_task_lacks_is_one_line_and_the_entry_that_is_missing(levels, entry):
    _, text, _ = run_cli("diff", "init_mm", "modprobe", *DEVDAX, "--levels", levels, parse=False)

    _, _, line, parting = text.splitlines()
    assert "4M  only in init_mm: 4K PTE   pte" in line
    assert line.endswith("vmemmap")
    assert f"they differ at the {entry}: init_mm has 0x" in parting
    assert parting.endswith("modprobe has 0x0")


def test_each_piece_is_in_the_document():
    document = diffed("init_mm", "modprobe", *DEVDAX)

    found = document.pop("differences")
    root_a, root_b = document["a"].pop("root"), document["b"].pop("root")
    assert document == {
        "schema": 1,
        "levels": 4,
        "a": {"task": "init_mm"},
        "b": {"task": "modprobe"},
        "complete": True,
    }
    assert (found[0]["first"], found[-1]["last"]) == ("0xffffe70000000000", "0xffffe700003fffff")
    assert {one["what"] for one in found} == {"only-a"}
    assert {one["a"]["kind"] for one in found} == {"mapped"}
    assert {one["b"]["pa"] for one in found} == {None}
    assert diffed(root_a, root_b, *DEVDAX)["differences"] == found


def test_the_other_way_round_it_is_the_other_s():
    found = diffed("modprobe", "init_mm", *DEVDAX)["differences"]

    assert {one["what"] for one in found} == {"only-b"}


def test_a_table_and_itself_map_the_same():
    status, text, _ = run_cli("diff", "init_mm", "swapper/0", parse=False)

    assert status == 0
    assert text.splitlines()[-1] == "init_mm and swapper/0 map the same"


def test_on_the_kernel_that_has_the_fix_nothing_differs():
    found = diffed("init_mm", "modprobe", *DEVDAX, "--release", "6.17")

    assert found["differences"] == []


def test_a_range_leaves_out_what_lies_outside():
    within = ["--range", "ffffe70000001000-ffffe70000001fff"]

    found = diffed("init_mm", "modprobe", *DEVDAX, *within)["differences"]

    assert [(one["first"], one["size"]) for one in found] == [("0xffffe70000001000", 4096)]


def test_exact_lines_are_as_many_as_the_pieces():
    _, text, _ = run_cli("diff", "init_mm", "modprobe", *DEVDAX, "--exact", parse=False)

    pieces = [line for line in text.splitlines() if "only in init_mm" in line]
    assert len(pieces) == len(diffed("init_mm", "modprobe", *DEVDAX)["differences"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["init_mm"], ["B"]),
        (["init_mm", "zork"], ["B", "'zork'", "swapper/0"]),
        (["swaper/0", "init_mm"], ["A", "'swaper/0'", "did you mean swapper/0?"]),
        (["0x123", "init_mm"], ["A", "0x123", "4 KiB aligned"]),
        (["init_mm", "0xfffffffff000"], ["B", "0xfffffffff000", "RAM"]),
        (["init_mm", "init_mm", "--range", "0-"], ["--range", "'0-'", "A-B"]),
        (["init_mm", "init_mm", "--range", "2-1"], ["--range", "2-1", "no higher"]),
        (["init_mm", "init_mm", "--task", "init_mm"], ["--task"]),
        (["init_mm", "init_mm", "--set", "ram=1G"], ["--set", "--scenario"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words):
    status, output, errors = run_cli("diff", *arguments, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []
