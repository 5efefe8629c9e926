"""The stories about tables outside pgd_list, on every release and at both depths."""

from typing import Any

import pytest
from support.kernel_outside import BOOTING, DEPTHS, ISOLATING

from emu.fault import DF
from kernel_model import RELEASES
from kernel_model.scenarios import run_scenario

ALL_AT_BOOT = ("6.8", "6.13", "6.16", "rfc-v1", "6.17")  # 51523ed1c267, 5.16
FIRST_SLOT_272 = ("4.4", "4.6", "4.12-rc", "4.14", "4.17")  # the direct map's: d52888aa2753, 4.20
STORIES = ("efi-call", "trampoline", "ldt-slot", "pti-user-half")


def told(name: str, release: str, levels: int, **settings: str) -> dict[str, Any]:
    """Run a story and return its JSON, with its notes."""
    run = run_scenario(name, release=release, levels=levels, settings=settings)
    with run.kernel:
        return run.as_json() | {"notes": run.ending.notes}


@pytest.mark.parametrize(("release", "levels"), BOOTING)
def test_firmware_is_given_memory_that_was_added_before_the_call(release: str, levels: int) -> None:
    run = told("efi-call", release, levels, hotadd="before")

    assert (run["outcome"], run["facts"]) == ("completed", {"variable": "in added memory"})


@pytest.mark.parametrize(("release", "levels"), BOOTING)
def test_firmware_faults_on_memory_that_is_added_during_the_call(release: str, levels: int) -> None:
    run = told("efi-call", release, levels)

    walk = run["fault"]["walk"]
    second = 273 if levels == 4 and release in FIRST_SLOT_272 else 274
    assert (run["outcome"], run["facts"]) == ("oops", {"variable": None})
    assert (run["fault"]["access"], run["fault"]["reason"]) == ("read", "not-present")
    assert [(step["index"], step["entry"]) for step in walk] == [(second, "0x0")]


@pytest.mark.parametrize(("release", "levels"), BOOTING)
def test_a_reboot_has_a_stack_since_5_16(release: str, levels: int) -> None:
    run = told("trampoline", release, levels)

    assert run["outcome"] == ("completed" if release in ALL_AT_BOOT else "oops")


@pytest.mark.parametrize(
    ("release", "levels"), [p for p in BOOTING if p.values[0] not in ALL_AT_BOOT]
)
def test_without_a_stack_there_is_a_double_fault(release: str, levels: int) -> None:
    fault = told("trampoline", release, levels)["fault"]

    assert (fault["vector"], fault["symbol"]) == (DF, "machine_real_restart+0xa/0x11")


@pytest.mark.parametrize(("release", "levels"), [p for p in BOOTING if p.values[0] in ISOLATING])
def test_so_is_there_on_the_users_stack(release: str, levels: int) -> None:
    fault = told("pti-user-half", release, levels)["fault"]

    assert (fault["vector"], fault["symbol"]) == (DF, "entry_SYSCALL_64+0x0/0x1a")


@pytest.mark.parametrize(("release", "levels"), BOOTING)
def test_a_reboot_reaches_the_vmalloc_area_since_5_16(release: str, levels: int) -> None:
    run = told("trampoline", release, levels, touch="vmalloc")

    assert run["outcome"] == ("completed" if release in ALL_AT_BOOT else "oops")


@pytest.mark.parametrize(("release", "levels"), BOOTING)
def test_a_reboot_never_reaches_what_was_added_after_boot(release: str, levels: int) -> None:
    assert told("trampoline", release, levels, touch="hot-added")["outcome"] == "oops"


@pytest.mark.parametrize(("release", "levels"), [p for p in BOOTING if p.values[0] in ISOLATING])
@pytest.mark.parametrize(
    ("story", "settings", "outcome"),
    [
        ("ldt-slot", {"task": "owner"}, "completed"),
        ("ldt-slot", {"task": "other"}, "oops"),
        ("pti-user-half", {"when": "after"}, "completed"),
        ("pti-user-half", {"when": "before"}, "oops"),
    ],
)
def test_with_isolation_the_table_decides(
    story: str, settings: dict[str, str], outcome: str, release: str, levels: int
) -> None:
    assert told(story, release, levels, **settings)["outcome"] == outcome


@pytest.mark.parametrize("story", ["ldt-slot", "pti-user-half"])
@pytest.mark.parametrize("release", [name for name in RELEASES if name not in ISOLATING])
def test_a_release_without_isolation_is_refused(story: str, release: str) -> None:
    with pytest.raises(ValueError, match=f"release {release} lacks page-table isolation: expected"):
        run_scenario(story, release=release)


@pytest.mark.parametrize(
    ("story", "notes"),
    [
        (
            "efi-call",
            (
                "tables outside pgd_list: init_mm, trampoline_pgd, efi_mm",
                "of these, trampoline_pgd, efi_mm lack slot 274",
            ),
        ),
        (
            "ldt-slot",
            (
                "tables outside pgd_list: init_mm, init_mm (user), dosemu (user), sh (user)",
                "init_mm has nothing in slot 272: neither a fork nor a sync has what to copy",
            ),
        ),
        (
            "pti-user-half",
            (
                "tables outside pgd_list: init_mm, init_mm (user), sh (user)",
                "of these, init_mm (user), sh (user) lack slot 402",
            ),
        ),
    ],
)
def test_a_story_says_who_is_outside_and_who_lacks_the_slot(
    story: str, notes: tuple[str, ...]
) -> None:
    assert told(story, "6.17", 4)["notes"][-2:] == notes


@pytest.mark.parametrize(
    ("release", "levels", "slots"),
    [
        ("5.10", 4, "0, 511"),
        ("5.10", 5, "0, 511"),
        ("6.8", 4, "0, 273, 402..465, 468, 508, 510..511"),
    ],
)
def test_the_story_of_the_trampoline_says_which_slots_its_table_has(
    release: str, levels: int, slots: str
) -> None:
    notes = told("trampoline", release, levels)["notes"]

    way = f"machine_real_restart: CR3 = 0x99000, trampoline_pgd, which has slots {slots}"
    assert notes[0] == way


@pytest.mark.parametrize("story", STORIES)
def test_the_walk_that_is_told_is_that_of_the_table_in_question(story: str) -> None:
    release = "5.10" if story == "trampoline" else "6.17"
    run = run_scenario(story, release=release)
    with run.kernel:
        assert run.ending.stop.cr3 == run.ending.task.mm.pgd  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "2G"}, "start, size: the device at 0x80000000 overlaps RAM"),
        ({"size": "0"}, "start, size: the range is empty"),
        (
            {"start": "0x10000000000"},
            r"start, size: 0x10000000000 \(\+0x8000000\) ends beyond 1 TiB",
        ),
        (
            {"page_offset_base": "0xffff888000001000"},
            "page_offset_base 0xffff888000001000: expected a",
        ),
        (
            {"page_offset_base": "0x40000000"},
            "page_offset_base 0x40000000: expected a 1 GiB aligned",
        ),
        ({"page_offset_base": "0xffffc90000000000"}, "leaves no room for"),
        ({"hotadd": "never"}, "hotadd 'never': expected one of before, during"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_scenario("efi-call", settings=settings)


@pytest.mark.parametrize("levels", DEPTHS)
def test_memory_in_a_slot_that_boot_has_filled_is_seen_by_the_call(levels: int) -> None:
    settings = {"start": "32G", "page_offset_base": "0"}

    assert told("efi-call", "6.17", levels, **settings)["outcome"] == "completed"
