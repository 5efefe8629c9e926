"""What exists before the first task: text, data, direct map, vmalloc's top entries, boot memmap.

Knows where boot puts things in physical memory, and in which order tables are made. Refuses to
know what happens later. Linux vocabulary; source: arch/x86/mm/init_64.c, mm/sparse.c (v6.17),
6eb82f994026 "x86/mm: Pre-allocate P4D/PUD pages for vmalloc area".

Physical memory, lowest first; the rest is free, and handed out from the top down:

    0x0000000  real mode's vectors   0x1000000  text
    0x2000000  data, then swapper_pg_dir, the idle tasks' stacks, and what takes exceptions
    0x2200000  modules               0x3000000  free
"""

from typing import TYPE_CHECKING, Final, Literal

from emu import Gate, Machine, OutOfFrames, Paging, PhysAddr, VirtAddr
from emu.descriptors import KERNEL_CODE
from emu.fault import DE, DF, GP, NP, PF, SS, UD
from emu.paging import CR4_LA57, RW, US, P, page_size
from emu.system import write_system_tables
from kernel_model.builds import DATA, TEXT, module_of
from kernel_model.directmap import kernel_physical_mapping_init
from kernel_model.e820 import E820
from kernel_model.efi import efi_init
from kernel_model.history import LeftOut
from kernel_model.kasan_init import kasan_init
from kernel_model.layout import (
    CPU_ENTRY_AREA,
    ESPFIX,
    GIB,
    PAGE_SIZE,
    START_KERNEL_MAP,
)
from kernel_model.mm import THREAD_SIZE, Mm, Stack, Task
from kernel_model.pgtable import (
    PAGE_KERNEL,
    PAGE_KERNEL_LARGE,
    PAGE_KERNEL_LARGE_ROX,
    PAGE_KERNEL_ROX,
    none,
)
from kernel_model.populate import p4d_populate, pgd_populate
from kernel_model.pti import pti_init, user_table
from kernel_model.realmode import setup_real_mode
from kernel_model.sparse import PAGES_PER_SECTION
from kernel_model.structs import pack_pgdat, pack_zone
from kernel_model.vmalloc import __vmalloc_node_range
from kernel_model.vmemmap import populate_section_memmap
from kernel_model.writers import map_kernel_page

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_SWAPPER_PG_DIR: Final = DATA + 0x10_0000
_IDLE_STACKS: Final = DATA + 0x11_0000  # one a CPU
_SYSTEM_TABLES: Final = DATA + 0x18_0000  # IDT, GDT and TSS: two pages a CPU
_DF_STACKS: Final = DATA + 0x19_0000  # a page a CPU
MOST_CPUS: Final = 8
Firmware = Literal["bios", "efi"]
_MODULES_PA: Final = 0x220_0000
_MODULES_ALIGN: Final = GIB // 2  # of where they begin, with and without RANDOMIZE_BASE
IVT: Final = b"".join((0xF000FF53 + 0x10 * n).to_bytes(4, "little") for n in range(256))
"""The vectors of real mode, which firmware leaves in the first KiB of RAM: segment F000."""

_ENTRIES: Final = {
    DE: "divide_error",
    UD: "invalid_op",
    NP: "segment_not_present",
    SS: "stack_segment",
    GP: "general_protection",
    PF: "page_fault",
}
_MODULES_END: Final = 0x300_0000
_LARGE: Final = page_size(2)

# The control registers of the second oops, LA57 aside; NX and syscall on.
CR0: Final = 0x8005_0033
CR4: Final = 0x75_0EF0
EFER: Final = 0xD01
PKRU: Final = 0x5555_5554


def kernel_pa(address: int) -> PhysAddr:
    """Return where an address of text, data or modules lies."""
    offset = address - START_KERNEL_MAP
    if offset >= _MODULES_ALIGN:
        return PhysAddr(_MODULES_PA + offset % _MODULES_ALIGN)
    return PhysAddr(offset)


