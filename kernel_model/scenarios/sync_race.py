"""Two CPUs map into the same new slot of the vmalloc area; one of them uses it before it is synced.

What 4819e15f740e "x86/mm/32: Bring back vmalloc faulting on x86_32" describes, on 64 bits: the CPU
that fills a top-level entry syncs it when it has mapped everything; meanwhile another CPU finds the
entry filled, concludes that nothing has to be synced, and touches what it has mapped.
"""

from typing import TYPE_CHECKING, Any, Final

from kernel_model.layout import PAGE_SIZE
from kernel_model.scenarios.spec import Parameter, Scenario, Settings

if TYPE_CHECKING:
    from kernel_model.interleaving import Interleaved
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending

MAPS, USES = 0, 1  # the CPUs
_MOST_STEPS: Final = 64


def boots(_settings: Settings) -> dict[str, Any]:
    """Return a machine with two CPUs."""
    return {"cpus": 2}


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Look for a schedule under which a CPU faults, on fresh kernels; then play it on this one.

    With a `switch` that is given, play that one. The schedules are those with one switch, from the
    CPU that maps to the one that maps and uses; without any, they run one behind the other.
    """
    from emu import Returned
    from kernel_model.interleaving import one_switch
    from kernel_model.scenarios.means import by_what_means
    from kernel_model.scenarios.outcome import Ending

    given = int(settings["switch"])
    tried, schedule = 0, (MAPS,) * given + (USES,) if given else ()
    if not given:
        for candidate in one_switch(_steps_of(kernel, MAPS), first=MAPS, second=USES):
            tried += 1
            with kernel.twin() as other:
                if not isinstance(_race(other, candidate)[0].stops[USES], Returned):
                    schedule = candidate
                    break

    raced, task, addr = _race(kernel, schedule)
    notes = _story(raced, schedule, tried)
    stop = next((s for s in raced.stops if not isinstance(s, Returned)), raced.stops[USES])
    facts = {
        "schedules_tried": tried,
        "schedule": list(schedule) or None,
        "steps": [{"cpu": step.cpu, "before": step.before or None} for step in raced.steps],
    }
    return Ending(task, stop, addr, (*notes, by_what_means(kernel, task, addr, stop)), facts)


def _race(kernel: "Kernel", schedule: tuple[int, ...]) -> "tuple[Interleaved, Any, int]":
    """Have one CPU map, and the other map and use, under a schedule."""
    from emu import Returned
    from kernel_model.interleaving import interleave
    from kernel_model.vmalloc import vmalloc
    from kernel_model.vmap_areas import fill_first_slot

    maps, uses = kernel.fork("maps"), kernel.fork("uses")
    for task in (maps, uses):
        kernel.stack_of(task)
    fill_first_slot(kernel)
    found: dict[str, int] = {}

    def map_and_use() -> Any:
        mapped = kernel.run(uses, vmalloc, PAGE_SIZE)
        if not isinstance(mapped, Returned) or not mapped.value:
            return mapped
        found["address"] = mapped.value
        return kernel.run(uses, "read_byte", rdi=mapped.value)

    raced = interleave(
        kernel, (lambda: kernel.run(maps, vmalloc, PAGE_SIZE), map_and_use), schedule
    )
    return raced, uses, found.get("address", 0)


def _steps_of(kernel: "Kernel", cpu: int) -> int:
    """Count the steps of a CPU that nobody interrupts."""
    with kernel.twin() as other:
        raced, _, _ = _race(other, ())
    return min(sum(step.cpu == cpu for step in raced.steps), _MOST_STEPS)


def _story(raced: "Interleaved", schedule: tuple[int, ...], tried: int) -> tuple[str, ...]:
    """Tell the search and the steps."""
    if tried:
        found = "the last of them has a CPU fault" if schedule else "none has a CPU fault"
        search = f"{tried} schedules with one switch between CPUs tried on kernels alike: {found}"
    else:
        search = f"the schedule that was given: CPU {USES} comes in after {len(schedule) - 1} steps"
    names = ("maps", "maps and uses")
    steps = [
        f"CPU {cpu} ({names[cpu]}): "
        + (f"goes on until it calls {before}()" if before else "goes on to its end")
        for cpu, before in raced.steps
    ]
    return (search, *steps)


SCENARIO: Final = Scenario(
    name="sync-race",
    summary="two CPUs map into one new slot of the vmalloc area; one is used before it is synced",
    release="5.8",
    broke={
        "read_byte": '7f0a002b5a21 "x86/mm: remove vmalloc faulting", which left only the sync '
        "behind each mapping"
    },
    fixed='6eb82f994026 "x86/mm: Pre-allocate P4D/PUD pages for vmalloc area" on 64 bits; on 32 '
    'bits 4819e15f740e "x86/mm/32: Bring back vmalloc faulting on x86_32"',
    look_at="the step between the one that fills the slot and the one that syncs it",
    parameters=(
        Parameter(
            "switch", "after how many steps the other CPU comes in; 0 looks for it", "number", 0
        ),
    ),
    play=play,
    boots=boots,
)
