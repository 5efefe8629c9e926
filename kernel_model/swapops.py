"""Entries of pages that are not there: swapped out, or on their way to another frame.

Knows where such an entry keeps its type, its offset and two flags. Refuses to know who swaps.
Linux vocabulary; source: arch/x86/include/asm/pgtable_64.h, include/linux/swapops.h (v6.17).

    63 .. 59   58 ..................... 9   8  7   6..4  3   2   1   0
    +--------+---------------------------+---+---+-----+---+---+---+---+
    |  type  |  offset, inverted         | 0 | 0 |     | E | F | SD| 0 |
    +--------+---------------------------+---+---+-----+---+---+---+---+

E is exclusive, SD soft-dirty, F userfaultfd's. Bits 8 and 7 would make it present (PROTNONE, PSE).
Older releases have the type low and the offset above it, and soft-dirty in bit 7; the checks are
blind to that, so this layout stands for all of them.
"""

from typing import Final, NamedTuple

from kernel_model.pgtable import none

TYPE_BITS: Final = 5
OFFSET_BITS: Final = 50
_TYPE_SHIFT: Final = 64 - TYPE_BITS
_OFFSET_SHIFT: Final = 9
_OFFSET_MASK: Final = (1 << OFFSET_BITS) - 1
SWP_SOFT_DIRTY: Final = 1 << 1
SWP_EXCLUSIVE: Final = 1 << 3
_PRESENT: Final = 1 << 0 | 1 << 7 | 1 << 8  # any of these

# Types that are no swap files. Which ones these are depends on the configuration; here as with
# four types of device memory, the hardware-poison type and the pte markers, all configured.
SWP_MIGRATION_READ: Final = 24
SWP_MIGRATION_READ_EXCLUSIVE: Final = 25
SWP_MIGRATION_WRITE: Final = 26


class SwpEntry(NamedTuple):
    """What is where: a slot of a swap file, or a frame on the move (swp_entry_t)."""

    type: int
    offset: int

    def __repr__(self) -> str:
        return f"SwpEntry(type {self.type}, offset {self.offset:#x})"


EVERY_BIT: Final = SwpEntry((1 << TYPE_BITS) - 1, _OFFSET_MASK)
"""The entry that fills all the room there is."""


def swp_entry_to_pte(entry: SwpEntry) -> int:
    """Return the pte, or the pmd, of a page that is there."""
    return entry.type << _TYPE_SHIFT | (~entry.offset & _OFFSET_MASK) << _OFFSET_SHIFT


def pte_to_swp_entry(pte: int) -> SwpEntry:
    """Return where the page of a pte, or a pmd, is; its flags do not matter."""
    return SwpEntry(pte >> _TYPE_SHIFT, ~(pte >> _OFFSET_SHIFT) & _OFFSET_MASK)


def is_swap_pte(pte: int) -> bool:
    """Tell whether a page is somewhere else: its entry is neither none nor present."""
    return not none(pte) and not pte & _PRESENT


def swp_soft_dirty(pte: int) -> bool:
    """Tell whether it was soft-dirty when its page went away."""
    return bool(pte & SWP_SOFT_DIRTY)


def swp_mksoft_dirty(pte: int) -> int:
    """Keep that it was soft-dirty."""
    return pte | SWP_SOFT_DIRTY


def swp_clear_soft_dirty(pte: int) -> int:
    """Forget that it was soft-dirty."""
    return pte & ~SWP_SOFT_DIRTY


def swp_exclusive(pte: int) -> bool:
    """Tell whether its page belonged to this process alone."""
    return bool(pte & SWP_EXCLUSIVE)


def swp_mkexclusive(pte: int) -> int:
    """Keep that its page belonged to this process alone."""
    return pte | SWP_EXCLUSIVE


def swp_clear_exclusive(pte: int) -> int:
    """Forget that its page belonged to this process alone."""
    return pte & ~SWP_EXCLUSIVE


def make_readable_migration_entry(pfn: int) -> SwpEntry:
    """Return the entry of a frame on the move that was mapped for reading."""
    return SwpEntry(SWP_MIGRATION_READ, pfn)


def make_writable_migration_entry(pfn: int) -> SwpEntry:
    """Return the entry of a frame on the move that was mapped for writing."""
    return SwpEntry(SWP_MIGRATION_WRITE, pfn)


def is_migration_entry(entry: SwpEntry) -> bool:
    """Tell whether a frame is on the move."""
    return SWP_MIGRATION_READ <= entry.type <= SWP_MIGRATION_WRITE


def is_writable_migration_entry(entry: SwpEntry) -> bool:
    """Tell whether a frame on the move was mapped for writing."""
    return entry.type == SWP_MIGRATION_WRITE
