"""Memory hot-remove: from a physical range to the frames that come back.

Knows the order (the pages first, then the direct map) and how tables are emptied and freed from
the bottom up, to where a release stops. Refuses to know who wants the memory gone (`memremap`,
`ramhotplug`). Linux vocabulary; source: arch/x86/mm/init_64.c, mm/memory_hotplug.c, mm/sparse.c
(v6.17, and v4.4 for what cleared all tables).

af2cf278ef4f "x86/mm/hotplug: Don't remove PGD entries in remove_pagetable()" settled that an entry
of a top table, once there, stays: tasks have copies of it. f2a6a7050109 "x86: Convert the rest of
the code to support p4d_t" freed it again, by another name, since a folded p4d *is* the top entry;
98fe3633c5a4 "x86/mm/hotplug: Fix BUG_ON() after hot-remove by not freeing PUD" stopped that.
"""

from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from emu import PhysAddr
from emu.paging import ENTRIES
from kernel_model.callstack import kernel_function
from kernel_model.errors import EINVAL, KernelError
from kernel_model.history import Cleared, Unmapped
from kernel_model.layout import P4D_SIZE, PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, PUD_SIZE, parts
from kernel_model.pageref import put_page
from kernel_model.pgtable import leaf, none, present, table
from kernel_model.sparse import PAGES_PER_SECTION, PAGES_PER_SUBSECTION
from kernel_model.sync import sync_global_pgds
from kernel_model.vmemmap import VmemAltmap

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

GiveBack = Callable[[PhysAddr, int, int], None]
"""What becomes of a page that is mapped no more: its frame, its size, how many mappings went."""


@kernel_function
def arch_remove_memory(
    kernel: "Kernel", start: int, size: int, altmap: VmemAltmap | None = None
) -> None:
    """Remove the pages of physical [start, start + size), then its direct map.

    KernelError if that would leave a part of a large page of the direct map, which Linux does not
    split: memory goes in the pieces that it came in.
    """
    end = min(start + size, kernel.layout.physmem_end)
    for pa in (start, end):
        _check_not_inside_a_page(kernel, pa)
    remove_pages(kernel, start >> PAGE_SHIFT, size >> PAGE_SHIFT, altmap)
    if start < end:
        kernel_physical_mapping_remove(kernel, start, end)


@kernel_function
def __remove_pages(
    kernel: "Kernel", pfn: int, nr_pages: int, altmap: VmemAltmap | None = None
) -> None:
    """Remove pages section by section."""
    if (pfn | nr_pages) % PAGES_PER_SUBSECTION or not nr_pages:
        why = f"pfn {pfn:#x} (+{nr_pages}) is not a range of whole 2 MiB subsections"
        kernel.refuse("__remove_pages", EINVAL, why)
        return
    page = kernel.layout.pfn_to_page
    kernel.history.append(Unmapped("vmemmap", page(pfn), page(pfn + nr_pages), "__remove_pages"))
    end = pfn + nr_pages
    for first, stop in parts(pfn, end, PAGES_PER_SECTION):
        sparse_remove_section(kernel, first, stop - first, altmap)
        kernel.progress(stop - first)


remove_pages = __remove_pages


@kernel_function
def sparse_remove_section(
    kernel: "Kernel", pfn: int, nr_pages: int, altmap: VmemAltmap | None
) -> None:
    """Take the struct pages of a range inside one section away; boot RAM's memmap stays."""
    section = kernel.sections.empty(pfn, nr_pages)
    if section is None:
        why = f"pfn {pfn:#x} (+{nr_pages}) has no struct pages"
        kernel.refuse("sparse_remove_section", EINVAL, why)
    elif not section.early:
        start = kernel.layout.pfn_to_page(pfn)
        vmemmap_free(kernel, start, start + nr_pages * kernel.layout.sizeof_page, altmap)


@kernel_function
def vmemmap_free(kernel: "Kernel", start: int, end: int, altmap: VmemAltmap | None) -> None:
    """Unmap [start, end) of vmemmap, and give back the frames behind it."""
    remove_pagetable(kernel, start, end, partial(_free_backing, kernel, altmap))


@kernel_function
def kernel_physical_mapping_remove(kernel: "Kernel", start: int, end: int) -> None:
    """Unmap physical [start, end) from the direct map."""
    first, last = kernel.layout.va(start), kernel.layout.va(end)
    path = "kernel_physical_mapping_remove"
    kernel.history.append(Unmapped("direct map", first, last, path))
    remove_pagetable(kernel, first, last, _leave_memory)


