"""What may be done to an entry's value: young, dirty, writable, huge, special and their opposites.

Knows what each helper of x86 makes of the bits, and that a release may keep a dirty bit that the
CPU must not see elsewhere. Refuses to know where an entry lies (`inplace`) and what one that is
swapped out means (`swapops`). Linux vocabulary; source: arch/x86/include/asm/pgtable.h,
pgtable_types.h and pgtable-invert.h, arch/x86/mm/pgprot.c (v6.17).

Linux has each of these once for pte, pmd and pud. On x86 they are mostly the same, since a pmd and
a pud that map a page have their flags where a pte has them: those have one method, without the
prefix. Where the levels differ, each has its own.
"""

from dataclasses import dataclass
from typing import Final, Self

from emu.paging import ADDRESS, PS, RW, US, XD, A, D, G, P, frame
from kernel_model.layout import PAGE_SHIFT
from kernel_model.releases import Release

PROTNONE: Final = G  # without P: the page is there, and nobody may touch it
SPECIAL: Final = 1 << 9  # SOFTW1: no struct page behind it that could be counted
SOFT_DIRTY: Final = 1 << 11  # SOFTW3: written since somebody asked
DEVMAP: Final = 1 << 57  # SOFTW4; 58 before SAVED_DIRTY came, and gone in 6.17
SAVED_DIRTY: Final = 1 << 58  # SOFTW5: D of an entry that is not writable
KERNPG_TABLE: Final = P | RW | A | D

VM_READ: Final = 1
VM_WRITE: Final = 2
VM_EXEC: Final = 4
VM_SHARED: Final = 8

PAGE_NONE: Final = PROTNONE | A
PAGE_READONLY_EXEC: Final = P | US | A
PAGE_READONLY: Final = PAGE_READONLY_EXEC | XD
PAGE_SHARED_EXEC: Final = P | RW | US | A
PAGE_SHARED: Final = PAGE_SHARED_EXEC | XD

_PRIVATE: Final = (PAGE_NONE, *(PAGE_READONLY,) * 3, *(PAGE_READONLY_EXEC,) * 4)
_SHARED: Final = (
    *(PAGE_NONE, PAGE_READONLY, PAGE_SHARED, PAGE_SHARED),
    *(PAGE_READONLY_EXEC, PAGE_READONLY_EXEC, PAGE_SHARED_EXEC, PAGE_SHARED_EXEC),
)
PROTECTION_MAP: Final = _PRIVATE + _SHARED
"""What an entry is made with, by VM_READ | VM_WRITE | VM_EXEC | VM_SHARED.

A private mapping that may be written is not writable: the write is to fault, and to get a copy.
"""


_VM_NAMES: Final = (
    *((VM_READ, "read"), (VM_WRITE, "write"), (VM_EXEC, "exec")),
    (VM_SHARED, "shared"),
)


def protection_name(flags: int) -> str:
    """Write VM_* flags as the kernel's log does (%pGv)."""
    return "|".join(name for flag, name in _VM_NAMES if flags & flag) or "none"


def pfn_entry(pfn: int, prot: int) -> int:
    """Return an entry that maps a frame (pfn_pte and so on).

    The address of one that is not present is kept inverted, so that a CPU which speculates past P
    finds no memory there ("x86/speculation/l1tf: Protect PROT_NONE PTEs against speculation").
    """
    address = pfn << PAGE_SHIFT
    if _inverted(prot):
        address = ~address
    return address & ADDRESS | prot


def entry_pfn(entry: int, level: int) -> int:
    """Return the frame number behind an entry of the SDM's `level` (pte_pfn and so on)."""
    address = ~entry if _inverted(entry) else entry
    return frame(address, level if entry & PS else 1) >> PAGE_SHIFT


