"""Memory hot-add: from a physical range to sections with struct pages.

Knows the order: direct map first, then section by section. Refuses to know what a section's
struct pages are mapped with (`vmemmap`). Functions return 0 or a negative errno, as in Linux.
Linux vocabulary; source: mm/memory_hotplug.c, mm/sparse.c, arch/x86/mm/init_64.c (v6.17).
"""

from typing import TYPE_CHECKING

from emu import OutOfFrames
from kernel_model.callstack import kernel_function
from kernel_model.directmap import kernel_physical_mapping_init
from kernel_model.errors import EEXIST, EINVAL, ENOMEM, ERANGE
from kernel_model.history import LeftOut
from kernel_model.layout import PAGE_SHIFT, parts
from kernel_model.sparse import PAGES_PER_SECTION, PAGES_PER_SUBSECTION
from kernel_model.vmemmap import VmemAltmap, populate_section_memmap

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.memremap import DevPagemap


def mhp_range_allowed(kernel: "Kernel", start: int, size: int) -> bool:
    """Tell whether Linux can number, and the direct map hold, what [start, start + size) is.

    Up to 6.10 the end was 1 << MAX_PHYSMEM_BITS, wherever KASLR had the direct map end.
    """
    return 0 <= start < start + size <= physmem_end(kernel)


@kernel_function
def arch_add_memory(
    kernel: "Kernel",
    nid: int,
    start: int,
    size: int,
    altmap: VmemAltmap | None,
    pgmap: "DevPagemap | None",
) -> int:
    """Map physical [start, start + size) in the direct map, then add its pages.

    A release that does not check lets the direct map run on into the regions behind it. Here the
    regions stay apart: what lies beyond the direct map's end is not mapped in it.
    """
    end = min(start + size, kernel.layout.physmem_end)
    if end < start + size:
        why = f"the direct map ends at pa {kernel.layout.physmem_end:#x}: not mapped beyond it"
        kernel.history.append(LeftOut("arch_add_memory", why))
    try:
        if start < end:
            kernel_physical_mapping_init(kernel, start, end)
    except OutOfFrames:
        why = f"no frame is left to map {start:#x} (+{size:#x}) in the direct map"
        return kernel.refuse("arch_add_memory", ENOMEM, why)
    return add_pages(kernel, nid, start >> PAGE_SHIFT, size >> PAGE_SHIFT, altmap, pgmap)


@kernel_function
def add_pages(
    kernel: "Kernel",
    nid: int,
    start_pfn: int,
    nr_pages: int,
    altmap: VmemAltmap | None,
    pgmap: "DevPagemap | None",
) -> int:
    """Add pages, unless the release refuses what lies beyond the direct map's end."""
    end = start_pfn + nr_pages << PAGE_SHIFT
    if kernel.release.checks_physmem_end and end > physmem_end(kernel):
        return kernel.refuse("add_pages", ERANGE, beyond_physmem_end(kernel, end))
    return _add_pages(kernel, nid, start_pfn, nr_pages, altmap, pgmap)


@kernel_function
def __add_pages(
    kernel: "Kernel",
    nid: int,
    pfn: int,
    nr_pages: int,
    altmap: VmemAltmap | None,
    pgmap: "DevPagemap | None",
) -> int:
    """Add pages section by section; what was added before a failure stays."""
    if (pfn | nr_pages) % PAGES_PER_SUBSECTION or not nr_pages:
        why = f"pfn {pfn:#x} (+{nr_pages}) is not a range of whole 2 MiB subsections"
        return kernel.refuse("__add_pages", EINVAL, why)
    end = pfn + nr_pages
    for first, stop in parts(pfn, end, PAGES_PER_SECTION):
        error = sparse_add_section(kernel, nid, first, stop - first, altmap, pgmap)
        if error:
            return error
        kernel.progress(stop - first)
    return 0


_add_pages = __add_pages


def physmem_end(kernel: "Kernel") -> int:
    """DIRECT_MAP_PHYSMEM_END: the byte after the last that may be added."""
    end = 1 << kernel.layout.max_physmem_bits
    return min(end, kernel.layout.physmem_end) if kernel.release.checks_physmem_end else end


def beyond_physmem_end(kernel: "Kernel", end: int) -> str:
    """Say that a range ends too high, and where it may."""
    last, bits = physmem_end(kernel), kernel.layout.max_physmem_bits
    if last == 1 << bits:
        return f"the range ends at {end:#x}, beyond {bits} physical address bits"
    return f"the range ends at {end:#x}, beyond the direct map's end {last:#x}"


@kernel_function
def sparse_add_section(
    kernel: "Kernel",
    nid: int,
    start_pfn: int,
    nr_pages: int,
    altmap: VmemAltmap | None,
    pgmap: "DevPagemap | None",
) -> int:
    """Give a range inside one section its struct pages; -EEXIST if some of it has them.

    (Linux also poisons them here with CONFIG_DEBUG_VM, which our builds do not have.)
    """
    filled = kernel.sections.fill(start_pfn, nr_pages)
    if filled is None:
        why = f"pfn {start_pfn:#x} (+{nr_pages}) has struct pages already"
        return kernel.refuse("sparse_add_section", EEXIST, why)
    section, was_empty = filled
    if section.early and not was_empty and nr_pages < PAGES_PER_SECTION:
        return 0  # the memmap of boot RAM covers the whole section
    error = populate_section_memmap(kernel, start_pfn, nr_pages, nid, altmap, pgmap)
    if error:
        kernel.sections.clear(start_pfn, nr_pages)
    return error
