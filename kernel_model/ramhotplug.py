"""RAM that comes and goes at run time, by its address: add_memory() and remove_memory().

Knows what may be added and removed this way. Refuses to know how (`hotplug`, `hotremove`), and to
put the memory to use: it stays offline, so that nobody initialises its struct pages, and it needs
no RAM behind it as long as nobody accesses it. Functions return 0 or a negative errno. Linux
vocabulary; source: mm/memory_hotplug.c (v6.17).
"""

from typing import TYPE_CHECKING, Final

from kernel_model.callstack import kernel_function
from kernel_model.errors import EBUSY, EINVAL
from kernel_model.hotplug import arch_add_memory, beyond_physmem_end, mhp_range_allowed
from kernel_model.hotremove import arch_remove_memory
from kernel_model.layout import PAGE_SHIFT
from kernel_model.sparse import SECTION_SIZE

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

MEMORY_BLOCK_SIZE: Final = SECTION_SIZE  # the least that there is


@kernel_function
def add_memory(kernel: "Kernel", start: int, size: int) -> int:
    """Add physical [start, start + size), in whole memory blocks; it stays offline."""
    return add_memory_resource(kernel, start, size)


@kernel_function
def add_memory_resource(kernel: "Kernel", start: int, size: int) -> int:
    """Add a range that nobody else has claimed; -EINVAL for one that cannot be."""
    error = _check_hotplug_memory_range(kernel, start, size, "add_memory_resource")
    return error or arch_add_memory(kernel, 0, start, size, None, None)


@kernel_function
def remove_memory(kernel: "Kernel", start: int, size: int) -> int:
    """Remove what add_memory() added."""
    return try_remove_memory(kernel, start, size)


@kernel_function
def try_remove_memory(kernel: "Kernel", start: int, size: int) -> int:
    """Remove a range of offline memory; -EBUSY if some of it is boot RAM, which is online."""
    error = _check_hotplug_memory_range(kernel, start, size, "try_remove_memory")
    if error:
        return error
    for pa in range(start, start + size, SECTION_SIZE):
        if kernel.sections.early(pa >> PAGE_SHIFT):
            why = f"the memory at {pa:#x} is boot RAM, and online"
            return kernel.refuse("try_remove_memory", EBUSY, why)
    arch_remove_memory(kernel, start, size)
    return 0


def _check_hotplug_memory_range(kernel: "Kernel", start: int, size: int, path: str) -> int:
    if (start | size) % MEMORY_BLOCK_SIZE or size <= 0:
        why = f"{start:#x} (+{size:#x}) is not a range of whole 128 MiB blocks"
        return kernel.refuse(path, EINVAL, why)
    if not mhp_range_allowed(kernel, start, size):
        return kernel.refuse(path, EINVAL, beyond_physmem_end(kernel, start + size))
    return 0
