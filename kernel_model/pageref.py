"""How many mappings share a frame: _refcount of the frame's own struct page.

Knows that the frame of a deduplicated memmap goes when its last mapping does. Refuses to know who
maps it (`vmemmap`) and takes it away (`hotremove`). Linux vocabulary; source: get_page() and
put_page() as mm/sparse-vmemmap.c (v6.17) uses them.

The struct pages of boot RAM are never initialised here: their _refcount begins with 0, and counts
the mappings besides the first.
"""

from typing import TYPE_CHECKING, Final

from emu import PhysAddr
from kernel_model.layout import PAGE_SHIFT
from kernel_model.structs import PAGE_REFCOUNT

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_SHIFT: Final = 8 * (PAGE_REFCOUNT % 8)  # _refcount is the upper half of a word


def get_page(kernel: "Kernel", frame: PhysAddr, nr: int) -> None:
    """Count `nr` more mappings of a frame that has one."""
    kernel.memory.words[_word(kernel, frame)] += nr << _SHIFT


def put_page(kernel: "Kernel", frame: PhysAddr, nr: int) -> bool:
    """Count `nr` mappings less; tell whether none is left."""
    words, at = kernel.memory.words, _word(kernel, frame)
    besides = words[at] >> _SHIFT
    words[at] -= min(nr, besides) << _SHIFT
    return bool(nr > besides)


def _word(kernel: "Kernel", frame: PhysAddr) -> int:
    """Return the index of the word of RAM whose upper half is a frame's _refcount."""
    pa = kernel.walk(kernel.layout.pfn_to_page(frame >> PAGE_SHIFT) + PAGE_REFCOUNT).pa
    assert pa is not None  # boot RAM has its struct pages
    return pa >> 3
