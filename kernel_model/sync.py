"""One address synced into every table; the three designs on top of it.

Knows how a top-level entry of init_mm reaches the tables on pgd_list, and that two different
tables under one slot are a BUG. Refuses to know when that is due: the populating paths call.
Linux vocabulary; source: arch/x86/mm/init_64.c (v6.17), and for rfc-v1 "[RFC V1 PATCH mm-hotfixes
2/3] x86/mm: define p*d_populate_kernel() and top level page table sync".

A sync after memory was added only fills empty entries: it clears none, replaces none, and flushes
no TLB (no CPU remembers that an entry was not present). After memory was removed there is none any
more; as seen in 4.4 there was, and it cleared what init_mm no longer had.
"""

from typing import TYPE_CHECKING, Literal

from emu.paging import ADDRESS
from kernel_model.callstack import kernel_function
from kernel_model.history import Cleared, SyncDied, Synced
from kernel_model.layout import Layout

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


@kernel_function
def sync_global_pgds(
    kernel: "Kernel", start: int, end: int, after: Literal["add", "remove"] = "add"
) -> None:
    """Sync every slot of [start, end]: the end is inclusive."""
    addr, filled = start, 0
    while addr <= end:
        if after == "add":
            filled += _sync_one(kernel, addr, "sync_global_pgds", start)
        else:
            _clear_one(kernel, addr)
        addr = _next_slot(kernel.layout, addr)
    if after == "add":
        kernel.history.append(Synced(start, end, "sync_global_pgds", len(kernel.pgd_list), filled))


@kernel_function
def arch_sync_kernel_mappings(kernel: "Kernel", start: int, end: int) -> None:
    """The merged design's hook: nothing but sync_global_pgds()."""
    sync_global_pgds(kernel, start, end)


@kernel_function
def arch_sync_kernel_pagetables(kernel: "Kernel", addr: int) -> None:
    """RFC V1's hook: one address."""
    filled = _sync_one(kernel, addr, "arch_sync_kernel_pagetables", addr)
    kernel.history.append(
        Synced(addr, addr, "arch_sync_kernel_pagetables", len(kernel.pgd_list), filled)
    )


def _sync_one(kernel: "Kernel", addr: int, by: str, start: int) -> int:
    """Copy init_mm's entry for `addr` where it is missing; return to how many tables.

    `by` is the function that dies if a table has another one, and `start` where it began.
    """
    words, counts = kernel.memory.words, kernel.pgtable.top_counts
    slot = kernel.layout.pgd_index(addr)
    reference = words[(kernel.init_mm.pgd >> 3) + slot]
    if not reference & counts:
        return 0
    filled = 0
    tell = kernel.pgtable.writers.watcher
    for mm in kernel.pgd_list:
        at = (mm.pgd >> 3) + slot
        entry = words[at]
        if not entry & counts:
            words[at] = reference
            filled += 1
            if tell is not None:
                tell(at << 3, 1, by)
        elif (entry ^ reference) & ADDRESS:
            kernel.history.append(SyncDied(start, addr, by, mm.name, mm.pgd))
            kernel.bug(f"{by}_bug")
    return filled


def _clear_one(kernel: "Kernel", addr: int) -> None:
    """Clear the entry for `addr` in every table, if init_mm's is empty."""
    pgtable, cleared = kernel.pgtable, 0
    if not pgtable.top_none(pgtable.get(pgtable.pgd_offset(kernel.init_mm.pgd, addr))):
        return
    for mm in kernel.pgd_list:
        entry_pa = pgtable.pgd_offset(mm.pgd, addr)
        if not pgtable.top_none(pgtable.get(entry_pa)):
            kernel.memory.words[entry_pa >> 3] = 0
            pgtable.writers.tell(entry_pa, 1, "sync_global_pgds")
            cleared += 1
    slot = kernel.layout.pgd_index(addr)
    kernel.history.append(Cleared(addr, slot, "sync_global_pgds", cleared))


def _next_slot(layout: Layout, addr: int) -> int:
    """ALIGN(addr + 1, PGDIR_SIZE), without wrapping: past the last slot it ends any loop."""
    return (addr | layout.pgdir_size - 1) + 1
