"""vmalloc: fresh memory, mapped page by page in init_mm's vmalloc area.

Knows what a release does when one of the area's top-level entries is new: tell the other tables, or
leave it to their faults. Refuses to know which addresses are free (`vmap_areas`), devices
(`ioremap`), and who lives there (`mm` for stacks, `percpu`). Linux vocabulary; source: mm/vmalloc.c
(v4.4, v5.8, v6.17).
"""

from typing import TYPE_CHECKING

from emu import OutOfFrames, PhysAddr, VirtAddr
from kernel_model.callstack import kernel_function
from kernel_model.history import Unmapped
from kernel_model.layout import PAGE_SIZE, PMD_SIZE, PUD_SIZE
from kernel_model.pgtable import PAGE_KERNEL, leaf, none, table
from kernel_model.populate import (
    PGTBL_PTE_MODIFIED,
    arch_page_table_sync_mask,
    pmd_alloc_track,
    pte_alloc_track,
    pud_alloc_track,
)
from kernel_model.sync import arch_sync_kernel_mappings, sync_global_pgds
from kernel_model.vmap_areas import VmArea

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


@kernel_function
def vmalloc(kernel: "Kernel", size: int) -> int:
    """Map fresh memory; return its address, 0 without room or memory."""
    area = __vmalloc_node_range(kernel, -(-size // PAGE_SIZE) * PAGE_SIZE, PAGE_SIZE, "vmalloc")
    return area.start if area else 0


@kernel_function
def __vmalloc_node_range(kernel: "Kernel", size: int, align: int, kind: str) -> VmArea | None:
    """Find an area and map it, a zeroed frame a page; None without room or memory."""
    area = get_vm_area(kernel, size, align, kind)
    if area is None:
        return None
    try:
        map_vm_area(kernel, area)
    except OutOfFrames:
        kernel.vmap_areas.remove(area)
        return None
    return area


def get_vm_area(kernel: "Kernel", size: int, align: int, kind: str) -> VmArea | None:
    """Take addresses, a guard page behind them, and map nothing; None without room."""
    start = kernel.vmap_areas.lowest(size + PAGE_SIZE, align)
    if start is None:
        return None
    return kernel.vmap_areas.insert(VmArea(start, start + size + PAGE_SIZE, kind, kernel.caller()))


def map_vm_area(kernel: "Kernel", area: VmArea) -> list[PhysAddr]:
    """Map an area, a zeroed frame a page, and return the frames. Raises OutOfFrames."""
    frames: list[PhysAddr] = []
    try:
        frames.extend(
            kernel.frames.allocate() for _ in range(area.start, area.mapped_end, PAGE_SIZE)
        )
        map_kernel_range(kernel, area.start, area.mapped_end, frames)
    except OutOfFrames:
        _unmap(kernel, area.start, area.mapped_end)
        for frame in frames:
            kernel.frames.free(frame)
        raise
    return frames


@kernel_function
def map_kernel_range(kernel: "Kernel", start: int, end: int, frames: list[PhysAddr]) -> None:
    """Map [start, end) to `frames`, page by page. Raises OutOfFrames."""
    path, mask = "map_kernel_range", 0
    for addr, frame in zip(range(start, end, PAGE_SIZE), frames, strict=True):
        pudp, by_pud = pud_alloc_track(kernel, addr, path)
        pmdp, by_pmd = pmd_alloc_track(kernel, pudp, addr)
        ptep, by_pte = pte_alloc_track(kernel, pmdp, addr)
        kernel.pgtable.set(ptep, frame | PAGE_KERNEL)
        mask |= by_pud | by_pmd | by_pte | PGTBL_PTE_MODIFIED
    sync_modified(kernel, mask, start, end)


@kernel_function
def vfree(kernel: "Kernel", area: VmArea) -> None:
    """Unmap an area, give its frames back unless they are a device's, and purge it at once.

    Tables stay. Between 5.3 and 5.6 a purge had vmalloc_sync_all() fill every task's table.
    """
    frames = _unmap(kernel, area.start, area.mapped_end)
    kernel.vmap_areas.remove(area)
    kernel.flush_tlb_all()
    kernel.history.append(Unmapped("vmalloc", area.start, area.mapped_end, "vfree"))
    if area.phys is None:
        for frame in frames:
            kernel.frames.free(frame)
    if kernel.release.purge_syncs:
        vmalloc_sync_all(kernel)


@kernel_function
def vmalloc_sync_all(kernel: "Kernel") -> None:
    """Sync every slot of the vmalloc area (vmalloc_sync_mappings() from 5.6 on)."""
    sync_global_pgds(kernel, kernel.layout.vmalloc_base, kernel.layout.vmalloc_end - 1)


def sync_modified(kernel: "Kernel", mask: int, start: int, end: int) -> None:
    """Tell the other tables, in releases that do, if a level was modified that they copy."""
    if kernel.release.vmalloc_sync != "fault" and mask & arch_page_table_sync_mask(kernel):
        arch_sync_kernel_mappings(kernel, start, end)


def _unmap(kernel: "Kernel", start: int, end: int) -> list[PhysAddr]:
    """Clear the entries that map [start, end); return what 4 KiB frames they had."""
    pgtable, frames, addr = kernel.pgtable, list[PhysAddr](), start
    while addr < end:
        entry_pa, size = _entry(kernel, addr)
        if entry_pa is not None:
            if size == PAGE_SIZE and not none(pgtable.get(entry_pa)):
                frames.append(table(pgtable.get(entry_pa)))
            pgtable.set(entry_pa, 0)
        addr = (addr | size - 1) + 1
    return frames


def _entry(kernel: "Kernel", addr: int) -> tuple[PhysAddr | None, int]:
    """Return where the entry lies that maps `addr`, and how much one of its level maps."""
    pgtable = kernel.pgtable
    pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, VirtAddr(addr))
    if pgtable.top_none(pgtable.get(pgdp)):
        return None, kernel.layout.pgdir_size
    p4dp = pgtable.p4d_offset(pgdp, addr)
    if none(pgtable.get(p4dp)):
        return None, PUD_SIZE
    pudp = pgtable.pud_offset(p4dp, addr)
    if none(pgtable.get(pudp)) or leaf(pgtable.get(pudp)):
        return None if none(pgtable.get(pudp)) else pudp, PUD_SIZE
    pmdp = pgtable.pmd_offset(pudp, addr)
    if none(pgtable.get(pmdp)) or leaf(pgtable.get(pmdp)):
        return None if none(pgtable.get(pmdp)) else pmdp, PMD_SIZE
    return pgtable.pte_offset(pmdp, addr), PAGE_SIZE
