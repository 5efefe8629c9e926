"""KASAN's zero shadow: the shadow of memory that may be accessed and that nobody keeps book of.

Knows how a range of the shadow is mapped to one page of zeroes, through tables that are shared as
far as they can be, and how it is taken away again. Refuses to know who needs it: boot
(`kasan_init`) and devices (`memremap`). Linux vocabulary; source: mm/kasan/init.c (v6.17).

A whole top-level slot is filled with a shared table by {pgd,p4d}_populate_kernel(). A slot that is
filled in part needs a table of its own, and how that gets there depends on when: at boot by the
same helpers, at run time by p4d_alloc() or pud_alloc(). Those tell no other table, in any release:
f2d2f9598ebb "mm: introduce and use {pgd,p4d}_populate_kernel()" left them alone. Taking shadow
away tells nobody either: where its last entry goes, a table is freed that others may point to.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emu import OutOfFrames, PhysAddr
from emu.paging import ENTRIES, ENTRY_SIZE, RW, index
from kernel_model.callstack import kernel_function
from kernel_model.errors import EINVAL, ENOMEM, KernelError
from kernel_model.history import Cleared, LeftOut, Mapped, Unmapped
from kernel_model.layout import (
    KASAN_SHADOW_SCALE_SHIFT,
    P4D_SIZE,
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_SIZE,
    PUD_SIZE,
    parts,
)
from kernel_model.pgtable import PAGE_KERNEL, none, present, table
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

REGION: Final = "KASAN shadow"
MEMORY_PER_SHADOW_PAGE: Final = PAGE_SIZE << KASAN_SHADOW_SCALE_SHIFT
PAGE_KERNEL_RO: Final = PAGE_KERNEL & ~RW
_PATH: Final = "kasan_populate_early_shadow"


@dataclass(frozen=True, slots=True)
class EarlyShadow:
    """kasan_early_shadow_{page,pte,pmd,pud,p4d}: a page of zeroes, and the tables that lead to it.

    Each table's entries are all alike, so that one serves any part of the shadow.
    """

    page: PhysAddr
    pte: PhysAddr
    pmd: PhysAddr
    pud: PhysAddr
    p4d: PhysAddr

    def below(self, level: int) -> PhysAddr:
        """Return what an entry of the SDM's `level` points to."""
        return (self.page, self.pte, self.pmd, self.pud, self.p4d)[level - 1]


@kernel_function
def kasan_add_zero_shadow(kernel: "Kernel", start: int, size: int) -> int:
    """Give memory at addresses [start, start + size) its shadow: 0, -EINVAL or -ENOMEM."""
    if (start | size) % MEMORY_PER_SHADOW_PAGE:
        return kernel.refuse("kasan_add_zero_shadow", EINVAL, _unaligned(start, size))
    shadow_start = kernel.layout.kasan_mem_to_shadow(start)
    shadow_end = shadow_start + (size >> KASAN_SHADOW_SCALE_SHIFT)
    error = kasan_populate_early_shadow(kernel, shadow_start, shadow_end)
    if error:
        kasan_remove_zero_shadow(kernel, start, size)
    return error


@kernel_function
def kasan_populate_early_shadow(kernel: "Kernel", start: int, end: int) -> int:
    """Map [start, end) of the shadow to the zero page: 0, or at run time -ENOMEM.

    (Linux returns that for a missing p4d table only, and forgets the others.) Raises OutOfFrames
    at boot. What is mapped already gets the zero page too.
    """
    pgtable, zero = kernel.pgtable, _zero(kernel)
    try:
        for addr, stop in parts(start, end, kernel.layout.pgdir_size):
            pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, addr)
            if stop - addr == kernel.layout.pgdir_size:
                pgd_populate_kernel(kernel, addr, pgdp, zero.p4d, _PATH)
                p4dp = pgtable.p4d_offset(pgdp, addr)
                p4d_populate_kernel(kernel, addr, p4dp, zero.pud, _PATH)
                continue
            if pgtable.pgd_none(pgtable.get(pgdp)):
                populate = pgd_populate if kernel.slab_is_available else pgd_populate_kernel
                populate(kernel, addr, pgdp, kernel.frames.allocate(), _PATH)
            _zero_p4d_populate(kernel, pgdp, addr, stop)
    except OutOfFrames:
        if not kernel.slab_is_available:
            raise
        return kernel.refuse(_PATH, ENOMEM, f"no frame is left for the shadow at {addr:#x}")
    kernel.history.append(Mapped(REGION, start, end, _PATH, "the zero page"))
    return 0


