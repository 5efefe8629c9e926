"""Where Linux puts things in the kernel half of the address space, at 4 and 5 levels.

Knows the regions, which of them KASLR moves, and the rule that keeps them apart. Refuses to know
what is mapped: a region is a plan. Linux vocabulary; source: Documentation/arch/x86/x86_64/mm.rst,
arch/x86/include/asm/pgtable_64_types.h and arch/x86/mm/kaslr.c (v6.17).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from emu import VirtAddr

PAGE_SHIFT: Final = 12
PMD_SHIFT: Final = 21
PUD_SHIFT: Final = 30
P4D_SHIFT: Final = 39
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PMD_SIZE: Final = 1 << PMD_SHIFT
PUD_SIZE: Final = 1 << PUD_SHIFT
P4D_SIZE: Final = 1 << P4D_SHIFT
GIB: Final = 1 << 30
TIB: Final = 1 << 40

START_KERNEL_MAP: Final = 0xFFFF_FFFF_8000_0000  # kernel text; pa 0 is mapped here
MODULES_END: Final = 0xFFFF_FFFF_FF00_0000
CPU_ENTRY_AREA: Final = 0xFFFF_FE00_0000_0000  # slot 508 at 4 levels; the end of the KASLR window
ESPFIX: Final = 0xFFFF_FF00_0000_0000  # slot 510 at 4 levels
PHYSICAL_PADDING_TIB: Final = 10  # CONFIG_RANDOMIZE_MEMORY_PHYSICAL_PADDING with hotplug
REGION_GAP: Final = GIB
MAX_PHYSMEM_BITS: Final = {4: 46, 5: 52}  # by levels

KASAN_SHADOW_OFFSET: Final = 0xDFFF_FC00_0000_0000  # the same at 4 and 5 levels
KASAN_SHADOW_SCALE_SHIFT: Final = 3  # a byte of shadow tells of 8 bytes

Era = Literal["direct-map-first", "ldt-below"]
"""What the kernel half begins with: the direct map, in slot 272; or each mm's own LDT there, and
the direct map from slot 273 on. d52888aa2753 "x86/mm: Move LDT remap out of KASLR region on 5-level
paging" (4.20)"""


@dataclass(frozen=True, slots=True)
class _Geometry:
    """What differs between the two paging modes."""

    pgdir_shift: int
    direct_map: Mapping[Era, int]
    ldt_slot: Mapping[Era, int]
    direct_map_tib: int
    vmalloc: int
    vmalloc_tib: int
    vmemmap: int


