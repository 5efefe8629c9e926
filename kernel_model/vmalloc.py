"""The vmalloc area: who gets which addresses, and how they are mapped in init_mm.

Knows areas and their guard pages, the huge pages of ioremap, and what a release does when one of
the area's top-level entries is new: tell the other tables, or leave it to their faults. Refuses to
know who lives there (`mm` for stacks, `percpu`). Linux vocabulary; source: mm/vmalloc.c,
lib/ioremap.c, arch/x86/mm/ioremap.c (v4.4, v5.8, v6.17).
"""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emu import OutOfFrames, PhysAddr, VirtAddr
from kernel_model.callstack import kernel_function
from kernel_model.history import Mapped, Unmapped
from kernel_model.layout import PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, PUD_SHIFT, PUD_SIZE
from kernel_model.pgtable import PAGE_KERNEL, PAGE_KERNEL_LARGE, leaf, none, table
from kernel_model.populate import (
    PGTBL_PMD_MODIFIED,
    PGTBL_PTE_MODIFIED,
    PGTBL_PUD_MODIFIED,
    arch_page_table_sync_mask,
    pmd_alloc_track,
    pte_alloc_track,
    pud_alloc_track,
)
from kernel_model.sync import arch_sync_kernel_mappings, sync_global_pgds

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

IOREMAP_MAX_ORDER: Final = PUD_SHIFT  # an ioremap area is aligned to its size, up to this


@dataclass(frozen=True, slots=True, order=True)
class VmArea:
    """[start, end), with a `guard` at the end that is never mapped.

    `caller` is who asked, as in `memremap+0xb4/0x110`; `phys` what an ioremap maps.
    """

    start: int
    end: int
    kind: str
    caller: str = ""
    phys: int | None = None
    guard: int = PAGE_SIZE

    @property
    def mapped_end(self) -> int:
        """The byte after the last that may be mapped."""
        return self.end - self.guard

    def __str__(self) -> str:
        """Write it as a line of /proc/vmallocinfo."""
        words = [f"{self.start:#x}-{self.end:#x} {self.end - self.start:7}", self.caller]
        if self.phys is not None:
            words.append(f"phys={self.phys:x}")
        else:
            words.append(f"pages={self.mapped_end - self.start >> PAGE_SHIFT}")
        return " ".join(word for word in (*words, self.kind) if word)


class VmapAreas:
    """The areas that there are, lowest first; which addresses are free."""

    def __init__(self, start: int, end: int) -> None:
        self._start: Final = start
        self._end: Final = end
        self._areas: list[VmArea] = []
        self._full = (0, 0, 0)  # below the index, nothing of this size and alignment fits

    def __iter__(self) -> Iterator[VmArea]:
        return iter(self._areas)

    def find(self, addr: int) -> VmArea | None:
        """Return the area that `addr` lies in."""
        return next((area for area in self._areas if area.start <= addr < area.end), None)

    def lowest(self, size: int, align: int) -> int | None:
        """Return the lowest free address for `size` bytes, None if there is none."""
        index, full_size, full_align = self._full
        if size < full_size or align < full_align:
            index = 0
        at = self._areas[index - 1].end if index else self._start
        for area in self._areas[index:]:
            at = -(-at // align) * align
            if at + size <= area.start:
                break
            at = area.end
            index += 1
        self._full = (index, size, align)
        at = -(-at // align) * align
        return at if at + size <= self._end else None

    def highest(self, size: int, align: int) -> int | None:
        """Return the highest free address for `size` bytes, None if there is none."""
        end = self._end
        for area in reversed(self._areas):
            at = (end - size) // align * align
            if at >= area.end:
                break
            end = area.start
        at = (end - size) // align * align
        return at if at >= self._start else None

    def gaps(self, end: int) -> list[tuple[int, int]]:
        """List what is free below `end`, as [start, end) each."""
        starts = [self._start, *(area.end for area in self._areas if area.start < end)]
        ends = [*(area.start for area in self._areas if area.start < end), end]
        return [(a, b) for a, b in zip(starts, ends, strict=True) if a < b]

    def insert(self, area: VmArea) -> VmArea:
        """Add an area where nothing is."""
        insort(self._areas, area)
        index, size, align = self._full
        if area.start < (self._areas[index].start if index < len(self._areas) else self._end):
            self._full = (min(index, self._areas.index(area)), size, align)
        return area

    def remove(self, area: VmArea) -> None:
        """Make an area's addresses free."""
        self._areas.remove(area)
        self._full = (0, 0, 0)


def fill_first_slot(kernel: "Kernel") -> None:
    """Take all that is left of the area's first top-level slot, and map nothing there.

    What is mapped next opens another slot.
    """
    border = (kernel.layout.vmalloc_base | kernel.layout.pgdir_size - 1) + 1
    for start, end in kernel.vmap_areas.gaps(border):
        kernel.vmap_areas.insert(VmArea(start, end, "reserved", kernel.caller()))


def vmallocinfo(kernel: "Kernel") -> list[str]:
    """Return the lines of /proc/vmallocinfo, lowest address first."""
    return [str(area) for area in kernel.vmap_areas]


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
    _sync(kernel, mask, start, end)


@kernel_function
def vmalloc(kernel: "Kernel", size: int) -> int:
    """Map fresh memory; return its address, 0 without room or memory."""
    area = __vmalloc_node_range(kernel, -(-size // PAGE_SIZE) * PAGE_SIZE, PAGE_SIZE, "vmalloc")
    return area.start if area else 0


@kernel_function
def __vmalloc_node_range(kernel: "Kernel", size: int, align: int, kind: str) -> VmArea | None:
    """Find an area and map it, a zeroed frame a page; None without room or memory."""
    areas = kernel.vmap_areas
    start = areas.lowest(size + PAGE_SIZE, align)
    if start is None:
        return None
    area = areas.insert(VmArea(start, start + size + PAGE_SIZE, kind, kernel.caller()))
    frames: list[PhysAddr] = []
    try:
        frames.extend(kernel.frames.allocate() for _ in range(size >> PAGE_SHIFT))
        map_kernel_range(kernel, start, start + size, frames)
    except OutOfFrames:
        _unmap(kernel, start, start + size)
        for frame in frames:
            kernel.frames.free(frame)
        areas.remove(area)
        return None
    return area


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
    _sync(kernel, mask, start, end)


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


def _sync(kernel: "Kernel", mask: int, start: int, end: int) -> None:
    """Tell the other tables, in releases that do, if a level was modified that they copy."""
    if kernel.release.vmalloc_sync != "fault" and mask & arch_page_table_sync_mask(kernel):
        arch_sync_kernel_mappings(kernel, start, end)


def _fits(addr: int, pa: int, end: int, size: int) -> bool:
    return end - addr >= size and not (addr | pa) % size


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


_SIZE: Final = {PUD_SIZE: "1 GiB pages", PMD_SIZE: "2 MiB pages", PAGE_SIZE: "4 KiB pages"}
