"""A device-dax range whose struct pages reach into the next top-level slot.

The first oops of "[RFC V1 PATCH mm-hotfixes 2/3] x86/mm: define p*d_populate_kernel() and top
level page table sync": the compound path of vmemmap population fills the new slot in init_mm only,
and the task that probes the device initialises the struct pages under its own table.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.layout import GIB, PAGE_SHIFT
from kernel_model.releases import Release
from kernel_model.scenarios.spec import (
    BROKE_BY,
    MERGED_FIX,
    RAM,
    VMEMMAP_BASE,
    Parameter,
    Scenario,
    Settings,
    memory_options,
    require_device_range,
)
from kernel_model.sparse import SECTION_SIZE, SUBSECTION_SIZE

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending


def check(settings: Settings, levels: int) -> None:
    """Refuse a device that cannot be."""
    require_device_range(
        settings,
        levels,
        start=int(settings["start"]),
        size=int(settings["size"]),
        align=int(settings["align"]),
        names="start, size",
    )


def lacks(release: Release) -> str | None:
    """Name what the story is about, where it is not there."""
    return None if release.compound_vmemmap else "the compound path of vmemmap population"


def nr_pages(settings: Settings) -> int:
    """Return how many pages the device has."""
    return int(settings["size"]) >> PAGE_SHIFT


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Probe the device in the task that the settings name."""
    from kernel_model.drivers import dax_bus_probe
    from kernel_model.scenarios.outcome import Ending

    who = settings["task"]
    task = kernel.fork("modprobe") if who == "early" else kernel.kthread("kworker/0:1")
    if who == "late":
        # A kernel thread that probes borrows a task's table; here it is scheduled onto one that
        # was forked after the struct pages were mapped and before they are first used.
        task.mm = kernel.fork("early").mm

        def switch_to_a_late_table(kernel: "Kernel") -> None:
            late = kernel.fork("late")
            kernel.switch_mm(late.mm)
            task.mm = late.mm

        kernel.before["memmap_init_zone_device"] = switch_to_a_late_table
    start, size, align = (int(settings[name]) for name in ("start", "size", "align"))
    stop = kernel.run(task, dax_bus_probe, start, size, align)
    return Ending(task, stop, _first_in_next_slot(kernel, start, size))


def _first_in_next_slot(kernel: "Kernel", start: int, size: int) -> int:
    """Return the first struct page of the range that lies in another slot than its first one."""
    layout = kernel.layout
    first = layout.pfn_to_page(start >> PAGE_SHIFT)
    end = layout.pfn_to_page(start + size >> PAGE_SHIFT)
    border = (first | layout.pgdir_size - 1) + 1
    return border if border < end else first


SCENARIO: Final = Scenario(
    name="vmemmap-devdax",
    summary="device-dax memory whose struct pages span two top-level slots",
    release="6.8",
    broke=BROKE_BY,
    fixed=MERGED_FIX,
    look_at="the task's top-level entry for the faulting address, beside init_mm's",
    parameters=(
        Parameter(
            "vmemmap_base",
            VMEMMAP_BASE,
            "address",
            {4: 0xFFFF_E6FF_C000_0000, 5: 0xFFD3_FFFF_C000_0000},
        ),
        Parameter("ram", RAM, "size", 4 * GIB),
        Parameter("start", "where the device lies", "address", 64 * GIB - 2 * SECTION_SIZE),
        Parameter("size", "how much memory it has", "size", 4 * SECTION_SIZE),
        Parameter("align", "its page size", "size", SUBSECTION_SIZE, (SUBSECTION_SIZE, GIB)),
        Parameter("struct_page", "sizeof(struct page)", "number", 64, (64, 80, 96)),
        Parameter(
            "task",
            "whose table the probe runs on: forked before the device appeared, forked between "
            "mapping the struct pages and using them, or init_mm's own",
            "word",
            "early",
            ("early", "late", "init_mm"),
        ),
    ),
    play=play,
    check=check,
    lacks=lacks,
    boots=memory_options,
    nr_pages=nr_pages,
)
