"""pgd, p4d, pud, pmd, pte: where their entries lie, when they are none, and folding.

Knows THE table from Linux's names to levels, and that with 4 levels the p4d is folded into the
pgd: `p4d_offset` is where, and `p4d_folded` whether. Refuses to know whose tables they are and
who must be told of a change (`populate`, `sync`). Linux vocabulary; source:
arch/x86/include/asm/pgtable.h, pgtable_64.h, pgtable_types.h (v6.17).

An entry is a place in RAM (`pgdp`, `p4dp`, …: its physical address) and a value (`pgd`, `p4d`, …).
"""

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from emu import PhysAddr, PhysMemory
from emu.paging import ADDRESS, ENTRIES, ENTRY_SIZE, PS, US, P, index
from emu.walk import Walk
from kernel_model.layout import Layout

if TYPE_CHECKING:
    from kernel_model.writers import Writers

PAGE_TABLE: Final = 0x67  # _PAGE_TABLE: P RW US A D
PAGE_KERNEL: Final = 0x8000_0000_0000_0163  # P RW A D G, not executable
PAGE_KERNEL_LARGE: Final = 0x8000_0000_0000_01E3  # the same with PS
PAGE_KERNEL_LARGE_ROX: Final = 0x1E1  # text
PAGE_KERNEL_ROX: Final = 0x161  # module text
KNL_ERRATUM: Final = 0x60  # stray A and D bits do not make an entry present (Knights Landing)

_LEVEL_NAMES: Final = {
    4: {4: "pgd", 3: "pud", 2: "pmd", 1: "pte"},
    5: {5: "pgd", 4: "p4d", 3: "pud", 2: "pmd", 1: "pte"},
}


def linux_name(level: int, levels: int) -> str:
    """Return what Linux calls an entry of the SDM's `level` under 4- or 5-level paging."""
    return _LEVEL_NAMES[levels][level]


def folded_name(level: int, levels: int) -> str:
    """Return the same, and what is folded into it: "pgd=p4d" with 4 levels."""
    name = linux_name(level, levels)
    return f"{name}=p4d" if level == levels == 4 else name


def none(entry: int) -> bool:
    """Tell whether a p4d, pud, pmd or pte is empty (p4d_none and so on)."""
    return not entry & ~KNL_ERRATUM


def present(entry: int) -> bool:
    """Tell whether an entry has its P bit."""
    return bool(entry & P)


def leaf(entry: int) -> bool:
    """Tell whether a pud or pmd maps a page."""
    return entry & (P | PS) == P | PS


def table(entry: int) -> PhysAddr:
    """Return the table that an entry points to."""
    return PhysAddr(entry & ADDRESS)


def named(walk: Walk) -> tuple[tuple[str, int | None], ...]:
    """Return a walk's entries by Linux's names; a folded p4d is the pgd once more."""
    entries = [step.entry for step in walk.steps]
    if walk.steps and walk.steps[0].level == 4:
        entries.insert(0, entries[0])
    return tuple(zip(_LEVEL_NAMES[5].values(), entries, strict=False))


