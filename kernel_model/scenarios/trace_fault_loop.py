"""Tracing of page faults whose buffer is per-CPU memory that was never synced.

The page-fault handler writes to the buffer before it does anything else. Where the buffer's slot is
missing, that is a page fault, whose handler writes to the buffer: until the stack is full.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.releases import Release
from kernel_model.scenarios.spec import Parameter, Scenario, Settings

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending

_OFFSET: Final = 0x80


def lacks(release: Release) -> str | None:
    """Name what the story is about, where it is not there."""
    return None if release.vmap_stack else "kernel stacks with a guard, which end the loop"


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Trace page faults, perhaps after something has synced the buffer; then have a task fault."""
    from kernel_model.percpu import pcpu_alloc
    from kernel_model.scenarios.means import by_what_means
    from kernel_model.scenarios.outcome import Ending
    from kernel_model.tracing import nr_events, trace_page_faults
    from kernel_model.vmalloc import vmalloc, vmalloc_sync_all
    from kernel_model.vmap_areas import fill_first_slot

    task, other = kernel.fork("traced"), kernel.fork("other")
    for each in (task, other):
        kernel.run(each, "read_byte", rdi=kernel.layout.va(0))
    buffer = pcpu_alloc(kernel, _OFFSET, 8).address(0, _OFFSET)
    trace_page_faults(kernel, buffer)
    notes = [f"the trace buffer of CPU 0 is at {buffer:016x}"]
    if settings["sync"]:
        vmalloc_sync_all(kernel)
        notes.append("vmalloc_sync_mappings() fills every table before tracing begins")
    if settings["exit"]:
        kernel.exit(other)
        notes.append(f"{other.comm} exits; its stack goes by way of a vfree()")
    fill_first_slot(kernel)
    page = vmalloc(kernel, 8)

    stop = kernel.run(task, "read_byte", rdi=page)

    notes.append(f"{task.comm} reads vmalloc memory at {page:016x}")
    notes.append(f"the handler has written {nr_events(kernel, buffer)} events to the buffer")
    notes.append(by_what_means(kernel, task, buffer, stop))
    return Ending(task, stop, buffer, tuple(notes))


SCENARIO: Final = Scenario(
    name="trace-fault-loop",
    summary="the page-fault handler traces into a buffer that faults, and so on",
    release="5.6",
    broke={
        "": '763802b53a42 "x86/mm: split vmalloc_sync_all()": the exit of a task synced the '
        "buffer by chance, and does not any more"
    },
    fixed='11f5efc3ab66 "tracing: Add a vmalloc_sync_mappings() for safe measure" (5.7)',
    look_at="the Call Trace: the handler over and over",
    parameters=(
        Parameter("exit", "whether a task exits before the fault", "number", 1, (0, 1)),
        Parameter("sync", "whether tracing syncs first, as the fix does", "number", 0, (0, 1)),
    ),
    play=play,
    lacks=lacks,
)
