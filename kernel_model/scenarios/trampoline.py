"""A reboot by way of real mode, on a table that has not got the kernel in it.

What the kernel does last runs on the trampoline's table, which is filled at boot and never again.
Until 5.16 that was the text's slot, and the first of RAM where user space begins: no direct map and
no vmalloc area, hence no stack. Since then it has all slots that there were at boot, and only what
came later is missing, for good. (On hardware global translations outlive the write of CR3, and may
hide it. The emulated CPU forgets them.)
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kernel_model.layout import PAGE_SIZE
from kernel_model.scenarios.outside import (
    DEVICE,
    add_device,
    boots_with_device,
    check_device,
    nr_device_pages,
    outside_notes,
)
from kernel_model.scenarios.spec import Parameter, Scenario, Settings

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.mm import Mm
    from kernel_model.scenarios.outcome import Ending


def nr_pages(settings: Settings) -> int:
    """Return how many pages are added, if any are."""
    return nr_device_pages(settings) if settings["touch"] == "hot-added" else 0


def boots(settings: Settings) -> dict[str, Any]:
    """Return Kernel's options."""
    return {**boots_with_device(settings), "firmware": "bios"}


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Reboot, and have what the settings name be needed on the way."""
    from emu import OutOfFrames, Returned
    from kernel_model.realmode import native_machine_emergency_restart, trampoline_pgd
    from kernel_model.scenarios.outcome import Ending
    from kernel_model.vmalloc import __vmalloc_node_range as vmalloc_node_range

    task = kernel.fork("reboot")
    touched = variable = int(kernel.symbol("kernel_rsp"))  # in the text's slot, as text is
    if settings["touch"] == "hot-added":
        worker = kernel.kthread("kworker/1:1")
        added = add_device(kernel, settings, worker)
        touched = variable = kernel.layout.va(int(settings["start"]))
        if added != Returned():
            return Ending(worker, added, touched)
    elif settings["touch"] == "vmalloc":
        area = vmalloc_node_range(kernel, PAGE_SIZE, PAGE_SIZE, "vmalloc")
        if area is None:
            raise OutOfFrames("no frame for a variable")
        touched = variable = area.start
    stop = kernel.run(task, native_machine_emergency_restart, variable)
    if settings["touch"] == "stack":
        touched = getattr(stop, "address", kernel.stack_of(task).top - 8)
    mm = trampoline_pgd(kernel)
    has = ", ".join(_slots(kernel, mm))
    way = f"machine_real_restart: CR3 = {mm.pgd:#x}, {mm.name}, which has slots {has}"
    return Ending(
        replace(task, mm=mm),
        stop,
        touched,
        notes=(way, *outside_notes(kernel, touched)),
    )


def _slots(kernel: "Kernel", mm: "Mm") -> list[str]:
    """List the slots that a table has, neighbours as a range: "0", "273..400"."""
    spans: list[tuple[int, int]] = []
    for slot, entry in enumerate(kernel.memory.words[mm.pgd >> 3 : (mm.pgd >> 3) + 512]):
        if entry and spans and spans[-1][1] == slot - 1:
            spans[-1] = spans[-1][0], slot
        elif entry:
            spans.append((slot, slot))
    return [str(first) if first == last else f"{first}..{last}" for first, last in spans]


SCENARIO: Final = Scenario(
    name="trampoline",
    summary="a reboot on the trampoline's table, which was filled at boot",
    release="5.10",
    broke={"machine_real_restart": "the design: a table off pgd_list, filled once"},
    fixed='51523ed1c267 "x86/64/mm: Map all kernel memory into trampoline_pgd", for what is there '
    "at boot; not at all for what comes later",
    look_at="trampoline_pgd's top-level entry for the faulting address, beside init_mm's",
    parameters=(
        Parameter(
            "touch",
            "what is needed on that table: the stack, a variable in the vmalloc area, or one in "
            "memory that was added after boot",
            "word",
            "stack",
            ("stack", "vmalloc", "hot-added"),
        ),
        *DEVICE,
    ),
    play=play,
    check=check_device,
    boots=boots,
    nr_pages=nr_pages,
)
