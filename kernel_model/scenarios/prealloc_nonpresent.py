"""A chunk of per-CPU memory at the top of the vmalloc area, used by a worker on a task's table.

In 5.9's merge window the area's top-level entries were to be filled at boot, and were not: the code
looked for the level below through entries that were not there, and took physical page 0 for it. The
sync that would have made up for it had just been removed.
"""

from typing import TYPE_CHECKING, Any, Final

from kernel_model.scenarios.spec import Parameter, Scenario, Settings

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending

CPU: Final = 4
OFFSET: Final = 0x608  # so that the address is that of the report, without KASLR


def boots(settings: Settings) -> dict[str, Any]:
    """Return what lies in page 0 when the kernel starts."""
    return {"ivt": settings["page0"] == "ivt"}


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Make the chunk after a task was forked, and let a worker on that task's table use it."""
    from kernel_model.mm import Task
    from kernel_model.percpu import pcpu_alloc
    from kernel_model.scenarios.means import by_what_means
    from kernel_model.scenarios.outcome import Ending

    early = kernel.fork("early")
    chunk = pcpu_alloc(kernel, OFFSET, 8)
    addr = chunk.address(CPU, OFFSET)
    mm = {"early": early.mm, "late": kernel.fork("late").mm, "init_mm": kernel.init_mm}
    worker = Task(f"kworker/{CPU}:1", kernel.next_pid(), mm[str(settings["task"])])
    kernel.tasks.append(worker)

    stop = kernel.run(worker, "process_one_work", rdi=addr)

    first = int.from_bytes(kernel.memory.peek(0, 8), "little")
    notes = [
        f"{worker.comm} runs on the table of {worker.mm.name}",
        f"the first word of physical page 0 is {first:#x}",
        by_what_means(kernel, worker, addr, stop),
    ]
    return Ending(worker, stop, addr, tuple(notes), {"page0": f"{first:#x}"})


SCENARIO: Final = Scenario(
    name="prealloc-nonpresent",
    summary="per-CPU memory in a vmalloc slot that boot should have filled and took for full",
    release="5.9-mw",
    broke={
        "process_one_work": '6eb82f994026 "x86/mm: Pre-allocate P4D/PUD pages for vmalloc area", '
        'uncovered by 8bb9bf242d1f "x86/mm/64: Do not sync vmalloc/ioremap mappings"'
    },
    fixed='7b4ea9456dd3, a revert of the latter, at first; then 995909a4e22b "x86/mm/64: Do not '
    'dereference non-present PGD entries"',
    look_at="what boot left out, and the first word of page 0",
    parameters=(
        Parameter(
            "page0",
            "what real mode left in page 0: its vectors, or nothing",
            "word",
            "ivt",
            ("ivt", "zero"),
        ),
        Parameter(
            "task",
            "whose table the worker runs on: forked before the chunk was made, after, or init_mm's",
            "word",
            "early",
            ("early", "late", "init_mm"),
        ),
    ),
    play=play,
    boots=boots,
)
