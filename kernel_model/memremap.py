"""Device memory: memremap_pages(), from a driver's request to initialised struct pages, and back.

Knows the order in which a device's pages come to be and go. Refuses to know the driver. Functions
return 0 or a negative errno. Linux vocabulary; source: mm/memremap.c (v6.17).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emu import OutOfFrames
from kernel_model.callstack import kernel_function
from kernel_model.errors import EINVAL, ENOMEM
from kernel_model.hotplug import add_pages, arch_add_memory, beyond_physmem_end, mhp_range_allowed
from kernel_model.hotremove import arch_remove_memory, remove_pages
from kernel_model.kasan import kasan_add_zero_shadow, kasan_remove_zero_shadow
from kernel_model.layout import PAGE_SHIFT
from kernel_model.structs import MEMORY_DEVICE_PRIVATE, pack_pgmap
from kernel_model.vmemmap import VmemAltmap, vmemmap_can_optimize

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


@dataclass(frozen=True, slots=True)
class DevPagemap:
    """struct dev_pagemap: one physical range [start, start + size) and what it is."""

    type: int
    start: int
    size: int
    vmemmap_shift: int = 0
    altmap: VmemAltmap | None = None

    @property
    def start_pfn(self) -> int:
        """The first frame."""
        return self.start >> PAGE_SHIFT

    @property
    def nr_pages(self) -> int:
        """How many frames."""
        return self.size >> PAGE_SHIFT

    @property
    def pages_per_compound(self) -> int:
        """pgmap_vmemmap_nr(): 1 without compounds."""
        return 1 << self.vmemmap_shift


@kernel_function
def devm_memremap_pages(kernel: "Kernel", pgmap: DevPagemap) -> int:
    """memremap_pages(), undone with the device."""
    error = memremap_pages(kernel, pgmap, 0)
    if not error:
        kernel.devres.append(pgmap)
    return error


@kernel_function
def devm_memremap_pages_release(kernel: "Kernel", pgmap: DevPagemap) -> None:
    """Undo devm_memremap_pages()."""
    kernel.devres.remove(pgmap)
    memunmap_pages(kernel, pgmap)


@kernel_function
def memremap_pages(kernel: "Kernel", pgmap: DevPagemap, nid: int) -> int:
    """Make struct pages for a device's memory."""
    return pagemap_range(kernel, pgmap, nid)


@kernel_function
def pagemap_range(kernel: "Kernel", pgmap: DevPagemap, nid: int) -> int:
    """Add the range's pages, then initialise their struct pages: the first access to them.

    Device-private memory has no direct map: no CPU can reach it.
    """
    if not mhp_range_allowed(kernel, pgmap.start, pgmap.size):
        end = pgmap.start + pgmap.size
        why = beyond_physmem_end(kernel, end) if pgmap.size > 0 else "the range is empty"
        return kernel.refuse("pagemap_range", EINVAL, why)
    try:
        address = kernel.kmalloc(pack_pgmap(pgmap.type, pgmap.vmemmap_shift))
    except OutOfFrames:
        return kernel.refuse("pagemap_range", ENOMEM, "no frame is left for struct dev_pagemap")
    if pgmap.type == MEMORY_DEVICE_PRIVATE:
        error = add_pages(kernel, nid, pgmap.start_pfn, pgmap.nr_pages, pgmap.altmap, pgmap)
    elif _has_shadow(kernel):
        error = _add_memory_with_shadow(kernel, pgmap, nid)
    else:
        error = arch_add_memory(kernel, nid, pgmap.start, pgmap.size, pgmap.altmap, pgmap)
    if error:
        return error
    kernel.call(
        "memmap_init_zone_device",
        rdi=kernel.zone_device,
        rsi=pgmap.start_pfn,
        rdx=pgmap.nr_pages,
        rcx=address,
        r8=int(vmemmap_can_optimize(kernel, pgmap.altmap, pgmap)),
    )
    return 0


@kernel_function
def memunmap_pages(kernel: "Kernel", pgmap: DevPagemap) -> None:
    """Take a device's struct pages away, and its direct map. Nobody may use its pages any more."""
    pageunmap_range(kernel, pgmap)


@kernel_function
def pageunmap_range(kernel: "Kernel", pgmap: DevPagemap) -> None:
    """Remove the range's pages. (What describes the device is the driver's, and stays.)"""
    if pgmap.type == MEMORY_DEVICE_PRIVATE:
        remove_pages(kernel, pgmap.start_pfn, pgmap.nr_pages, pgmap.altmap)
    else:
        arch_remove_memory(kernel, pgmap.start, pgmap.size, pgmap.altmap)
        if _has_shadow(kernel):
            kasan_remove_zero_shadow(kernel, kernel.layout.va(pgmap.start), pgmap.size)


def _has_shadow(kernel: "Kernel") -> bool:
    """Tell whether a device's memory gets a shadow."""
    return kernel.kasan is not None and kernel.release.kasan_device_shadow


def _add_memory_with_shadow(kernel: "Kernel", pgmap: DevPagemap, nid: int) -> int:
    """Give the range its shadow before it can be reached; without the memory it goes again."""
    addr = kernel.layout.va(pgmap.start)
    error = kasan_add_zero_shadow(kernel, addr, pgmap.size)
    if error:
        return error
    error = arch_add_memory(kernel, nid, pgmap.start, pgmap.size, pgmap.altmap, pgmap)
    if error:
        kasan_remove_zero_shadow(kernel, addr, pgmap.size)
    return error
