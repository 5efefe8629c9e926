"""Tables of an address space: made under an entry that has none, and given back.

Knows that a folded p4d has no table of its own, so none is made and none is freed. Refuses to know
what the entries in them are for. Linux vocabulary; source: mm/memory.c, __p4d_alloc() and so on,
arch/x86/include/asm/pgalloc.h, include/asm-generic/pgalloc.h, mm/pgtable-generic.c (v6.17).
"""

from typing import TYPE_CHECKING, Final

from emu import PhysAddr
from kernel_model.pgtable import none
from kernel_model.populate import p4d_populate, pgd_populate, pmd_populate_kernel, pud_populate

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


def p4d_alloc(kernel: "Kernel", pgdp: PhysAddr, addr: int, path: str) -> PhysAddr:
    """Return where the p4d for `addr` lies. Raises OutOfFrames."""
    if kernel.pgtable.pgd_none(kernel.pgtable.get(pgdp)):
        pgd_populate(kernel, addr, pgdp, kernel.frames.allocate(), path)
    return kernel.pgtable.p4d_offset(pgdp, addr)


def pud_alloc(kernel: "Kernel", p4dp: PhysAddr, addr: int, path: str) -> PhysAddr:
    """Return where the pud for `addr` lies. Raises OutOfFrames."""
    if none(kernel.pgtable.get(p4dp)):
        p4d_populate(kernel, addr, p4dp, kernel.frames.allocate(), path)
    return kernel.pgtable.pud_offset(p4dp, addr)


def pmd_alloc(kernel: "Kernel", pudp: PhysAddr, addr: int) -> PhysAddr:
    """Return where the pmd for `addr` lies. Raises OutOfFrames."""
    if none(kernel.pgtable.get(pudp)):
        pud_populate(kernel, pudp, kernel.frames.allocate())
    return kernel.pgtable.pmd_offset(pudp, addr)


def pte_alloc(kernel: "Kernel", pmdp: PhysAddr, addr: int) -> PhysAddr:
    """Return where the pte for `addr` lies. Raises OutOfFrames."""
    if none(kernel.pgtable.get(pmdp)):
        pmd_populate_kernel(kernel, pmdp, kernel.frames.allocate())
    return kernel.pgtable.pte_offset(pmdp, addr)


def pte_free(kernel: "Kernel", table: PhysAddr) -> None:
    """Give a pte table back; ValueError, as of all of these, for one that is free already."""
    kernel.frames.free(table)


def pmd_free(kernel: "Kernel", table: PhysAddr) -> None:
    """Give a pmd table back."""
    kernel.frames.free(table)


def pud_free(kernel: "Kernel", table: PhysAddr) -> None:
    """Give a pud table back."""
    kernel.frames.free(table)


def p4d_free(kernel: "Kernel", table: PhysAddr) -> None:
    """Give a p4d table back; nothing at all when it is folded: then it is the pgd's."""
    if not kernel.pgtable.p4d_folded:
        kernel.frames.free(table)


class Deposits:
    """Pte tables kept for when a huge page is split again (pmd_huge_pte), by their pmd table."""

    def __init__(self) -> None:
        self._kept: Final[dict[int, list[PhysAddr]]] = {}

    def deposit(self, pmdp: PhysAddr, table: PhysAddr) -> None:
        """Keep a pte table (pgtable_trans_huge_deposit)."""
        self._kept.setdefault(pmdp >> 12, []).append(table)

    def withdraw(self, pmdp: PhysAddr) -> PhysAddr | None:
        """Return the pte table that was kept first, or None (pgtable_trans_huge_withdraw)."""
        kept = self._kept.get(pmdp >> 12)
        return kept.pop(0) if kept else None
