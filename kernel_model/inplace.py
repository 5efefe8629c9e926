"""What may be done to an entry where it lies: set, protect, age, clear.

Knows how each helper changes the entry in RAM, and what it tells its caller. Refuses to know whose
table it is, and flushes nothing: after a right was taken away, the caller does. Linux vocabulary;
source: arch/x86/include/asm/pgtable.h, arch/x86/mm/pgtable.c (v6.17).

On x86 the names without a prefix are the same for pte, pmd and pud (ptep_set_wrprotect,
pmdp_set_wrprotect, …).
"""

from dataclasses import dataclass

from emu import PhysAddr
from emu.paging import PS
from kernel_model.entries import Entries, pfn_entry
from kernel_model.pgtable import Pgtable, leaf, present


@dataclass(frozen=True, slots=True)
class Place:
    """An entry in RAM, with the helpers of the kernel that it belongs to."""

    pgtable: Pgtable
    entries: Entries
    pa: PhysAddr

    @property
    def entry(self) -> int:
        """Its value now."""
        return self.pgtable.get(self.pa)


def set_at(at: Place, entry: int) -> None:
    """Put an entry there (set_pte_at and so on)."""
    at.pgtable.set(at.pa, entry)


def clear(at: Place) -> None:
    """Empty it ({pte,pmd,pud,p4d}_clear)."""
    at.pgtable.set(at.pa, 0)


def pgd_clear(at: Place) -> None:
    """Empty a pgd; nothing at all when the p4d is folded: that entry is the p4d's."""
    if not at.pgtable.p4d_folded:
        clear(at)


def get_and_clear(at: Place) -> int:
    """Empty it and return what it was."""
    entry = at.entry
    clear(at)
    return entry


def get_and_clear_full(at: Place) -> int:
    """The same, by who tears the whole address space down and need not be atomic."""
    return get_and_clear(at)


def set_wrprotect(at: Place) -> None:
    """Forbid writes; what was dirty stays dirty."""
    set_at(at, at.entries.wrprotect(at.entry))


def set_access_flags(at: Place, entry: int) -> bool:
    """Give it more rights or marks, as a fault that was handled does; tell whether it changed.

    x86 writes only if the new one is dirty: the CPU itself sets A.
    """
    changed = not at.entries.same(at.entry, entry)
    if changed and at.entries.dirty(entry):
        set_at(at, entry)
    return changed


def test_and_clear_young(at: Place) -> bool:
    """Make it old, and tell whether it was young."""
    young = at.entries.young(at.entry)
    set_at(at, at.entries.mkold(at.entry))
    return young


def set_huge(at: Place, pfn: int, prot: int) -> bool:
    """Map a page of the kernel's of the entry's size; refused where there is a table.

    ({pmd,pud}_set_huge; that it refuses came with "x86/pgtable: Don't set huge PUD/PMD on non-leaf
    entries". Memory types are all write-back here, so MTRRs never object.)
    """
    if present(at.entry) and not leaf(at.entry):
        return False
    set_at(at, pfn_entry(pfn, prot | PS))
    return True


def clear_huge(at: Place) -> bool:
    """Take a huge page away; tell whether there was one ({pmd,pud}_clear_huge)."""
    if not at.entries.leaf(at.entry):
        return False
    clear(at)
    return True
