"""Page-table isolation: a second table for user mode, which has next to nothing of the kernel's.

Knows what is in a user's table: the task's own half, mirrored entry by entry, and what boot cloned
of the kernel's. Refuses to know when which of the two is active: that is the entry code
(asm/entry/pti.S). Linux vocabulary; source: arch/x86/mm/pti.c, arch/x86/include/asm/pgtable.h
(v6.17).

The two tables are neighbours, so that one bit of CR3 tells them apart. What is cloned stays as it
is: a new top-level entry of the kernel's is no user's business, and no sync reaches it. The legacy
vsyscall page is left out.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from emu import PhysAddr, VirtAddr, map_page
from emu.descriptors import KERNEL_CODE, USER_DATA
from emu.paging import ENTRIES, PS, RW, US, XD, A, D, P, index
from emu.registers import MSR_FMASK, MSR_LSTAR, MSR_STAR
from kernel_model.layout import CPU_ENTRY_AREA, ESPFIX, PAGE_SIZE
from kernel_model.pgtable import PAGE_TABLE, none, present, table
from kernel_model.writers import telling

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.mm import Mm

USER_SLOTS: Final = 256
_KERNPG_TABLE: Final = 0x63  # P RW A D
_USER_PAGE: Final = P | RW | US | A | D
_SYSCALL_FLAGS: Final = 0x4_7700  # cleared by a system call: AC NT IOPL DF IF TF


def user_table(pgd: PhysAddr) -> PhysAddr:
    """Return where the user's table lies, given the kernel's, which is 8 KiB aligned."""
    return PhysAddr(pgd | PAGE_SIZE)


def pti_init(kernel: "Kernel", text: Iterable[int]) -> None:
    """Clone into init_mm's user half what all users get, and have system calls enter the text.

    `text` lists the 2 MiB pages of it: all are cloned, since the CPU uses no PCIDs (8c06c7740d19
    "x86/pti: Leave kernel text global for !PCID"). Raises OutOfFrames.
    """
    for addr in (CPU_ENTRY_AREA, ESPFIX):
        _clone_p4d(kernel, addr)
    for addr in text:
        _clone_pmd(kernel, addr)
    for cpu in kernel.machine.cpus:
        cpu.write_msr(MSR_STAR, KERNEL_CODE << 32 | USER_DATA - 8 << 48)
        cpu.write_msr(MSR_LSTAR, kernel.image.address("entry_SYSCALL_64"))
        cpu.write_msr(MSR_FMASK, _SYSCALL_FLAGS)


def set_top(kernel: "Kernel", mm: "Mm", addr: int, entry: int) -> None:
    """set_pgd(), or set_p4d() where it is folded: write a task's top-level entry.

    One of the user half goes into both tables, and the kernel may not execute what is there.
    """
    pgtable = kernel.pgtable
    if mm.user is not None and index(addr, pgtable.top_level) < USER_SLOTS:
        pgtable.set(pgtable.pgd_offset(mm.user.pgd, addr), entry)
        if entry & (P | US) == P | US:
            entry |= XD
    pgtable.set(pgtable.pgd_offset(mm.pgd, addr), entry)


def map_user_page(kernel: "Kernel", mm: "Mm", addr: int, data: bytes) -> None:
    """Give a task a page of its own that starts with `data`. Raises OutOfFrames."""
    pgtable = kernel.pgtable
    if pgtable.top_none(pgtable.get(pgtable.pgd_offset(mm.pgd, addr))):
        set_top(kernel, mm, addr, kernel.frames.allocate() | PAGE_TABLE)
    frame = kernel.frames.allocate()
    kernel.memory.write(frame, data)
    paging = kernel.paging(mm)
    with telling(kernel, mm, VirtAddr(addr), "map_user_page"):
        map_page(kernel.memory, kernel.frames, paging, VirtAddr(addr), frame, _USER_PAGE)


def free_own_tables(kernel: "Kernel", mm: "Mm") -> None:
    """Free what only one task has: the tables and pages of its user half, and of its LDT slot."""
    words = kernel.memory.words
    for slot in (*range(USER_SLOTS), kernel.layout.ldt_slot):
        entry = words[(mm.pgd >> 3) + slot]
        if present(entry):
            _free(kernel, table(entry), kernel.pgtable.top_level - 1)


def _free(kernel: "Kernel", pa: PhysAddr, level: int) -> None:
    for entry in kernel.memory.words[pa >> 3 : (pa >> 3) + ENTRIES].tolist():
        if present(entry) and level == 1:
            kernel.frames.free(table(entry))
        elif present(entry):
            _free(kernel, table(entry), level - 1)
    kernel.frames.free(pa)


def _clone_p4d(kernel: "Kernel", addr: int) -> None:
    """Share all that lies in the 512 GiB around `addr`, now and later: its pud table.

    The kernel has one by now (init_espfix_bsp() makes espfix's); here it may get it this late.
    """
    pgtable = kernel.pgtable
    kernel_pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, addr)
    kernel_p4dp = _filled(kernel, pgtable.p4d_offset(kernel_pgdp, addr))
    pgtable.set(_user_p4dp(kernel, addr), pgtable.get(kernel_p4dp))


def _clone_pmd(kernel: "Kernel", addr: int) -> None:
    """Share the 2 MiB around `addr`, and nothing else of what the upper tables lead to."""
    pgtable = kernel.pgtable
    kernel_p4dp = pgtable.p4d_offset(pgtable.pgd_offset(kernel.init_mm.pgd, addr), addr)
    kernel_pmdp = pgtable.pmd_offset(pgtable.pud_offset(kernel_p4dp, addr), addr)
    pmd = pgtable.get(kernel_pmdp)
    assert pmd & PS, f"text at {addr:#x} is not mapped by a 2 MiB page"
    pudp = pgtable.pud_offset(_filled(kernel, _user_p4dp(kernel, addr)), addr)
    pgtable.set(pgtable.pmd_offset(_filled(kernel, pudp), addr), pmd)


def _user_p4dp(kernel: "Kernel", addr: int) -> PhysAddr:
    """Return where the p4d for `addr` lies in init_mm's user half."""
    assert kernel.init_mm.user is not None
    pgtable = kernel.pgtable
    pgdp = pgtable.pgd_offset(kernel.init_mm.user.pgd, addr)
    return pgtable.p4d_offset(pgdp if pgtable.p4d_folded else _filled(kernel, pgdp), addr)


def _filled(kernel: "Kernel", entry_pa: PhysAddr) -> PhysAddr:
    """Put a table under an entry that has none, and return where the entry lies."""
    if none(kernel.pgtable.get(entry_pa)):
        kernel.pgtable.set(entry_pa, kernel.frames.allocate() | _KERNPG_TABLE)
    return entry_pa