def make_machine(e820: E820, levels: int, cpus: int) -> Machine:
    """Return the machine with CR3 on swapper_pg_dir, which is empty."""
    paging = Paging(
        cr0=CR0,
        cr3=kernel_pa(_SWAPPER_PG_DIR),
        cr4=CR4 | (CR4_LA57 if levels == 5 else 0),
        efer=EFER,
        pkru=PKRU,
    )
    code = ((kernel_pa(TEXT), kernel_pa(TEXT) + _LARGE), (_MODULES_PA, _MODULES_END))
    start, end = e820.ram[-1]
    machine = Machine(
        ram=e820.pieces(),
        cpus=cpus,
        paging=paging,
        code=code,
        frames=(max(start, _MODULES_END), end),
    )
    for cpu in machine.cpus:
        cpu.write(rflags=0x202)  # interrupts on
    return machine


def idle_task(cpu: int, init_mm: Mm) -> Task:
    """Return a CPU's idle task; the first CPU's is the one that boots."""
    base = _IDLE_STACKS + cpu * THREAD_SIZE
    pages = tuple(kernel_pa(at) for at in range(base, base + THREAD_SIZE, PAGE_SIZE))
    return Task(f"swapper/{cpu}", 0, init_mm, Stack(VirtAddr(base), pages))


def init_mm(*, pti: bool) -> Mm:
    """Return the kernel's own table; with page-table isolation it has a user half to clone from."""
    pgd = kernel_pa(_SWAPPER_PG_DIR)
    return Mm("init_mm", pgd, Mm("init_mm (user)", user_table(pgd)) if pti else None)


def boot(kernel: "Kernel") -> None:
    """Make everything that exists before the first fork. Raises OutOfFrames."""
    for start, end in kernel.e820.ram:
        kernel_physical_mapping_init(kernel, start, end)
    _map_image(kernel)
    _reserve_top_slots(kernel)
    if kernel.release.vmalloc_sync == "preallocated":
        _preallocate_vmalloc_pages(kernel)
    _init_zones(kernel)
    _sparse_init(kernel)
    if kernel.layout.kasan:
        kasan_init(kernel)
    kernel.slab_is_available = True
    _alloc_large_system_hash(kernel)
    if kernel.pti:
        _map_cpu_entry_areas(kernel)
    if kernel.handles_faults:
        _trap_init(kernel)
    if kernel.pti:
        pti_init(kernel, range(TEXT, _text_end(kernel), _LARGE))
    if kernel.firmware is not None:
        setup_real_mode(kernel)
    if kernel.firmware == "efi":
        efi_init(kernel)


def _text_end(kernel: "Kernel") -> int:
    """Return the byte after the last of vmlinux's text."""
    return max(s.base + len(s.data) for s in kernel.image.segments if s.base < DATA)


def _map_image(kernel: "Kernel") -> None:
    """Load text, data and modules, and map them where they are linked."""
    memory = kernel.memory
    for segment in kernel.image.segments:
        memory.write(kernel_pa(segment.base), segment.data)
        if module_of(segment.name):
            for offset in range(0, len(segment.data), PAGE_SIZE):
                at = segment.base + offset
                _map_page(kernel, at, kernel_pa(at), PAGE_KERNEL_ROX)
    for base in range(TEXT, _text_end(kernel), _LARGE):
        _map_page(kernel, base, kernel_pa(base), PAGE_KERNEL_LARGE_ROX, level=2)
    _map_page(kernel, DATA, kernel_pa(DATA), PAGE_KERNEL_LARGE, level=2)
    layout = kernel.layout
    for name, value in (
        ("vmemmap_base", layout.vmemmap_base),
        ("page_offset_base", layout.page_offset_base),
        ("vmalloc_base", layout.vmalloc_base),
        ("vmalloc_end", layout.vmalloc_end),
        ("pgdir_shift", layout.pgdir_shift),
        ("init_mm_pgd", layout.va(kernel.init_mm.pgd)),
    ):
        if name in kernel.image.symbols:
            memory.write_u64(kernel_pa(kernel.image.address(name)), value)