_GEOMETRY: Final = {
    4: _Geometry(
        pgdir_shift=39,
        direct_map={
            "direct-map-first": 0xFFFF_8800_0000_0000,
            "ldt-below": 0xFFFF_8880_0000_0000,
        },
        ldt_slot={"direct-map-first": 509, "ldt-below": 272},
        direct_map_tib=64,
        vmalloc=0xFFFF_C900_0000_0000,
        vmalloc_tib=32,
        vmemmap=0xFFFF_EA00_0000_0000,
    ),
    5: _Geometry(
        pgdir_shift=48,
        direct_map={
            "direct-map-first": 0xFF10_0000_0000_0000,
            "ldt-below": 0xFF11_0000_0000_0000,
        },
        ldt_slot={"direct-map-first": 400, "ldt-below": 272},
        direct_map_tib=32 << 10,
        vmalloc=0xFFA0_0000_0000_0000,
        vmalloc_tib=12800,
        vmemmap=0xFFD4_0000_0000_0000,
    ),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The regions of one boot. Sizes and ends are bytes; `*_end` is the byte after the last."""

    levels: int
    pgdir_shift: int
    max_physmem_bits: int
    page_offset_base: VirtAddr
    physmem_end: int  # the direct map can map physical memory below this
    vmalloc_base: VirtAddr
    vmalloc_end: int
    vmemmap_base: VirtAddr
    vmemmap_end: int
    modules_base: VirtAddr
    ldt_slot: int  # where each mm's own LDT lies, with PTI: never synced
    sizeof_page: int
    kasan: bool = False  # a part of the address space is KASAN's shadow of all the rest

    @property
    def pgdir_size(self) -> int:
        """What one entry of a task's top table covers: 512 GiB or 256 TiB."""
        return 1 << self.pgdir_shift

    @property
    def kernel_pgd_boundary(self) -> int:
        """The first slot that fork copies: that of the direct map."""
        return self.pgd_index(self.page_offset_base)

    def pgd_index(self, addr: int) -> int:
        """Return the slot of the top table that `addr` lies in."""
        return addr >> self.pgdir_shift & 511

    def slot_base(self, slot: int) -> VirtAddr:
        """Return the first address of a slot in the kernel half."""
        return VirtAddr(-(1 << self.pgdir_shift + 9) + (slot << self.pgdir_shift) & (1 << 64) - 1)

    def va(self, pa: int) -> VirtAddr:
        """Return the direct-map address of `pa` (__va)."""
        return VirtAddr(self.page_offset_base + pa)

    def pa(self, addr: int) -> int:
        """Return the physical address behind a direct-map address (__pa)."""
        return addr - self.page_offset_base

    def pfn_to_page(self, pfn: int) -> VirtAddr:
        """Return the address of a frame's struct page."""
        return VirtAddr(self.vmemmap_base + pfn * self.sizeof_page)

    @staticmethod
    def kasan_mem_to_shadow(addr: int) -> int:
        """Return where the byte of shadow lies that tells of `addr`."""
        return (addr >> KASAN_SHADOW_SCALE_SHIFT) + KASAN_SHADOW_OFFSET

    @property
    def kasan_shadow_start(self) -> int:
        """Where the shadow of the kernel half begins: with 5 levels inside a slot."""
        return self.kasan_mem_to_shadow(self.slot_base(256))

    @property
    def kasan_shadow_end(self) -> int:
        """The byte after the shadow of the last byte that there is."""
        return self.kasan_mem_to_shadow(1 << 64)

    def region(self, addr: int) -> str:
        """Name the region that `addr` lies in, for people."""
        for name, start, end in self.regions():
            if start <= addr < end:
                return name
        return "no region"

    def regions(self) -> list[tuple[str, int, int]]:
        """List (name, start, end), lowest first."""
        direct = self.page_offset_base
        shadow = ("KASAN shadow", self.kasan_shadow_start, self.kasan_shadow_end)
        return [
            ("user space", 0, 1 << self.pgdir_shift + 8),
            ("direct map", direct, direct + self.physmem_end),
            ("vmalloc", self.vmalloc_base, self.vmalloc_end),
            ("vmemmap", self.vmemmap_base, self.vmemmap_end),
            *([shadow] if self.kasan else []),
            ("cpu entry area", CPU_ENTRY_AREA, CPU_ENTRY_AREA + (1 << 39)),
            ("kernel text and data", START_KERNEL_MAP, self.modules_base),
            ("modules", self.modules_base, MODULES_END),
        ]


def make_layout(
    *,
    levels: int = 4,
    vmemmap_base: int | None = None,
    page_offset_base: int | None = None,
    ram: int = 4 * GIB,
    sizeof_page: int = 64,
    era: Era = "ldt-below",
    kernel_image_size: int = GIB,
    kasan: bool = False,
) -> Layout:
    """Place the three regions that KASLR moves; without `vmemmap_base`, as with nokaslr.

    The direct map stays at its base without `page_offset_base`, which is 1 GiB aligned too, and not
    below that. vmalloc lies as high as it can below vmemmap, but not above its nokaslr base. The
    direct map is trimmed to RAM plus padding where it would reach vmalloc, as it is on kernels that
    keep it no longer than they must (arch/x86/mm/kaslr.c). `kernel_image_size` is how much of the
    last 2 GiB is the kernel's before the modules begin: 1 GiB with RANDOMIZE_BASE, else 512 MiB.
    With `kasan` KASLR moves nothing: where the shadow of each region lies is decided when the
    kernel is built.
    Raises ValueError, naming the value, for a base that leaves no room or is not 1 GiB aligned.
    """
    if levels not in _GEOMETRY:
        raise ValueError(f"{levels} levels of paging: expected 4 or 5")
    g = _GEOMETRY[levels]
    base = g.vmemmap if vmemmap_base is None else vmemmap_base
    if not 0 <= base < 1 << 64:
        raise ValueError(f"vmemmap_base {base:#x}: expected a 64-bit address")
    if kasan and base != g.vmemmap:
        raise ValueError(f"vmemmap_base {base:#x}: expected {g.vmemmap:#x}, where KASAN has it")
    if base % PUD_SIZE:
        raise ValueError(f"vmemmap_base {base:#x} is not 1 GiB aligned")
    direct_map = g.direct_map[era]
    if page_offset_base is not None:
        if page_offset_base % PUD_SIZE or not direct_map <= page_offset_base < 1 << 64:
            raise ValueError(
                f"page_offset_base {page_offset_base:#x}: expected a 1 GiB aligned address from "
                f"{direct_map:#x} on"
            )
        direct_map = page_offset_base

    vmalloc_size = g.vmalloc_tib * TIB
    vmalloc = min(g.vmalloc, base - vmalloc_size - REGION_GAP)
    tib = g.direct_map_tib
    if direct_map + tib * TIB >= vmalloc:
        tib = min(tib, -(-ram // TIB) + PHYSICAL_PADDING_TIB)
    if direct_map + tib * TIB >= vmalloc:
        raise ValueError(
            f"vmemmap_base {base:#x} leaves no room for {tib} TiB of direct map and "
            f"{g.vmalloc_tib} TiB of vmalloc below it"
        )
    # The region is sized for what the direct map can map, in whole TiB.
    vmemmap_size = -(-((tib << 28) * sizeof_page) // TIB) * TIB
    if base + vmemmap_size > CPU_ENTRY_AREA:
        raise ValueError(
            f"vmemmap_base {base:#x}: its {vmemmap_size // TIB} TiB would run into the cpu entry "
            f"area at {CPU_ENTRY_AREA:#x} (slot {CPU_ENTRY_AREA >> g.pgdir_shift & 511})"
        )
    return Layout(
        levels=levels,
        pgdir_shift=g.pgdir_shift,
        max_physmem_bits=MAX_PHYSMEM_BITS[levels],
        page_offset_base=VirtAddr(direct_map),
        physmem_end=tib * TIB,
        vmalloc_base=VirtAddr(vmalloc),
        vmalloc_end=vmalloc + vmalloc_size,
        vmemmap_base=VirtAddr(base),
        vmemmap_end=base + vmemmap_size,
        modules_base=VirtAddr(START_KERNEL_MAP + kernel_image_size),
        ldt_slot=g.ldt_slot[era],
        sizeof_page=sizeof_page,
        kasan=kasan,
    )


def parts(start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut [start, end) at the multiples of `size`, a power of 2 (pgd_addr_end() and its like)."""
    while start < end:
        stop = min((start | size - 1) + 1, end)
        yield start, stop
        start = stop
