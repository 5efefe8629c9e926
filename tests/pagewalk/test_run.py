"""`pagewalk run`: every row of the scenario table, through the command line."""

import json

import pytest
from support.cli import run_cli
from support.kernel_oopses import COMPOUND_TRACE, SUB_PMD_TRACE


def call_trace(oops):
    """The lines between <TASK> and </TASK>, without their leading blank."""
    lines = oops.split("\n")
    inside = lines[lines.index(" <TASK>") + 1 : lines.index(" </TASK>")]
    return [line.strip() for line in inside]


def test_devdax_is_the_first_oops():
    status, document, _ = run_cli("run", "vmemmap-devdax", "--json")

    oops = document["oops"]
    assert status == 1
    assert oops.startswith(
        "BUG: unable to handle page fault for address: ffffe70000000034\n"
        "#PF: supervisor write access in kernel mode\n"
        "#PF: error_code(0x0002) - not-present page\n"
        "PGD 0 P4D 0 \n"
        "Oops: 0002 [#1] SMP NOPTI\n"
    )
    assert "\nRIP: 0010:__init_single_page+0x9/0x6d\n" in oops
    assert call_trace(oops) == [*COMPOUND_TRACE[1:]]


def test_subpmd_is_the_second_oops():
    status, document, _ = run_cli("run", "vmemmap-subpmd", "--json")

    oops = document["oops"]
    assert status == 1
    assert oops.startswith(
        "BUG: unable to handle page fault for address: ffffeb3ff1200000\n"
        "#PF: supervisor write access in kernel mode\n"
        "#PF: error_code(0x0002) - not-present page\n"
        "PGD 0 P4D 0 \n"
        "Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI\n"
    )
    assert "\nTainted: [W]=WARN\n" in oops
    assert "\nRIP: 0010:vmemmap_set_pmd+0xff/0x230\n" in oops
    assert call_trace(oops) == [*SUB_PMD_TRACE[1:]]


@pytest.mark.parametrize("scenario", ["vmemmap-devdax", "vmemmap-subpmd"])
@pytest.mark.parametrize("release", ["6.17", "rfc-v1"])
@pytest.mark.parametrize("levels", ["4", "5"])
def test_both_complete_where_populating_syncs(scenario, release, levels):
    status, document, _ = run_cli(
        "run", scenario, "--release", release, "--levels", levels, "--json"
    )

    assert (status, document["outcome"]) == (0, "completed")
    assert document["fault"] is None
    assert document["oops"] is None


@pytest.mark.parametrize(
    ("scenario", "task"),
    [
        ("vmemmap-devdax", "init_mm"),
        ("vmemmap-devdax", "late"),
        ("vmemmap-subpmd", "init_mm"),
    ],
)
def test_a_table_that_has_the_entry_does_not_fault(scenario, task):
    status, document, _ = run_cli("run", scenario, "--set", f"task={task}", "--json")

    assert (status, document["outcome"]) == (0, "completed")


@pytest.mark.parametrize(
    ("scenario", "address"),
    [("vmemmap-devdax", "0xffd4000000000034"), ("vmemmap-subpmd", "0xffd4003ff1200000")],
)
def test_with_five_levels_it_is_the_same_fault_one_level_up(scenario, address):
    status, document, _ = run_cli("run", scenario, "--levels", "5", "--json")

    assert (status, document["fault"]["address"]) == (1, address)
    assert "\nPGD 0 \n" in document["oops"]
    assert "P4D" not in document["oops"]
    assert [step["entry_name"] for step in document["fault"]["walk"]] == ["PML5E"]


def test_a_larger_struct_page_uncovers_the_other_bug():
    _, document, _ = run_cli("run", "vmemmap-devdax", "--set", "struct_page=80", "--json")

    fault = document["fault"]
    assert fault["address"] == "0xffffe7000fb00000"
    assert fault["symbol"] == "vmemmap_set_pmd+0xff/0x230"


def test_a_plain_struct_page_has_no_unaligned_block():
    status, document, _ = run_cli("run", "vmemmap-subpmd", "--set", "struct_page=64", "--json")

    assert (status, document["outcome"]) == (0, "completed")


