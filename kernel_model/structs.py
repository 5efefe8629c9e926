"""The structures that both sides touch: offsets as assembly constants, and reading them back.

Knows where the fields of struct page, zone, pglist_data and dev_pagemap lie. Refuses to know who
fills them. Linux vocabulary; source: include/linux/mm_types.h, mmzone.h, memremap.h (v6.8). The
offsets in struct page are Linux's on x86-64; those in the other structures, of which Linux's
layout depends on everything, are ours.
"""

from dataclasses import dataclass
from struct import Struct, unpack
from typing import Final

SIZEOF_PAGE: Final = (64, 80, 96)  # plain; with KMSAN's two words; and with _last_cpupid
PAGE_REFCOUNT: Final = 0x34
VMEMMAP_RESERVE_NR: Final = 2  # frames of struct pages that a deduplicated compound keeps
ZONE_DEVICE: Final = 4

# page->flags with SPARSEMEM_VMEMMAP and no NUMA balancing (include/linux/page-flags-layout.h).
NODES_PGSHIFT: Final = 54
ZONES_PGSHIFT: Final = 51
PG_HEAD: Final = 6
PG_RESERVED: Final = 14

# enum memory_type (include/linux/memremap.h)
MEMORY_DEVICE_PRIVATE: Final = 1
MEMORY_DEVICE_COHERENT: Final = 2
MEMORY_DEVICE_FS_DAX: Final = 3
MEMORY_DEVICE_GENERIC: Final = 4
MEMORY_DEVICE_PCI_P2PDMA: Final = 5

ZONE_PGDAT: Final = 0x00
SIZEOF_ZONE: Final = 0x40
PGDAT_NODE_ID: Final = 0x00
SIZEOF_PGDAT: Final = 0x40
PGMAP_TYPE: Final = 0x00
PGMAP_VMEMMAP_SHIFT: Final = 0x04
SIZEOF_PGMAP: Final = 0x40

# struct pt_regs (arch/x86/include/asm/ptrace.h): r15 first; the CPU's own frame from rip on
PT_REGS_ERROR_CODE: Final = 0x78
PT_REGS_RIP: Final = 0x80
_PT_REGS: Final = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx"),
    *("rsi", "rdi", "orig_rax", "rip", "cs", "rflags", "rsp", "ss"),
)
SIZEOF_PT_REGS: Final = 8 * len(_PT_REGS)

_PAGE: Final = Struct("<QQQQQQiiQ")


def struct_constants(sizeof_page: int, refcount_reset_types: frozenset[int]) -> dict[str, int]:
    """Return what the routines must know of the structures."""
    return {
        "SIZEOF_PAGE": sizeof_page,
        "PAGE_FLAGS": 0x00,
        "PAGE_LRU": 0x08,
        "PAGE_COMPOUND_HEAD": 0x08,
        "PAGE_PGMAP": 0x08,
        "PAGE_LRU_PREV": 0x10,
        "PAGE_ZONE_DEVICE_DATA": 0x10,
        "PAGE_MAPPING": 0x18,
        "PAGE_INDEX": 0x20,
        "PAGE_PRIVATE": 0x28,
        "PAGE_MAPCOUNT": 0x30,
        "PAGE_REFCOUNT": PAGE_REFCOUNT,
        "PAGE_MEMCG": 0x38,
        "NODES_PGSHIFT": NODES_PGSHIFT,
        "ZONES_PGSHIFT": ZONES_PGSHIFT,
        "PG_RESERVED": PG_RESERVED,
        "PG_HEAD": PG_HEAD,
        "ZONE_DEVICE": ZONE_DEVICE,
        "ZONE_PGDAT": ZONE_PGDAT,
        "PGDAT_NODE_ID": PGDAT_NODE_ID,
        "PGMAP_TYPE": PGMAP_TYPE,
        "PGMAP_VMEMMAP_SHIFT": PGMAP_VMEMMAP_SHIFT,
        # In the first tail page, which holds what belongs to the compound (struct folio, v6.8).
        "FOLIO_ORDER": 0x00,
        "FOLIO_ENTIRE_MAPCOUNT": 0x18,
        "FOLIO_NR_PAGES_MAPPED": 0x1C,
        "FOLIO_PINCOUNT": 0x20,
        "FOLIO_NR_PAGES": 0x24,
        "REFCOUNT_RESET_TYPES": sum(1 << kind for kind in refcount_reset_types),
        "PAGE_UNUSED": 0xFD,
        "COMPOUND_NR_OPTIMIZED": VMEMMAP_RESERVE_NR * (4096 // sizeof_page),
    }


@dataclass(frozen=True, slots=True)
class StructPage:
    """A struct page as it stands in memory. The words shared by several fields have all names."""

    flags: int
    lru_next: int
    lru_prev: int
    mapping: int
    index: int
    private: int
    mapcount: int
    refcount: int
    memcg_data: int

    @property
    def compound_head(self) -> int | None:
        """The head's struct page, if this is a tail; else None."""
        return self.lru_next - 1 if self.lru_next & 1 else None

    @property
    def pgmap(self) -> int:
        """The device's struct dev_pagemap."""
        return self.lru_next

    @property
    def reserved(self) -> bool:
        """PG_reserved."""
        return bool(self.flags >> PG_RESERVED & 1)

    @property
    def head(self) -> bool:
        """PG_head."""
        return bool(self.flags >> PG_HEAD & 1)

    @property
    def node(self) -> int:
        """page_to_nid()."""
        return self.flags >> NODES_PGSHIFT

    @property
    def zone(self) -> int:
        """page_zonenum()."""
        return self.flags >> ZONES_PGSHIFT & (1 << NODES_PGSHIFT - ZONES_PGSHIFT) - 1


def parse_page(data: bytes) -> StructPage:
    """Read the first 64 bytes of a struct page; what a larger one has besides is not shown."""
    return StructPage(*_PAGE.unpack_from(data))


def pack_zone(pgdat: int) -> bytes:
    """Return a struct zone on the node whose pglist_data is at `pgdat`."""
    return pgdat.to_bytes(8, "little").ljust(SIZEOF_ZONE, b"\0")


def pack_pgdat(node_id: int) -> bytes:
    """Return a struct pglist_data."""
    return node_id.to_bytes(4, "little").ljust(SIZEOF_PGDAT, b"\0")


def pack_pgmap(kind: int, vmemmap_shift: int) -> bytes:
    """Return a struct dev_pagemap of a memory type; a compound is 1 << vmemmap_shift pages."""
    head = kind.to_bytes(4, "little") + vmemmap_shift.to_bytes(4, "little")
    return head.ljust(SIZEOF_PGMAP, b"\0")


def parse_pt_regs(data: bytes) -> dict[str, int]:
    """Read a struct pt_regs: registers by their SDM names, and orig_rax."""
    return dict(zip(_PT_REGS, unpack(f"<{len(_PT_REGS)}Q", data), strict=True))
