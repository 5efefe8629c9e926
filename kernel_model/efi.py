"""EFI: a runtime service is called on a table of its own, which is made to agree before the call.

Knows that table, what is copied into it and when. Refuses to know what firmware does: it is code
of its own (asm/firmware/runtime.S), in a part of the address space that only its table maps. Linux
vocabulary; source: arch/x86/platform/efi/efi_64.c (v6.17), 67a9108ed431 "x86/efi: Build our own
page table structures" (4.6); before that it is the trampoline's table.

The table is not on pgd_list. A call sees what init_mm had when the call began. The mappings at
physical addresses, which firmware gets too, are left out.
"""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple

from asm import Image, assemble_file, link
from emu import PhysAddr, VirtAddr, map_page
from emu.paging import ENTRIES, ENTRY_SIZE, RW, XD, A, D, P, index
from kernel_model.callstack import kernel_function
from kernel_model.history import Copied, Mapped
from kernel_model.layout import PAGE_SIZE, PMD_SIZE
from kernel_model.mm import Mm
from kernel_model.pgtable import PAGE_TABLE, table
from kernel_model.realmode import outside, trampoline_pgd

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

EFI_VA_START: Final = 0xFFFF_FFFF_0000_0000  # the window is filled from here down,
EFI_VA_END: Final = 0xFFFF_FFEF_0000_0000  # to here
NAME: Final = "efi_mm"
_PATH: Final = "efi_sync_low_kernel_mappings"


class _Region(NamedTuple):
    """What firmware's memory map says of one of its regions: a page of it, as all are here."""

    section: str
    pa: PhysAddr
    flags: int


_REGIONS: Final = (
    _Region(".text", PhysAddr(0x80_0000), P | RW | A | D),
    _Region(".data", PhysAddr(0x80_1000), P | RW | A | D | XD),
)


def efi_init(kernel: "Kernel") -> None:
    """Make EFI's table, and map the runtime services in its window. Raises OutOfFrames."""
    if kernel.release.efi_own_table:
        mm = Mm(NAME, kernel.frames.allocate())
        kernel.outside[mm] = None
    else:
        mm = trampoline_pgd(kernel)
    places = _places()
    for section, pa, flags in _REGIONS:
        map_page(
            kernel.memory,
            kernel.frames,
            kernel.paging(mm),
            places[section],
            pa,
            flags,
            table_flags=PAGE_TABLE,
        )
        kernel.history.append(
            Mapped("EFI", places[section], places[section] + PAGE_SIZE, "efi_map_region", mm.name)
        )
    for segment in _firmware().segments:
        pa = next(region.pa for region in _REGIONS if region.section == segment.name)
        kernel.memory.write(pa, segment.data)
    efi_sync_low_kernel_mappings(kernel)


def efi_mm(kernel: "Kernel") -> Mm:
    """Return the table that runtime services run on; KernelError if there is none."""
    return outside(kernel, NAME) if kernel.release.efi_own_table else trampoline_pgd(kernel)


def efi_sync_low_kernel_mappings(kernel: "Kernel") -> None:
    """Copy init_mm's kernel slots to EFI's table, as they are now.

    The slot that has the window is the table's own one: of what lies under it, all around the
    window is copied.
    """
    layout, pgtable, mm = kernel.layout, kernel.pgtable, efi_mm(kernel)
    first, last = layout.kernel_pgd_boundary, layout.pgd_index(EFI_VA_END)
    new, old = mm.pgd, kernel.init_mm.pgd
    _copy(kernel, new, old, first, last)
    kernel.history.append(Copied(mm.name, first, last - 1, _PATH))
    if not kernel.release.efi_own_table:
        return
    new, old = (pgtable.pgd_offset(pgd, EFI_VA_END) for pgd in (new, old))
    if not pgtable.p4d_folded:
        _copy(kernel, _below(kernel, new), _below(kernel, old), 0, index(EFI_VA_END, 4))
        new, old = (pgtable.p4d_offset(pgdp, EFI_VA_END) for pgdp in (new, old))
    new, old = _below(kernel, new), _below(kernel, old)
    _copy(kernel, new, old, 0, index(EFI_VA_END, 3))
    _copy(kernel, new, old, index(EFI_VA_START, 3), ENTRIES)


def variable_store(kernel: "Kernel", size: int) -> bytes:
    """Return the first bytes of what firmware keeps."""
    return kernel.memory.read(_REGIONS[1].pa, size)


def service(symbol: str) -> VirtAddr:
    """Return the address of a place in the firmware: a service, or "set_variable_read"."""
    return VirtAddr(_firmware().parse(symbol))


@kernel_function
def virt_efi_set_variable_nonblocking(kernel: "Kernel", data: int, size: int) -> int:
    """Have firmware keep `size` bytes at `data`, and return its status.

    The call is made by the running task itself. (Others are made by a worker, and since
    3425d934fc03 "efi/x86: Handle page faults occurring while running EFI runtime services" (4.20)
    a fault of firmware in there ends the services, not the kernel.)
    """
    task = kernel.current.mm
    efi_sync_low_kernel_mappings(kernel)
    kernel.switch_mm(efi_mm(kernel))
    status = kernel.call("__efi_call", rdi=service("set_variable"), rsi=data, rdx=size)
    kernel.switch_mm(task)
    return status


@cache
def _places() -> dict[str, VirtAddr]:
    """efi_map_region(): give the regions their places, from the window's upper end down.

    A region keeps its offset in 2 MiB, so that it can be mapped by large pages.
    """
    places: dict[str, VirtAddr] = {}
    va = EFI_VA_START
    for section, pa, _ in _REGIONS:
        below = va - PAGE_SIZE
        va = below // PMD_SIZE * PMD_SIZE + pa % PMD_SIZE
        va -= PMD_SIZE if va > below else 0
        places[section] = VirtAddr(va)
    return places


@cache
def _firmware() -> Image:
    return link([assemble_file(files("asm") / "firmware/runtime.S")], _places())


def _below(kernel: "Kernel", entry_pa: PhysAddr) -> PhysAddr:
    return table(kernel.pgtable.get(entry_pa))


def _copy(kernel: "Kernel", new: PhysAddr, old: PhysAddr, first: int, end: int) -> None:
    """Copy entries [first, end) from one table to another."""
    words = kernel.memory.words
    to, source = new // ENTRY_SIZE, old // ENTRY_SIZE
    words[to + first : to + end] = words[source + first : source + end]
    kernel.pgtable.writers.tell(new + ENTRY_SIZE * first, end - first)
