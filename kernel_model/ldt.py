"""The local descriptor table of a task, as page-table isolation maps it.

Knows that it lies in a top-level slot that every task has for itself, and that nobody copies:
fork does not, since init_mm has nothing there, and for the same reason no sync does. Refuses to
know descriptors. Linux vocabulary; source: arch/x86/kernel/ldt.c (v6.17), f55f0501cbf6 "x86/pti:
Put the LDT in its own PGD if PTI is on" (4.15).

The CPU reads the table in user mode too, so that its slot is in both of the task's tables.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emu import OutOfFrames, PhysAddr, VirtAddr, map_page, unmap_page
from emu.paging import XD, A, D, P
from kernel_model.errors import EINVAL, ENOMEM, KernelError
from kernel_model.history import Mapped
from kernel_model.layout import PAGE_SIZE
from kernel_model.pgtable import PAGE_TABLE
from kernel_model.writers import telling

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.mm import Mm

LDT_ENTRIES: Final = 8192
LDT_ENTRY_SIZE: Final = 8
LDT_SLOT_STRIDE: Final = LDT_ENTRIES * LDT_ENTRY_SIZE
_PAGE_KERNEL_RO: Final = P | A | D | XD  # and not global


@dataclass(frozen=True, slots=True)
class Ldt:
    """One state of the table. `number` is 0 or 1: a new state lies where the old one does not."""

    base: VirtAddr
    number: int
    pages: tuple[PhysAddr, ...]


def write_ldt(kernel: "Kernel", mm: "Mm", entry_number: int, descriptor: int) -> int:
    """modify_ldt(): put a descriptor into the task's table, as a new state of it; 0 or -errno.

    KernelError without page-table isolation: the table is somewhere else then.
    """
    if mm.user is None:
        raise KernelError(f"{mm.name} has no table for user mode: expected a Kernel(pti=True)")
    if not 0 <= entry_number < LDT_ENTRIES:
        why = f"entry {entry_number}: expected 0 to {LDT_ENTRIES - 1}"
        return kernel.refuse("write_ldt", EINVAL, why)
    old = mm.ldt
    entries = b"".join(kernel.memory.read(page, PAGE_SIZE) for page in old.pages) if old else b""
    at = LDT_ENTRY_SIZE * entry_number
    size = max(len(entries), -(-(at + LDT_ENTRY_SIZE) // PAGE_SIZE) * PAGE_SIZE)
    new = bytearray(entries.ljust(size, b"\0"))
    new[at : at + LDT_ENTRY_SIZE] = descriptor.to_bytes(LDT_ENTRY_SIZE, "little")
    number = 1 - old.number if old else 0
    base = kernel.layout.slot_base(kernel.layout.ldt_slot) + number * LDT_SLOT_STRIDE
    pages: list[PhysAddr] = []
    try:
        for offset in range(0, size, PAGE_SIZE):
            pages.append(kernel.frames.allocate())
            kernel.memory.write(pages[-1], new[offset : offset + PAGE_SIZE])
            _map(kernel, mm, VirtAddr(base + offset), pages[-1])
    except OutOfFrames:
        _unmap(kernel, mm, Ldt(VirtAddr(base), number, tuple(pages)))
        return kernel.refuse("write_ldt", ENOMEM, f"no frame is left for {size:#x} bytes of LDT")
    mm.ldt = Ldt(VirtAddr(base), number, tuple(pages))
    detail = f"in the tables of {mm.name} alone"
    kernel.history.append(Mapped("LDT", base, base + size, "map_ldt_struct", detail))
    if old is not None:
        _unmap(kernel, mm, old)
    return 0


def _map(kernel: "Kernel", mm: "Mm", addr: VirtAddr, page: PhysAddr) -> None:
    """map_ldt_struct(): into the kernel's table of a task, whose top entry the user's gets too."""
    assert mm.user is not None
    with telling(kernel, mm, addr, "map_ldt_struct"):
        map_page(
            kernel.memory,
            kernel.frames,
            kernel.paging(mm),
            addr,
            page,
            _PAGE_KERNEL_RO,
            table_flags=PAGE_TABLE,
        )
    pgtable = kernel.pgtable
    entry = pgtable.get(pgtable.pgd_offset(mm.pgd, addr))
    pgtable.set(pgtable.pgd_offset(mm.user.pgd, addr), entry)


def _unmap(kernel: "Kernel", mm: "Mm", ldt: Ldt) -> None:
    """unmap_ldt_struct(), and free it. The tables stay until the task exits."""
    for i, page in enumerate(ldt.pages):
        addr = VirtAddr(ldt.base + i * PAGE_SIZE)
        if kernel.walk(addr, mm).verdict == "mapped":  # the last one may have found no tables
            with telling(kernel, mm, addr, "unmap_ldt_struct"):
                unmap_page(kernel.memory, kernel.paging(mm), addr)
        kernel.frames.free(page)
    kernel.flush_tlb_all()
