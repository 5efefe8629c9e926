"""Device memory in the vmalloc area: memremap() and ioremap_cache(), by the largest pages that fit.

Knows the alignment of an area and of a page. Refuses to know which addresses are free
(`vmap_areas`) and who must be told of a new table (`vmalloc`). Linux vocabulary; source:
arch/x86/mm/ioremap.c, lib/ioremap.c, mm/vmalloc.c (v4.4, v5.8, v6.17).
"""

from typing import TYPE_CHECKING, Final

from emu import OutOfFrames
from kernel_model.callstack import kernel_function
from kernel_model.history import Mapped
from kernel_model.layout import PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, PUD_SHIFT, PUD_SIZE
from kernel_model.pgtable import PAGE_KERNEL, PAGE_KERNEL_LARGE, none
from kernel_model.populate import (
    PGTBL_PMD_MODIFIED,
    PGTBL_PTE_MODIFIED,
    PGTBL_PUD_MODIFIED,
    pmd_alloc_track,
    pte_alloc_track,
    pud_alloc_track,
)
from kernel_model.vmalloc import sync_modified
from kernel_model.vmap_areas import VmArea

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

IOREMAP_MAX_ORDER: Final = PUD_SHIFT  # an area is aligned to its size, up to this


@kernel_function
def memremap(kernel: "Kernel", phys: int, size: int) -> int:
    """Map [phys, phys + size) of a device, cached; return its address, 0 if that cannot be."""
    return ioremap_cache(kernel, phys, size)


@kernel_function
def ioremap_cache(kernel: "Kernel", phys: int, size: int) -> int:
    """Map device memory for whoever called this."""
    return __ioremap_caller(kernel, phys, size, kernel.caller())


@kernel_function
def __ioremap_caller(kernel: "Kernel", phys: int, size: int, caller: str) -> int:
    """Find an area, aligned to its size up to 1 GiB, and map it with the largest pages that fit."""
    size = -(-size // PAGE_SIZE) * PAGE_SIZE
    order = min(max((size - 1).bit_length(), PAGE_SHIFT), IOREMAP_MAX_ORDER)
    start = kernel.vmap_areas.lowest(size + PAGE_SIZE, 1 << order)
    if start is None:
        return 0
    area = VmArea(start, start + size + PAGE_SIZE, "ioremap", caller, phys)
    kernel.vmap_areas.insert(area)
    try:
        ioremap_page_range(kernel, start, start + size, phys)
    except OutOfFrames:
        kernel.vmap_areas.remove(area)
        return 0
    return start


@kernel_function
def ioremap_page_range(kernel: "Kernel", start: int, end: int, phys: int) -> None:
    """Map [start, end) to what lies from `phys` on. Raises OutOfFrames.

    A page of 1 GiB or 2 MiB is used where a whole one is left and both addresses are aligned to
    it: 5d72b4fba40e "x86, mm: support huge I/O mapping capability I/F" (4.1).
    """
    pgtable, path = kernel.pgtable, "ioremap_page_range"
    addr, offset, mask, sizes = start, phys - start, 0, set()
    while addr < end:
        pudp, modified = pud_alloc_track(kernel, addr, path)
        mask |= modified
        if _fits(addr, addr + offset, end, PUD_SIZE) and none(pgtable.get(pudp)):
            pgtable.set(pudp, addr + offset | PAGE_KERNEL_LARGE)
            mask |= PGTBL_PUD_MODIFIED
            size = PUD_SIZE
        else:
            pmdp, modified = pmd_alloc_track(kernel, pudp, addr)
            mask |= modified
            if _fits(addr, addr + offset, end, PMD_SIZE) and none(pgtable.get(pmdp)):
                pgtable.set(pmdp, addr + offset | PAGE_KERNEL_LARGE)
                mask |= PGTBL_PMD_MODIFIED
                size = PMD_SIZE
            else:
                ptep, modified = pte_alloc_track(kernel, pmdp, addr)
                pgtable.set(ptep, addr + offset | PAGE_KERNEL)
                mask |= modified | PGTBL_PTE_MODIFIED
                size = PAGE_SIZE
        sizes.add(size)
        addr += size
    detail = " and ".join(_SIZE[size] for size in sorted(sizes, reverse=True))
    kernel.history.append(Mapped("vmalloc", start, end, path, f"{detail} at pa {phys:#x}"))
    sync_modified(kernel, mask, start, end)


def _fits(addr: int, pa: int, end: int, size: int) -> bool:
    return end - addr >= size and not (addr | pa) % size


_SIZE: Final = {PUD_SIZE: "1 GiB pages", PMD_SIZE: "2 MiB pages", PAGE_SIZE: "4 KiB pages"}
