"""By what means a task came to have the top-level entry of an address, if it has it.

Read from the tables and from what the kernel did, not from what a release is said to do.
"""

from typing import TYPE_CHECKING, Final

from emu import PageFault, Stop
from kernel_model.history import Forked, LazyFault, Populated, Synced

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.mm import Task

_NO_TRACE: Final = "was filled in a way that left no trace"
_IN_TIME: Final = "before anybody could miss it"
_TOO_LATE: Final = "after the task had missed it"


def by_what_means(kernel: "Kernel", task: "Task", addr: int, stop: Stop) -> str:
    """Say it in a line. `stop` is how the task ended that used the address."""
    pgtable, slot = kernel.pgtable, kernel.layout.pgd_index(addr)
    entry = pgtable.get(pgtable.pgd_offset(task.mm.pgd, addr))
    who = f"{task.comm}'s entry of slot {slot}"
    if task.mm is kernel.init_mm:
        return f"{task.comm} runs on init_mm, which has slot {slot} first"
    if pgtable.top_none(entry):
        return f"{who} is still empty: nothing synced it"
    slots = kernel.layout.pgd_index
    means, filled_before = _NO_TRACE, False
    for event in kernel.history:
        match event:
            case Populated(slot=at) if at == slot:
                filled_before = True
            case Forked(pgd=pgd) if pgd == task.mm.pgd and filled_before:
                means = "was there before the fork, which copied it"
            case Synced(start, end, by, _, filled) if (
                filled and slots(start) <= slot <= slots(end) and means == _NO_TRACE
            ):
                means = f"was filled by {by}(), {_IN_TIME}"
            case LazyFault(comm, address, _, True, _) if (
                comm == task.comm and slots(address) == slot
            ):
                means = "was filled by vmalloc_fault(), when the task missed it"
    boot = kernel.history[: kernel.nr_boot_events]
    if any(isinstance(event, Populated) and event.slot == slot for event in boot):
        paths = [e.path for e in boot if isinstance(e, Populated) and e.slot == slot]
        return f"{who} was there before the fork: {paths[0]}() filled it at boot"
    missed = isinstance(stop, PageFault) and slots(stop.address) == slot
    return f"{who} {means.replace(_IN_TIME, _TOO_LATE) if missed else means}"
