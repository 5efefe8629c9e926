"""Persistent memory, added at run time, whose KASAN shadow needs a new top-level slot.

The hole that the merged fix leaves: kasan_add_zero_shadow() gets a table for a part of a slot from
pud_alloc() or p4d_alloc(), which tell no other table, so that a task forked before faults where
its first instrumented access to the memory looks for the shadow. Taking the shadow away again
frees that table, and leaves who has a copy of the entry with a pointer to nothing.
"""

from typing import TYPE_CHECKING, Any, Final

from kernel_model.layout import GIB, PAGE_SHIFT, TIB
from kernel_model.releases import Release
from kernel_model.scenarios.spec import (
    RAM,
    Parameter,
    Scenario,
    Settings,
    require_device_range,
)
from kernel_model.sparse import SECTION_SIZE, SUBSECTION_SIZE

if TYPE_CHECKING:
    from emu import Stop
    from kernel_model.kernel import Kernel
    from kernel_model.mm import Task
    from kernel_model.scenarios.outcome import Ending

_ADDS: Final = '0207df4fa1a8 "kernel/memremap, kasan: make ZONE_DEVICE with work with KASAN"'
_FREES: Final = f"{_ADDS}: kasan_remove_zero_shadow() frees a table that others point to"
_UNCHECKED: Final = "no check is compiled in, and nothing else is read but the device"


def check(settings: Settings, levels: int) -> None:
    """Refuse a device that cannot be."""
    for name in ("size", "again"):
        if name == "size" or settings[name]:
            require_device_range(
                settings,
                levels,
                start=int(settings["start"]),
                size=int(settings[name]),
                align=SUBSECTION_SIZE,
                names=f"start, {name}",
            )
    if settings["again"] and not settings["remove"]:
        raise ValueError(f"again {settings['again']:#x}: expected remove=1 with it")
    if settings["remove"] and not settings["instrumented"]:
        raise ValueError("remove 1: expected instrumented=1 with it, or there is no shadow")


def lacks(release: Release) -> str | None:
    """Name what the story is about, where it is not there."""
    return None if release.kasan_device_shadow else "a KASAN shadow for device memory"


def boots(settings: Settings) -> dict[str, Any]:
    """Return how the kernel is booted: KASAN leaves KASLR no choice."""
    return {"ram": int(settings["ram"]), "kasan": bool(settings["instrumented"])}


def nr_pages(settings: Settings) -> int:
    """Return how many pages the device has."""
    return int(settings["size"]) >> PAGE_SHIFT


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Add the device under init_mm, then have the task that the settings name read from it."""
    from emu import OutOfFrames, Returned
    from kernel_model.errors import ENOMEM
    from kernel_model.pmem import pmem_attach_disk, pmem_submit_bio
    from kernel_model.scenarios.outcome import Ending

    start, size = int(settings["start"]), int(settings["size"])
    touched = int(kernel.layout.va(start))
    if kernel.kasan is not None:
        touched = kernel.layout.kasan_mem_to_shadow(touched)
    facts = {"touched": f"{touched:#x}", "slot": kernel.layout.pgd_index(touched)}
    notes: tuple[str, ...] = () if kernel.kasan else (_UNCHECKED,)

    early = kernel.fork("early")
    worker = kernel.kthread("kworker/0:1")
    stop = kernel.run(worker, pmem_attach_disk, start, size)
    try:
        if _succeeded(stop):
            who = settings["task"]
            task = kernel.fork("late") if who == "late" else early if who == "early" else worker
        if _succeeded(stop) and settings["remove"]:
            again = int(settings["again"])
            stop, notes = _replace(kernel, worker, task, start, size, again)
    except OutOfFrames:
        stop = Returned((1 << 64) - ENOMEM)
    if not _succeeded(stop):
        return Ending(worker, stop, touched, notes, facts)
    return Ending(task, kernel.run(task, pmem_submit_bio, start), touched, notes, facts)


def _replace(
    kernel: "Kernel", worker: "Task", task: "Task", start: int, size: int, again: int
) -> "tuple[Stop, tuple[str, ...]]":
    """Remove the device, and add one of `again` bytes in its place, or at least its shadow.

    A task is forked in between: it gets the first frame that is free.
    """
    from kernel_model.drivers import devres_release_all
    from kernel_model.kasan import kasan_add_zero_shadow
    from kernel_model.pgtable import table
    from kernel_model.pmem import pmem_attach_disk

    addr = kernel.layout.va(start)
    shadow = kernel.layout.kasan_mem_to_shadow(addr)
    stop = kernel.run(worker, devres_release_all, start)
    if not _succeeded(stop):
        return stop, ()
    other = kernel.fork("bystander")
    if again:
        stop = kernel.run(worker, kasan_add_zero_shadow, addr, again)
    else:
        stop = kernel.run(worker, pmem_attach_disk, start, size)

    pgtable = kernel.pgtable
    theirs, ours = (
        pgtable.get(pgtable.pgd_offset(mm.pgd, shadow)) for mm in (task.mm, kernel.init_mm)
    )
    if pgtable.top_none(theirs) or table(theirs) == table(ours):
        return stop, ()
    slot, pa = kernel.layout.pgd_index(shadow), table(theirs)
    now = f" and is {other.comm}'s top table now" if pa == other.mm.pgd else ""
    return stop, (f"slot {slot} of {task.comm} points to pa {pa:#x}, which was freed{now}",)


def _succeeded(stop: "Stop") -> bool:
    from emu import Returned

    return isinstance(stop, Returned) and stop.value == 0


SCENARIO: Final = Scenario(
    name="kasan-zero-shadow",
    summary="persistent memory whose KASAN shadow needs a new top-level slot",
    release="6.17",
    broke={
        "__asan_load8": _ADDS,
        "sync_global_pgds": _FREES,
        "arch_sync_kernel_pagetables": _FREES,
    },
    fixed="in no release looked at, up to 7.2: at run time a part of a slot is still filled by "
    "pud_alloc() or p4d_alloc(), which sync nothing",
    look_at="the slot of the shadow's address in the task's table, beside init_mm's: the merged "
    "fix syncs it only where the shadow fills all of it",
    parameters=(
        Parameter("ram", RAM, "size", 4 * GIB),
        Parameter(
            "start",
            "where the device lies",
            "address",
            {4: 3584 * GIB, 5: 1824 * TIB},
        ),
        Parameter("size", "how much memory it has", "size", SECTION_SIZE),
        Parameter(
            "task",
            "whose table the read is made on: forked before the device was added, forked after it, "
            "or init_mm's own",
            "word",
            "early",
            ("early", "late", "init_mm"),
        ),
        Parameter(
            "instrumented",
            "1: the kernel has KASAN, which checks the read; 0: it has not",
            "number",
            1,
            (0, 1),
        ),
        Parameter(
            "remove",
            "1: before the read the device is removed and added again, and a task is forked in "
            "between",
            "number",
            0,
            (0, 1),
        ),
        Parameter(
            "again",
            "with remove=1, how much memory another device in its place has, of which only the "
            "shadow is added; 0: the same device comes back",
            "size",
            0,
        ),
    ),
    play=play,
    check=check,
    lacks=lacks,
    boots=boots,
    nr_pages=nr_pages,
)