def _reserve_top_slots(kernel: "Kernel") -> None:
    """The cpu entry area and espfix have their tables from boot on."""
    for addr in (CPU_ENTRY_AREA, ESPFIX):
        _alloc_top(kernel, addr, "boot")


def _preallocate_vmalloc_pages(kernel: "Kernel") -> None:
    """Fill all top-level entries of the vmalloc area, so that they never need a sync.

    5.9's merge window looked for the next level's entry before it looked whether there is a next
    level. With an entry of 0, that is physical page 0: whatever lies there passes for an entry.
    """
    path = "preallocate_vmalloc_pages"
    addr = int(kernel.layout.vmalloc_base)
    while addr < kernel.layout.vmalloc_end:
        if not kernel.release.preallocates_unchecked or _looks_empty(kernel, addr):
            _alloc_top(kernel, addr, path)
        else:
            slot = kernel.layout.pgd_index(addr)
            kernel.history.append(
                LeftOut(path, f"slot {slot} looks filled: what lies in page 0 passes for its table")
            )
        addr = (addr | kernel.layout.pgdir_size - 1) + 1


def _looks_empty(kernel: "Kernel", addr: int) -> bool:
    """Tell whether the entry below the top one is none, wherever the top one points to."""
    pgtable = kernel.pgtable
    pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, addr)
    next_offset = pgtable.pud_offset if pgtable.p4d_folded else pgtable.p4d_offset
    return none(pgtable.get(next_offset(pgdp, addr)))


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


def _sparse_init(kernel: "Kernel") -> None:
    """Give boot RAM its struct pages, by whole sections."""
    for nr in kernel.e820.sections():
        kernel.sections.add_early(nr)
        error = populate_section_memmap(
            kernel, nr * PAGES_PER_SECTION, PAGES_PER_SECTION, 0, None, None
        )
        if error:
            raise OutOfFrames("RAM does not hold its own struct pages")


def _alloc_large_system_hash(kernel: "Kernel") -> None:
    """The first of the vmalloc area is taken at boot: a hash table, spread over the nodes."""
    if __vmalloc_node_range(kernel, PAGE_SIZE, PAGE_SIZE, "vmalloc") is None:
        raise OutOfFrames("no frame for a hash table")


def _map_cpu_entry_areas(kernel: "Kernel") -> None:
    """Map once more what the CPU itself must reach on a user's table: IDT, GDT, TSS, stack."""
    for nr in range(len(kernel.machine.cpus)):
        tables, stack = _SYSTEM_TABLES + nr * 2 * PAGE_SIZE, _DF_STACKS + nr * PAGE_SIZE
        for at in (tables, tables + PAGE_SIZE, stack):
            _map_page(kernel, _entry_area(at), kernel_pa(at), PAGE_KERNEL)


def _map_page(kernel: "Kernel", va: int, pa: int, flags: int, *, level: int = 1) -> None:
    map_kernel_page(kernel, va, pa, flags, "boot", table_flags=P | RW | US, level=level)


def _entry_area(at: int) -> int:
    """Return where the cpu entry area has a page of data."""
    return CPU_ENTRY_AREA + at - _SYSTEM_TABLES


def _trap_init(kernel: "Kernel") -> None:
    """Give each CPU an IDT whose gates lead to the image's entries, and a stack for #DF."""
    place = _entry_area if kernel.pti else int
    image, paging = kernel.image, kernel.paging(kernel.init_mm)
    handlers: dict[int, int | Gate] = {v: image.address(name) for v, name in _ENTRIES.items()}
    handlers[DF] = Gate(image.address("double_fault"), KERNEL_CODE, ist=1)
    for nr, cpu in enumerate(kernel.machine.cpus):
        tables = _SYSTEM_TABLES + nr * 2 * PAGE_SIZE
        ist = _DF_STACKS + (nr + 1) * PAGE_SIZE
        cpu.gdt, cpu.idt, cpu.tr = write_system_tables(
            kernel.memory, paging, VirtAddr(place(tables)), handlers, ist=(place(ist),)
        )
