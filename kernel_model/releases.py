"""A release is a named bundle of behaviours; nothing else in the project compares versions.

Knows what each release does where releases differ, with the commit that changed it where that is
known, and otherwise the release that it was seen from. Refuses to know how: the subject's own
file does it. Linux vocabulary.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal

from kernel_model.structs import (
    MEMORY_DEVICE_COHERENT,
    MEMORY_DEVICE_FS_DAX,
    MEMORY_DEVICE_PCI_P2PDMA,
    MEMORY_DEVICE_PRIVATE,
)
from kernel_model.words import did_you_mean

Sync = Literal["explicit", "rfc-v1", "merged"]


@dataclass(frozen=True, slots=True)
class Release:
    """What one release does. `build` names the text and configuration that it is run with."""

    name: str
    summary: str
    build: str
    uname: str
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
    # add_pages() refuses memory that the direct map could not map.
    # ea72ce5da228 "x86/kaslr: Expose and use the end of the physical memory address space" (6.11)
    checks_physmem_end: bool = True
    # Memory types whose pages start with a refcount of 0 (__init_zone_device_page). Four of them
    # as seen in 6.17, two in 6.12; which of the two 6.16 has was not looked at.
    refcount_reset_types: frozenset[int] = frozenset(
        (MEMORY_DEVICE_PRIVATE, MEMORY_DEVICE_COHERENT)
    )
    # The oops. As seen: "Oops: " before the die header from 6.10 on; the preemption model in the
    # CPU line, and no longer in the header, from 6.15 on; "UID:" and the verbose taint from 6.11.
    die_prefix: str = "Oops: "
    preempt_in_header: bool = False
    uid_in_cpu_line: bool = True
    verbose_taint: bool = True
    # What taints the running kernel before any oops does (letters), and all flags there are, in
    # the order of "Tainted: G        W". 6.15 and later have a 20th, J (fwctl).
    taint: str = ""
    taint_flags: str = "GFSRMBUDAWCIOELKXTN"


_LATE_RESETS: Final = frozenset(
    (
        MEMORY_DEVICE_PRIVATE,
        MEMORY_DEVICE_COHERENT,
        MEMORY_DEVICE_FS_DAX,
        MEMORY_DEVICE_PCI_P2PDMA,
    )
)

_6_13: Final = Release(
    name="6.13",
    summary="explicit sync; where the bug of 8d400913c231 was met",
    build="6.13-drm-tip",
    uname="6.13.0-drm-tip-test+",
    preempt_in_header=True,
    taint="W",
)
_6_16: Final = replace(
    _6_13,
    name="6.16",
    summary="explicit sync: 6.16.0, before the fix came to stable",
    uname="6.16.0",
    preempt_in_header=False,
    taint="",
    taint_flags="GFSRMBUDAWCIOELKXTNJ",
    refcount_reset_types=_LATE_RESETS,
)

RELEASES: Final = {
    release.name: release
    for release in (
        Release(
            name="6.8",
            summary="explicit sync; where the bug of 4917f55b4ef9 was met",
            build="6.8",
            uname="6.8.0",
            checks_physmem_end=False,
            die_prefix="",
            preempt_in_header=True,
            uid_in_cpu_line=False,
            verbose_taint=False,
        ),
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


def find_release(name: str) -> Release:
    """Return a release by name; ValueError that lists the names, nearest first."""
    if name in RELEASES:
        return RELEASES[name]
    hint = did_you_mean(name, RELEASES)
    raise ValueError(f"unknown release {name!r}: expected {', '.join(RELEASES)}{hint}")
