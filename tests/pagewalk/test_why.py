"""`pagewalk why`: what is asked of every table, as text and as JSON."""

import pytest
from support.cli import run_cli
from support.kernel_facts import FOUR, boot, populate_compound

from kernel_model import why
from pagewalk.render_why import why_lines
from pagewalk.why_json import why_json

FAULT = "0xffffe70000000034"
DEVDAX = ("--scenario", "vmemmap-devdax")
COMPOUND = "vmemmap_populate_compound_pages"


def text_of(*arguments):
    status, text, errors = run_cli("why", *arguments, parse=False)
    assert (status, errors) == (0, "")
    return text


def test_the_walks_stand_side_by_side_with_who_wrote_each_entry():
    lines = text_of(FAULT, *DEVDAX).splitlines()

    heads = next(line for line in lines if "the reference" in line)
    top = next(i for i, line in enumerate(lines) if line.startswith("PML4E"))
    assert heads.split() == ["init_mm,", "the", "reference", "modprobe"]
    assert lines[top].startswith("PML4E pgd=p4d [462]")
    assert lines[top].rstrip().endswith("0x0  -")
    assert lines[top + 1].split() == [COMPOUND, "nobody"]
    assert [line.split()[0] for line in lines[top : top + 8 : 2]] == [
        "PML4E",
        "PDPTE",
        "PDE",
        "PTE",
    ]


def test_it_names_the_first_difference_and_the_path_that_told_nobody():
    text = text_of(FAULT, *DEVDAX)

    assert "slot 462 of the top tables (ffffe70000000000 - ffffe77fffffffff)" in text
    assert "unsynced: init_mm maps it, 1 of 1 other table does not" in text
    assert "they differ first at the PML4E (pgd) slot 462" in text
    assert f"{COMPOUND} wrote slot 462 of init_mm after modprobe was forked" in text


def test_it_says_between_which_forks_that_was():
    text = text_of(FAULT, *DEVDAX, "--set", "task=late")

    assert "after early was forked and before late was; no sync of it came after that" in text


def test_with_five_levels_it_is_the_pml5e():
    text = text_of("0xffd4000000000034", *DEVDAX, "--levels", "5")

    assert "they differ first at the PML5E (pgd) slot 468" in text


def test_a_sync_that_would_have_come_is_named():
    text = text_of("0xffffeb3ff1200000", "--scenario", "vmemmap-subpmd")

    assert "vmemmap_set_pmd" in text
    assert "vmemmap_populate's own comes at its end, and it did not get there" in text


def test_with_the_fix_it_says_that_all_agree_and_who_copied():
    text = text_of(FAULT, *DEVDAX, "--release", "6.17")

    assert "mapped: the same page under init_mm's table and 1 other table" in text
    assert "sync_global_pgds" in text


def test_json_has_every_table_every_entry_and_its_writer():
    status, document, _ = run_cli("why", FAULT, *DEVDAX, "--json")

    reference, task = document["tables"]
    assert (status, document["schema"], document["verdict"]) == (0, 1, "unsynced")
    assert (document["address"], document["slot"]) == (FAULT, 462)
    assert [step["written"]["by"] for step in reference["walk"]] == [COMPOUND] * 4
    assert (reference["names"], reference["differs"]) == (["init_mm"], None)
    assert (task["names"], task["on_pgd_list"]) == (["modprobe"], True)
    assert (task["differs"], task["differs_at"], task["end"]) == ("lacking", "pgd", "not-present")
    assert [(step["entry"], step["written"]) for step in task["walk"]] == [("0x0", None)]
    assert task["cause"] == {
        "reason": "not-synced",
        "path": COMPOUND,
        "after_fork_of": "modprobe",
        "before_fork_of": None,
        "by": None,
    }


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("0x1000", "per mm: a user address: only its own task's table matters"),
        ("0xffff880000000000", "per mm: the LDT slot"),
        ("0xffffffffff000000", "never mapped: init_mm's own walk ends at an empty pmd"),
        ("ffffea0000000000", "mapped: there is no other table than init_mm's"),
        ("__init_single_page+0x9", "boot"),
    ],
)
def test_without_a_scenario_it_asks_the_kernel_that_has_booted(address, words):
    assert words in text_of(address)


def test_where_only_a_or_d_differ_it_says_so():
    with boot(FOUR) as kernel:
        populate_compound(kernel, FOUR.pfn)
        task = kernel.fork("a")
        at = (task.mm.pgd >> 3) + FOUR.slot
        kernel.memory.words[at] &= ~0x20

        text = "\n".join(why_lines(kernel, why(kernel, FOUR.boundary)))

    assert "mapped" in text
    assert "a: only A and D differ, which the CPU writes" in text


def test_ten_thousand_tables_fit_a_screen():
    with boot(FOUR) as kernel:
        for n in range(10_000):
            kernel.fork(f"task-{n}")
        populate_compound(kernel, FOUR.pfn)

        found = why(kernel, FOUR.boundary)
        lines = list(why_lines(kernel, found))
        document = why_json(kernel, found)

    assert len(lines) < 24
    assert max(map(len, lines)) < 180
    assert "10,000 tables (task-0, task-1, task-2, task-3, …)" in "\n".join(lines)
    assert document["tables"][1]["count"] == 10_000


def test_tables_that_all_differ_fit_a_screen_too():
    with boot(FOUR) as kernel:
        populate_compound(kernel, FOUR.pfn)
        for n in range(1000):
            task = kernel.fork(f"task-{n}")
            kernel.memory.words[(task.mm.pgd >> 3) + FOUR.slot] = 0x1000 * (n + 1) | 0x67

        lines = list(why_lines(kernel, why(kernel, FOUR.boundary)))

    assert len(lines) < 60


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["zork"], ["ADDR", "'zork'", "address"]),
        (["0xzz"], ["ADDR", "'0xzz'"]),
        (["0x10000000000000000"], ["ADDR", "0xffffffffffffffff"]),
        (["0x0000800000000000"], ["ADDR", "canonical", "48 bits"]),
        (["0x0100000000000000", "--levels", "5"], ["ADDR", "canonical", "57 bits"]),
        (["0x1000", "--scenario", "zork"], ["scenario", "'zork'"]),
        (["0x1000", "--set", "ram=1G"], ["--set", "--scenario"]),
        (["0x1000", "--scenario", "vmemmap-devdax", "--set", "ram"], ["--set", "KEY=VALUE"]),
        (["0x1000", "--release", "5.0"], ["release", "'5.0'"]),
        (["0x1000", "--levels", "6"], ["--levels", "'6'"]),
        ([], ["ADDR"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words):
    status, output, errors = run_cli("why", *arguments, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []
