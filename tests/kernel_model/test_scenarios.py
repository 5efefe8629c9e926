"""Scenarios from Python: how many pages they add, and endings that are no page fault."""

import pytest
from support.kernel_facts import FOUR, put_slot

from emu import Trap
from kernel_model import Kernel
from kernel_model.history import Refused
from kernel_model.scenarios import SCENARIOS, prepare
from kernel_model.scenarios.outcome import Ending, ScenarioRun, fault_json
from kernel_model.sync import sync_global_pgds


@pytest.mark.parametrize(
    ("name", "settings", "nr_pages"),
    [
        ("vmemmap-devdax", {}, 131072),
        ("vmemmap-devdax", {"size": "2M"}, 512),
        ("vmemmap-subpmd", {}, 32768),
        ("vmemmap-subpmd", {"nr_pages": "1024"}, 1024),
        ("hot-readd", {}, 3 * 262144),
        ("healing-order", {}, 2 * 32768),
        ("healing-order", {"order": "compound-only"}, 32768),
    ],
)
def test_a_scenario_says_how_many_pages_it_adds(
    name: str, settings: dict[str, str], nr_pages: int
) -> None:
    scenario = SCENARIOS[name]

    assert scenario.nr_pages(scenario.settings(settings, 4)) == nr_pages


def test_a_late_task_that_cannot_be_forked_is_no_memory() -> None:
    given = {"ram": "128M", "start": "0xfc0200000", "size": "0x4d0c00000", "task": "late"}
    scenario, kernel, settings = prepare("vmemmap-devdax", settings=given)
    kernel.frames.allocate()  # the one that would be left

    with kernel:
        run = ScenarioRun(scenario, settings, kernel, scenario.play(kernel, settings))

        assert (run.outcome, run.errno) == ("error", 12)
        assert kernel.history[-1] == Refused(
            "fork", 12, "no frame is left for the top table of late"
        )


def test_the_json_of_a_trap_has_what_the_cpu_had(kernel: Kernel) -> None:
    task, other = kernel.fork("a"), kernel.fork("other")
    put_slot(kernel, kernel.init_mm, 462, 0x1234_5067)
    put_slot(kernel, other.mm, 462, 0x6789_A067)

    def sync(kernel: Kernel) -> None:
        kernel.switch_mm(other.mm)
        sync_global_pgds(kernel, FOUR.boundary, FOUR.boundary)

    stop = kernel.run(task, sync)

    assert isinstance(stop, Trap)
    found = fault_json(kernel, Ending(task, stop, FOUR.boundary))
    assert found is not None
    assert (found["vector"], found["cpl"], found["cr3"]) == (6, 0, f"{other.mm.pgd:#x}")
