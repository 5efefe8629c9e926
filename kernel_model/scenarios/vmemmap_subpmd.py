"""Device-private memory whose section shares a 2 MiB block of struct pages.

The second oops of "[RFC V1 PATCH mm-hotfixes 2/3] x86/mm: define p*d_populate_kernel() and top
level page table sync": with struct pages that do not divide 2 MiB, vmemmap_set_pmd() marks what
is in use of a block before vmemmap_populate() has synced the slot that the block lies in.
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
from kernel_model.sparse import PAGES_PER_SECTION, SUBSECTION_SIZE

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending


def check(settings: Settings, levels: int) -> None:
    """Refuse a range that cannot be."""
    require_device_range(
        settings,
        levels,
        start=int(settings["pfn"]) << PAGE_SHIFT,
        size=int(settings["nr_pages"]) << PAGE_SHIFT,
        align=SUBSECTION_SIZE,
        names="pfn, nr_pages",
    )


def lacks(release: Release) -> str | None:
    """Name what the story is about, where it is not there."""
    return None if release.sub_pmd else "marks in partly used blocks of vmemmap"


def nr_pages(settings: Settings) -> int:
    """Return how many pages the GPU's memory has."""
    return int(settings["nr_pages"])


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Probe the GPU in the task that the settings name."""
    from kernel_model.drivers import xe_device_probe
    from kernel_model.scenarios.outcome import Ending

    early = settings["task"] == "early"
    task = kernel.fork("modprobe") if early else kernel.kthread("kworker/0:1")
    pfn = int(settings["pfn"])
    start, size = pfn << PAGE_SHIFT, nr_pages(settings) << PAGE_SHIFT
    stop = kernel.run(task, xe_device_probe, start, size)
    return Ending(task, stop, kernel.layout.pfn_to_page(pfn))


SCENARIO: Final = Scenario(
    name="vmemmap-subpmd",
    summary="device-private memory whose struct pages share a 2 MiB block with a neighbour's",
    release="6.13",
    broke=BROKE_BY,
    fixed=MERGED_FIX,
    look_at="that the store faults inside vmemmap_populate(), before its sync",
    parameters=(
        Parameter(
            "vmemmap_base",
            VMEMMAP_BASE,
            "address",
            {4: 0xFFFF_EA00_0000_0000, 5: 0xFFD3_FF00_0000_0000},
        ),
        Parameter("ram", RAM, "size", 4 * GIB),
        Parameter("pfn", "the first frame", "number", 0x3_FFD0_0000),
        Parameter("nr_pages", "how many frames", "number", PAGES_PER_SECTION),
        Parameter("struct_page", "sizeof(struct page)", "number", 80, (64, 80, 96)),
        Parameter(
            "task",
            "whose table the probe runs on: forked before the device appeared, or init_mm's own",
            "word",
            "early",
            ("early", "init_mm"),
        ),
    ),
    play=play,
    check=check,
    lacks=lacks,
    boots=memory_options,
    nr_pages=nr_pages,
)
