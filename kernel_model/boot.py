"""What exists before the first task: text, data, direct map, vmalloc's top entries, boot memmap.

Knows where boot puts things in physical memory, and in which order tables are made. Refuses to
know what happens later. Linux vocabulary; source: arch/x86/mm/init_64.c, mm/sparse.c (v6.17),
6eb82f994026 "x86/mm: Pre-allocate P4D/PUD pages for vmalloc area".

Physical memory, lowest first; the rest is free, and handed out from the top down:

    0x1000000  text      0x2000000  data, then swapper_pg_dir and the boot task's stack
                         0x2200000  modules                          0x3000000  free
"""

from functools import partial
from typing import TYPE_CHECKING, Final

from emu import Machine, Paging, PhysAddr, VirtAddr
from emu.paging import CR4_LA57, RW, US, P, page_size
from kernel_model.builds import DATA, TEXT, module_of
from kernel_model.directmap import kernel_physical_mapping_init
from kernel_model.layout import (
    CPU_ENTRY_AREA,
    MODULES_VADDR,
    PAGE_SIZE,
    START_KERNEL_MAP,
)
from kernel_model.mm import Mm, Stack, Task
from kernel_model.pgtable import (
    PAGE_KERNEL_LARGE,
    PAGE_KERNEL_LARGE_ROX,
    PAGE_KERNEL_ROX,
    none,
)
from kernel_model.populate import p4d_populate, pgd_populate
from kernel_model.sparse import PAGES_PER_SECTION, SECTION_SIZE
from kernel_model.structs import pack_pgdat, pack_zone
from kernel_model.vmemmap import populate_section_memmap
from kernel_model.writers import map_kernel_page

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_SWAPPER_PG_DIR: Final = DATA + 0x10_0000
_INIT_STACK: Final = DATA + 0x11_0000
_MODULES_PA: Final = 0x220_0000
_MODULES_END: Final = 0x300_0000
_LARGE: Final = page_size(2)
_ESPFIX: Final = 0xFFFF_FF00_0000_0000  # slot 510 at 4 levels

# The control registers of the second oops, LA57 aside; NX and syscall on.
CR0: Final = 0x8005_0033
CR4: Final = 0x75_0EF0
EFER: Final = 0xD01
PKRU: Final = 0x5555_5554


def kernel_pa(address: int) -> PhysAddr:
    """Return where an address of text, data or modules lies."""
    if address >= MODULES_VADDR:
        return PhysAddr(_MODULES_PA + address - MODULES_VADDR)
    return PhysAddr(address - START_KERNEL_MAP)


def make_machine(ram: int, levels: int) -> Machine:
    """Return the machine with CR3 on swapper_pg_dir, which is empty."""
    paging = Paging(
        cr0=CR0,
        cr3=kernel_pa(_SWAPPER_PG_DIR),
        cr4=CR4 | (CR4_LA57 if levels == 5 else 0),
        efer=EFER,
        pkru=PKRU,
    )
    code = ((kernel_pa(TEXT), kernel_pa(TEXT) + _LARGE), (_MODULES_PA, _MODULES_END))
    machine = Machine(ram=ram, paging=paging, code=code, frames_floor=_MODULES_END)
    machine.cpu.write(rflags=0x202)  # interrupts on
    return machine


def init_task() -> Task:
    """Return the boot task, which runs on init_mm."""
    stack = Stack(VirtAddr(_INIT_STACK), kernel_pa(_INIT_STACK))
    return Task("swapper/0", 0, Mm("init_mm", kernel_pa(_SWAPPER_PG_DIR)), stack)


def boot(kernel: "Kernel", ram: int) -> None:
    """Make everything that exists before the first fork. Raises OutOfFrames."""
    kernel_physical_mapping_init(kernel, 0, ram)
    _map_image(kernel)
    _reserve_top_slots(kernel)
    _preallocate_vmalloc_pages(kernel)
    _init_zones(kernel)
    _sparse_init(kernel, ram)


def _map_image(kernel: "Kernel") -> None:
    """Load text, data and modules, and map them where they are linked."""
    memory = kernel.memory
    map_page = partial(map_kernel_page, kernel, by="boot", table_flags=P | RW | US)
    for segment in kernel.image.segments:
        memory.write(kernel_pa(segment.base), segment.data)
        if module_of(segment.name):
            for offset in range(0, len(segment.data), PAGE_SIZE):
                at = segment.base + offset
                map_page(at, kernel_pa(at), PAGE_KERNEL_ROX)
    for base, flags in ((TEXT, PAGE_KERNEL_LARGE_ROX), (DATA, PAGE_KERNEL_LARGE)):
        map_page(base, kernel_pa(base), flags, level=2)
    for name, value in (
        ("vmemmap_base", kernel.layout.vmemmap_base),
        ("page_offset_base", kernel.layout.page_offset_base),
    ):
        memory.write_u64(kernel_pa(kernel.image.address(name)), value)


def _reserve_top_slots(kernel: "Kernel") -> None:
    """The cpu entry area and espfix have their tables from boot on."""
    for addr in (CPU_ENTRY_AREA, _ESPFIX):
        _alloc_top(kernel, addr, "boot")


def _preallocate_vmalloc_pages(kernel: "Kernel") -> None:
    """Fill all top-level entries of the vmalloc area, so that they never need a sync."""
    addr = int(kernel.layout.vmalloc_base)
    while addr < kernel.layout.vmalloc_end:
        _alloc_top(kernel, addr, "preallocate_vmalloc_pages")
        addr = (addr | kernel.layout.pgdir_size - 1) + 1


def _alloc_top(kernel: "Kernel", addr: int, path: str) -> None:
    """p4d_alloc(), and with a folded p4d pud_alloc(): the table under a top-level entry."""
    pgtable = kernel.pgtable
    pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, addr)
    if pgtable.pgd_none(pgtable.get(pgdp)):
        pgd_populate(kernel, addr, pgdp, kernel.frames.allocate(), path)
    if pgtable.p4d_folded and none(pgtable.get(pgdp)):
        p4d_populate(kernel, addr, pgdp, kernel.frames.allocate(), path)


def _init_zones(kernel: "Kernel") -> None:
    """One node; the zone that device memory goes to."""
    pgdat = kernel.kmalloc(pack_pgdat(node_id=0))
    kernel.zone_device = kernel.kmalloc(pack_zone(pgdat))


def _sparse_init(kernel: "Kernel", ram: int) -> None:
    """Give boot RAM its struct pages, section by section."""
    for nr in range(ram // SECTION_SIZE):
        kernel.sections.add_early(nr)
        error = populate_section_memmap(
            kernel, nr * PAGES_PER_SECTION, PAGES_PER_SECTION, 0, None, None
        )
        if error:
            raise ValueError(f"ram {ram:#x} does not hold its own struct pages")
