"""Which scenario may die like an oops, and with which settings.

Knows by what to recognise each scenario's death, and how to work back from its address to what
makes the model fault exactly there. A recogniser is a function in RECOGNISERS; what it offers of a
scenario that there is not is passed over. Refuses to know whether the entry was never synced
(`judge`), and whether a candidate holds: it is run (`proof`). Linux vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from emu.paging import is_canonical
from kernel_model.layout import GIB, PAGE_SHIFT, PMD_SIZE, Layout, make_layout, parts
from kernel_model.reading.judge import Verdict
from kernel_model.reading.text import OopsText
from kernel_model.releases import RELEASES
from kernel_model.scenarios import SCENARIOS
from kernel_model.sparse import PAGES_PER_SECTION, SECTION_SIZE, SUBSECTION_SIZE
from kernel_model.words import show_size

_RAM: Final = 4 * GIB  # the scenarios' default: what boot fills of vmemmap comes from it
_REFCOUNT: Final = 0x34  # the first store of __init_single_page(), as compilers order them
_FARTHEST: Final = 8  # GiB below a slot's first address that a vmemmap_base is looked for


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that may die alike. `because` has the arithmetic, for people."""

    scenario: str
    levels: int
    settings: dict[str, str]
    because: tuple[str, ...]
    releases: tuple[str, ...] = ()  # those to try; by default, those that fit the text


Recogniser = Callable[[OopsText, Verdict, int], Iterator[Candidate]]


def _bases(address: int, levels: int) -> Iterator[tuple[int, str]]:
    """Yield where vmemmap may begin so that boot fills no struct page in the slot of `address`."""
    plain = make_layout(levels=levels)
    slot = plain.slot_base(plain.pgd_index(address))
    if plain.vmemmap_base < slot:
        yield plain.vmemmap_base, "where it is without KASLR"
    for gib in range(1, _FARTHEST + 1):
        yield slot - gib * GIB, f"{gib} GiB below the slot"


def _layout(base: int, levels: int, sizeof_page: int) -> Layout | None:
    """Return the layout with that vmemmap_base; None if the regions do not fit."""
    try:
        return make_layout(levels=levels, vmemmap_base=base, ram=_RAM, sizeof_page=sizeof_page)
    except ValueError:
        return None


def vmemmap_devdax(oops: OopsText, verdict: Verdict, levels: int) -> Iterator[Candidate]:
    """The first store to a struct page in __init_single_page(), in a slot that nothing filled.

    The page is the first of the slot, or of the device: the head of a compound of 2 MiB.
    """
    if not _unsynced_in(oops, verdict, levels, "__init_single_page"):
        return
    assert oops.address is not None
    page = oops.address - _REFCOUNT if oops.address % 64 == _REFCOUNT else oops.address & -64
    for base, where in _bases(page, levels):
        layout = _layout(base, levels, 64)
        if layout is None or (page - base) % (64 * SUBSECTION_SIZE >> PAGE_SHIFT):
            continue
        pa = (page - base) // 64 << PAGE_SHIFT
        slot = layout.pgd_index(page)
        at_border = page == layout.slot_base(slot)
        start = pa - 2 * SECTION_SIZE if at_border else pa
        which = "the slot's first struct page" if at_border else "the device's first struct page"
        yield Candidate(
            "vmemmap-devdax",
            levels,
            {"vmemmap_base": f"{base:#x}", "start": f"{start:#x}"},
            (
                f"{oops.address:#x} is {oops.address - page:#x} into {page:#x}, {which} in slot "
                f"{slot}: the first field that __init_single_page() stores to is at 0x34",
                f"vmemmap_base {base:#x} is {where}; any other one below the slot that is 1 GiB "
                "aligned does as well, with another start",
                f"({page:#x} - {base:#x}) / 64 bytes = pfn {pa >> PAGE_SHIFT:#x}: physical "
                f"{pa:#x} ({show_size(pa)})",
                f"start={start:#x}: "
                + ("the device begins 256M before it" if at_border else "the device begins there"),
            ),
        )


