"""`pagewalk audit`: the slots that some table lacks when a scenario is over."""

import pytest
from support.cli import run_cli
from support.kernel_facts import FOUR, boot, populate_compound, put_slot

from kernel_model import Mm, audit
from pagewalk.render_why import audit_lines


def lines_of(kernel):
    return list(audit_lines(kernel, audit(kernel), len(kernel.pgd_list)))


def test_it_lists_the_slot_the_table_and_the_path():
    status, text, errors = run_cli("audit", "vmemmap-devdax", parse=False)

    assert (status, errors) == (0, "")
    assert "vmemmap-devdax: oops (release 6.8, 4 levels)" in text
    assert "slot 462 (ffffe70000000000, vmemmap)\n  missing from modprobe\n" in text
    assert "vmemmap_populate_compound_pages wrote slot 462 of init_mm after modprobe" in text


@pytest.mark.parametrize("how", [["vmemmap-devdax"], ["--scenario", "vmemmap-devdax"]])
def test_json_has_the_same(how):
    status, document, _ = run_cli("audit", *how, "--json")

    (slot,) = document["slots"]
    assert (status, document["schema"], document["outcome"]) == (0, 1, "oops")
    assert (document["release"], document["levels"], document["tables"]) == ("6.8", 4, 1)
    assert document["first_slot"] == 273
    assert (slot["slot"], slot["address"], slot["kind"]) == (462, "0xffffe70000000000", "lacking")
    assert (slot["names"], slot["count"], slot["entry"]) == (["modprobe"], 1, "0x0")
    assert slot["cause"]["reason"] == "not-synced"
    assert slot["cause"]["path"] == "vmemmap_populate_compound_pages"


@pytest.mark.parametrize("levels", ["4", "5"])
@pytest.mark.parametrize("release", ["rfc-v1", "6.17"])
@pytest.mark.parametrize("name", ["vmemmap-devdax", "vmemmap-subpmd"])
def test_with_the_fix_there_is_nothing(name, release, levels):
    status, document, _ = run_cli("audit", name, "--release", release, "--levels", levels, "--json")

    assert (status, document["outcome"], document["slots"]) == (0, "completed", [])


def test_when_nothing_is_missing_it_says_so():
    _, text, _ = run_cli("audit", "vmemmap-devdax", "--release", "6.17", parse=False)

    assert text.endswith("no table lacks what init_mm has\n")


def test_after_boot_there_is_no_other_table():
    status, text, _ = run_cli("audit", parse=False)

    assert status == 0
    assert text.endswith("there is nothing to compare\n")


def test_a_stale_entry_is_told_apart_with_both_values():
    with boot(FOUR) as kernel:
        populate_compound(kernel, FOUR.pfn)
        task = kernel.fork("a")
        put_slot(kernel, task.mm, FOUR.slot, 0x1234_5067)
        reference = kernel.walk(FOUR.boundary).steps[0].entry

        lines = lines_of(kernel)

    assert (
        f"  another table than init_mm's in a: 0x12345067, and init_mm has {reference:#x}" in lines
    )


def test_neighbouring_slots_with_one_story_share_it():
    with boot(FOUR) as kernel:
        kernel.outside[Mm("trampoline", kernel.frames.allocate())] = None

        lines = lines_of(kernel)

    assert [line for line in lines if line.startswith("slot")] == [
        "slot 273 (ffff888000000000, direct map)",
        "slots 397 to 461 (ffffc68000000000, vmalloc, vmemmap)",
        "slot 508 (fffffe0000000000, cpu entry area)",
        "slots 510 to 511 (ffffff0000000000, kernel text and data, modules)",
    ]
    assert "wrote slots 397 to 461 of init_mm at boot" in "\n".join(lines)
    assert "no sync reaches trampoline: not on pgd_list" in "\n".join(lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["zork"], ["scenario", "'zork'", "vmemmap-devdax"]),
        (["--scenario", "zork"], ["scenario", "'zork'"]),
        (["vmemmap-devdax", "--scenario", "vmemmap-subpmd"], ["--scenario", "'vmemmap-devdax'"]),
        (["vmemmap-devdax", "--set", "zork=1"], ["zork", "struct_page"]),
        (["vmemmap-devdax", "--levels", "6"], ["--levels", "'6'"]),
        (["--set", "ram=1G"], ["--set", "--scenario"]),
        (["vmemmap-devdax", "--release", "5.0"], ["release", "'5.0'"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words):
    status, output, errors = run_cli("audit", *arguments, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []
