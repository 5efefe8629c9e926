"""A kernel stack in a slot of the vmalloc area that the next task's table has not got.

The switch of tables happens on the old task's stack. Where the new table does not map it, the next
push or pop is a page fault, whose frame cannot be pushed either: a double fault.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.releases import Release
from kernel_model.scenarios.spec import Parameter, Scenario, Settings

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending


def lacks(release: Release) -> str | None:
    """Name what the story is about, where it is not there."""
    return None if release.vmap_stack else "kernel stacks in the vmalloc area"


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Fork one task, let stacks open a new slot, and switch from another task to it."""
    from kernel_model.scenarios.means import by_what_means
    from kernel_model.scenarios.outcome import Ending
    from kernel_model.vmap_areas import fill_first_slot

    early = kernel.fork("early")
    kernel.stack_of(early)
    fill_first_slot(kernel)
    opener = kernel.kthread("kworker/0:1")
    stack = kernel.stack_of(opener)  # the first stack in the new slot
    late = kernel.fork("late")
    kernel.stack_of(late)
    before, after = (late, early) if settings["next"] == "early" else (early, late)
    kernel.run(before, "read_byte", rdi=kernel.layout.va(0))

    stop = kernel.run(after, "read_byte", rdi=kernel.layout.va(0))

    where = kernel.stack_of(before)
    notes = (
        f"the stack of {opener.comm} at {stack.base:016x} opens slot "
        f"{kernel.layout.pgd_index(stack.base)}",
        f"the switch to {after.comm} runs on the stack of {before.comm} at {where.base:016x}",
        by_what_means(kernel, after, where.base, stop),
    )
    return Ending(after, stop, where.top - 8, notes)


SCENARIO: Final = Scenario(
    name="vmap-stack-switch",
    summary="a switch to a table that lacks the slot of the stack that the switch runs on",
    release="4.14",
    broke={
        "switch_mm": 'b50858ce3e2a "x86/mm/vmalloc: Add 5-level paging support" (4.12): the copy '
        "before the switch tests an entry which is never empty with 4 levels"
    },
    fixed='5beda7d54eaf "x86/mm/64: Fix vmapped stack syncing on very-large-memory 4-level '
    'systems" (4.15)',
    look_at="RSP at the double fault, and the slot that it lies in",
    parameters=(
        Parameter(
            "next",
            "which task is switched to: the one forked before the stacks reached the slot, or the "
            "one forked after",
            "word",
            "early",
            ("early", "late"),
        ),
    ),
    play=play,
    lacks=lacks,
)