def vmemmap_subpmd(oops: OopsText, verdict: Verdict, levels: int) -> Iterator[Candidate]:
    """The mark of a partly used 2 MiB block in vmemmap_set_pmd(), in a slot that nothing filled.

    Struct pages of 64 bytes fill whole blocks; others make sections begin or end inside one.
    """
    if not _unsynced_in(oops, verdict, levels, "vmemmap_set_pmd"):
        return
    assert oops.address is not None
    found = [
        (base, where, size, start)
        for size in (80, 96)
        for base, where in _bases(oops.address, levels)
        if _layout(base, levels, size)
        for start in _sections_marked_at(oops.address, base, size)
    ]
    ends = {oops.registers.get("r12"), oops.registers.get("r8")}  # the end of the section's pages
    found.sort(key=lambda each: each[3] + PAGES_PER_SECTION * each[2] not in ends)
    for base, where, size, start in found:
        pfn, end = (start - base) // size, start + PAGES_PER_SECTION * size
        known = " (R12 has that end)" if end in ends else ""
        yield Candidate(
            "vmemmap-subpmd",
            levels,
            {"vmemmap_base": f"{base:#x}", "pfn": f"{pfn:#x}", "struct_page": str(size)},
            (
                f"vmemmap_base {base:#x} is {where}",
                f"a section's 32768 struct pages of {size} bytes are {PAGES_PER_SECTION * size:#x} "
                f"bytes, which is no multiple of 2 MiB: {start:#x} - {end:#x}{known}",
                f"({start:#x} - {base:#x}) / {size} bytes = pfn {pfn:#x}: physical "
                f"{pfn << PAGE_SHIFT:#x}",
                f"{oops.address:#x} is where the first 2 MiB block that is used in part is marked",
            ),
        )


def _sections_marked_at(address: int, base: int, sizeof_page: int) -> Iterator[int]:
    """Yield where a section's struct pages begin whose first mark is at `address`."""
    stride = PAGES_PER_SECTION * sizeof_page
    nr = (address - base) // stride
    for start in (base + nr * stride, base + (nr - 1) * stride):
        if start >= base and _first_mark(start, start + stride) == address:
            yield start


def _first_mark(start: int, end: int) -> int | None:
    """Return the start of the first 2 MiB piece whose start or end is not aligned to 2 MiB."""
    pieces = parts(start, end, PMD_SIZE)
    return next((first for first, stop in pieces if (first | stop) % PMD_SIZE), None)


def ioremap_512g(oops: OopsText, verdict: Verdict, levels: int) -> Iterator[Candidate]:
    """vmalloc_fault() that walks a 1 GiB page as a table."""
    page = verdict.large_page
    if verdict.handler and page is not None and page.entry == "pmd" and levels == 4:
        yield Candidate(
            "ioremap-512g",
            levels,
            {},
            (
                f"{oops.address:#x} is the direct map's address of physical {page.pa:#x}, plus 8 "
                f"bytes for each of {page.slot} entries",
            ),
            releases=("4.4",),
        )


def _unsynced_in(oops: OopsText, verdict: Verdict, levels: int, function: str) -> bool:
    return (
        verdict.unsynced is True
        and oops.address is not None
        and is_canonical(oops.address, levels)
        and oops.rip is not None
        and oops.rip.symbol == function
    )


def dies_in(oops: OopsText, verdict: Verdict, levels: int) -> Iterator[Candidate]:
    """Any other scenario that dies in this function, as it does with its own settings."""
    if oops.rip is None:
        return
    for name, scenario in SCENARIOS.items():
        if name not in _WORKED_BACK and oops.rip.symbol in scenario.broke:
            because = f"{oops.rip.symbol}() is where it dies, with its own settings"
            releases = [r for r in RELEASES.values() if not scenario.why_not(r, levels)]
            releases.sort(key=lambda release: release.name != scenario.release)
            yield Candidate(name, levels, {}, (because,), tuple(r.name for r in releases))


_WORKED_BACK: Final = ("vmemmap-devdax", "vmemmap-subpmd")

RECOGNISERS: Final[tuple[Recogniser, ...]] = (
    vmemmap_devdax,
    vmemmap_subpmd,
    ioremap_512g,
    dies_in,
)