class Pgtable:
    """Linux's helpers over tables in RAM, for one paging mode."""

    def __init__(self, memory: PhysMemory, layout: Layout, writers: "Writers") -> None:
        self.writers: Final = writers
        self._words = memory.words
        self._read = memory.read_u64
        self.p4d_folded: Final = layout.levels == 4
        self.top_level: Final = layout.levels
        self.top_counts: Final = ~KNL_ERRATUM if self.p4d_folded else -1
        """The bits of a top table's entry that make it other than empty."""

    def get(self, entry_pa: PhysAddr) -> int:
        """Read an entry."""
        return int(self._words[entry_pa >> 3])

    def set(self, entry_pa: PhysAddr, entry: int, by: str | None = None) -> None:
        """Write an entry, and note who did: the running function if not `by`."""
        self._words[entry_pa >> 3] = entry
        self.writers.note(entry_pa, 1, by)
        self.writers.tell(entry_pa, 1, by)

    def fill(self, entry_pa: PhysAddr, first: int, step: int, nr: int) -> None:
        """Write `nr` neighbouring entries: first, first + step, … The running function does."""
        at = entry_pa >> 3
        last = first + step * nr
        entries = array("Q", range(first, last, step)) if step else array("Q", [first]) * nr
        self._words[at : at + nr] = memoryview(entries)
        self.writers.note(entry_pa, nr)
        self.writers.tell(entry_pa, nr)

    def entries(self, entry_pa: PhysAddr, nr: int) -> list[int]:
        """Read `nr` neighbouring entries."""
        at = entry_pa >> 3
        return self._words[at : at + nr].tolist()

    def nr_none(self, entry_pa: PhysAddr, most: int) -> int:
        """Count the empty entries from `entry_pa` on, inside its table and up to `most`."""
        at = entry_pa >> 3
        nr = min(most, ENTRIES - (at & ENTRIES - 1))
        return next((i for i, entry in enumerate(self._words[at : at + nr]) if not none(entry)), nr)

    def pgd_offset(self, pgd: PhysAddr, addr: int) -> PhysAddr:
        """Return where the entry for `addr` lies in the top table `pgd`."""
        return PhysAddr(pgd + ENTRY_SIZE * index(addr, self.top_level))

    def p4d_offset(self, pgdp: PhysAddr, addr: int) -> PhysAddr:
        """Return where the p4d for `addr` lies: folded, it *is* the pgd's entry."""
        return pgdp if self.p4d_folded else self._offset(pgdp, addr, 4)

    def pud_offset(self, p4dp: PhysAddr, addr: int) -> PhysAddr:
        """Return where the pud for `addr` lies."""
        return self._offset(p4dp, addr, 3)

    def pmd_offset(self, pudp: PhysAddr, addr: int) -> PhysAddr:
        """Return where the pmd for `addr` lies."""
        return self._offset(pudp, addr, 2)

    def pte_offset(self, pmdp: PhysAddr, addr: int) -> PhysAddr:
        """Return where the pte for `addr` lies."""
        return self._offset(pmdp, addr, 1)

    def read_down(self, pgd: PhysAddr, addr: int) -> tuple[tuple[str, int | None], ...]:
        """Read the entries for `addr` from the top table `pgd` on, with their names.

        The last one is not present, a leaf, a pte, or None where there is no RAM to read. (What a
        reserved bit means to the CPU is nothing to Linux.)
        """
        found: list[tuple[str, int | None]] = []
        entry_pa = self.pgd_offset(pgd, addr)
        for name, has_table, next_offset in _DOWN:
            entry = self._read(entry_pa)
            found.append((name, entry))
            if entry is None or not has_table(self, entry):
                break
            entry_pa = next_offset(self, entry_pa, addr)
        return tuple(found)

    def pgd_none(self, pgd: int) -> bool:
        """Tell whether a pgd is empty: never, when the p4d is folded into it."""
        return not self.p4d_folded and pgd == 0

    def pgd_present(self, pgd: int) -> bool:
        """Tell whether a pgd is present: always, when the p4d is folded into it."""
        return self.p4d_folded or present(pgd)

    def pgd_bad(self, pgd: int) -> bool:
        """Tell whether a pgd is anything but a p4d table: never, when the p4d is folded into it.

        (Page-table isolation allows XD besides.)
        """
        return not self.p4d_folded and pgd & ~ADDRESS & ~US != PAGE_TABLE & ~US

    def top_none(self, entry: int) -> bool:
        """Tell whether an entry of a top table is empty, at the level where that has a meaning."""
        return not entry & self.top_counts

    def _offset(self, parent_pa: PhysAddr, addr: int, level: int) -> PhysAddr:
        return PhysAddr(table(self.get(parent_pa)) + ENTRY_SIZE * index(addr, level))


def _has_table(pgtable: Pgtable, entry: int) -> bool:
    """Tell whether a pud or pmd is present and no leaf."""
    return entry & (P | PS) == P


_HasTable = Callable[[Pgtable, int], bool]
_NextOffset = Callable[[Pgtable, PhysAddr, int], PhysAddr]
_STEPS_DOWN: Final[tuple[tuple[_HasTable, _NextOffset], ...]] = (
    (Pgtable.pgd_present, Pgtable.p4d_offset),
    (lambda _, p4d: present(p4d), Pgtable.pud_offset),
    (_has_table, Pgtable.pmd_offset),
    (_has_table, Pgtable.pte_offset),
    (lambda *_: False, Pgtable.pte_offset),
)
_DOWN: Final = tuple(
    (name, *step) for name, step in zip(_LEVEL_NAMES[5].values(), _STEPS_DOWN, strict=True)
)
