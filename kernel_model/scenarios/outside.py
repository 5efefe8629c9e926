"""What the stories about tables outside pgd_list share: memory that is added, and who lacks it.

Knows the parameters of a device whose memory opens a new top-level slot of the direct map, how it
is added, and what to say of the tables. Refuses to load an engine before that.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from kernel_model.e820 import E820, MOST
from kernel_model.layout import GIB, PAGE_SHIFT, TIB
from kernel_model.scenarios.spec import RAM, Parameter, Settings, require_device_range
from kernel_model.sparse import SECTION_SIZE, SUBSECTION_SIZE

if TYPE_CHECKING:
    from emu import Stop
    from kernel_model.kernel import Kernel
    from kernel_model.mm import Mm, Task

DEVICE: Final = (
    Parameter("ram", RAM, "size", 4 * GIB),
    Parameter("start", "where a device's memory is added", "address", {4: 512 * GIB, 5: 64 * GIB}),
    Parameter("size", "how much memory it has", "size", SECTION_SIZE),
    Parameter(
        "page_offset_base",
        "where KASLR put the direct map, 1 GiB aligned; 0: where it is without KASLR",
        "address",
        {4: 0, 5: 0xFF11_FFF0_0000_0000},
    ),
)
"""By default the memory begins where a slot of the direct map does: with 4 levels 512 GiB up; with
5, where a slot is more than the machine has, since KASLR has let the direct map begin that late."""


def check_device(settings: Settings, levels: int) -> None:
    """Refuse a device that cannot be, or that has more memory than the machine can back."""
    start, size = int(settings["start"]), int(settings["size"])
    names = "start, size"
    require_device_range(
        settings, levels, start=start, size=size, align=SUBSECTION_SIZE, names=names
    )
    if start + size > MOST:
        raise ValueError(
            f"{names}: {start:#x} (+{size:#x}) ends beyond {MOST // TIB} TiB: expected memory that "
            "the machine has"
        )


def boots_with_device(settings: Settings) -> dict[str, Any]:
    """Return Kernel's options: the device's memory, a second CPU."""
    start, size = int(settings["start"]), int(settings["size"])
    return {
        "ram": E820(((0, int(settings["ram"])),), ((start, start + size),)),
        "page_offset_base": int(settings["page_offset_base"]) or None,
        "cpus": 2,
    }


def nr_device_pages(settings: Settings) -> int:
    """Return how many pages the device has."""
    return int(settings["size"]) >> PAGE_SHIFT


def add_device(kernel: "Kernel", settings: Settings, worker: "Task") -> "Stop":
    """Have a worker on the second CPU add the device's memory."""
    from kernel_model.drivers import dax_bus_probe

    kernel.use_cpu(1)
    start, size = int(settings["start"]), int(settings["size"])
    stop = kernel.run(worker, dax_bus_probe, start, size, SUBSECTION_SIZE)
    kernel.use_cpu(0)
    return stop


def outside_notes(kernel: "Kernel", addr: int) -> tuple[str, ...]:
    """Say which tables are not on pgd_list, and which of them lack the slot of `addr`."""
    return tuple(_notes(kernel, addr))


def _notes(kernel: "Kernel", addr: int) -> Iterator[str]:
    yield f"tables outside pgd_list: {', '.join(mm.name for mm in kernel.outside)}"
    slot = kernel.layout.pgd_index(addr)
    if _lacks(kernel, kernel.init_mm, addr):
        yield f"init_mm has nothing in slot {slot}: neither a fork nor a sync has what to copy"
        return
    lacking = [mm.name for mm in kernel.outside if _lacks(kernel, mm, addr)]
    if lacking:
        lack = "lacks" if len(lacking) == 1 else "lack"
        yield f"of these, {', '.join(lacking)} {lack} slot {slot}"


def _lacks(kernel: "Kernel", mm: "Mm", addr: int) -> bool:
    pgtable = kernel.pgtable
    return pgtable.top_none(pgtable.get(pgtable.pgd_offset(mm.pgd, addr)))
