"""Oopses as mails and logs have them: run together, quoted, with an elided middle, in pieces.

COMPOUND, SUB_PMD: "[RFC V1 PATCH mm-hotfixes 2/3] x86/mm: define p*d_populate_kernel() and top
level page table sync", 2025-07-09. COVER: the mail "0/3" before it, whose archive took <TASK> for
markup. HANDLER: "Re: [PATCH] x86/mm/vmfault: Make vmalloc_fault() handle large pages", Toshi Kani,
2016-02-09. ARM64: "[PATCH v8 36/43] arm64: mm: Add support for folding PUDs at runtime", Ryan
Roberts, 2024-03-01. The others are made up, after what the releases print.
"""

from typing import Final

_COMPOUND_HEAD: Final = (
    "BUG: unable to handle page fault for address: ffffe70000000034 #PF: supervisor write access "
    "in kernel mode #PF: error_code(0x0002) - not-present page PGD 0 P4D 0 Oops: 0002 [#1] SMP "
    "NOPTI RIP: 0010:__init_single_page+0x9/0x6d Call Trace: "
)
_COMPOUND_TRACE: Final = (
    "__init_zone_device_page+0x17/0x5d memmap_init_zone_device+0x154/0x1bb "
    "pagemap_range+0x2e0/0x40f memremap_pages+0x10b/0x2f0 devm_memremap_pages+0x1e/0x60 "
    "dev_dax_probe+0xce/0x2ec [device_dax] dax_bus_probe+0x6d/0xc9 [... snip ...]"
)
_AFTERWARDS: Final = (
    "It turns out that the kernel panics while initializing vmemmap (struct page array) when the "
    "vmemmap region spans two PGD entries, because the new PGD entry is only installed in "
    "init_mm.pgd, but not in the page tables of other tasks."
)

COMPOUND: Final = f"{_COMPOUND_HEAD}<TASK> {_COMPOUND_TRACE} </TASK>\n{_AFTERWARDS}\n".encode()
COVER: Final = f"{_COMPOUND_HEAD}{_COMPOUND_TRACE} {_AFTERWARDS}".encode()

SUB_PMD: Final = (
    b"BUG: unable to handle page fault for address: ffffeb3ff1200000 #PF: supervisor write access "
    b"in kernel mode #PF: error_code(0x0002) - not-present page PGD 0 P4D 0 Oops: Oops: 0002 [#1] "
    b"PREEMPT SMP NOPTI Tainted: [W]=WARN RIP: 0010:vmemmap_set_pmd+0xff/0x230 <TASK> "
    b"vmemmap_populate_hugepages+0x176/0x180 vmemmap_populate+0x34/0x80 "
    b"__populate_section_memmap+0x41/0x90 sparse_add_section+0x121/0x3e0 __add_pages+0xba/0x150 "
    b"add_pages+0x1d/0x70 memremap_pages+0x3dc/0x810 devm_memremap_pages+0x1c/0x60 "
    b"xe_devm_add+0x8b/0x100 [xe] xe_tile_init_noalloc+0x6a/0x70 [xe] "
    b"xe_device_probe+0x48c/0x740 [xe] [... snip ...]\n"
)

HANDLER: Final = """\
 BUG: unable to handle kernel paging request at ffff880840000ff8
ÂIP: [<ffffffff810664ae>] vmalloc_fault+0x1be/0x300
ÂPGD c7f03a067 PUD 0Â
ÂOops: 0000 [#1] SM
 Â:
ÂCall Trace:
Â[<ffffffff81067335>] __do_page_fault+0x285/0x3e0
Â[<ffffffff810674bf>] do_page_fault+0x2f/0x80
Â[<ffffffff810d6d85>] ? put_prev_entity+0x35/0x7a0
Â[<ffffffff817a6888>] page_fault+0x28/0x30
Â[<ffffffff813bb976>] ? memcpy_erms+0x6/0x10
Â[<ffffffff817a0845>] ? schedule+0x35/0x80
Â[<ffffffffa006350a>] ? pmem_rw_bytes+0x6a/0x190 [nd_pmem]
Â[<ffffffff817a3713>] ? schedule_timeout+0x183/0x240
Â[<ffffffffa028d2b3>] btt_log_read+0x63/0x140 [nd_btt]
 Â:
Â[<ffffffff811201d0>] ? __symbol_put+0x60/0x60
Â[<ffffffff8122dc60>] ? kernel_read+0x50/0x80
Â[<ffffffff81124489>] SyS_finit_module+0xb9/0xf0
Â[<ffffffff817a4632>] entry_SYSCALL_64_fastpath+0x1a/0xa4

Note that this issue is limited to 64-bit.
""".encode()

ARM64: Final = b"""\
>>> [    0.162046] Unable to handle kernel NULL pointer dereference at virtual address 0000000008
>>> [    0.162332] Mem abort info:
>>> [    0.162427]   ESR = 0x0000000096000004
>>> [    0.163934] Internal error: Oops: 0000000096000004 [#1] PREEMPT SMP
>>> [    0.164704] pstate: 21400005 (nzCv daif +PAN -UAO -TCO +DIT -SSBS BTYPE=--)
>>> [    0.165052] pc : get_pfnblock_flags_mask+0x3c/0x68
"""

PLAIN: Final = b"""\
BUG: unable to handle page fault for address: ffffe70000000034
#PF: supervisor write access in kernel mode
#PF: error_code(0x0002) - not-present page
PGD 0 P4D 0
Oops: 0002 [#1] PREEMPT SMP PTI
CPU: 3 PID: 4711 Comm: daxctl (old) Tainted: P        W  OE     5.16.9-1 #1 9b4aacbfd226a4d2
Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.10.2-1ubuntu1 04/01/2014
RIP: 0010:__init_single_page+0x9/0x6d
Code: 90 90 90 <c7> 47 34 01 00 00 00
RSP: 0018:ffffc900006dfbf8 EFLAGS: 00010216
RAX: 0000000000000001 RBX: dead000000000100 RCX: 000000000000003f
RBP: ffffc900006dfd70 R08: 0000000000000008 R09: 00000000013646c0
FS:  00007f5f4e2b5740(0000) GS:ffff88843fd80000(0000) knlGS:0000000000000000
CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033
CR2: ffffe70000000034 CR3: 0000000017c7d000 CR4: 0000000000750ef0
Call Trace:
 <TASK>
 __init_zone_device_page+0x17/0x5d
 ? asm_exc_page_fault+0x26/0x30
 do_syscall_64+0x5c/0x90
RIP: 0033:0x7f5f4e3c1e8d
RAX: ffffffffffffffda RBX: 0000000000000009 RCX: 00007f5f4e3c1e8d
 </TASK>
Modules linked in: device_dax(+) xe
CR2: ffffe70000000034
---[ end trace 0000000000000000 ]---
"""

FIVE_LEVELS: Final = (
    PLAIN.replace(b"PGD 0 P4D 0\n", b"PGD 0 \n")
    .replace(b"CR4: 0000000000750ef0", b"CR4: 0000000000751ef0")
    .replace(b"ffffe70000000034", b"ffd4000000000034")
)


def without(text: bytes, start: bytes) -> bytes:
    """The text without the lines that begin so."""
    return b"\n".join(line for line in text.split(b"\n") if not line.startswith(start))
