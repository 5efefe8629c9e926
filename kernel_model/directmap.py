"""The direct map: all physical memory at page_offset_base, with the largest pages that fit.

Knows how it is built, at boot and for hot-added memory. Refuses to know what the memory is for.
Linux vocabulary; source: arch/x86/mm/init_64.c, kernel_physical_mapping_init() (v6.17).
"""

from typing import TYPE_CHECKING

from emu import PhysAddr
from kernel_model.callstack import kernel_function
from kernel_model.history import Mapped
from kernel_model.layout import PAGE_SIZE, PMD_SHIFT, PMD_SIZE, PUD_SHIFT, PUD_SIZE
from kernel_model.pgtable import PAGE_KERNEL, PAGE_KERNEL_LARGE, none
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
def __kernel_physical_mapping_init(kernel: "Kernel", start: int, end: int) -> None:  # noqa: N807
    """Map physical [start, end), 2 MiB aligned; sync if a top-level entry is new.

    Raises OutOfFrames.
    """
    created = False
    pgtable, layout = kernel.pgtable, kernel.layout
    pa = start
    while pa < end:
        pudp, is_new = _pud(kernel, layout.va(pa))
        created |= is_new
        if pa % PUD_SIZE == 0 and pa + PUD_SIZE <= end and none(pgtable.get(pudp)):
            run = min(end - pa >> PUD_SHIFT, 512 - (pudp >> 3 & 511))
            pgtable.fill(pudp, pa | PAGE_KERNEL_LARGE, PUD_SIZE, run)
            pa += run * PUD_SIZE
            continue
        if none(pgtable.get(pudp)):
            pud_populate(kernel, pudp, kernel.frames.allocate())
        stop = min((pa | PUD_SIZE - 1) + 1, end)
        pmdp = pgtable.pmd_offset(pudp, layout.va(pa))
        if pa % PMD_SIZE == 0 and stop - pa >= PMD_SIZE:
            run = stop - pa >> PMD_SHIFT
            pgtable.fill(pmdp, pa | PAGE_KERNEL_LARGE, PMD_SIZE, run)
            pa += run * PMD_SIZE
            continue
        if none(pgtable.get(pmdp)):
            pmd_populate_kernel(kernel, pmdp, kernel.frames.allocate())
        stop = min((pa | PMD_SIZE - 1) + 1, stop)
        ptep = pgtable.pte_offset(pmdp, layout.va(pa))
        pgtable.fill(ptep, pa | PAGE_KERNEL, PAGE_SIZE, stop - pa >> 12)
        pa = stop
    kernel.history.append(
        Mapped("direct map", layout.va(start), layout.va(end), _PATH, "the largest pages that fit")
    )
    if created and kernel.release.sync != "rfc-v1":
        sync_global_pgds(kernel, layout.va(start), layout.va(end) - 1)


kernel_physical_mapping_init = __kernel_physical_mapping_init


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
