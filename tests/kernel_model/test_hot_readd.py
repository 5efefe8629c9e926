"""hot-readd: who has what in the slot after a removal, and what the second time comes to (facts 9).

1 f2a6a7050109 frees the table under the tasks' entries; 98fe3633c5a4 does not.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.kernel_facts import GIB, in_order

from emu import PageFault, Trap
from kernel_model import RELEASES
from kernel_model.scenarios import run_scenario
from kernel_model.scenarios.outcome import ScenarioRun

MEMORY = 0xFFFF_8800_0000_0000 + 784 * GIB  # in the direct map of 4.12
FINE = [name for name in RELEASES if name != "4.12-rc"]
TWO_TIMES = [(name, levels) for name in FINE for levels in RELEASES[name].levels]


@contextmanager
def play(release: str = "4.12-rc", levels: int = 4, **settings: str) -> Iterator[ScenarioRun]:
    """Run the scenario, and free its kernel."""
    run = run_scenario("hot-readd", release=release, levels=levels, settings=settings)
    with run.kernel:
        yield run


def test_the_second_time_is_a_bug_where_the_first_table_was_freed() -> None:
    with play() as run:
        bug = run.kernel.symbol("sync_global_pgds_bug")

        assert (run.outcome, run.ending.stop) == ("bug", Trap(6, None, rip=bug))


def test_the_oops_shows_the_way_from_adding_memory_to_the_sync() -> None:
    with play() as run:
        trace = (run.oops or "").partition("Call Trace:\n")[2].split("\n")

    # a line with a question mark is a word left on the stack, not a caller
    callers = [line.partition("+")[0].strip() for line in trace if "?" not in line]
    wanted = ("__kernel_physical_mapping_init", "arch_add_memory", "add_memory_resource")
    assert in_order((*wanted, "add_memory"), callers) == (*wanted, "add_memory")


@pytest.mark.parametrize(("release", "levels"), TWO_TIMES)
def test_in_all_other_releases_memory_comes_back(release: str, levels: int) -> None:
    with play(release, levels) as run:
        assert (run.outcome, run.ending.facts["stale"]) == ("completed", [])


def test_the_tasks_entry_points_to_the_table_of_whoever_was_forked_next() -> None:
    with play() as run:
        cron = run.kernel.task("cron").mm.pgd

        assert run.ending.facts["stale"] == [
            {"task": "bash", "entry": f"{cron | 0x67:#x}", "now": "cron's top table"}
        ]
        assert run.ending.notes == (
            f"after the removal, bash's slot 273 is still {cron | 0x67:#x}: "
            "that frame is cron's top table",
        )


def test_the_same_table_again_is_no_bug() -> None:
    with play(between="nothing") as run:
        (stale,) = run.ending.facts["stale"]

        assert (run.outcome, stale["now"]) == ("completed", "free")


def test_memory_in_a_slot_that_ram_uses_comes_back_even_there() -> None:
    with play(start="64G") as run:
        assert (run.outcome, run.ending.facts["stale"]) == ("completed", [])


def test_a_small_piece_is_enough() -> None:
    with play(start="512G", size="128M") as run:
        assert run.outcome == "bug"


# -- an access in between


def test_a_read_where_the_memory_was_gets_what_lies_at_physical_0() -> None:
    with play(access="1") as run:
        vectors = run.kernel.memory.read_u64(0)  # type: ignore[arg-type]

        assert (run.ending.facts["read"], vectors) == ("0x53", 0xF000_FF63_F000_FF53)
        assert run.ending.notes[-1] == (
            "bash reads ffff88c400000000, where nothing is any more, and gets 0x53: the CPU took "
            "what it found for tables, and came to pa 0x0"
        )
        assert run.outcome == "bug"


def test_nobody_mapped_that_page() -> None:
    with play(access="1") as run:
        theirs = run.kernel.walk(MEMORY, run.ending.task.mm)
        cron = run.kernel.task("cron").mm.pgd

        assert (theirs.pa, theirs.steps[1].entry_pa) == (0, cron + 8 * 272)


def test_another_entry_of_that_table_is_a_users_and_faults() -> None:
    with play(start="512G", access="1") as run:
        fault = run.ending.stop

        assert isinstance(fault, PageFault)
        assert (fault.error_code, fault.reason, run.ending.facts["read"]) == (
            0,
            "not-present",
            None,
        )
        assert fault.walk is not None
        assert fault.walk.steps[-1].level == 3


@pytest.mark.parametrize("release", ["4.4", "4.6", "4.14", "5.8", "6.17"])
def test_in_all_other_releases_the_read_faults(release: str) -> None:
    with play(release, access="1") as run:
        fault = run.ending.stop

        assert isinstance(fault, PageFault)
        assert (fault.address, fault.error_code) == (run.ending.touched, 0)
        assert fault.symbol == "read_byte+0x0/0x10"


@pytest.mark.parametrize(("release", "level"), [("4.4", 4), ("4.14", 3), ("6.17", 3)])
def test_where_the_walk_stops_tells_what_the_release_kept(release: str, level: int) -> None:
    with play(release, access="1") as run:
        walk = run.ending.stop.walk  # type: ignore[union-attr]

        assert walk is not None
        assert walk.steps[-1].level == level


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "0x1000000000", "size": "64M"}, "start, size: 0x1000000000"),
        ({"start": "1G"}, "overlaps RAM"),
        ({"size": "0"}, "the range is empty"),
        ({"start": "0x3fffc0000000", "size": "2G"}, "beyond 46 physical address bits"),
        ({"between": "exit"}, "between 'exit': expected one of fork, nothing"),
        ({"access": "2"}, "access '2': expected one of 0, 1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_scenario("hot-readd", settings=settings)


def test_five_levels_are_not_to_be_had_in_4_12() -> None:
    with pytest.raises(ValueError, match=r"release 4\.12-rc has no 5-level paging"):
        run_scenario("hot-readd", levels=5)
