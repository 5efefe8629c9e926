"""Sections and subsections: which struct pages exist.

Knows the section map. Refuses to know how the struct pages are mapped (`vmemmap`). Linux
vocabulary; source: mm/sparse.c, include/linux/mmzone.h (v6.17).
"""

from dataclasses import dataclass
from typing import Final

from kernel_model.layout import PAGE_SHIFT

PFN_SECTION_SHIFT: Final = 15  # 128 MiB
PAGES_PER_SECTION: Final = 1 << PFN_SECTION_SHIFT
SECTION_SIZE: Final = PAGES_PER_SECTION << PAGE_SHIFT
PAGES_PER_SUBSECTION: Final = 512
SUBSECTION_SIZE: Final = PAGES_PER_SUBSECTION << PAGE_SHIFT  # 2 MiB
SUBSECTIONS_PER_SECTION: Final = PAGES_PER_SECTION // PAGES_PER_SUBSECTION


@dataclass(slots=True)
class Section:
    """struct mem_section: a bit for each subsection in use; `early` if it is boot RAM's."""

    early: bool
    subsections: int = 0


class SectionMap:
    """All sections that exist, by number."""

    def __init__(self) -> None:
        self._sections: dict[int, Section] = {}

    def add_early(self, nr: int) -> None:
        """Add a whole section of boot RAM."""
        self._sections[nr] = Section(early=True, subsections=(1 << SUBSECTIONS_PER_SECTION) - 1)

    def fill(self, pfn: int, nr_pages: int) -> tuple[Section, bool] | None:
        """Mark the subsections of a range inside one section as used.

        Returns the section and whether it was empty before; None if any was used already.
        """
        nr = pfn >> PFN_SECTION_SHIFT
        bits = subsection_bits(pfn, nr_pages)
        section = self._sections.setdefault(nr, Section(early=False))
        if section.subsections & bits:
            return None
        was_empty = section.subsections == 0
        section.subsections |= bits
        return section, was_empty

    def clear(self, pfn: int, nr_pages: int) -> None:
        """Take the marks back, as after a failed population."""
        self._sections[pfn >> PFN_SECTION_SHIFT].subsections &= ~subsection_bits(pfn, nr_pages)

    def empty(self, pfn: int, nr_pages: int) -> Section | None:
        """Take the marks of a range inside one section away.

        Returns the section; None, and nothing is changed, if any was not there.
        """
        section = self._sections.get(pfn >> PFN_SECTION_SHIFT)
        bits = subsection_bits(pfn, nr_pages)
        if section is None or section.subsections & bits != bits:
            return None
        section.subsections &= ~bits
        return section

    def early(self, pfn: int) -> bool:
        """Tell whether a frame's section is boot RAM's."""
        section = self._sections.get(pfn >> PFN_SECTION_SHIFT)
        return section is not None and section.early

    def pfn_valid(self, pfn: int) -> bool:
        """Tell whether a frame has a struct page."""
        section = self._sections.get(pfn >> PFN_SECTION_SHIFT)
        return section is not None and bool(section.subsections & subsection_bits(pfn, 1))


def subsection_bits(pfn: int, nr_pages: int) -> int:
    """Return the bits of the subsections that a range inside one section touches."""
    first = (pfn & PAGES_PER_SECTION - 1) // PAGES_PER_SUBSECTION
    last = (pfn + nr_pages - 1 & PAGES_PER_SECTION - 1) // PAGES_PER_SUBSECTION
    return (1 << last + 1) - (1 << first)
