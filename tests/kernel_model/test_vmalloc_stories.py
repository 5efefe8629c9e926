"""The other stories of the vmalloc area: who dies of what, and what heals it (facts 9)."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from emu import PageFault, Returned, Trap
from emu.fault import DF
from kernel_model.history import LazyFault, LeftOut
from kernel_model.scenarios import run_scenario
from kernel_model.scenarios.outcome import ScenarioRun

FAULTING: Final = ("4.12-rc", "4.14", "4.17", "5.4", "5.6")  # lazy faults, and vmapped stacks
Play = Callable[..., ScenarioRun]


@pytest.fixture
def play() -> Iterator[Play]:
    """Runs, freed behind the test."""
    runs: list[ScenarioRun] = []

    def play(scenario: str, release: str, levels: int = 4, **settings: Any) -> ScenarioRun:
        text = {name: str(value) for name, value in settings.items()}
        runs.append(run_scenario(scenario, release=release, levels=levels, settings=text))
        return runs[-1]

    yield play
    for run in runs:
        run.kernel.close()


# prealloc-nonpresent


def test_the_worker_dies_where_the_report_has_it(play: Play) -> None:
    run = play("prealloc-nonpresent", "5.9-mw")

    rip = run.kernel.symbol("process_one_work_load")
    assert run.ending.stop == PageFault(0xFFFF_E8FF_FFD0_0608, 0, rip)  # type: ignore[arg-type]


def test_boot_took_page_0_for_the_tables_of_all_64_slots(play: Play) -> None:
    run = play("prealloc-nonpresent", "5.9-mw")

    left_out = [event for event in run.kernel.history if isinstance(event, LeftOut)]
    assert len(left_out) == 64


@pytest.mark.parametrize("settings", [{"page0": "zero"}, {"task": "late"}, {"task": "init_mm"}])
def test_with_an_empty_page_0_or_another_table_it_does_not(
    play: Play, settings: dict[str, str]
) -> None:
    assert play("prealloc-nonpresent", "5.9-mw", **settings).outcome == "completed"


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize(
    ("release", "handled"), [("4.17", 1), ("5.6", 1), ("5.8", 0), ("5.10", 0), ("6.17", 0)]
)
def test_all_other_releases_reach_the_chunk(
    play: Play, release: str, handled: int, levels: int
) -> None:
    run = play("prealloc-nonpresent", release, levels)

    assert (run.outcome, run.kernel.handled_faults) == ("completed", handled)


# vmap-stack-switch


@pytest.mark.parametrize("release", ["4.12-rc", "4.14", "5.9-mw"])
def test_a_switch_away_from_an_unmapped_stack_is_a_double_fault(play: Play, release: str) -> None:
    run = play("vmap-stack-switch", release)

    stop = run.ending.stop
    assert isinstance(stop, Trap)
    assert (stop.vector, stop.error_code) == (DF, 0)
    assert stop.symbol == "switch_mm+0xc/0x10"


def test_the_double_fault_has_the_registers_of_what_was_interrupted(play: Play) -> None:
    run = play("vmap-stack-switch", "4.14")

    stop = run.ending.stop
    assert isinstance(stop, Trap)
    assert stop.registers is not None
    assert run.kernel.layout.pgd_index(stop.registers.rsp) == 403


@pytest.mark.parametrize("release", ["4.17", "5.4", "5.6", "5.8", "5.10", "6.17"])
def test_where_the_entry_is_copied_or_synced_the_switch_is_harmless(
    play: Play, release: str
) -> None:
    assert play("vmap-stack-switch", release).outcome == "completed"


def test_a_switch_to_a_table_that_has_the_slot_is_harmless(play: Play) -> None:
    assert play("vmap-stack-switch", "4.14", next="late").outcome == "completed"


# trace-fault-loop


@pytest.mark.parametrize("levels", [4, 5])
def test_tracing_into_an_unsynced_buffer_fills_the_stack(play: Play, levels: int) -> None:
    run = play("trace-fault-loop", "5.6", levels)

    faults = [event for event in run.kernel.history if isinstance(event, LazyFault)]
    assert getattr(run.ending.stop, "vector", None) == DF
    assert len(faults) > 40
    assert {fault.repeated for fault in faults} == {False}


def test_the_call_trace_has_the_handler_over_and_over(play: Play) -> None:
    run = play("trace-fault-loop", "5.6")

    assert run.oops is not None
    assert run.oops.count("page_fault+0x28/0x30") > 40


@pytest.mark.parametrize(
    ("release", "settings"), [("5.4", {}), ("5.6", {"sync": 1}), ("4.17", {"sync": 1})]
)
def test_a_buffer_that_was_synced_takes_one_event(
    play: Play, release: str, settings: dict[str, int]
) -> None:
    run = play("trace-fault-loop", release, **settings)

    assert (run.outcome, run.kernel.handled_faults) == ("completed", 1)
    assert "the handler has written 1 events to the buffer" in run.ending.notes


def test_in_5_4_it_is_the_exit_that_syncs_it(play: Play) -> None:
    run = play("trace-fault-loop", "5.4", exit=0)

    assert getattr(run.ending.stop, "vector", None) == DF


@pytest.mark.parametrize("release", ["4.4", "4.6"])
@pytest.mark.parametrize("scenario", ["trace-fault-loop", "vmap-stack-switch"])
def test_releases_without_vmapped_stacks_have_no_such_story(
    play: Play, scenario: str, release: str
) -> None:
    with pytest.raises(ValueError, match=rf"{scenario}: release {release} lacks kernel stacks"):
        play(scenario, release)


# sync-race


@pytest.mark.parametrize("levels", [4, 5])
def test_the_race_is_found_between_the_fill_and_the_sync(play: Play, levels: int) -> None:
    run = play("sync-race", "5.8", levels)

    facts = run.ending.facts
    assert run.outcome == "oops"
    assert facts["schedule"] == [0, 0, 0, 0, 1]
    assert facts["steps"][3] == {"cpu": 0, "before": "arch_sync_kernel_mappings"}


@pytest.mark.parametrize("switch", [1, 2, 3])
def test_a_switch_before_the_fill_is_harmless(play: Play, switch: int) -> None:
    assert play("sync-race", "5.8", switch=switch).outcome == "completed"


def test_the_schedule_that_was_found_can_be_given(play: Play) -> None:
    found = play("sync-race", "5.8")

    run = play("sync-race", "5.8", switch=4)

    assert run.ending.stop == found.ending.stop


@pytest.mark.parametrize("release", ["5.10", "6.8", "6.17"])
def test_with_all_slots_there_no_schedule_faults(play: Play, release: str) -> None:
    run = play("sync-race", release)

    assert (run.outcome, run.ending.facts["schedule"]) == ("completed", None)
    assert run.ending.facts["schedules_tried"] >= 4


@pytest.mark.parametrize("release", FAULTING)
def test_a_lazy_fault_closes_the_race(play: Play, release: str) -> None:
    run = play("sync-race", release)

    assert isinstance(run.ending.stop, Returned)
    assert run.kernel.handled_faults == 1
