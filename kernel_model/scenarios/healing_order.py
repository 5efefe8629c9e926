"""Two devices in one top-level slot: the order in which they come decides who faults.

Before the fix, the compound path of vmemmap population fills a new slot in init_mm only. But what
vmemmap_populate() adds to the same slot later ends with a sync of it, new or not, and that heals
what was left out. What a failed vmemmap_populate() leaves behind heals the same way.
"""

from typing import TYPE_CHECKING, Any, Final, Literal

from kernel_model.layout import GIB, PAGE_SHIFT, PAGE_SIZE
from kernel_model.releases import Release
from kernel_model.scenarios.spec import (
    BROKE_BY,
    MERGED_FIX,
    RAM,
    VMEMMAP_BASE,
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

Kind = Literal["compound", "plain", "failing"]

_ORDERS: Final[dict[str, tuple[Kind, ...]]] = {
    "compound-first": ("compound", "plain"),
    "plain-first": ("plain", "compound"),
    "compound-only": ("compound",),
    "failing-first": ("failing", "plain"),
}


def check(settings: Settings, levels: int) -> None:
    """Refuse devices that cannot be, and an access to one that is not there."""
    start, size = int(settings["start"]), int(settings["size"])
    require_device_range(
        settings, levels, start=start, size=2 * size, align=SECTION_SIZE, names="start, size"
    )
    if settings["order"] == "failing-first" and settings["access"] == "between":
        raise ValueError(
            "access 'between' with order 'failing-first': no device is there yet: expected last"
        )


def lacks(release: Release) -> str | None:
    """Name what the story is about, where it is not there."""
    return None if release.compound_vmemmap else "the compound path of vmemmap population"


def nr_pages(settings: Settings) -> int:
    """Return how many pages the devices have."""
    return len(_ORDERS[str(settings["order"])]) * int(settings["size"]) >> PAGE_SHIFT


def boots(settings: Settings) -> dict[str, Any]:
    """Return Kernel's options."""
    return {name: int(settings[name]) for name in ("vmemmap_base", "ram")}


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Have a kernel thread probe the devices, and a task that is older look at their pages."""
    from emu import Returned
    from kernel_model.scenarios.outcome import Ending

    layout = kernel.layout
    early, worker = kernel.fork("early"), kernel.kthread("kworker/0:1")
    start, size = int(settings["start"]), int(settings["size"])
    slot = layout.pgd_index(layout.pfn_to_page(start >> PAGE_SHIFT))
    notes: list[str] = []
    facts: dict[str, Any] = {"slot": slot, "healed": False}
    pages: list[int] = []
    for nr, kind in enumerate(_ORDERS[str(settings["order"])]):
        page = layout.pfn_to_page(start + nr * size >> PAGE_SHIFT)
        lacked, before = _lacks_slot(kernel, early, slot), len(kernel.history)
        stop = _add(kernel, worker, kind, start + nr * size, size)
        if stop != Returned() and kind != "failing":
            return Ending(worker, stop, page, tuple(notes), facts)
        if kind != "failing":
            pages.append(page)
        notes.append(_after_line(kernel, early, kind, slot))
        if lacked and not _lacks_slot(kernel, early, slot):
            facts["healed"] = True
            notes.append(_healed_line(kernel, before, kind, slot))
        if settings["access"] == "between":
            break
    stop = _look(kernel, early, pages)
    return Ending(early, stop, pages[0], tuple(notes), facts)


def _add(kernel: "Kernel", worker: "Task", kind: Kind, start: int, size: int) -> "Stop":
    """Add a device: with compounds, without, or with too little memory for its struct pages."""
    from kernel_model.drivers import dax_bus_probe
    from kernel_model.memremap import DevPagemap, devm_memremap_pages
    from kernel_model.structs import MEMORY_DEVICE_GENERIC
    from kernel_model.vmemmap import VmemAltmap

    if kind == "failing":
        altmap = VmemAltmap(base_pfn=start >> PAGE_SHIFT, nr_pages=0)
        device = DevPagemap(MEMORY_DEVICE_GENERIC, start, size, altmap=altmap)
        return kernel.run(worker, devm_memremap_pages, device)
    align = SUBSECTION_SIZE if kind == "compound" else PAGE_SIZE
    return kernel.run(worker, dax_bus_probe, start, size, align)


def _look(kernel: "Kernel", task: "Task", pages: list[int]) -> "Stop":
    """Read the first struct page of each device, up to the first that faults."""
    from emu import Returned

    for page in pages:
        stop = kernel.run(task, "read_byte", rdi=page)
        if not isinstance(stop, Returned):
            return stop
    return Returned()


def _lacks_slot(kernel: "Kernel", task: "Task", slot: int) -> bool:
    """Tell whether a task lacks an entry that init_mm has."""
    pgtable, addr = kernel.pgtable, kernel.layout.slot_base(slot)
    theirs, ours = (
        pgtable.top_none(pgtable.get(pgtable.pgd_offset(mm.pgd, addr)))
        for mm in (task.mm, kernel.init_mm)
    )
    return theirs and not ours


def _after_line(kernel: "Kernel", task: "Task", kind: Kind, slot: int) -> str:
    have = "lacks" if _lacks_slot(kernel, task, slot) else "has"
    return f"after the {kind} device, {task.comm} {have} slot {slot}"


def _healed_line(kernel: "Kernel", before: int, kind: Kind, slot: int) -> str:
    """Name the sync that filled the slot, from what the history has since `before`."""
    from kernel_model.history import Synced

    syncs = [e for e in kernel.history[before:] if isinstance(e, Synced) and e.filled]
    first = syncs[0]
    return (
        f"healed: the {kind} device's {first.by} fills slot {slot} in {first.filled} of "
        f"{first.tables} task tables, where another device left it out"
    )


SCENARIO: Final = Scenario(
    name="healing-order",
    summary="a slot that one device left unsynced, and another one syncs",
    release="6.8",
    broke={"read_byte": BROKE_BY["__init_single_page"]},
    fixed=MERGED_FIX,
    look_at="which of the two devices came first, and whether its path ends with a sync",
    parameters=(
        Parameter(
            "vmemmap_base",
            VMEMMAP_BASE,
            "address",
            {4: 0xFFFF_E6FF_C000_0000, 5: 0xFFD3_FFFF_C000_0000},
        ),
        Parameter("ram", RAM, "size", 4 * GIB),
        Parameter(
            "start", "where the first device lies; the other is behind it", "address", 64 * GIB
        ),
        Parameter("size", "how much memory each has", "size", SECTION_SIZE),
        Parameter(
            "order",
            "which device comes when: with compounds, without, or one whose own memory is too "
            "little for its struct pages",
            "word",
            "compound-first",
            tuple(_ORDERS),
        ),
        Parameter(
            "access",
            "when a task that is older than the devices reads their struct pages: between the "
            "two (and that is the end of it), or last",
            "word",
            "last",
            ("last", "between"),
        ),
    ),
    play=play,
    check=check,
    lacks=lacks,
    boots=boots,
    nr_pages=nr_pages,
)