@pytest.mark.parametrize("scenario", ["vmemmap-devdax", "vmemmap-subpmd"])
@pytest.mark.parametrize("release", ["6.8", "6.13", "6.16", "rfc-v1", "6.17"])
@pytest.mark.parametrize("levels", ["4", "5"])
@pytest.mark.parametrize("struct_page", ["64", "80", "96"])
@pytest.mark.parametrize("task", ["early", "init_mm"])
def test_the_product_has_a_defined_outcome(scenario, release, levels, struct_page, task):
    status, document, _ = run_cli(
        *("run", scenario, "--release", release, "--levels", levels, "--json"),
        *("--set", f"struct_page={struct_page}", "--set", f"task={task}"),
    )

    syncs = release in ("rfc-v1", "6.17") or task == "init_mm"
    fits = scenario == "vmemmap-subpmd" and struct_page == "64"
    expected = "completed" if syncs or fits else "oops"
    assert (status, document["outcome"]) == (int(expected == "oops"), expected)


@pytest.mark.parametrize(
    ("base", "address"),
    [
        ("0xffffe6ff40000000", "0xffffe70000000034"),  # the boundary is at 192 GiB
        ("0xffffd6ff40000000", "0xffffd70000000034"),
    ],
)
def test_the_fault_follows_the_base(base, address):
    _, document, _ = run_cli(
        *("run", "vmemmap-devdax", "--json", "--set", f"vmemmap_base={base}"),
        *("--set", "start=191G", "--set", "size=2G"),
    )

    assert document["fault"]["address"] == address


def test_a_device_inside_one_slot_completes():
    status, _, _ = run_cli("run", "vmemmap-devdax", "--set", "start=80G", "--json")

    assert status == 1  # slot 462 is new to the early task wherever in it the device lies
    status, _, _ = run_cli("run", "vmemmap-devdax", "--set", "start=32G", "--json")
    assert status == 0


def test_boot_ram_whose_memmap_reaches_the_slot_leaves_nothing_to_sync():
    status, document, _ = run_cli(
        *("run", "vmemmap-devdax", "--json", "--set", "ram=66G", "--set", "start=96G")
    )

    assert (status, document["outcome"]) == (0, "completed")


def test_the_json_is_as_documented():
    _, document, _ = run_cli("run", "vmemmap-devdax", "--release", "6.16", "--json")

    fault = document["fault"]
    assert document["schema"] == 1
    assert (document["scenario"], document["release"]) == ("vmemmap-devdax", "6.16")
    assert (document["levels"], document["outcome"]) == (4, "oops")
    assert document["instructions"] is None
    assert (fault["vector"], fault["error_code"], fault["cpl"]) == (14, 2, 0)
    assert (fault["access"], fault["reason"], fault["task"]) == ("write", "not-present", "modprobe")
    assert fault["symbol"] == "__init_single_page+0x9/0x6d"
    step = fault["walk"][0]
    assert (step["level"], step["entry_name"], step["linux_name"]) == (4, "PML4E", "pgd")
    assert (step["index"], step["entry"]) == (462, "0x0")
    assert int(step["entry_pa"], 16) == int(fault["cr3"], 16) + 462 * 8


@pytest.mark.parametrize(
    ("expectation", "status"),
    [
        ("oops", 0),
        ("ok", 1),
        ("0xffffe70000000034", 0),
        ("ffffe70000000034", 0),
        ("0xffffe70000000035", 1),
    ],
)
def test_expect_decides_the_exit_status(expectation, status):
    found, _, _ = run_cli("run", "vmemmap-devdax", "--expect", expectation, parse=False)

    assert found == status


