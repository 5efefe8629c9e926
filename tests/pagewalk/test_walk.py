"""`pagewalk walk` and `pagewalk list`."""

import pytest
from support.cli import run_cli

FAULT = "0xffffe70000000034"


def test_it_shows_where_the_task_s_walk_stops_and_init_mm_s_goes_on():
    status, document, _ = run_cli(
        *("walk", FAULT, "--scenario", "vmemmap-devdax", "--against", "init_mm", "--json")
    )

    other = document["against"]
    assert status == 0
    assert (document["task"], document["verdict"]) == ("modprobe", "not-present")
    assert [step["entry"] for step in document["walk"]] == ["0x0"]
    assert (other["task"], other["verdict"]) == ("init_mm", "mapped")
    assert [step["linux_name"] for step in other["walk"]] == ["pgd", "pud", "pmd", "pte"]


def test_with_five_levels_there_is_a_p4d():
    _, document, _ = run_cli("walk", "0xffd4000000000034", "--levels", "5", "--json")

    assert [step["linux_name"] for step in document["walk"]] == ["pgd", "p4d", "pud", "pmd"]


def test_it_names_the_rule_that_refuses_each_access():
    _, document, _ = run_cli("walk", "__init_single_page", "--json")

    refused = document["refused_by"]
    assert refused["supervisor-read"] is None
    assert refused["supervisor-fetch"] is None
    assert refused["supervisor-write"] == "wp"
    assert refused["user-read"] == "us"


def test_a_cr3_and_its_task_read_the_same():
    _, by_task, _ = run_cli("walk", "0xffff888000000000", "--task", "swapper/0", "--json")
    _, by_cr3, _ = run_cli("walk", "0xffff888000000000", "--cr3", by_task["cr3"], "--json")

    assert by_task["walk"] == by_cr3["walk"]


def test_the_text_names_the_entry_that_differs():
    _, text, _ = run_cli(
        *("walk", FAULT, "--scenario", "vmemmap-devdax", "--against", "init_mm"), parse=False
    )

    assert "they differ at the PML4E (pgd) slot 462: modprobe has 0x0" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["zork"], ["ADDR", "'zork'", "address"]),
        (["__init_single_pge"], ["did you mean __init_single_page"]),
        (["__init_single_page+0x6e/0x6d"], ["ADDR"]),
        (["0xzz"], ["ADDR", "'0xzz'"]),
        (["0x10000000000000000"], ["ADDR", "0xffffffffffffffff"]),
        (["0x0000800000000000"], ["ADDR", "canonical", "48 bits"]),
        (["0x0100000000000000", "--levels", "5"], ["ADDR", "canonical", "57 bits"]),
        (["0x1000", "--cr3", "0x123"], ["--cr3", "4 KiB aligned"]),
        (["0x1000", "--cr3", "0x100000000"], ["--cr3", "RAM"]),
        (["0x1000", "--cr3", "x"], ["--cr3", "'x'"]),
        (["0x1000", "--task", "zork"], ["--task", "'zork'", "swapper/0"]),
        (["0x1000", "--against", "zork"], ["--against", "'zork'"]),
        (["0x1000", "--task", "a", "--cr3", "0"], ["--cr3", "--task"]),
        (["0x1000", "--scenario", "zork"], ["scenario", "'zork'"]),
        (["0x1000", "--set", "ram=1G"], ["--set", "--scenario"]),
        (["0x1000", "--release", "5.0"], ["release", "'5.0'"]),
        (["0x1000", "--levels", "6"], ["--levels", "'6'"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words):
    status, output, errors = run_cli("walk", *arguments, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []


def test_list_has_every_scenario_release_and_routine():
    status, document, _ = run_cli("list", "--json")

    assert status == 0
    assert [s["name"] for s in document["scenarios"]] == [
        *("vmemmap-devdax", "vmemmap-subpmd", "ioremap-512g", "prealloc-nonpresent"),
        *("vmap-stack-switch", "trace-fault-loop", "sync-race", "efi-call", "trampoline"),
        *("ldt-slot", "pti-user-half", "debug-vm-pgtable", "hot-readd", "healing-order"),
        "kasan-zero-shadow",
    ]
    assert [r["name"] for r in document["releases"]] == [
        *("4.4", "4.6", "4.12-rc", "4.14", "4.17", "5.4", "5.6", "5.8", "5.9-mw", "5.10"),
        *("6.8", "6.13", "6.16", "rfc-v1", "6.17"),
    ]
    known = {"__init_single_page", "vmemmap_set_pmd", "switch_mm", "memcpy_erms", "vmalloc_fault"}
    assert known <= set(document["routines"])


def test_list_shows_the_parameters_with_their_defaults():
    _, text, _ = run_cli("list", parse=False)

    assert "vmemmap_base=0xffffe6ffc0000000 / 0xffd3ffffc0000000" in text
    assert "ram=4G" in text


@pytest.mark.parametrize(("task", "verdict"), [("efi_mm", "not-present"), ("pstore", "mapped")])
def test_a_table_outside_pgd_list_is_walked_by_its_name(task, verdict):
    address = "0xffff890000000000"  # where the memory is that was added during a call

    status, document, _ = run_cli(
        "walk", address, "--scenario", "efi-call", "--task", task, "--json"
    )

    assert (status, document["task"], document["verdict"]) == (0, task, verdict)
