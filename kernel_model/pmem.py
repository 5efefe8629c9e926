"""The driver of persistent memory: a disk whose sectors the kernel reads through the direct map.

Knows that the driver asks for struct pages, and that it then uses the memory by address. Refuses
to know what becomes of the request (`memremap`), and what the memory holds. Linux vocabulary;
source: drivers/nvdimm/pmem.c (v6.17).
"""

from typing import TYPE_CHECKING

from kernel_model.callstack import kernel_function
from kernel_model.memremap import DevPagemap, devm_memremap_pages
from kernel_model.structs import MEMORY_DEVICE_FS_DAX

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


@kernel_function
def pmem_attach_disk(kernel: "Kernel", start: int, size: int) -> int:
    """Make a disk of physical [start, start + size)."""
    return devm_memremap_pages(kernel, DevPagemap(MEMORY_DEVICE_FS_DAX, start, size))


@kernel_function
def pmem_submit_bio(kernel: "Kernel", pa: int) -> int:
    """Read what lies at `pa` of the disk for somebody."""
    return pmem_do_read(kernel, pa)


@kernel_function
def pmem_do_read(kernel: "Kernel", pa: int) -> int:
    """Read a word by its direct-map address; a kernel with KASAN has it checked before.

    Returns the byte of shadow: 0 if the word may be read. The read itself is not done: there is
    nothing where a device's memory would be.
    """
    if kernel.kasan is None:
        return 0
    return kernel.call("__asan_load8", rdi=kernel.layout.va(pa))
