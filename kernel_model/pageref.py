"""How many mappings share a frame: _refcount of the frame's own struct page.

Knows that the frame of a deduplicated memmap goes when its last mapping does. Refuses to know who
maps it (`vmemmap`) and takes it away (`hotremove`). Linux vocabulary; source: get_page() and
put_page() as mm/sparse-vmemmap.c (v6.17) uses them.

The struct pages of boot RAM are never initialised here: their _refcount begins with 0, and counts
the mappings besides the first.
"""

from typing import TYPE_CHECKING

from emu import PhysAddr
from kernel_model.layout import PAGE_SHIFT
from kernel_model.structs import PAGE_REFCOUNT

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


def get_page(kernel: "Kernel", frame: PhysAddr, nr: int) -> None:
    """Count `nr` more mappings of a frame that has one."""
    at = _refcount(kernel, frame)
    kernel.memory.write(at, (_read(kernel, at) + nr).to_bytes(4, "little"))


def put_page(kernel: "Kernel", frame: PhysAddr, nr: int) -> bool:
    """Count `nr` mappings less; tell whether none is left."""
    at = _refcount(kernel, frame)
    left = _read(kernel, at) + 1 - nr
    kernel.memory.write(at, max(left - 1, 0).to_bytes(4, "little"))
    return left <= 0


def _refcount(kernel: "Kernel", frame: PhysAddr) -> PhysAddr:
    """Return where the _refcount of a frame of boot RAM lies."""
    pa = kernel.walk(kernel.layout.pfn_to_page(frame >> PAGE_SHIFT) + PAGE_REFCOUNT).pa
    assert pa is not None  # boot RAM has its struct pages
    return pa


def _read(kernel: "Kernel", at: PhysAddr) -> int:
    return int.from_bytes(kernel.memory.peek(at, 4), "little")
