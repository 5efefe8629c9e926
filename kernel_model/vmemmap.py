"""Populating vmemmap: the path that syncs, and the ones that did not.

Knows how [start, end) of vmemmap gets its tables and frames: by 2 MiB blocks, by base pages, or
deduplicated for compound devices. Refuses to know who will use the struct pages. Linux
vocabulary; source: arch/x86/mm/init_64.c and mm/sparse-vmemmap.c (v6.17).

4917f55b4ef9 "mm/sparse-vmemmap: improve memory savings for compound devmaps" added the compound
path without a sync; 8d400913c231 "x86/vmemmap: handle unpopulated sub-pmd ranges" the stores in
vmemmap_set_pmd() before vmemmap_populate()'s own; faf1c0008a33 "x86/vmemmap: optimize for
consecutive sections in partial populated PMDs" put some of them off (unused_pmd_start).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emu import OutOfFrames, PhysAddr
from kernel_model.callstack import kernel_function
from kernel_model.errors import ENOMEM
from kernel_model.history import Mapped
from kernel_model.layout import PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, parts
from kernel_model.pageref import get_page
from kernel_model.pgtable import PAGE_KERNEL, none, table
from kernel_model.populate import (
    p4d_populate_kernel,
    pgd_populate_kernel,
    pmd_populate_kernel,
    pud_populate,
)
from kernel_model.sparse import PAGES_PER_SECTION, PAGES_PER_SUBSECTION
from kernel_model.structs import VMEMMAP_RESERVE_NR
from kernel_model.sync import sync_global_pgds

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.memremap import DevPagemap


@dataclass(slots=True)
class VmemAltmap:
    """Frames of the device itself, to hold its own struct pages (struct vmem_altmap)."""

    base_pfn: int
    nr_pages: int
    used: int = 0

    def alloc_block(self, size: int) -> PhysAddr | None:
        """Take `size` bytes, aligned to their size; None when they are used up."""
        nr = size >> PAGE_SHIFT
        at = -(-(self.base_pfn + self.used) // nr) * nr
        if at + nr > self.base_pfn + self.nr_pages:
            return None
        self.used = at + nr - self.base_pfn
        return PhysAddr(at << PAGE_SHIFT)

    def free_block(self, size: int) -> None:
        """Take `size` bytes back: which, it does not keep account of."""
        self.used -= size >> PAGE_SHIFT


@kernel_function
def vmemmap_populate(
    kernel: "Kernel", start: int, end: int, node: int, altmap: VmemAltmap | None
) -> int:
    """Map [start, end) and sync it; 0 or -ENOMEM. A range that failed is not synced.

    Less than a section's memmap gets base pages, and the altmap is ignored for it.
    """
    if end - start < PAGES_PER_SECTION * kernel.layout.sizeof_page:
        error = vmemmap_populate_basepages(kernel, start, end, node, None)
    else:
        error = vmemmap_populate_hugepages(kernel, start, end, node, altmap)
    if not error and kernel.release.sync != "rfc-v1":
        sync_global_pgds(kernel, start, end - 1)
    return error


@kernel_function
def vmemmap_populate_hugepages(
    kernel: "Kernel", start: int, end: int, node: int, altmap: VmemAltmap | None
) -> int:
    """Map [start, end) by 2 MiB blocks. What marks a block as partly used runs on the CPU."""
    path = "vmemmap_populate_hugepages"
    pgtable, va = kernel.pgtable, kernel.layout.va
    for addr, next_addr in parts(start, end, PMD_SIZE):
        pudp = _pud(kernel, addr, path)
        if pudp is None:
            return _no_memory(kernel, addr, path)
        pmdp = pgtable.pmd_offset(pudp, addr)
        if none(pgtable.get(pmdp)):
            block = _alloc_block(kernel, PMD_SIZE, altmap)
            if block is not None:
                # Noted first: a routine that dies has stored the entry all the same.
                kernel.history.append(Mapped("vmemmap", addr, next_addr, path, "2 MiB blocks"))
                kernel.call(
                    "vmemmap_set_pmd",
                    rdi=va(pmdp),
                    rsi=va(block),
                    rdx=node,
                    rcx=addr,
                    r8=next_addr,
                )
                continue
            if altmap is not None:
                why = f"the altmap has no block left for vmemmap at {addr:#x}"
                return kernel.refuse(path, ENOMEM, why)
            mapped = False
        else:
            mapped = bool(
                kernel.call("vmemmap_check_pmd", rdi=va(pmdp), rsi=node, rdx=addr, rcx=next_addr)
            )
        if mapped:
            kernel.history.append(Mapped("vmemmap", addr, next_addr, path, "2 MiB blocks"))
        else:
            error = vmemmap_populate_basepages(kernel, addr, next_addr, node, None)
            if error:
                return error
    return 0


@kernel_function
def vmemmap_populate_basepages(
    kernel: "Kernel", start: int, end: int, node: int, altmap: VmemAltmap | None
) -> int:
    """Map [start, end) by 4 KiB pages, a fresh frame each."""
    path = "vmemmap_populate_basepages"
    for addr in range(start, end, PAGE_SIZE):
        if _populate_address(kernel, addr, path, altmap) is None:
            return _no_memory(kernel, addr, path)
    kernel.history.append(Mapped("vmemmap", start, end, path, "4 KiB pages"))
    return 0


@kernel_function
def vmemmap_populate_compound_pages(
    kernel: "Kernel", start_pfn: int, start: int, end: int, node: int, pgmap: "DevPagemap"
) -> int:
    """Map [start, end) with two frames a compound: its tail struct pages share the second.

    A section in the middle of a compound shares the last frame of the section before it, which
    gets one if it has none (compound_section_tail_page). Syncs only if the release's
    *_populate_kernel() do.
    """
    path = "vmemmap_populate_compound_pages"
    if _continues_compound(start_pfn, pgmap):
        tail = _populate_address(kernel, start - PAGE_SIZE, path, None)
        if tail is None:
            return _no_memory(kernel, start - PAGE_SIZE, path)
        error = _populate_shared(kernel, start, end, tail, path)
    else:
        size = min(end - start, pgmap.pages_per_compound * kernel.layout.sizeof_page)
        error = 0
        for addr in range(start, end, size):
            error = _populate_compound(kernel, addr, addr + size, path)
            if error:
                break
    if not error:
        pages = pgmap.pages_per_compound * kernel.layout.sizeof_page >> PAGE_SHIFT
        detail = f"4 KiB pages: {VMEMMAP_RESERVE_NR} frames for each {pages}"
        kernel.history.append(Mapped("vmemmap", start, end, path, detail))
    return error


def vmemmap_can_optimize(
    kernel: "Kernel", altmap: VmemAltmap | None, pgmap: "DevPagemap | None"
) -> bool:
    """Tell whether a device's memmap is deduplicated: a compound device, without altmap, whose
    struct pages fill more frames than the two that are kept, at a size that is a power of two.
    """
    size = kernel.layout.sizeof_page
    if not kernel.release.compound_vmemmap:
        return False
    if pgmap is None or altmap is not None or size & size - 1:
        return False
    return pgmap.pages_per_compound * size >> PAGE_SHIFT > VMEMMAP_RESERVE_NR


@kernel_function
def __populate_section_memmap(
    kernel: "Kernel",
    pfn: int,
    nr_pages: int,
    nid: int,
    altmap: VmemAltmap | None,
    pgmap: "DevPagemap | None",
) -> int:
    """Give [pfn, pfn + nr_pages) its struct pages, by the path that fits; 0 or -ENOMEM."""
    start = kernel.layout.pfn_to_page(pfn)
    end = start + nr_pages * kernel.layout.sizeof_page
    if pgmap is not None and vmemmap_can_optimize(kernel, altmap, pgmap):
        return vmemmap_populate_compound_pages(kernel, pfn, start, end, nid, pgmap)
    return vmemmap_populate(kernel, start, end, nid, altmap)


populate_section_memmap = __populate_section_memmap


def _continues_compound(start_pfn: int, pgmap: "DevPagemap") -> bool:
    """reuse_compound_section(): the section lies inside a compound that began before it."""
    nr_pages = pgmap.pages_per_compound
    offset = start_pfn - pgmap.start_pfn
    return nr_pages > PAGES_PER_SUBSECTION and offset % nr_pages != 0


def _populate_compound(kernel: "Kernel", start: int, end: int, path: str) -> int:
    """Map one compound's struct pages: a frame for the head's page, one for all tails behind."""
    if _populate_address(kernel, start, path, None) is None:
        return _no_memory(kernel, start, path)
    tail = _populate_address(kernel, start + PAGE_SIZE, path, None)
    if tail is None:
        return _no_memory(kernel, start + PAGE_SIZE, path)
    return _populate_shared(kernel, start + VMEMMAP_RESERVE_NR * PAGE_SIZE, end, tail, path)


def _no_memory(kernel: "Kernel", addr: int, path: str) -> int:
    """Return -ENOMEM, and tell the history what for."""
    return kernel.refuse(path, ENOMEM, f"no frame is left to map vmemmap at {addr:#x}")


def _populate_address(
    kernel: "Kernel", addr: int, path: str, altmap: VmemAltmap | None
) -> PhysAddr | None:
    """Map one page of vmemmap unless it is mapped; return its frame, None without memory."""
    pgtable = kernel.pgtable
    pmdp = _pmd(kernel, addr, path)
    if pmdp is None:
        return None
    ptep = pgtable.pte_offset(pmdp, addr)
    pte = pgtable.get(ptep)
    if not none(pte):
        return table(pte)
    frame = _alloc_block(kernel, PAGE_SIZE, altmap)
    if frame is not None:
        pgtable.set(ptep, frame | PAGE_KERNEL)
    return frame


def _populate_shared(kernel: "Kernel", start: int, end: int, frame: PhysAddr, path: str) -> int:
    """Map all of [start, end) to one frame, which is there until its last mapping goes."""
    for addr, stop in parts(start, end, PMD_SIZE):
        pmdp = _pmd(kernel, addr, path)
        if pmdp is None:
            return _no_memory(kernel, addr, path)
        ptep = kernel.pgtable.pte_offset(pmdp, addr)
        nr = stop - addr >> PAGE_SHIFT
        get_page(kernel, frame, sum(map(none, kernel.pgtable.entries(ptep, nr))))
        kernel.pgtable.fill(ptep, frame | PAGE_KERNEL, 0, nr)
    return 0


def _pud(kernel: "Kernel", addr: int, path: str) -> PhysAddr | None:
    """vmemmap_{pgd,p4d}_populate(), then pud: where init_mm's pud for `addr` lies, pmd table
    included. None without memory.
    """
    pgtable = kernel.pgtable
    pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, addr)
    try:
        if pgtable.pgd_none(pgtable.get(pgdp)):
            pgd_populate_kernel(kernel, addr, pgdp, kernel.frames.allocate(), path)
        p4dp = pgtable.p4d_offset(pgdp, addr)
        if none(pgtable.get(p4dp)):
            p4d_populate_kernel(kernel, addr, p4dp, kernel.frames.allocate(), path)
        pudp = pgtable.pud_offset(p4dp, addr)
        if none(pgtable.get(pudp)):
            pud_populate(kernel, pudp, kernel.frames.allocate())
    except OutOfFrames:
        return None
    return pudp


def _pmd(kernel: "Kernel", addr: int, path: str) -> PhysAddr | None:
    """Return where init_mm's pmd for `addr` lies, pte table included; None without memory."""
    pgtable = kernel.pgtable
    pudp = _pud(kernel, addr, path)
    if pudp is None:
        return None
    pmdp = pgtable.pmd_offset(pudp, addr)
    if none(pgtable.get(pmdp)):
        try:
            pmd_populate_kernel(kernel, pmdp, kernel.frames.allocate())
        except OutOfFrames:
            return None
    return pmdp


def _alloc_block(kernel: "Kernel", size: int, altmap: VmemAltmap | None) -> PhysAddr | None:
    """vmemmap_alloc_block_buf(): `size` bytes from the altmap if there is one, else from RAM."""
    if altmap is not None:
        return altmap.alloc_block(size)
    try:
        return kernel.frames.allocate() if size == PAGE_SIZE else kernel.frames.allocate_block(size)
    except OutOfFrames:
        return None
