"""A release is a named bundle of behaviours; nothing else in the project compares versions.

Knows what each release does where releases differ, with the commit that changed it where that is
known, and otherwise the release that it was seen from. Refuses to know how: the subject's own
file does it. Linux vocabulary.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal

from kernel_model.layout import Era
from kernel_model.oops_style import (
    STYLE_4_4,
    STYLE_4_6,
    STYLE_4_12,
    STYLE_4_14,
    STYLE_4_17,
    STYLE_5_4,
    STYLE_5_6,
    STYLE_5_8,
    STYLE_5_10,
    STYLE_6_8,
    STYLE_6_13,
    STYLE_6_16,
    OopsStyle,
)
from kernel_model.structs import (
    MEMORY_DEVICE_COHERENT,
    MEMORY_DEVICE_FS_DAX,
    MEMORY_DEVICE_PCI_P2PDMA,
    MEMORY_DEVICE_PRIVATE,
)
from kernel_model.words import did_you_mean

Sync = Literal["explicit", "rfc-v1", "merged"]
VmallocSync = Literal["fault", "map", "preallocated"]
Leaves = Literal["unknown", "hugetlbfs", "known"]
Validates = Literal["addresses", "frames", "presence"]
HotRemove = Literal["clears-all", "frees-pud", "keeps-pud"]
StackSync = Literal["copied", "lost", "not-needed"]
EntryFeature = Literal["checklist", "pud-thp", "saved-dirty", "swap-exclusive"]


@dataclass(frozen=True, slots=True)
class VmallocFault:
    """How vmalloc_fault() goes through the levels below the entry that it copies.

    `leaves` says whether it knows that a pud or pmd may map a page: not before f4eafd8bcd52
    "x86/mm: Fix vmalloc_fault() to handle large pages properly" (4.5); then by pud_huge() and
    pmd_huge(), which are constant 0 without CONFIG_HUGETLBFS; and by pud_large() and pmd_large()
    since 18a955219bf7 "x86/mm: Fix vmalloc_fault to use pXd_large" (4.16). `validates` says what
    it compares on the way: virtual addresses and struct pages; frame numbers, since the first of
    these; or only presence: as seen in 5.4, and from memory in 4.17, "x86/mm: Remove pointless
    checks in vmalloc_fault".
    """

    leaves: Leaves
    validates: Validates


@dataclass(frozen=True, slots=True)
class Release:
    """What one release does. `build` names the text and configuration that it is run with."""

    name: str
    summary: str
    build: str
    uname: str
    # 5-level paging is a choice at boot: from 4.17 on (as seen).
    levels: tuple[int, ...] = (4, 5)
    # Where the direct map begins, and the slot of each mm's own LDT, if it has one: see `layout`.
    # d52888aa2753 "x86/mm: Move LDT remap out of KASLR region on 5-level paging" (4.20)
    layout: Era = "ldt-below"
    # How a new top-level entry reaches the other tables:
    #   explicit  vmemmap_populate() and the direct map's init call sync_global_pgds(); others do
    #             not. 9b861528a801 "x86-64, mem: Update all PGDs for direct mapping and vmemmap
    #             mapping changes"
    #   rfc-v1    {pgd,p4d}_populate_kernel() call arch_sync_kernel_pagetables(addr), everywhere.
    #             "[RFC V1 PATCH mm-hotfixes 0/3] mm, arch: A more robust approach to sync top
    #             level kernel page tables", 2025-07-09
    #   merged    they consult ARCH_PAGE_TABLE_SYNC_MASK in core mm; the explicit calls remain.
    #             7cc183f2e67d "mm: move page table sync declarations to linux/pgtable.h",
    #             f2d2f9598ebb "mm: introduce and use {pgd,p4d}_populate_kernel()", 6659d0279980
    #             "x86/mm/64: define ARCH_PAGE_TABLE_SYNC_MASK and arch_sync_kernel_mappings()"
    sync: Sync = "explicit"
    # How one of the vmalloc area does:
    #   fault         the task that lacks it faults, and vmalloc_fault() copies it
    #   map           what maps tells the others: "x86/mm/64: Implement
    #                 arch_sync_kernel_mappings()"; 7f0a002b5a21 "x86/mm: remove vmalloc faulting"
    #                 (5.8)
    #   preallocated  there are none, since boot fills them all: 6eb82f994026 "x86/mm:
    #                 Pre-allocate P4D/PUD pages for vmalloc area", 58a18fe95e83 "x86/mm/64: Do not
    #                 sync vmalloc/ioremap mappings" (5.10)
    vmalloc_sync: VmallocSync = "preallocated"
    vmalloc_fault: VmallocFault | None = None
    # preallocate_vmalloc_pages() looks for a table behind an entry that is not present: before
    # 995909a4e22b "x86/mm/64: Do not dereference non-present PGD entries" (5.9)
    preallocates_unchecked: bool = False
    # vfree(), by way of a purge, has vmalloc_sync_all() fill all tables: since 3f8fd02b1bf1
    # "mm/vmalloc: Sync unmappings in __purge_vmap_area_lazy()" (5.3), until 763802b53a42 "x86/mm:
    # split vmalloc_sync_all()" (5.6)
    purge_syncs: bool = False
    # Kernel stacks lie in the vmalloc area: e37e43a497d5 (4.9).
    vmap_stack: bool = True
    # What a switch of tables does for the stack that it runs on:
    #   copied      its top-level entry is copied to the next table first
    #   lost        so it was meant, but with 4 levels the copy compiles to nothing: since 4.12,
    #               until 5beda7d54eaf "x86/mm/64: Fix vmapped stack syncing on very-large-memory
    #               4-level systems" (4.15)
    #   not-needed  no entry of a stack is ever missing
    stack_sync: StackSync = "not-needed"
    # What becomes of a top-level entry whose last pud goes:
    #   clears-all  it is cleared in init_mm, and sync_global_pgds() clears the copies (as seen in
    #               4.4)
    #   frees-pud   it is cleared in init_mm alone, and its table freed: f2a6a7050109 "x86: Convert
    #               the rest of the code to support p4d_t" (4.12)
    #   keeps-pud   nothing: 98fe3633c5a4 "x86/mm/hotplug: Fix BUG_ON() after hot-remove by not
    #               freeing PUD"
    hot_remove: HotRemove = "keeps-pud"
    # The compound path: 4917f55b4ef9 "mm/sparse-vmemmap: improve memory savings for compound
    # devmaps" (5.19). Marks in partly used blocks of vmemmap: 8d400913c231 "x86/vmemmap: handle
    # unpopulated sub-pmd ranges" (5.13).
    compound_vmemmap: bool = True
    sub_pmd: bool = True
    # The trampoline's table has all of the kernel's slots as they were at boot, or only the direct
    # map's first and the text's: before 51523ed1c267 "x86/64/mm: Map all kernel memory into
    # trampoline_pgd" (5.16)
    trampoline_has_all: bool = True
    # KASAN, in a kernel that has it. A device's memory gets a shadow: 0207df4fa1a8
    # "kernel/memremap, kasan: make ZONE_DEVICE with work with KASAN" (4.19). The vmalloc area has
    # one of its own, filled as it is used: 0609ae011deb "x86/kasan: support KASAN_VMALLOC" (5.5).
    kasan_device_shadow: bool = True
    kasan_vmalloc: bool = True
    # EFI's runtime services have a table of their own, or the trampoline's: before 67a9108ed431
    # "x86/efi: Build our own page table structures" (4.6)
    efi_own_table: bool = True
    # Page-table isolation: a second table for user mode (4.15).
    pti: bool = True
    # What its helpers for entries know, and whether it has a checklist for them:
    #   checklist       399145f9eb6c "mm/debug: add tests validating architecture page table
    #                   helpers" (5.8)
    #   pud-thp         transparent huge pages of PUD size: a00cc7d9dd93 "mm, x86: add support for
    #                   PUD-sized transparent hugepages" (4.11)
    #   saved-dirty     a bit for D while an entry is not writable: "x86/mm: Introduce
    #                   _PAGE_SAVED_DIRTY" (6.6)
    #   swap-exclusive  a bit in swap entries: "mm/swap: remember PG_anon_exclusive via a swp pte
    #                   bit" (5.19)
    entry_features: frozenset[EntryFeature] = frozenset(
        ("checklist", "pud-thp", "saved-dirty", "swap-exclusive")
    )
    # add_pages() refuses memory that the direct map could not map.
    # ea72ce5da228 "x86/kaslr: Expose and use the end of the physical memory address space" (6.11)
    checks_physmem_end: bool = True
    # Memory types whose pages start with a refcount of 0 (__init_zone_device_page). Four of them
    # as seen in 6.17, two in 6.12; which of the two 6.16 has was not looked at.
    refcount_reset_types: frozenset[int] = frozenset(
        (MEMORY_DEVICE_PRIVATE, MEMORY_DEVICE_COHERENT)
    )
    # How an oops is worded, and what taints the running kernel before any oops does (letters).
    oops: OopsStyle = STYLE_6_16
    taint: str = ""


_LATE_RESETS: Final = frozenset(
    (
        MEMORY_DEVICE_PRIVATE,
        MEMORY_DEVICE_COHERENT,
        MEMORY_DEVICE_FS_DAX,
        MEMORY_DEVICE_PCI_P2PDMA,
    )
)

# From the newest to the oldest: what a release did otherwise than the one after it.
_6_16: Final = Release(
    name="6.16",
    summary="explicit sync: 6.16.0, before the fix came to stable",
    build="6.13-drm-tip",
    uname="6.16.0",
    refcount_reset_types=_LATE_RESETS,
)
_6_13: Final = replace(
    _6_16,
    name="6.13",
    summary="explicit sync; where the bug of 8d400913c231 was met",
    uname="6.13.0-drm-tip-test+",
    oops=STYLE_6_13,
    taint="W",
    refcount_reset_types=frozenset((MEMORY_DEVICE_PRIVATE, MEMORY_DEVICE_COHERENT)),
)
_6_8: Final = replace(
    _6_13,
    name="6.8",
    summary="explicit sync; where the bug of 4917f55b4ef9 was met",
    build="6.8",
    uname="6.8.0",
    checks_physmem_end=False,
    oops=STYLE_6_8,
    taint="",
)
_5_10: Final = replace(
    _6_8,
    name="5.10",
    summary="the vmalloc area's top-level entries are all filled at boot, and nothing syncs it",
    build="4.4",
    uname="5.10.0",
    entry_features=frozenset(("checklist", "pud-thp")),
    compound_vmemmap=False,
    sub_pmd=False,
    trampoline_has_all=False,
    oops=STYLE_5_10,
)
_5_9_MW: Final = replace(
    _5_10,
    name="5.9-mw",
    summary="a merge window: the sync of vmalloc is gone, and what fills it at boot is broken",
    uname="5.9.0-mw",
    preallocates_unchecked=True,
    oops=STYLE_5_8,
)
_5_8: Final = replace(
    _5_10,
    name="5.8",
    summary="no lazy faults any more: what maps into the vmalloc area syncs it",
    uname="5.8.0",
    vmalloc_sync="map",
    oops=STYLE_5_8,
)
_5_6: Final = replace(
    _5_8,
    name="5.6",
    summary="vmalloc_fault(); a purge no longer syncs the vmalloc area by chance",
    uname="5.6.0",
    entry_features=frozenset(("pud-thp",)),
    vmalloc_sync="fault",
    vmalloc_fault=VmallocFault(leaves="known", validates="presence"),
    stack_sync="copied",
    oops=STYLE_5_6,
)
_5_4: Final = replace(
    _5_6,
    name="5.4",
    summary="vmalloc_fault(); a purge syncs the vmalloc area",
    uname="5.4.0",
    purge_syncs=True,
    kasan_vmalloc=False,
    oops=STYLE_5_4,
)
_4_17: Final = replace(
    _5_4,
    name="4.17",
    summary="5 levels are a choice at boot; vmalloc_fault() knows large pages for good",
    uname="4.17.0",
    layout="direct-map-first",
    purge_syncs=False,
    kasan_device_shadow=False,
    oops=STYLE_4_17,
)
_4_14: Final = replace(
    _4_17,
    name="4.14",
    summary="hot-remove keeps what it must; a switch of tables loses the stack's entry",
    uname="4.14.0",
    levels=(4,),
    vmalloc_fault=VmallocFault(leaves="hugetlbfs", validates="frames"),
    stack_sync="lost",
    pti=False,
    oops=STYLE_4_14,
)
_4_12_RC: Final = replace(
    _4_14,
    name="4.12-rc",
    summary="hot-remove frees a pud table that other top-level tables still point to",
    uname="4.12.0-rc5",
    hot_remove="frees-pud",
    oops=STYLE_4_12,
)
_4_6: Final = replace(
    _4_12_RC,
    name="4.6",
    summary="vmalloc_fault() knows large pages, if hugetlbfs is there",
    uname="4.6.0",
    entry_features=frozenset(),
    vmap_stack=False,
    stack_sync="not-needed",
    hot_remove="clears-all",
    oops=STYLE_4_6,
)
_4_4: Final = replace(
    _4_6,
    name="4.4",
    summary="4.4.0: vmalloc_fault() takes a large page for a table",
    uname="4.4.0",
    efi_own_table=False,
    vmalloc_fault=VmallocFault(leaves="unknown", validates="addresses"),
    oops=STYLE_4_4,
)

RELEASES: Final[dict[str, Release]] = {
    release.name: release
    for release in (
        _4_4,
        _4_6,
        _4_12_RC,
        _4_14,
        _4_17,
        _5_4,
        _5_6,
        _5_8,
        _5_9_MW,
        _5_10,
        _6_8,
        _6_13,
        _6_16,
        replace(
            _6_16,
            name="rfc-v1",
            summary="the first proposal: populating for the kernel syncs, on every path",
            uname="6.16.0-rc5-rfc-v1",
            sync="rfc-v1",
        ),
        replace(
            _6_16,
            name="6.17",
            summary="the merged fix: core mm syncs what it populates for the kernel",
            uname="6.17.0",
            sync="merged",
        ),
    )
}
"""All releases by name, the oldest first."""
DEFAULT_RELEASE: Final = _6_8.name
"""What is booted unless somebody says."""


def find_release(name: str) -> Release:
    """Return a release by name; ValueError that lists the names, nearest first."""
    if name in RELEASES:
        return RELEASES[name]
    hint = did_you_mean(name, RELEASES)
    raise ValueError(f"unknown release {name!r}: expected {', '.join(RELEASES)}{hint}")