def test_the_story_names_the_slot_and_who_lacks_it():
    _, text, _ = run_cli("run", "vmemmap-devdax", parse=False)

    assert "vmemmap_populate_compound_pages: fills slot 462 of init_mm" in text
    assert "slot 462 is not synced: modprobe lacks it" in text
    assert "they differ at the PML4E (pgd) slot 462: modprobe has 0x0" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["zork"], ["scenario", "'zork'", "vmemmap-devdax"]),
        (["vmemmap-devdx"], ["did you mean vmemmap-devdax"]),
        (["vmemmap-devdax", "--release", "6.9"], ["release", "'6.9'", "6.17"]),
        (["vmemmap-devdax", "--release", ""], ["release", "''", "6.17"]),
        (["vmemmap-devdax", "--build", "x"], ["build", "'x'"]),
        (["vmemmap-devdax", "--build", ""], ["build", "''"]),
        (["vmemmap-devdax", "--levels", "3"], ["--levels", "'3'", "4 or 5"]),
        (["vmemmap-devdax", "--set", "rams=1G"], ["'rams'", "did you mean ram"]),
        (["vmemmap-devdax", "--set", "ram"], ["--set", "'ram'", "KEY=VALUE"]),
        (["vmemmap-devdax", "--set", "ram=x"], ["ram", "'x'", "number"]),
        (["vmemmap-devdax", "--set", "ram=0"], ["ram", "0x0", "128 MiB"]),
        (["vmemmap-devdax", "--set", "ram=2T"], ["RAM", "0x20000000000"]),
        (["vmemmap-devdax", "--set", "ram=2T", "--set", "start=3T"], ["ram 0x2", "1 TiB"]),
        (["vmemmap-devdax", "--set", "ram=100M"], ["ram", "128 MiB"]),
        (["vmemmap-devdax", "--set", "start=1G"], ["start", "0x40000000", "RAM"]),
        (["vmemmap-devdax", "--set", "start=0x1000100000"], ["start", "0x200000"]),
        (["vmemmap-devdax", "--set", "size=0"], ["size", "empty"]),
        (["vmemmap-devdax", "--set", "size=64T"], ["size", "46 physical address bits"]),
        (["vmemmap-devdax", "--set", "align=4K"], ["align", "2M, 1G"]),
        (["vmemmap-devdax", "--set", "align=1G"], ["start", "0x40000000"]),
        (["vmemmap-devdax", "--set", "struct_page=72"], ["struct_page", "64, 80, 96"]),
        (["vmemmap-devdax", "--set", "task=lat"], ["task", "did you mean late"]),
        (["vmemmap-devdax", "--set", "vmemmap_base=0xffffe6ffc0001000"], ["1 GiB aligned"]),
        (["vmemmap-devdax", "--set", "vmemmap_base=0xfffffdffc0000000"], ["slot 508"]),
        (["vmemmap-devdax", "--set", "vmemmap_base=0xffff900000000000"], ["no room"]),
        (["vmemmap-devdax", "--set", "vmemmap_base=-1"], ["vmemmap_base", "'-1'"]),
        (["vmemmap-subpmd", "--set", "pfn=1"], ["pfn", "0x200000"]),
        (["vmemmap-subpmd", "--set", "pfn=0"], ["pfn", "RAM"]),
        (["vmemmap-subpmd", "--set", "nr_pages=0"], ["nr_pages", "empty"]),
        (["vmemmap-subpmd", "--set", "task=late"], ["task", "early, init_mm"]),
        (["vmemmap-devdax", "--expect", "maybe"], ["--expect", "'maybe'"]),
        (["vmemmap-devdax", "--trace=0"], ["--trace", "'0'"]),
        (["vmemmap-devdax", "--bogus"], ["--bogus"]),
        ([], ["SCENARIO"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words):
    status, output, errors = run_cli("run", *arguments, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert errors.startswith("pagewalk: ")
    assert [word for word in words if word not in errors] == []


def test_a_device_beyond_the_direct_map_is_refused_by_releases_that_check():
    status, document, _ = run_cli(
        *("run", "vmemmap-devdax", "--release", "6.16", "--set", "start=40T", "--json")
    )

    assert (status, document["outcome"], document["error"]) == (1, "error", "EINVAL")


def test_too_little_ram_for_the_device_is_enomem():
    status, document, _ = run_cli(
        *("run", "vmemmap-devdax", "--release", "6.17", "--json"),
        *("--set", "ram=128M", "--set", "size=64G"),
    )

    assert (status, document["outcome"], document["error"]) == (1, "error", "ENOMEM")


def test_json_is_all_there_is_on_stdout():
    _, text, errors = run_cli("run", "vmemmap-devdax", "--json", parse=False)

    assert json.loads(text)["schema"] == 1
    assert errors == ""


def test_trace_prints_the_last_events_before_the_end():
    _, text, _ = run_cli("run", "vmemmap-devdax", "--trace", parse=False)

    trace = text.split("\nTrace: ")[1].split("\nOops\n")[0].split("\n")
    faulting = next(i for i, line in enumerate(trace) if line.endswith("<-- faults"))
    assert "__init_single_page+0x9/0x6d " in trace[faulting]
    assert "c7 47 34 01 00 00 00 " in trace[faulting]
    assert "#PF at 0xffffe70000000034: supervisor write, not-present" in trace[faulting + 1]
    assert len([line for line in trace if line.startswith("ffffffff81")]) <= 200


def test_a_traced_run_counts_its_instructions():
    _, document, _ = run_cli("run", "vmemmap-devdax", "--trace=1", "--json")

    assert document["instructions"] > 500_000


@pytest.mark.parametrize(
    "arguments",
    [
        ["--trace", "vmemmap-devdax"],
        ["vmemmap-devdax", "--trace", "200"],
        ["vmemmap-devdax", "--trace=200"],
    ],
)
def test_trace_takes_its_number_with_or_without(arguments):
    _, text, _ = run_cli("run", *arguments, parse=False)

    assert "\nTrace: the end of 967220 instructions\n" in text


def test_the_story_names_the_tables_and_not_who_borrows_them():
    _, text, _ = run_cli("run", "vmemmap-devdax", "--set", "task=late", parse=False)

    assert "slot 462 is not synced: early lacks it" in text
    assert "late and init_mm read the same entries" in text


def test_the_story_cites_what_broke_the_function_that_died():
    _, text, _ = run_cli("run", "vmemmap-devdax", "--set", "struct_page=80", parse=False)

    assert "broke: 8d400913c231 " in text
    assert "broke: 4917f55b4ef9" not in text


def test_the_story_says_who_refused_and_why():
    _, text, _ = run_cli(
        "run", "vmemmap-devdax", "--release", "6.16", "--set", "start=40T", parse=False
    )

    assert (
        "pagemap_range: -EINVAL: the range ends at 0x280020000000, "
        "beyond the direct map's end 0xb0000000000" in text
    )


def test_a_release_that_does_not_check_leaves_the_other_regions_alone():
    _, text, _ = run_cli("run", "vmemmap-devdax", "--set", "start=63T", parse=False)

    assert "arch_add_memory: the direct map ends at pa 0xb0000000000: not mapped beyond it" in text


def test_the_story_of_a_block_that_was_being_marked_shows_it_mapped():
    _, text, _ = run_cli("run", "vmemmap-subpmd", parse=False)

    assert (
        "vmemmap_populate_hugepages: vmemmap ffffeb3ff1000000 - ffffeb3ff127ffff, 2 MiB blocks"
        in text
    )


def test_a_long_story_stays_short():
    _, text, _ = run_cli(
        *("run", "vmemmap-devdax", "--set", "struct_page=80", "--release", "6.17"),
        *("--set", "size=20G"),
        parse=False,
    )

    assert text.count("\n") < 80


def test_an_expectation_that_did_not_hold_says_how_it_ended():
    _, _, errors = run_cli("run", "vmemmap-devdax", "--expect", "ok", parse=False)

    assert errors == (
        "pagewalk: --expect ok did not hold: it ended with oops at 0xffffe70000000034\n"
    )


def test_json_of_a_traced_run_has_the_events():
    _, document, _ = run_cli("run", "vmemmap-devdax", "--trace=3", "--json")

    assert [event["event"] for event in document["events"]] == ["instruction", "walk", "fault"]
    assert document["events"][-1]["text"] == "mov dword ptr [rdi + 0x34], 1"


def test_neighbouring_slots_are_told_together():
    _, text, _ = run_cli(
        *("run", "vmemmap-devdax", "--set", "vmemmap_base=0xffffea0000000000"),
        *("--set", "start=1T", "--set", "size=8T", "--set", "align=1G"),
        parse=False,
    )

    assert "__kernel_physical_mapping_init: fills slots 275..290 of init_mm" in text
    assert "sync_global_pgds: ffff898000000000 - ffff917fffffffff, fills 16 entries of 1" in text
    assert "slots 275..290 are in every task's table" in text


def test_the_walk_in_a_trace_begins_at_the_cr3_of_its_own_cpu():
    _, text, _ = run_cli("run", "sync-race", "--trace=all", parse=False)

    fault = text.partition("<-- faults\n")[2].splitlines()
    cr3, top = fault[1].split()[2].strip(","), fault[2].partition(" at ")[2].partition(":")[0]

    assert int(cr3, 16) == int(top, 16) & -0x1000
