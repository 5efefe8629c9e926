"""KASAN at boot: which parts of the shadow are memory, which the zero page, and which are empty.

Knows the order in which kasan_init() goes through the address space. Refuses to know what happens
to the shadow later (`kasan`). Linux vocabulary; source: arch/x86/mm/kasan_init_64.c (v6.17).

RAM, text and modules get memory. Everything outside the direct map's window gets the zero page,
but for the vmalloc area, whose top-level entries alone are filled where the release keeps its
shadow (kasan_vmalloc). Nothing is left for the rest of the direct map's window: the shadow of
memory that may come later, and with it whole top-level slots, which no task can have a copy of.

The shadow of the cpu entry area's own pages is filled as it was from 6.2 on (as seen in 6.8).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from emu import OutOfFrames, PhysAddr
from emu.paging import ENTRIES, ENTRY_SIZE
from kernel_model.builds import DATA, TEXT, module_of
from kernel_model.entries import KERNPG_TABLE
from kernel_model.history import Mapped
from kernel_model.kasan import (
    PAGE_KERNEL_RO,
    REGION,
    EarlyShadow,
    kasan_populate_early_shadow,
)
from kernel_model.layout import (
    CPU_ENTRY_AREA,
    MODULES_END,
    P4D_SIZE,
    PAGE_SIZE,
    PMD_SIZE,
    PUD_SIZE,
    START_KERNEL_MAP,
    parts,
)
from kernel_model.pgtable import PAGE_KERNEL, PAGE_KERNEL_LARGE, leaf, none
from kernel_model.populate import (
    p4d_populate,
    p4d_populate_kernel,
    pgd_populate,
    pgd_populate_kernel,
    pmd_populate_kernel,
    pud_populate,
)

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

Populate = Callable[["Kernel", int, PhysAddr, PhysAddr, str], None]
_END: Final = DATA + PMD_SIZE


def kasan_init(kernel: "Kernel") -> None:
    """Fill the shadow from its lowest address up. Raises OutOfFrames."""
    kernel.kasan = _early_shadow(kernel)
    layout = kernel.layout
    shadow = layout.kasan_mem_to_shadow
    # With 5 levels the shadow does not begin where a slot does: the whole slot is taken.
    start = layout.kasan_shadow_start & -layout.pgdir_size
    kasan_populate_early_shadow(kernel, start, shadow(layout.page_offset_base))
    for first, last in kernel.e820.ram:
        kasan_populate_shadow(kernel, shadow(layout.va(first)), shadow(layout.va(last)))

    maxmem_end = layout.page_offset_base + (1 << layout.max_physmem_bits)
    vmalloc, vmalloc_end = shadow(layout.vmalloc_base), shadow(layout.vmalloc_end)
    kasan_populate_early_shadow(kernel, shadow(maxmem_end), vmalloc)
    if kernel.release.kasan_vmalloc:
        kasan_shallow_populate_pgds(kernel, vmalloc, vmalloc_end)
    else:
        kasan_populate_early_shadow(kernel, vmalloc, vmalloc_end)

    # Each CPU's part of the cpu entry area, up to its end, comes with the CPU.
    shared_end = shadow(CPU_ENTRY_AREA + PAGE_SIZE)
    kasan_populate_early_shadow(kernel, vmalloc_end, shadow(CPU_ENTRY_AREA))
    kasan_populate_shadow(kernel, shadow(CPU_ENTRY_AREA), shared_end)
    kasan_populate_early_shadow(kernel, shadow(CPU_ENTRY_AREA + P4D_SIZE), shadow(START_KERNEL_MAP))
    kasan_populate_shadow(kernel, shadow(TEXT), shadow(_END))
    kasan_populate_early_shadow(kernel, shadow(MODULES_END), layout.kasan_shadow_end)
    for segment in kernel.image.segments:
        if module_of(segment.name):  # kasan_alloc_module_shadow(), when it is loaded
            kasan_populate_shadow(kernel, shadow(segment.base), shadow(segment.end))


def kasan_populate_shadow(kernel: "Kernel", start: int, end: int) -> None:
    """Map [start, end) of the shadow, in whole pages, to memory of its own: the largest pages that
    fit and that there are.
    """
    pgtable = kernel.pgtable
    start, end = start & -PAGE_SIZE, -(-end // PAGE_SIZE) * PAGE_SIZE
    for addr, stop in parts(start, end, PUD_SIZE):
        pudp = _pud(kernel, addr, "kasan_populate_shadow")
        if leaf(pgtable.get(pudp)) or _set_huge(kernel, pudp, stop - addr, PUD_SIZE):
            continue
        if none(pgtable.get(pudp)):
            pud_populate(kernel, pudp, _early_alloc(kernel))
        for at, end_of_pmd in parts(addr, stop, PMD_SIZE):
            pmdp = pgtable.pmd_offset(pudp, at)
            if leaf(pgtable.get(pmdp)) or _set_huge(kernel, pmdp, end_of_pmd - at, PMD_SIZE):
                continue
            if none(pgtable.get(pmdp)):
                pmd_populate_kernel(kernel, pmdp, _early_alloc(kernel))
            for page in range(at, end_of_pmd, PAGE_SIZE):
                ptep = pgtable.pte_offset(pmdp, page)
                if none(pgtable.get(ptep)):
                    pgtable.set(ptep, _early_alloc(kernel) | PAGE_KERNEL)
    detail = "the largest pages that fit"
    kernel.history.append(Mapped(REGION, start, end, "kasan_populate_shadow", detail))


def kasan_shallow_populate_pgds(kernel: "Kernel", start: int, end: int) -> None:
    """Put empty tables under the p4ds of [start, end): with 4 levels those are the top entries.

    What is mapped below later, every task forked since boot sees.
    """
    pgtable, path = kernel.pgtable, "kasan_shallow_populate_pgds"
    for addr, stop in parts(start, end, kernel.layout.pgdir_size):
        first, fill_p4d = pgtable.p4d_offset(_pgd(kernel, addr, path), addr), _fill_p4d(kernel)
        for i, (at, _) in enumerate(parts(addr, stop, P4D_SIZE)):
            p4dp = PhysAddr(first + ENTRY_SIZE * i)
            if none(pgtable.get(p4dp)):
                fill_p4d(kernel, at, p4dp, _early_alloc(kernel), path)


def _early_shadow(kernel: "Kernel") -> EarlyShadow:
    """kasan_early_init(): make the page of zeroes and the tables whose entries all lead to it."""
    zero = EarlyShadow(*(_early_alloc(kernel) for _ in range(5)))
    fill = kernel.pgtable.fill
    fill(zero.pte, zero.page | PAGE_KERNEL_RO, 0, ENTRIES)
    fill(zero.pmd, zero.pte | KERNPG_TABLE, 0, ENTRIES)
    fill(zero.pud, zero.pmd | KERNPG_TABLE, 0, ENTRIES)
    fill(zero.p4d, zero.pud | KERNPG_TABLE, 0, ENTRIES)
    return zero


def _early_alloc(kernel: "Kernel", size: int = PAGE_SIZE) -> PhysAddr:
    """early_alloc(): a block that is zero, as RAM is until it is used. Nothing is written, so that
    what nobody touches costs nothing.
    """
    return kernel.frames.allocate_block(size)


def _set_huge(kernel: "Kernel", entry_pa: PhysAddr, wanted: int, size: int) -> bool:
    """Map a page of `size` if all of it is wanted, nothing is there, and RAM has such a block."""
    pgtable = kernel.pgtable
    if wanted != size or not none(pgtable.get(entry_pa)):
        return False
    try:
        block = _early_alloc(kernel, size)
    except OutOfFrames:
        return False
    pgtable.set(entry_pa, block | PAGE_KERNEL_LARGE)
    return True


def _pud(kernel: "Kernel", addr: int, path: str) -> PhysAddr:
    """Return where init_mm's pud for `addr` lies, its table included."""
    pgtable = kernel.pgtable
    p4dp = pgtable.p4d_offset(_pgd(kernel, addr, path), addr)
    if none(pgtable.get(p4dp)):
        _fill_p4d(kernel)(kernel, addr, p4dp, _early_alloc(kernel), path)
    return pgtable.pud_offset(p4dp, addr)


def _pgd(kernel: "Kernel", addr: int, path: str) -> PhysAddr:
    """Return where init_mm's pgd for `addr` lies, with a p4d table under it.

    rfc-v1 populates with the variants that sync; the merged design left this code as it was.
    """
    pgtable = kernel.pgtable
    pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, addr)
    if pgtable.pgd_none(pgtable.get(pgdp)):
        populate = pgd_populate_kernel if kernel.release.sync == "rfc-v1" else pgd_populate
        populate(kernel, addr, pgdp, _early_alloc(kernel), path)
    return pgdp


def _fill_p4d(kernel: "Kernel") -> Populate:
    """Return what the release populates a p4d with here: as for the pgd."""
    return p4d_populate_kernel if kernel.release.sync == "rfc-v1" else p4d_populate
