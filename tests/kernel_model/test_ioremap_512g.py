"""A vmalloc fault over 1 GiB pages, held against the mail that reported it.

"Re: [PATCH] x86/mm/vmfault: Make vmalloc_fault() handle large pages", Toshi Kani, 2016-02-09.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from support.kernel_facts import in_order

from kernel_model.history import LazyFault
from kernel_model.scenarios import run_scenario
from kernel_model.scenarios.outcome import ScenarioRun

VMALLOCINFO: Final = (
    "0xffffc90040000000-0xffffc90440001000 17179873280 memremap+0xb4/0x110 phys=480000000 ioremap",
    "0xffffc90480000000-0xffffc90880001000 17179873280 memremap+0xb4/0x110 phys=480000000 ioremap",
    "0xffffc908c0000000-0xffffc90cc0001000 17179873280 memremap+0xb4/0x110 phys=c80000000 ioremap",
    "0xffffc90d00000000-0xffffc91100001000 17179873280 memremap+0xb4/0x110 phys=c80000000 ioremap",
    "0xffffc91140000000-0xffffc91540001000 17179873280 memremap+0xb4/0x110 phys=480000000 ioremap",
    # the mail leaves out what lies between
    "0xffffc97300000000-0xffffc97700001000 17179873280 memremap+0xb4/0x110 phys=c80000000 ioremap",
    "0xffffc97740000000-0xffffc97b40001000 17179873280 memremap+0xb4/0x110 phys=480000000 ioremap",
    "0xffffc97b80000000-0xffffc97f80001000 17179873280 memremap+0xb4/0x110 phys=c80000000 ioremap",
    "0xffffc97fc0000000-0xffffc983c0001000 17179873280 memremap+0xb4/0x110 phys=480000000 ioremap",
)
OOPS: Final = (
    "BUG: unable to handle kernel paging request at ffff880840000ff8",
    "IP: [<ffffffff810664ae>] vmalloc_fault+0x1be/0x300",
    "PGD c7f03a067 PUD 0 ",
    "Oops: 0000 [#1] SMP ",
)
TOP_OF_TRACE: Final = (
    "Call Trace:",
    " [<ffffffff81067335>] __do_page_fault+0x285/0x3e0",
    " [<ffffffff810674bf>] do_page_fault+0x2f/0x80",
    " [<ffffffff810d6d85>] ? put_prev_entity+0x35/0x7a0",
    " [<ffffffff817a6888>] page_fault+0x28/0x30",
    " [<ffffffff813bb976>] ? memcpy_erms+0x6/0x10",
    " [<ffffffff817a0845>] ? schedule+0x35/0x80",
    " [<ffffffffa006350a>] ? pmem_rw_bytes+0x6a/0x190 [nd_pmem]",
    " [<ffffffff817a3713>] ? schedule_timeout+0x183/0x240",
    " [<ffffffffa028d2b3>] btt_log_read+0x63/0x140 [nd_btt]",
)
END_OF_TRACE: Final = (
    " [<ffffffff811201d0>] ? __symbol_put+0x60/0x60",
    " [<ffffffff8122dc60>] ? kernel_read+0x50/0x80",
    " [<ffffffff81124489>] SyS_finit_module+0xb9/0xf0",
    " [<ffffffff817a4632>] entry_SYSCALL_64_fastpath+0x1a/0xa4",
)
Play = Callable[..., ScenarioRun]


@pytest.fixture
def play() -> Iterator[Play]:
    """Runs of the scenario, freed behind the test."""
    runs: list[ScenarioRun] = []

    def play(release: str, levels: int = 4, **settings: Any) -> ScenarioRun:
        text = {name: str(value) for name, value in settings.items()}
        runs.append(run_scenario("ioremap-512g", release=release, levels=levels, settings=text))
        return runs[-1]

    yield play
    for run in runs:
        run.kernel.close()


@pytest.fixture(scope="module")
def of_4_4() -> Iterator[ScenarioRun]:
    """The run of the mail."""
    run = run_scenario("ioremap-512g")
    yield run
    run.kernel.close()


def lines(run: ScenarioRun) -> list[str]:
    assert run.oops is not None
    return run.oops.split("\n")


def test_vmallocinfo_has_the_lines_of_the_mail(of_4_4: ScenarioRun) -> None:
    assert in_order(VMALLOCINFO, of_4_4.ending.facts["vmallocinfo"]) == VMALLOCINFO


def test_31_mappings_are_made(of_4_4: ScenarioRun) -> None:
    assert len(of_4_4.ending.facts["vmallocinfo"]) == 31


def test_the_oops_begins_with_the_lines_of_the_mail(of_4_4: ScenarioRun) -> None:
    assert tuple(lines(of_4_4)[:4]) == OOPS


def test_the_call_trace_begins_with_the_lines_of_the_mail(of_4_4: ScenarioRun) -> None:
    text = lines(of_4_4)
    at = text.index("Call Trace:")

    assert tuple(text[at : at + len(TOP_OF_TRACE)]) == TOP_OF_TRACE


def test_the_call_trace_ends_with_the_lines_of_the_mail(of_4_4: ScenarioRun) -> None:
    text = lines(of_4_4)
    end = next(i for i, line in enumerate(text) if line.startswith("Code:"))

    assert tuple(text[end - len(END_OF_TRACE) : end]) == END_OF_TRACE


def test_the_first_fault_was_the_devices_and_copied_slot_403(of_4_4: ScenarioRun) -> None:
    (fault,) = [e for e in of_4_4.kernel.history if isinstance(e, LazyFault)]

    assert fault == LazyFault("modprobe", 0xFFFF_C983_BFFF_F000, 403, filled=True, repeated=False)


def test_no_fault_was_handled(of_4_4: ScenarioRun) -> None:
    assert of_4_4.as_json()["handled_faults"] == 0


@pytest.mark.parametrize("offset", [0x3_FFE0_0000, 0x3_FFEF_F000, 0x3_FFFF_FE00])
def test_every_read_in_the_last_2_mib_dies_at_the_same_address(play: Play, offset: int) -> None:
    run = play("4.4", offset=offset)

    assert run.ending.stop.address == 0xFFFF_8808_4000_0FF8  # type: ignore[union-attr]


def test_a_read_2_mib_before_dies_a_word_before(play: Play) -> None:
    run = play("4.4", offset=0x3_FFC0_0000)

    assert run.ending.stop.address == 0xFFFF_8808_4000_0FF0  # type: ignore[union-attr]


def test_a_read_below_the_boundary_does_not_fault(play: Play) -> None:
    run = play("4.4", offset=0)

    assert (run.outcome, run.kernel.handled_faults) == ("completed", 0)


@pytest.mark.parametrize("release", ["4.6", "4.12-rc", "4.14", "4.17", "5.4", "5.6"])
def test_with_the_fix_the_fault_is_handled_and_the_data_is_the_devices(
    play: Play, release: str
) -> None:
    run = play(release)

    assert (run.outcome, run.kernel.handled_faults) == ("completed", 1)
    assert run.ending.facts["data_matches"] is True


@pytest.mark.parametrize("release", ["4.4", "4.6", "4.12-rc", "4.14"])
def test_without_hugetlbfs_the_first_fix_is_none(play: Play, release: str) -> None:
    run = play(release, hugetlbfs=0)

    assert run.outcome == "oops"
    assert run.ending.stop.symbol == "vmalloc_fault+0x1be/0x300"  # type: ignore[union-attr]


@pytest.mark.parametrize("release", ["4.17", "5.4", "5.6"])
def test_without_hugetlbfs_the_second_fix_is_one(play: Play, release: str) -> None:
    run = play(release, hugetlbfs=0)

    assert (run.outcome, run.kernel.handled_faults) == ("completed", 1)


@pytest.mark.parametrize(
    ("release", "means"),
    [
        ("4.6", "was filled by vmalloc_fault(), when the task missed it"),
        ("5.8", "was filled by sync_global_pgds(), before anybody could miss it"),
        ("5.10", "was there before the fork: preallocate_vmalloc_pages() filled it at boot"),
    ],
)
def test_the_story_says_by_which_means(play: Play, release: str, means: str) -> None:
    run = play(release)

    assert run.ending.notes[-1] == f"modprobe's entry of slot 403 {means}"


@pytest.mark.parametrize("release", ["5.8", "5.10", "6.8", "6.17"])
def test_later_releases_have_no_fault_to_handle(play: Play, release: str) -> None:
    run = play(release)

    assert (run.outcome, run.kernel.handled_faults) == ("completed", 0)
    assert run.ending.facts["data_matches"] is True


def test_in_the_merge_window_the_read_itself_dies(play: Play) -> None:
    run = play("5.9-mw")

    assert run.ending.stop.symbol == "memcpy_erms+0x6/0x10"  # type: ignore[union-attr]


@pytest.mark.parametrize("task", ["late", "init_mm"])
def test_a_table_that_has_the_slot_faults_in_no_release(play: Play, task: str) -> None:
    run = play("4.4", task=task)

    assert (run.outcome, run.kernel.handled_faults) == ("completed", 0)


def test_a_slot_of_5_levels_is_not_left(play: Play) -> None:
    run = play("4.17", levels=5)

    assert (run.outcome, run.kernel.handled_faults) == ("completed", 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"offset": 16 << 30}, "offset 0x400000000: expected at most 0x3fffffe00"),
        ({"mappings": 0}, "mappings 0: expected 1 to 1000"),
        ({"hugetlbfs": 2}, "hugetlbfs '2': expected one of 0, 1"),
    ],
)
def test_what_cannot_be_is_refused(play: Play, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        play("4.4", **settings)


def test_5_levels_on_a_release_that_has_none_is_refused(play: Play) -> None:
    with pytest.raises(
        ValueError, match=r"release 4\.4 has no 5-level paging: expected one of 4\.17"
    ):
        play("4.4", levels=5)
