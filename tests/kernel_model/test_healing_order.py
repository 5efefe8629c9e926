"""healing-order: which order of two devices in one slot a task survives (facts 9)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.kernel_facts import EXPLICIT, FIVE, FOUR, SYNCING, Where, slots

from emu import PageFault
from kernel_model.history import Refused
from kernel_model.scenarios import run_scenario
from kernel_model.scenarios.outcome import ScenarioRun

ORDERS = ["compound-first", "plain-first", "compound-only", "failing-first"]
SURVIVED = [
    ("compound-first", "last"),
    ("plain-first", "last"),
    ("plain-first", "between"),
    ("failing-first", "last"),
]
FATAL = [("compound-first", "between"), ("compound-only", "between"), ("compound-only", "last")]


@contextmanager
def play(release: str, where: Where = FOUR, **settings: str) -> Iterator[ScenarioRun]:
    """Run the scenario, and free its kernel."""
    run = run_scenario("healing-order", release=release, levels=where.levels, settings=settings)
    with run.kernel:
        yield run


@pytest.mark.levels(4, 5)
@pytest.mark.parametrize("release", EXPLICIT)
@pytest.mark.parametrize(("order", "access"), SURVIVED)
def test_an_access_after_a_device_that_syncs_completes(
    release: str, where: Where, order: str, access: str
) -> None:
    with play(release, where, order=order, access=access) as run:
        assert run.outcome == "completed"


@pytest.mark.levels(4, 5)
@pytest.mark.parametrize("release", EXPLICIT)
@pytest.mark.parametrize(("order", "access"), FATAL)
def test_an_access_before_one_faults_at_the_slots_first_struct_page(
    release: str, where: Where, order: str, access: str
) -> None:
    with play(release, where, order=order, access=access) as run:
        rip = run.kernel.symbol("read_byte")

        assert run.ending.stop == PageFault(where.boundary, 0, rip=rip)  # type: ignore[arg-type]


@pytest.mark.levels(4, 5)
@pytest.mark.parametrize("release", SYNCING)
@pytest.mark.parametrize(("order", "access"), SURVIVED + FATAL)
def test_with_the_fix_every_order_completes_and_nothing_needs_healing(
    release: str, where: Where, order: str, access: str
) -> None:
    with play(release, where, order=order, access=access) as run:
        assert (run.outcome, run.ending.facts["healed"]) == ("completed", False)


@pytest.mark.parametrize(
    ("order", "healed"), [(order, order in ("compound-first", "failing-first")) for order in ORDERS]
)
def test_only_a_slot_that_was_left_out_is_healed(order: str, healed: bool) -> None:
    with play("6.8", order=order) as run:
        assert run.ending.facts == {"slot": FOUR.slot, "healed": healed}


@pytest.mark.parametrize(
    ("order", "first"), [("compound-first", "compound"), ("failing-first", "failing")]
)
def test_the_notes_name_the_sync_that_healed_and_how_many_tables(order: str, first: str) -> None:
    with play("6.8", order=order) as run:
        assert run.ending.notes == (
            f"after the {first} device, early lacks slot 462",
            "after the plain device, early has slot 462",
            "healed: the plain device's sync_global_pgds fills slot 462 in 1 of 1 task tables, "
            "where another device left it out",
        )


def test_a_slot_is_healed_at_five_levels_too() -> None:
    with play("6.16", FIVE) as run:
        kernel = run.kernel
        ours, theirs = (slots(kernel, mm) for mm in (kernel.init_mm, kernel.task("early").mm))

        assert run.ending.facts == {"slot": FIVE.slot, "healed": True}
        assert ours[FIVE.slot] == theirs[FIVE.slot] != 0


def test_the_device_that_fails_is_refused_and_leaves_the_entry_behind() -> None:
    with play("6.8", order="failing-first") as run:
        refused = [event for event in run.kernel.history if isinstance(event, Refused)]

        assert [(event.path, event.errno) for event in refused] == [
            ("vmemmap_populate_hugepages", 12)
        ]


def test_both_devices_may_be_larger() -> None:
    with play("6.8", size="256M") as run:
        assert (run.outcome, run.ending.facts["healed"]) == ("completed", True)


def test_devices_in_a_slot_that_is_there_already_need_no_healing() -> None:
    with play("6.8", order="compound-only", start="8G") as run:
        assert (run.outcome, run.ending.facts["slot"]) == ("completed", 461)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "failing-first", "access": "between"}, "no device is there yet"),
        ({"start": "1G"}, "overlaps RAM"),
        ({"size": "2M"}, "is not a multiple of 0x8000000"),
        ({"order": "plain"}, "order 'plain': expected one of compound-first"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_scenario("healing-order", settings=settings)


def test_releases_without_the_compound_path_have_nothing_to_heal() -> None:
    with pytest.raises(ValueError, match=r"release 5\.10 lacks the compound path"):
        run_scenario("healing-order", release="5.10")
