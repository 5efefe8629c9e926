"""Named, parameterised stories; one a file.

Knows which there are and how one is run. Nothing here loads an engine before `run_scenario`.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from kernel_model.releases import RELEASES, find_release
from kernel_model.scenarios import (
    debug_vm_pgtable,
    efi_call,
    healing_order,
    hot_readd,
    ioremap_512g,
    kasan_zero_shadow,
    ldt_slot,
    prealloc_nonpresent,
    pti_user_half,
    sync_race,
    trace_fault_loop,
    trampoline,
    vmap_stack_switch,
    vmemmap_devdax,
    vmemmap_subpmd,
)
from kernel_model.scenarios.spec import Parameter, Scenario, Value
from kernel_model.words import did_you_mean

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import ScenarioRun

__all__ = ["SCENARIOS", "Parameter", "Scenario", "find_scenario", "prepare", "run_scenario"]

_STORIES: Final[tuple[Scenario, ...]] = (
    vmemmap_devdax.SCENARIO,
    vmemmap_subpmd.SCENARIO,
    ioremap_512g.SCENARIO,
    prealloc_nonpresent.SCENARIO,
    vmap_stack_switch.SCENARIO,
    trace_fault_loop.SCENARIO,
    sync_race.SCENARIO,
    efi_call.SCENARIO,
    trampoline.SCENARIO,
    ldt_slot.SCENARIO,
    pti_user_half.SCENARIO,
    debug_vm_pgtable.SCENARIO,
    hot_readd.SCENARIO,
    healing_order.SCENARIO,
    kasan_zero_shadow.SCENARIO,
)
SCENARIOS: Final = {scenario.name: scenario for scenario in _STORIES}


def find_scenario(name: str) -> Scenario:
    """Return a scenario by name; ValueError that lists the names."""
    if name not in SCENARIOS:
        hint = did_you_mean(name, SCENARIOS)
        raise ValueError(f"unknown scenario {name!r}: expected {', '.join(SCENARIOS)}{hint}")
    return SCENARIOS[name]


def prepare(
    name: str,
    *,
    release: str | None = None,
    build: str | None = None,
    levels: int = 4,
    settings: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> "tuple[Scenario, Kernel, dict[str, Value]]":
    """Check everything and boot the kernel; ValueError, naming the value, for what is wrong."""
    scenario = find_scenario(name)
    release = scenario.release if release is None else release
    if levels not in (4, 5):
        raise ValueError(f"levels {levels}: expected 4 or 5")
    why_not = scenario.why_not(find_release(release), levels)
    if why_not:
        can = [r.name for r in RELEASES.values() if not scenario.why_not(r, levels)]
        raise ValueError(f"{name}: {why_not}: expected one of {', '.join(can) or 'no release'}")
    values = scenario.settings(settings or {}, levels)

    from kernel_model.kernel import Kernel

    kernel = Kernel(
        release,
        levels=levels,
        build=build,
        progress=progress,
        **scenario.boots(values),
    )
    return scenario, kernel, values


def run_scenario(
    name: str,
    *,
    release: str | None = None,
    build: str | None = None,
    levels: int = 4,
    settings: Mapping[str, str] | None = None,
) -> "ScenarioRun":
    """Run a scenario. `settings` are as on the command line: text, by parameter."""
    from kernel_model.scenarios.outcome import ScenarioRun

    scenario, kernel, values = prepare(
        name, release=release, build=build, levels=levels, settings=settings
    )
    return ScenarioRun(scenario, values, kernel, scenario.play(kernel, values))
