"""The kernel's own checklist for its page-table helpers, judged by the CPU as well.

No bug is told here: the story is that every helper of the model keeps what its name says, at 4 and
5 levels and on every release, those included whose kernel had no such list yet.
"""

from typing import TYPE_CHECKING, Any, Final

from kernel_model.layout import GIB
from kernel_model.scenarios.spec import RAM, Parameter, Scenario, Settings

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending

_CAME_WITH: Final = (
    '399145f9eb6c "mm/debug: add tests validating architecture page table helpers" (5.8)'
)


def boots(settings: Settings) -> dict[str, Any]:
    """Return what the kernel is booted with."""
    return {"ram": int(settings["ram"])}


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Go through the list as a late initcall does, in the first task."""
    from kernel_model.debug_vm_pgtable.checker import debug_vm_pgtable
    from kernel_model.debug_vm_pgtable.report import Report
    from kernel_model.scenarios.outcome import Ending

    report = Report()
    task = kernel.init_task
    stop = kernel.run(task, debug_vm_pgtable, int(settings["seed"]), report)
    notes = list(report.lines())
    if "checklist" not in kernel.release.entry_features:
        name = kernel.release.name
        notes.append(f"{name} had no such list yet: it came with {_CAME_WITH}")
    return Ending(task, stop, report.vaddr, tuple(notes), report.facts())


SCENARIO: Final = Scenario(
    name="debug-vm-pgtable",
    summary="the kernel's checklist for its page-table helpers, run on the model's and the CPU",
    release="6.17",
    broke={"debug_vm_pgtable": "a helper that does not do what its name says"},
    fixed=f"nothing: the list asks for what has always to hold; it came with {_CAME_WITH}",
    look_at="the checks marked FAILED: what the helper made of the entry, and what the CPU did",
    parameters=(
        Parameter("ram", RAM, "size", 4 * GIB),
        Parameter("seed", "decides the user address at which the tables are made", "number", 1),
    ),
    play=play,
    boots=boots,
)
