"""The two oopses, line by line, as a mail quotes them that runs lines together and leaves some out.

The mail: "[RFC V1 PATCH mm-hotfixes 2/3] x86/mm: define p*d_populate_kernel() and top level page
table sync", 2025-07-09.
"""

from typing import Final

# The faulting routine first: what stands behind its + is RIP, and a return address further out.
COMPOUND_TRACE: Final = (
    "__init_single_page+0x9/0x6d",
    "__init_zone_device_page+0x17/0x5d",
    "memmap_init_zone_device+0x154/0x1bb",
    "pagemap_range+0x2e0/0x40f",
    "memremap_pages+0x10b/0x2f0",
    "devm_memremap_pages+0x1e/0x60",
    "dev_dax_probe+0xce/0x2ec [device_dax]",
    "dax_bus_probe+0x6d/0xc9",
)
SUB_PMD_TRACE: Final = (
    "vmemmap_set_pmd+0xff/0x230",
    "vmemmap_populate_hugepages+0x176/0x180",
    "vmemmap_populate+0x34/0x80",
    "__populate_section_memmap+0x41/0x90",
    "sparse_add_section+0x121/0x3e0",
    "__add_pages+0xba/0x150",
    "add_pages+0x1d/0x70",
    "memremap_pages+0x3dc/0x810",
    "devm_memremap_pages+0x1c/0x60",
    "xe_devm_add+0x8b/0x100 [xe]",
    "xe_tile_init_noalloc+0x6a/0x70 [xe]",
    "xe_device_probe+0x48c/0x740 [xe]",
)

COMPOUND: Final = (
    "BUG: unable to handle page fault for address: ffffe70000000034",
    "#PF: supervisor write access in kernel mode",
    "#PF: error_code(0x0002) - not-present page",
    "PGD 0 P4D 0 ",
    "Oops: 0002 [#1] SMP NOPTI",
    f"RIP: 0010:{COMPOUND_TRACE[0]}",
    "Call Trace:",
    " <TASK>",
    *(f" {frame}" for frame in COMPOUND_TRACE[1:]),
    " </TASK>",
)

SUB_PMD: Final = (
    "BUG: unable to handle page fault for address: ffffeb3ff1200000",
    "#PF: supervisor write access in kernel mode",
    "#PF: error_code(0x0002) - not-present page",
    "PGD 0 P4D 0 ",
    "Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI",
    "Tainted: [W]=WARN",
    f"RIP: 0010:{SUB_PMD_TRACE[0]}",
    " <TASK>",
    *(f" {frame}" for frame in SUB_PMD_TRACE[1:]),
)