@kernel_function
def remove_pagetable(kernel: "Kernel", start: int, end: int, give_back: GiveBack) -> None:
    """Unmap [start, end) of init_mm, and free the tables that are empty then."""
    layout, pgtable = kernel.layout, kernel.pgtable
    emptied = list[int]()
    for addr, stop in parts(start, end, layout.pgdir_size):
        pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, addr)
        if not pgtable.top_none(pgtable.get(pgdp)):
            _remove_p4ds(kernel, pgdp, addr, stop, give_back)
            if pgtable.top_none(pgtable.get(pgdp)):
                emptied.append(addr)
    if emptied and kernel.release.hot_remove == "clears-all":
        sync_global_pgds(kernel, start, end - 1, "remove")
    else:
        for addr in emptied:
            slot = layout.pgd_index(addr)
            kernel.history.append(Cleared(addr, slot, "remove_pagetable", 0))
    kernel.flush_tlb_all()


def _check_not_inside_a_page(kernel: "Kernel", pa: int) -> None:
    name, entry = kernel.pgtable.read_down(kernel.init_mm.pgd, kernel.layout.va(pa))[-1]
    size = {"pud": PUD_SIZE, "pmd": PMD_SIZE}.get(name, PAGE_SIZE)
    if entry is not None and leaf(entry) and pa % size:
        raise KernelError(
            f"pa {pa:#x} lies inside a page of the direct map: expected a range as it was added"
        )


def _remove_p4ds(
    kernel: "Kernel", pgdp: PhysAddr, addr: int, end: int, give_back: GiveBack
) -> None:
    """remove_p4d_table(): a table of puds is freed unless the p4d above it is folded and a release
    knows what that means. (A table of p4ds stays in all of them.)
    """
    pgtable = kernel.pgtable
    frees = not pgtable.p4d_folded or kernel.release.hot_remove != "keeps-pud"
    for at, stop in parts(addr, end, P4D_SIZE):
        p4dp = pgtable.p4d_offset(pgdp, at)
        if present(pgtable.get(p4dp)):
            _remove_puds(kernel, p4dp, at, stop, give_back)
            if frees:
                _free_if_empty(kernel, p4dp)


def _remove_puds(
    kernel: "Kernel", p4dp: PhysAddr, addr: int, end: int, give_back: GiveBack
) -> None:
    """remove_pud_table(): 1 GiB pages are the direct map's, and go whole."""
    pgtable = kernel.pgtable
    for at, stop in parts(addr, end, PUD_SIZE):
        pudp = pgtable.pud_offset(p4dp, at)
        pud = pgtable.get(pudp)
        if leaf(pud):
            pgtable.set(pudp, 0)
        elif present(pud):
            _remove_pmds(kernel, pudp, at, stop, give_back)
            _free_if_empty(kernel, pudp)


def _remove_pmds(
    kernel: "Kernel", pudp: PhysAddr, addr: int, end: int, give_back: GiveBack
) -> None:
    """remove_pmd_table(): of a block of vmemmap, the CPU marks the part that goes and looks whether
    it was the last. (So before 8d400913c231 too, but parts that never came into use had no mark.)
    """
    pgtable = kernel.pgtable
    for at, stop in parts(addr, end, PMD_SIZE):
        pmdp = pgtable.pmd_offset(pudp, at)
        pmd = pgtable.get(pmdp)
        if leaf(pmd):
            whole = stop - at == PMD_SIZE
            if whole or kernel.call("vmemmap_pmd_is_unused", rdi=at, rsi=stop):
                give_back(table(pmd), PMD_SIZE, 1)
                pgtable.set(pmdp, 0)
        elif present(pmd):
            _remove_ptes(kernel, pmdp, at, stop, give_back)
            _free_if_empty(kernel, pmdp)


def _remove_ptes(
    kernel: "Kernel", pmdp: PhysAddr, addr: int, end: int, give_back: GiveBack
) -> None:
    """remove_pte_table(): neighbours that share a frame give it back together."""
    ptep, nr = kernel.pgtable.pte_offset(pmdp, addr), end - addr >> PAGE_SHIFT
    for pte, same in groupby(kernel.pgtable.entries(ptep, nr)):
        if not none(pte):
            give_back(table(pte), PAGE_SIZE, len(list(same)))
    kernel.pgtable.fill(ptep, 0, 0, nr)


def _free_if_empty(kernel: "Kernel", entry_pa: PhysAddr) -> None:
    """free_pud_table() and so on: free the table under an entry, and clear the entry, if nothing
    is left in it.
    """
    below = table(kernel.pgtable.get(entry_pa))
    if kernel.pgtable.nr_none(below, ENTRIES) == ENTRIES:
        kernel.frames.free(below)
        kernel.pgtable.set(entry_pa, 0)


def _free_backing(
    kernel: "Kernel", altmap: VmemAltmap | None, frame: PhysAddr, size: int, nr: int
) -> None:
    """free_hugepage_table(), free_pagetable(): to the altmap, if blocks came from there, or RAM."""
    if size == PAGE_SIZE:
        if put_page(kernel, frame, nr):
            kernel.frames.free(frame)
    elif altmap is not None:
        altmap.free_block(size)
    else:
        kernel.frames.free_block(frame, size)


def _leave_memory(_frame: PhysAddr, _size: int, _nr: int) -> None:
    """The direct map only shows memory; it does not own it."""
