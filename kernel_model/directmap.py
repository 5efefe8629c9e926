"""The direct map: all physical memory at page_offset_base, with the largest pages that fit.

Knows how it is built, at boot and for hot-added memory. Refuses to know what the memory is for.
Linux vocabulary; source: arch/x86/mm/init_64.c, kernel_physical_mapping_init() (v6.17).
"""

from typing import TYPE_CHECKING

from emu import PhysAddr
from kernel_model.callstack import kernel_function
from kernel_model.history import Mapped
from kernel_model.layout import PAGE_SIZE, PMD_SHIFT, PMD_SIZE, PUD_SHIFT, PUD_SIZE
from kernel_model.pgtable import PAGE_KERNEL, PAGE_KERNEL_LARGE, leaf, none
from kernel_model.populate import (
    p4d_populate,
    p4d_populate_kernel,
    pgd_populate,
    pgd_populate_kernel,
    pmd_populate_kernel,
    pud_populate,
)
from kernel_model.sync import sync_global_pgds

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_PATH = "__kernel_physical_mapping_init"


@kernel_function
def __kernel_physical_mapping_init(kernel: "Kernel", start: int, end: int) -> None:
    """Map physical [start, end); sync if a top-level entry is new.

    What is mapped already stays as it is. Raises OutOfFrames.
    """
    layout, created = kernel.layout, False
    pa = start
    while pa < end:
        pudp, is_new = _pud(kernel, layout.va(pa))
        created |= is_new
        pa = _map_puds(kernel, pudp, pa, end)
    kernel.history.append(
        Mapped("direct map", layout.va(start), layout.va(end), _PATH, "the largest pages that fit")
    )
    if created and kernel.release.sync != "rfc-v1":
        sync_global_pgds(kernel, layout.va(start), layout.va(end) - 1)


kernel_physical_mapping_init = __kernel_physical_mapping_init


def _map_puds(kernel: "Kernel", pudp: PhysAddr, pa: int, end: int) -> int:
    """phys_pud_init(): map from `pa` on with the pud at `pudp` and, if they are 1 GiB pages too,
    its neighbours; return how far that went.
    """
    pgtable = kernel.pgtable
    stop = min((pa | PUD_SIZE - 1) + 1, end)
    if leaf(pgtable.get(pudp)):
        return stop
    if pa % PUD_SIZE == 0 and stop - pa == PUD_SIZE and none(pgtable.get(pudp)):
        nr = pgtable.nr_none(pudp, end - pa >> PUD_SHIFT)
        pgtable.fill(pudp, pa | PAGE_KERNEL_LARGE, PUD_SIZE, nr)
        return pa + nr * PUD_SIZE
    if none(pgtable.get(pudp)):
        pud_populate(kernel, pudp, kernel.frames.allocate())
    while pa < stop:
        pa = _map_pmds(kernel, pgtable.pmd_offset(pudp, kernel.layout.va(pa)), pa, stop)
    return pa


def _map_pmds(kernel: "Kernel", pmdp: PhysAddr, pa: int, end: int) -> int:
    """phys_pmd_init(): the same a level down, for a range inside one pud."""
    pgtable = kernel.pgtable
    stop = min((pa | PMD_SIZE - 1) + 1, end)
    if leaf(pgtable.get(pmdp)):
        return stop
    if pa % PMD_SIZE == 0 and stop - pa == PMD_SIZE and none(pgtable.get(pmdp)):
        nr = pgtable.nr_none(pmdp, end - pa >> PMD_SHIFT)
        pgtable.fill(pmdp, pa | PAGE_KERNEL_LARGE, PMD_SIZE, nr)
        return pa + nr * PMD_SIZE
    if none(pgtable.get(pmdp)):
        pmd_populate_kernel(kernel, pmdp, kernel.frames.allocate())
    for page in range(pa, stop, PAGE_SIZE):
        ptep = pgtable.pte_offset(pmdp, kernel.layout.va(page))
        if none(pgtable.get(ptep)):
            pgtable.set(ptep, page | PAGE_KERNEL)
    return stop


def _pud(kernel: "Kernel", addr: int) -> tuple[PhysAddr, bool]:
    """Return where init_mm's pud for `addr` lies, and whether its top-level entry is new.

    rfc-v1 populates with the variants that sync; the merged design left this code as it was.
    """
    pgtable = kernel.pgtable
    own_sync = kernel.release.sync == "rfc-v1"
    fill_pgd = pgd_populate_kernel if own_sync else pgd_populate
    fill_p4d = p4d_populate_kernel if own_sync else p4d_populate
    pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, addr)
    created = pgtable.top_none(pgtable.get(pgdp))
    if pgtable.pgd_none(pgtable.get(pgdp)):
        fill_pgd(kernel, addr, pgdp, kernel.frames.allocate(), _PATH)
    p4dp = pgtable.p4d_offset(pgdp, addr)
    if none(pgtable.get(p4dp)):
        fill_p4d(kernel, addr, p4dp, kernel.frames.allocate(), _PATH)
    return pgtable.pud_offset(p4dp, addr), created