def _zero_p4d_populate(kernel: "Kernel", pgdp: PhysAddr, addr: int, end: int) -> None:
    """zero_p4d_populate(): a part of what one pgd covers."""
    pgtable, zero, path = kernel.pgtable, _zero(kernel), "zero_p4d_populate"
    for at, stop in parts(addr, end, P4D_SIZE):
        p4dp = pgtable.p4d_offset(pgdp, at)
        if stop - at == P4D_SIZE:
            p4d_populate_kernel(kernel, at, p4dp, zero.pud, path)
            continue
        if none(pgtable.get(p4dp)):
            populate = p4d_populate if kernel.slab_is_available else p4d_populate_kernel
            populate(kernel, at, p4dp, kernel.frames.allocate(), path)
        _zero_pud_populate(kernel, p4dp, at, stop)


def _zero_pud_populate(kernel: "Kernel", p4dp: PhysAddr, addr: int, end: int) -> None:
    """zero_pud_populate(): a part of what one p4d covers. No task has a copy of what it fills."""
    pgtable, zero = kernel.pgtable, _zero(kernel)
    for at, stop in parts(addr, end, PUD_SIZE):
        pudp = pgtable.pud_offset(p4dp, at)
        if stop - at == PUD_SIZE:
            pud_populate(kernel, pudp, zero.pmd)
            continue
        if none(pgtable.get(pudp)):
            pud_populate(kernel, pudp, kernel.frames.allocate())
        _zero_pmd_populate(kernel, pudp, at, stop)


def _zero_pmd_populate(kernel: "Kernel", pudp: PhysAddr, addr: int, end: int) -> None:
    """zero_pmd_populate() and zero_pte_populate(): a part of what one pud covers."""
    pgtable, zero = kernel.pgtable, _zero(kernel)
    for at, stop in parts(addr, end, PMD_SIZE):
        pmdp = pgtable.pmd_offset(pudp, at)
        if stop - at == PMD_SIZE:
            pmd_populate_kernel(kernel, pmdp, zero.pte)
            continue
        if none(pgtable.get(pmdp)):
            pmd_populate_kernel(kernel, pmdp, kernel.frames.allocate())
        ptep = pgtable.pte_offset(pmdp, at)
        pgtable.fill(ptep, zero.page | PAGE_KERNEL_RO, 0, stop - at >> PAGE_SHIFT)


def kasan_remove_zero_shadow(kernel: "Kernel", start: int, size: int) -> None:
    """Take away the shadow of memory at addresses [start, start + size), in init_mm.

    A table that is empty then is freed. No other table is told of a top-level entry that goes, and
    no TLB is flushed. What is mapped to other memory than the zero page stays.
    """
    path = "kasan_remove_zero_shadow"
    if (start | size) % MEMORY_PER_SHADOW_PAGE:
        kernel.history.append(LeftOut(path, _unaligned(start, size)))
        return
    addr = kernel.layout.kasan_mem_to_shadow(start)
    end = addr + (size >> KASAN_SHADOW_SCALE_SHIFT)
    pgtable = kernel.pgtable
    for at, stop in parts(addr, end, kernel.layout.pgdir_size):
        pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, at)
        before = pgtable.get(pgdp)
        _remove(kernel, kernel.init_mm.pgd, pgtable.top_level, at, stop)
        if not pgtable.top_none(before) and pgtable.top_none(pgtable.get(pgdp)):
            kernel.history.append(Cleared(at, kernel.layout.pgd_index(at), path, tables=0))
    kernel.history.append(Unmapped(REGION, addr, end, path))


def _remove(kernel: "Kernel", in_table: PhysAddr, level: int, addr: int, end: int) -> None:
    """kasan_remove_{p4d,pud,pmd,pte}_table() and kasan_free_*(): empty what `in_table`, whose
    entries are of the SDM's `level`, has for [addr, end); free the tables that become empty.
    """
    pgtable, shared = kernel.pgtable, _zero(kernel).below(level)
    size = 1 << PAGE_SHIFT + 9 * (level - 1)
    for at, stop in parts(addr, end, size):
        entry_pa = PhysAddr(in_table + ENTRY_SIZE * index(at, level))
        entry = pgtable.get(entry_pa)
        if not present(entry) or (level == 1 and table(entry) != shared):
            continue
        if stop - at < size or table(entry) != shared:
            _remove(kernel, table(entry), level - 1, at, stop)
            if pgtable.nr_none(table(entry), ENTRIES) < ENTRIES:
                continue
            kernel.frames.free(table(entry))
        pgtable.set(entry_pa, 0)


def _zero(kernel: "Kernel") -> EarlyShadow:
    if kernel.kasan is None:
        raise KernelError("this kernel has no KASAN: expected one that is built with it")
    return kernel.kasan


def _unaligned(start: int, size: int) -> str:
    return f"{start:#x} (+{size:#x}) is not a multiple of {MEMORY_PER_SHADOW_PAGE:#x}"
