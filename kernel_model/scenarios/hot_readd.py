"""Memory that is added, removed, and added again, in a slot of the direct map that is all its own.

On 4.12-rc the removal frees the table under init_mm's top-level entry, and leaves the copies in the
tasks' tables pointing to it. Whoever gets the frame next is what those tasks have there; and when
the memory comes back with another table, the sync that meets both is a BUG.
"""

from typing import TYPE_CHECKING, Any, Final

from kernel_model.layout import GIB, PAGE_SHIFT
from kernel_model.scenarios.spec import (
    RAM,
    Parameter,
    Scenario,
    Settings,
    require_device_range,
)
from kernel_model.sparse import SECTION_SIZE

if TYPE_CHECKING:
    from emu import PhysAddr
    from kernel_model.kernel import Kernel
    from kernel_model.mm import Task
    from kernel_model.scenarios.outcome import Ending


def check(settings: Settings, levels: int) -> None:
    """Refuse memory that cannot be added."""
    require_device_range(
        settings,
        levels,
        start=int(settings["start"]),
        size=int(settings["size"]),
        align=SECTION_SIZE,
        names="start, size",
    )


def nr_pages(settings: Settings) -> int:
    """Return how many pages are added and removed."""
    return 3 * int(settings["size"]) >> PAGE_SHIFT


def boots(settings: Settings) -> dict[str, Any]:
    """Return Kernel's options."""
    return {"ram": int(settings["ram"])}


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Add, remove and add again, all in one task."""
    from emu import Returned
    from kernel_model.ramhotplug import add_memory, remove_memory
    from kernel_model.scenarios.outcome import Ending

    start, size = int(settings["start"]), int(settings["size"])
    addr = kernel.layout.va(start)
    task = kernel.fork("bash")
    notes: list[str] = []
    facts: dict[str, Any] = {"slot": kernel.layout.pgd_index(addr), "stale": [], "read": None}
    for step in (add_memory, remove_memory):
        stop = kernel.run(task, step, start, size)
        if stop != Returned():
            return Ending(task, stop, addr, tuple(notes), facts)
    if settings["between"] == "fork":
        kernel.fork("cron")
    stale = _stale(kernel, addr)
    facts["stale"] = [
        {"task": comm, "entry": f"{entry:#x}", "now": now} for comm, entry, now in stale
    ]
    notes += _stale_lines(stale, facts["slot"])
    if settings["access"]:
        stop = kernel.run(task, "read_byte", rdi=addr)
        if not isinstance(stop, Returned):
            notes.append(
                f"{task.comm} reads {addr:016x}, where nothing is any more, and is told so"
            )
            return Ending(task, stop, addr, tuple(notes), facts)
        facts["read"] = f"{stop.value:#x}"
        notes.append(_read_line(kernel, task, addr, stop.value))
    stop = kernel.run(task, add_memory, start, size)
    return Ending(task, stop, addr, tuple(notes), facts)


def _stale(kernel: "Kernel", addr: int) -> list[tuple[str, int, str]]:
    """List the tasks whose top-level entry for `addr` is not init_mm's, with it and whose it is."""
    pgtable = kernel.pgtable
    reference = pgtable.get(pgtable.pgd_offset(kernel.init_mm.pgd, addr))
    entries = [(t, pgtable.get(pgtable.pgd_offset(t.mm.pgd, addr))) for t in kernel.tasks]
    return [(t.comm, e, _whose(kernel, e)) for t, e in entries if e != reference]


def _whose(kernel: "Kernel", entry: int) -> str:
    """Say what the frame that an entry points to is now."""
    from kernel_model.pgtable import table

    frame: PhysAddr = table(entry)
    owners = [task.comm for task in kernel.tasks if task.mm.pgd == frame]
    if owners:
        return f"{owners[0]}'s top table"
    return "free" if kernel.frames.is_free(frame) else "in use for something else"


def _stale_lines(stale: list[tuple[str, int, str]], slot: int) -> list[str]:
    if not stale:
        return [f"after the removal, every task has in slot {slot} what init_mm has"]
    return [
        f"after the removal, {comm}'s slot {slot} is still {entry:#x}: that frame is {now}"
        for comm, entry, now in stale
    ]


def _read_line(kernel: "Kernel", task: "Task", addr: int, value: int) -> str:
    """Say what a read of memory that is gone gave."""
    pa = kernel.walk(addr, task.mm).pa
    return (
        f"{task.comm} reads {addr:016x}, where nothing is any more, and gets {value:#x}: the CPU "
        f"took what it found for tables, and came to pa {pa:#x}"
    )


SCENARIO: Final = Scenario(
    name="hot-readd",
    summary="memory in a top-level slot of its own is added, removed and added again",
    release="4.12-rc",
    broke={
        "sync_global_pgds": 'f2a6a7050109 "x86: Convert the rest of the code to support p4d_t"',
    },
    fixed={
        "sync_global_pgds": "98fe3633c5a4 "
        '"x86/mm/hotplug: Fix BUG_ON() after hot-remove by not freeing PUD"',
    },
    look_at="the task's top-level entry for the memory, beside init_mm's: which table is whose",
    parameters=(
        Parameter("ram", RAM, "size", 4 * GIB),
        Parameter(
            "start",
            "where the memory lies; at 4 levels, its entry in the table that is freed is the one "
            "which in a top table is the direct map's",
            "address",
            {4: (512 + 272) * GIB, 5: 1 << 48},
        ),
        Parameter("size", "how much memory it is", "size", GIB),
        Parameter(
            "between",
            "what happens between the removal and the second time: a task is forked, and takes "
            "the frame that was freed last; or nothing, and the same frame serves again",
            "word",
            "fork",
            ("fork", "nothing"),
        ),
        Parameter(
            "access",
            "1: before that, the task reads where the memory was",
            "number",
            0,
            (0, 1),
        ),
    ),
    play=play,
    check=check,
    boots=boots,
    nr_pages=nr_pages,
)