@dataclass(frozen=True, slots=True)
class Entries:
    """The helpers of one release. `saved_dirty` is SAVED_DIRTY, or 0 if it has no such bit.

    With it, an entry that loses RW moves D there, and one that gets RW moves it back: not writable
    and dirty is how hardware tells a shadow stack ("x86/mm: Introduce _PAGE_SAVED_DIRTY", 6.6). No
    task here has a shadow stack, so RW alone makes an entry writable.
    """

    saved_dirty: int = SAVED_DIRTY

    @classmethod
    def of(cls, release: Release) -> Self:
        """Return the helpers of a release."""
        return cls(SAVED_DIRTY if "saved-dirty" in release.entry_features else 0)

    # -- young, dirty, writable

    def young(self, entry: int) -> bool:
        """Tell whether it was used since it was made old."""
        return bool(entry & A)

    def mkyoung(self, entry: int) -> int:
        """Mark it used."""
        return entry | A

    def mkold(self, entry: int) -> int:
        """Mark it unused."""
        return entry & ~A

    def dirty(self, entry: int) -> bool:
        """Tell whether its page was written to, by either bit."""
        return bool(entry & (D | self.saved_dirty))

    def mkdirty(self, entry: int) -> int:
        """Mark its page written."""
        return self._save_dirty(entry | D | SOFT_DIRTY)

    def mkclean(self, entry: int) -> int:
        """Mark its page unwritten."""
        return entry & ~(D | self.saved_dirty)

    def write(self, entry: int) -> bool:
        """Tell whether its page may be written to."""
        return bool(entry & RW)

    def mkwrite(self, entry: int) -> int:
        """Allow writes (not those to a shadow stack, which pte_mkwrite allows by another way)."""
        entry |= RW
        if entry & self.saved_dirty:
            entry = entry & ~self.saved_dirty | D
        return entry

    def wrprotect(self, entry: int) -> int:
        """Forbid writes; what was dirty stays dirty."""
        return self._save_dirty(entry & ~RW)

    def _save_dirty(self, entry: int) -> int:
        if self.saved_dirty and entry & (RW | D) == D:
            entry = entry & ~D | self.saved_dirty
        return entry

    # -- huge

    def mkhuge(self, entry: int) -> int:
        """Make it map a page of its level's size."""
        return entry | PS

    def pte_huge(self, pte: int) -> bool:
        """Tell whether hugetlb's entry, which it treats as a pte, maps a large page."""
        return bool(pte & PS)

    def leaf(self, entry: int) -> bool:
        """Tell whether a pmd or pud maps a page, present or for the moment not.

        Without P it is still a leaf while `mkinvalid` holds. (A pud needed P too, before it was
        called so: pud_large. A PUD-sized page is never invalidated by this checklist.)
        """
        return bool(entry & PS)

    def trans_huge(self, entry: int) -> bool:
        """Tell whether a pmd or pud maps a transparent huge page."""
        return entry & (PS | DEVMAP) == PS

    def mkinvalid(self, entry: int) -> int:
        """Take P away for a moment, in which it stays huge; its address gets inverted."""
        return pfn_entry(entry_pfn(entry, 1), entry & ~(ADDRESS | P | PROTNONE))

    # -- is it there, is it a table

    def pte_present(self, pte: int) -> bool:
        """Tell whether a page is there, usable or not."""
        return bool(pte & (P | PROTNONE))

    def pmd_present(self, pmd: int) -> bool:
        """Tell whether a page or a table is there: a huge page is, even while it is invalid."""
        return bool(pmd & (P | PROTNONE | PS))

    def pud_present(self, pud: int) -> bool:
        """Tell whether a page or a table is there."""
        return bool(pud & P)

    def protnone(self, entry: int) -> bool:
        """Tell whether its page is there and nobody may touch it."""
        return entry & (P | PROTNONE) == PROTNONE

    def pmd_bad(self, pmd: int) -> bool:
        """Tell whether it is anything but a pte table; A does not matter."""
        return _flags(pmd, 2) & ~(US | A) != KERNPG_TABLE & ~A

    def pud_bad(self, pud: int) -> bool:
        """Tell whether it has a flag that no table has."""
        return bool(_flags(pud, 3) & ~(KERNPG_TABLE | US))

    def p4d_bad(self, p4d: int) -> bool:
        """Tell whether it has a flag that no table has. (With page-table isolation, XD is none.)"""
        return bool(_flags(p4d, 1) & ~(KERNPG_TABLE | US))

    # -- the rest

    def same(self, entry: int, other: int) -> bool:
        """Tell whether two entries are one value."""
        return entry == other

    def special(self, pte: int) -> bool:
        """Tell whether the page behind it is to be left alone."""
        return bool(pte & SPECIAL)

    def mkspecial(self, pte: int) -> int:
        """Mark the page behind it as one to be left alone."""
        return pte | SPECIAL

    def soft_dirty(self, entry: int) -> bool:
        """Tell whether its page was written since soft-dirty was cleared."""
        return bool(entry & SOFT_DIRTY)

    def mksoft_dirty(self, entry: int) -> int:
        """Mark its page written, for who tracks that."""
        return entry | SOFT_DIRTY

    def clear_soft_dirty(self, entry: int) -> int:
        """Begin to track writes anew."""
        return entry & ~SOFT_DIRTY


def _flags(entry: int, level: int) -> int:
    """Return all of an entry but the address, which a large page keeps in fewer bits."""
    size = 1 << PAGE_SHIFT + 9 * (level - 1) if entry & PS else 1 << PAGE_SHIFT
    return entry & ~(ADDRESS & -size)


def _inverted(entry: int) -> bool:
    """Tell whether an entry, or what one is made with, keeps its address inverted."""
    return entry != 0 and not entry & P
