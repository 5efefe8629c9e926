"""Putting a table under an entry: {pgd,p4d,pud,pmd}_populate, and the variants for the kernel.

Knows at which level a paging mode has its top entry, and which hook a release calls when one is
filled for the kernel. Refuses to know what the hook does (`sync`). Linux vocabulary; source:
arch/x86/include/asm/pgalloc.h, include/linux/pgalloc.h (v6.17), and for rfc-v1 "[RFC V1 PATCH
mm-hotfixes 2/3] x86/mm: define p*d_populate_kernel() and top level page table sync".

With a folded p4d, filling a pgd does nothing: the entry that counts is the p4d's. So 4-level
paging syncs when a p4d is populated and 5-level paging when a pgd is, and never both.
"""

from typing import TYPE_CHECKING, Final

from emu import PhysAddr
from kernel_model.history import Populated
from kernel_model.layout import PAGE_SIZE
from kernel_model.pgtable import PAGE_TABLE, none
from kernel_model.sync import arch_sync_kernel_mappings, arch_sync_kernel_pagetables

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

# include/linux/pgtable.h: which levels were modified
PGTBL_PGD_MODIFIED: Final = 1 << 0
PGTBL_P4D_MODIFIED: Final = 1 << 1
PGTBL_PUD_MODIFIED: Final = 1 << 2
PGTBL_PMD_MODIFIED: Final = 1 << 3
PGTBL_PTE_MODIFIED: Final = 1 << 4


def arch_page_table_sync_mask(kernel: "Kernel") -> int:
    """ARCH_PAGE_TABLE_SYNC_MASK: the level whose changes other tables must be told of.

    0 but for two spans: 5.8, where vmalloc and ioremap consult it, and from 6659d0279980
    "x86/mm/64: define ARCH_PAGE_TABLE_SYNC_MASK and arch_sync_kernel_mappings()" (6.17) on.
    """
    if kernel.release.sync != "merged" and kernel.release.vmalloc_sync != "map":
        return 0
    return PGTBL_P4D_MODIFIED if kernel.pgtable.p4d_folded else PGTBL_PGD_MODIFIED


def pgd_populate(kernel: "Kernel", addr: int, pgdp: PhysAddr, p4d: PhysAddr, path: str) -> None:
    """Put a p4d table under a pgd; nothing at all when the p4d is folded."""
    if kernel.pgtable.p4d_folded:
        return
    kernel.pgtable.set(pgdp, p4d | PAGE_TABLE, path)
    _note(kernel, "pgd", addr, pgdp, path)


def p4d_populate(kernel: "Kernel", addr: int, p4dp: PhysAddr, pud: PhysAddr, path: str) -> None:
    """Put a pud table under a p4d."""
    kernel.pgtable.set(p4dp, pud | PAGE_TABLE, path)
    if kernel.pgtable.p4d_folded:
        _note(kernel, "p4d", addr, p4dp, path)


def pud_populate(kernel: "Kernel", pudp: PhysAddr, pmd: PhysAddr) -> None:
    """Put a pmd table under a pud."""
    kernel.pgtable.set(pudp, pmd | PAGE_TABLE)


def pmd_populate_kernel(kernel: "Kernel", pmdp: PhysAddr, pte: PhysAddr) -> None:
    """Put a pte table under a pmd."""
    kernel.pgtable.set(pmdp, pte | PAGE_TABLE)


def pgd_populate_kernel(
    kernel: "Kernel", addr: int, pgdp: PhysAddr, p4d: PhysAddr, path: str
) -> None:
    """Put a p4d table under a pgd of init_mm, and tell the other tables if the release does."""
    pgd_populate(kernel, addr, pgdp, p4d, path)
    if kernel.release.sync == "merged" and not kernel.pgtable.p4d_folded:
        arch_sync_kernel_mappings(kernel, addr, addr)
    if kernel.release.sync == "rfc-v1" and not kernel.pgtable.p4d_folded:
        arch_sync_kernel_pagetables(kernel, addr)


def p4d_populate_kernel(
    kernel: "Kernel", addr: int, p4dp: PhysAddr, pud: PhysAddr, path: str
) -> None:
    """Put a pud table under a p4d of init_mm, and tell the other tables if the release does."""
    p4d_populate(kernel, addr, p4dp, pud, path)
    if kernel.release.sync == "merged" and kernel.pgtable.p4d_folded:
        arch_sync_kernel_mappings(kernel, addr, addr)
    if kernel.release.sync == "rfc-v1" and kernel.pgtable.p4d_folded:
        arch_sync_kernel_pagetables(kernel, addr)


def pud_alloc_track(kernel: "Kernel", addr: int, path: str) -> tuple[PhysAddr, int]:
    """p4d_alloc_track(), then pud_alloc_track(): return where init_mm's pud for `addr` lies, and
    the PGTBL_*_MODIFIED bits of the levels that were filled. Raises OutOfFrames.

    d8626138009b "mm: add functions to track page directory modifications" (5.8); what was filled
    before that release was not told.
    """
    pgtable, mask = kernel.pgtable, 0
    pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, addr)
    if pgtable.pgd_none(pgtable.get(pgdp)):
        pgd_populate(kernel, addr, pgdp, kernel.frames.allocate(), path)
        mask |= PGTBL_PGD_MODIFIED
    p4dp = pgtable.p4d_offset(pgdp, addr)
    if none(pgtable.get(p4dp)):
        p4d_populate(kernel, addr, p4dp, kernel.frames.allocate(), path)
        mask |= PGTBL_P4D_MODIFIED
    return pgtable.pud_offset(p4dp, addr), mask


def pmd_alloc_track(kernel: "Kernel", pudp: PhysAddr, addr: int) -> tuple[PhysAddr, int]:
    """Return where the pmd for `addr` lies, and PGTBL_PUD_MODIFIED if its table is new."""
    pgtable, mask = kernel.pgtable, 0
    if none(pgtable.get(pudp)):
        pud_populate(kernel, pudp, kernel.frames.allocate())
        mask = PGTBL_PUD_MODIFIED
    return pgtable.pmd_offset(pudp, addr), mask


def pte_alloc_track(kernel: "Kernel", pmdp: PhysAddr, addr: int) -> tuple[PhysAddr, int]:
    """Return where the pte for `addr` lies, and PGTBL_PMD_MODIFIED if its table is new."""
    pgtable, mask = kernel.pgtable, 0
    if none(pgtable.get(pmdp)):
        pmd_populate_kernel(kernel, pmdp, kernel.frames.allocate())
        mask = PGTBL_PMD_MODIFIED
    return pgtable.pte_offset(pmdp, addr), mask


def _note(kernel: "Kernel", name: str, addr: int, entry_pa: PhysAddr, path: str) -> None:
    """Tell the history, if it is a top-level entry of init_mm."""
    if entry_pa & -PAGE_SIZE == kernel.init_mm.pgd:
        slot, entry = kernel.layout.pgd_index(addr), kernel.pgtable.get(entry_pa)
        kernel.history.append(Populated(name, addr, slot, entry, path))
