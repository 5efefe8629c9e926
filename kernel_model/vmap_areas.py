"""Which addresses of the vmalloc area are taken, by whom, and which are free.

Knows areas and their guard pages, and the line that /proc/vmallocinfo has for each. Refuses to know
what is mapped there (`vmalloc`, `ioremap`). Linux vocabulary; source: mm/vmalloc.c (v4.4, v6.17).
"""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kernel_model.layout import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


@dataclass(frozen=True, slots=True, order=True)
class VmArea:
    """[start, end), with a `guard` at the end that is never mapped.

    `caller` is who asked, as in `memremap+0xb4/0x110`; `phys` what an ioremap maps.
    """

    start: int
    end: int
    kind: str
    caller: str = ""
    phys: int | None = None
    guard: int = PAGE_SIZE

    @property
    def mapped_end(self) -> int:
        """The byte after the last that may be mapped."""
        return self.end - self.guard

    def __str__(self) -> str:
        """Write it as a line of /proc/vmallocinfo."""
        words = [f"{self.start:#x}-{self.end:#x} {self.end - self.start:7}", self.caller]
        if self.phys is not None:
            words.append(f"phys={self.phys:x}")
        else:
            words.append(f"pages={self.mapped_end - self.start >> PAGE_SHIFT}")
        return " ".join(word for word in (*words, self.kind) if word)


class VmapAreas:
    """The areas that there are, lowest first; which addresses are free."""

    def __init__(self, start: int, end: int) -> None:
        self._start: Final = start
        self._end: Final = end
        self._areas: list[VmArea] = []
        self._full = (0, 0, 0)  # below the index, nothing of this size and alignment fits

    def __iter__(self) -> Iterator[VmArea]:
        return iter(self._areas)

    def find(self, addr: int) -> VmArea | None:
        """Return the area that `addr` lies in."""
        return next((area for area in self._areas if area.start <= addr < area.end), None)

    def lowest(self, size: int, align: int) -> int | None:
        """Return the lowest free address for `size` bytes, None if there is none."""
        index, full_size, full_align = self._full
        if size < full_size or align < full_align:
            index = 0
        at = self._areas[index - 1].end if index else self._start
        for area in self._areas[index:]:
            at = -(-at // align) * align
            if at + size <= area.start:
                break
            at = area.end
            index += 1
        self._full = (index, size, align)
        at = -(-at // align) * align
        return at if at + size <= self._end else None

    def highest(self, size: int, align: int) -> int | None:
        """Return the highest free address for `size` bytes, None if there is none."""
        end = self._end
        for area in reversed(self._areas):
            at = (end - size) // align * align
            if at >= area.end:
                break
            end = area.start
        at = (end - size) // align * align
        return at if at >= self._start else None

    def gaps(self, end: int) -> list[tuple[int, int]]:
        """List what is free below `end`, as [start, end) each."""
        starts = [self._start, *(area.end for area in self._areas if area.start < end)]
        ends = [*(area.start for area in self._areas if area.start < end), end]
        return [(a, b) for a, b in zip(starts, ends, strict=True) if a < b]

    def insert(self, area: VmArea) -> VmArea:
        """Add an area where nothing is."""
        insort(self._areas, area)
        index, size, align = self._full
        if area.start < (self._areas[index].start if index < len(self._areas) else self._end):
            self._full = (min(index, self._areas.index(area)), size, align)
        return area

    def remove(self, area: VmArea) -> None:
        """Make an area's addresses free."""
        self._areas.remove(area)
        self._full = (0, 0, 0)


def fill_first_slot(kernel: "Kernel") -> None:
    """Take all that is left of the area's first top-level slot, and map nothing there.

    What is mapped next opens another slot.
    """
    border = (kernel.layout.vmalloc_base | kernel.layout.pgdir_size - 1) + 1
    for start, end in kernel.vmap_areas.gaps(border):
        kernel.vmap_areas.insert(VmArea(start, end, "reserved", kernel.caller()))


def vmallocinfo(kernel: "Kernel") -> list[str]:
    """Return the lines of /proc/vmallocinfo, lowest address first."""
    return [str(area) for area in kernel.vmap_areas]
