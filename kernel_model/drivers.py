"""The drivers that ask for device memory: device-dax, xe for a GPU's own memory, and nd_btt.

Knows the calls from a bus's probe down to devm_memremap_pages(), and back, and those that read a
persistent memory device through its mapping. Refuses to know what becomes of the memory
(`memremap`, `vmalloc`), and everything else that a driver does. Linux vocabulary; source:
drivers/dax/device.c (v6.17), and the call traces in "[RFC V1 PATCH mm-hotfixes 2/3] x86/mm: define
p*d_populate_kernel() and top level page table sync" for xe, and "Re: [PATCH] x86/mm/vmfault: Make
vmalloc_fault() handle large pages" (Toshi Kani, 2016-02-09) for nd_btt.
"""

from typing import TYPE_CHECKING, Final

from emu import Stop
from kernel_model.callstack import kernel_function
from kernel_model.errors import EINVAL, KernelError
from kernel_model.layout import PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, PUD_SIZE
from kernel_model.memremap import (
    DevPagemap,
    devm_memremap_pages,
    devm_memremap_pages_release,
)
from kernel_model.structs import MEMORY_DEVICE_GENERIC, MEMORY_DEVICE_PRIVATE

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.mm import Task


@kernel_function
def dax_bus_probe(kernel: "Kernel", start: int, size: int, align: int) -> int:
    """Probe a dax device of physical [start, start + size) whose pages come `align` bytes big."""
    return dev_dax_probe(kernel, start, size, align)


@kernel_function
def dev_dax_probe(kernel: "Kernel", start: int, size: int, align: int) -> int:
    """Map a device-dax range, as compounds of `align` if that is more than a page.

    -EINVAL for an `align` that no level maps, or that the range is not a multiple of.
    """
    if align not in (PAGE_SIZE, PMD_SIZE, PUD_SIZE):
        return kernel.refuse("dev_dax_probe", EINVAL, f"no level maps pages of {align:#x} bytes")
    if (start | size) % align:
        why = f"{start:#x} (+{size:#x}) is not a multiple of {align:#x}"
        return kernel.refuse("dev_dax_probe", EINVAL, why)
    shift = (align >> PAGE_SHIFT).bit_length() - 1 if align > PAGE_SIZE else 0
    pgmap = DevPagemap(MEMORY_DEVICE_GENERIC, start, size, vmemmap_shift=shift)
    return devm_memremap_pages(kernel, pgmap)


@kernel_function
def xe_device_probe(kernel: "Kernel", start: int, size: int) -> int:
    """Probe a GPU whose memory gets device-private pages at physical [start, start + size)."""
    return xe_tile_init_noalloc(kernel, start, size)


@kernel_function
def xe_tile_init_noalloc(kernel: "Kernel", start: int, size: int) -> int:
    """Set one tile up."""
    return xe_devm_add(kernel, start, size)


@kernel_function
def xe_devm_add(kernel: "Kernel", start: int, size: int) -> int:
    """Make struct pages for the tile's memory."""
    return devm_memremap_pages(kernel, DevPagemap(MEMORY_DEVICE_PRIVATE, start, size))


@kernel_function
def devres_release_all(kernel: "Kernel", start: int) -> None:
    """Unbind the driver of the device whose memory begins at physical `start`.

    These drivers have nothing of their own to undo. KernelError if there is no such device.
    """
    found = [pgmap for pgmap in kernel.devres if pgmap.start == start]
    if not found:
        raise KernelError(f"no device has memory from {start:#x} on")
    devm_memremap_pages_release(kernel, found[0])


FINIT_MODULE: Final = "entry_SYSCALL_64_fastpath"


def load_nd_btt(kernel: "Kernel", task: "Task", to: int, addr: int, size: int) -> Stop:
    """Have a task load nd_btt, which reads [addr, addr + size) of a device to `to`.

    All of it runs on the CPU, from the system call on where the build has code for that.
    """
    entry = FINIT_MODULE if FINIT_MODULE in kernel.routines else "btt_log_read"
    return kernel.run(task, entry, rdi=to, rsi=addr, rdx=size)
