"""The story of a device's KASAN shadow: who faults where, at which levels, and in which releases.

The task that reads was forked before, after, or runs on init_mm; the shadow of the device begins a
top-level slot that boot left empty: 475 at 4 levels, 483 at 5.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import product
from typing import Any

import pytest
from support.kernel_facts import GIB, SYNCING, TIB

from emu import PageFault, Returned
from kernel_model import RELEASES
from kernel_model.scenarios import SCENARIOS, run_scenario
from kernel_model.scenarios.outcome import ScenarioRun

NAME = "kasan-zero-shadow"
SHADOWED = ("5.4", "5.6", "5.8", "5.9-mw", "5.10", "6.8", "6.13", "6.16", "rfc-v1", "6.17")
BYTE = {4: 0xFFFF_ED80_0000_0000, 5: 0xFFE3_0000_0000_0000}
SLOT = {4: 475, 5: 483}
WHOLE = {4: "4T", 5: "2048T"}
EVERYWHERE = [*product(SHADOWED, (4, 5))]


@pytest.fixture
def play() -> Iterator[Callable[..., ScenarioRun]]:
    """Runs of the scenario, freed behind the test."""
    with ExitStack() as stack:

        def play(release: str = "6.17", levels: int = 4, **given: object) -> ScenarioRun:
            settings = {name: str(value) for name, value in given.items()}
            run = run_scenario(NAME, release=release, levels=levels, settings=settings)
            stack.enter_context(run.kernel)
            return run

        yield play


@pytest.mark.parametrize(("release", "levels"), EVERYWHERE)
def test_a_task_forked_before_faults_on_the_shadow_in_every_release(
    play: Callable[..., ScenarioRun], release: str, levels: int
) -> None:
    run = play(release, levels)

    rip = run.kernel.symbol("__asan_load8_shadow")
    assert run.ending.stop == PageFault(BYTE[levels], 0, rip)  # type: ignore[arg-type]


@pytest.mark.parametrize(("release", "levels"), EVERYWHERE)
@pytest.mark.parametrize("task", ["late", "init_mm"])
def test_one_forked_after_and_a_thread_on_init_mm_do_not(
    play: Callable[..., ScenarioRun], release: str, levels: int, task: str
) -> None:
    assert play(release, levels, task=task).outcome == "completed"


@pytest.mark.parametrize("levels", [4, 5])
def test_the_entry_is_missing_from_the_task_and_present_in_init_mm(
    play: Callable[..., ScenarioRun], levels: int
) -> None:
    run = play(levels=levels)

    stop = run.ending.stop
    assert isinstance(stop, PageFault)
    assert stop.walk is not None
    assert [step.entry for step in stop.walk.steps] == [0]
    assert (stop.access, stop.reason, stop.cpl) == ("read", "not-present", 0)
    assert run.kernel.walk(stop.address).verdict == "mapped"


@pytest.mark.parametrize(("levels", "pgd"), [(4, "PGD 0 P4D 0 "), (5, "PGD 0 ")])
def test_the_oops_says_what_was_read_of_the_tables(
    play: Callable[..., ScenarioRun], levels: int, pgd: str
) -> None:
    oops = play(levels=levels).oops or ""

    assert oops.splitlines()[:5] == [
        f"BUG: unable to handle page fault for address: {BYTE[levels]:016x}",
        "#PF: supervisor read access in kernel mode",
        "#PF: error_code(0x0000) - not-present page",
        pgd,
        "Oops: Oops: 0000 [#1] SMP KASAN NOPTI",
    ]


def test_the_call_trace_is_that_of_a_read_from_the_disk(play: Callable[..., ScenarioRun]) -> None:
    oops = play().oops or ""

    trace = oops.split(" <TASK>\n")[1].split(" </TASK>")[0].splitlines()
    assert [line.split("+")[0].strip() for line in trace] == ["pmem_do_read", "pmem_submit_bio"]


@pytest.mark.parametrize("release", SHADOWED)
def test_a_kernel_without_kasan_looks_up_nothing(
    play: Callable[..., ScenarioRun], release: str
) -> None:
    run = play(release, instrumented=0)

    assert (run.outcome, run.kernel.kasan) == ("completed", None)


@pytest.mark.parametrize(
    ("levels", "start", "outcome"),
    [
        (4, 3584 * GIB - 128 * 2**20, "completed"),  # the shadow ends with slot 474, RAM's own
        (4, 3584 * GIB, "oops"),
        (4, 7680 * GIB, "oops"),  # 476
        (4, 64 * TIB - GIB, "completed"),  # 490, where the shadow beyond the direct map is
        (5, 1824 * TIB - 128 * 2**20, "completed"),
        (5, 3872 * TIB, "completed"),
    ],
)
def test_it_depends_on_where_the_device_lies(
    play: Callable[..., ScenarioRun], levels: int, start: int, outcome: str
) -> None:
    assert play("6.17", levels, start=start).outcome == outcome


# -- the device is replaced


@pytest.mark.parametrize(("release", "levels"), EVERYWHERE)
def test_who_was_forked_in_between_looks_into_a_table_that_was_freed(
    play: Callable[..., ScenarioRun], release: str, levels: int
) -> None:
    run = play(release, levels, task="late", remove=1)

    stop, other = run.ending.stop, run.kernel.task("bystander")
    assert isinstance(stop, PageFault)
    assert stop.walk is not None
    assert [step.entry for step in stop.walk.steps] == [other.mm.pgd | 0x67, 0]
    assert stop.walk.steps[1].entry_pa == other.mm.pgd


def test_the_story_says_whose_table_it_is_now(play: Callable[..., ScenarioRun]) -> None:
    run = play(task="late", remove=1)

    pgd = run.kernel.task("bystander").mm.pgd
    assert run.ending.notes == (
        f"slot 475 of late points to pa {pgd:#x}, which was freed and is bystander's top table now",
    )


@pytest.mark.parametrize(("release", "levels"), EVERYWHERE)
def test_a_larger_one_in_its_place_is_a_bug_where_a_whole_slot_is_synced(
    play: Callable[..., ScenarioRun], release: str, levels: int
) -> None:
    run = play(release, levels, task="late", remove=1, again=WHOLE[levels])

    died = ("bug", "kworker/0:1") if release in SYNCING else ("oops", "late")
    assert (run.outcome, run.ending.task.comm) == died


@pytest.mark.parametrize(("release", "levels"), EVERYWHERE)
def test_a_larger_one_heals_a_task_that_had_nothing(
    play: Callable[..., ScenarioRun], release: str, levels: int
) -> None:
    run = play(release, levels, task="early", remove=1, again=WHOLE[levels])

    assert run.outcome == ("completed" if release in SYNCING else "oops")


@pytest.mark.parametrize("levels", [4, 5])
def test_on_init_mm_nothing_of_it_is_seen(play: Callable[..., ScenarioRun], levels: int) -> None:
    assert play("6.8", levels, task="init_mm", remove=1).ending.stop == Returned()


# -- what is told, and what is refused


def test_the_bug_is_reported_in_the_sync_below_the_shadow(play: Callable[..., ScenarioRun]) -> None:
    oops = play(task="late", remove=1, again="4T").oops or ""

    trace = oops.split(" <TASK>\n")[1].split(" </TASK>")[0].splitlines()
    sure = [line.split("+")[0].strip() for line in trace if "?" not in line]
    assert "RIP: 0010:sync_global_pgds+" in oops
    assert sure == [
        "arch_sync_kernel_mappings",
        "kasan_populate_early_shadow",
        "kasan_add_zero_shadow",
    ]


@pytest.mark.parametrize("levels", [4, 5])
def test_the_json_has_the_shadow_and_its_slot(
    play: Callable[..., ScenarioRun], levels: int
) -> None:
    document = play(levels=levels).as_json()

    assert document["facts"] == {"touched": f"{BYTE[levels]:#x}", "slot": SLOT[levels]}
    assert document["fault"]["address"] == f"{BYTE[levels]:#x}"


def test_releases_that_give_a_device_no_shadow_are_left_out() -> None:
    scenario = SCENARIOS[NAME]

    lacking = [r.name for r in RELEASES.values() if scenario.lacks(r)]
    assert lacking == ["4.4", "4.6", "4.12-rc", "4.14", "4.17"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": "0x38000001000"}, "start, size: 0x38000001000 .* not a multiple of 0x200000"),
        ({"size": "0"}, "start, size: the range is empty"),
        ({"start": "2G"}, "overlaps RAM, which ends at 0x100000000"),
        ({"start": "64T"}, "ends beyond 46 physical address bits"),
        ({"again": "4T"}, "again 0x40000000000: expected remove=1 with it"),
        ({"remove": "1", "again": "64T"}, "start, again: .* ends beyond 46"),
        ({"remove": "1", "instrumented": "0"}, "remove 1: expected instrumented=1"),
        ({"remove": "2"}, "remove '2': expected one of 0, 1"),
        ({"task": "lat"}, "did you mean late"),
        ({"vmemmap_base": "0"}, "kasan-zero-shadow has no parameter 'vmemmap_base'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_scenario(NAME, settings=given)


def test_without_memory_the_kernel_refuses() -> None:
    run = run_scenario(NAME, settings={"ram": "128M", "size": "16G"})

    with run.kernel:
        assert (run.outcome, run.errno) == ("error", 12)
