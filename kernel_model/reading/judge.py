"""Whether an oops has the pattern of a top-level entry that was never synced.

Knows the pattern: the CPU found nothing where a task's top table should have pointed on. Two ways
lead to it: the access itself dies, or, up to 4.4, the handler that repairs it (vmalloc_fault) does.
Refuses to know which code forgot to sync (`match`): a text has one table's entry, not
init_mm's beside it. Linux vocabulary.
"""

from typing import Final, Literal, NamedTuple

from emu.fault import PF_P, PF_RSVD, PF_U
from emu.paging import P, is_canonical
from kernel_model.layout import PAGE_SIZE, PMD_SIZE, PUD_SIZE, make_layout
from kernel_model.pgtable import none
from kernel_model.reading.explain import GUARD_HOLE, LDT_REMAP, Depth, Place, eras, places
from kernel_model.reading.text import OopsText

_HANDLER: Final = "vmalloc_fault"
_HANDLER_FIX: Final = (
    'f4eafd8bcd52 "x86/mm: Fix vmalloc_fault() to handle large pages properly" (4.6, and stable '
    "from 4.1 on) makes the handler look for large pages"
)
_NOT_PAGE_FAULTS: Final = {
    "general-protection": "a general protection fault is not about a page's entries",
    "bug": "the kernel ended itself, with BUG()",
    "trap": "this exception is not about a page's entries",
}


class LargePage(NamedTuple):
    """A page that vmalloc_fault() took for a table, and the entry of it that it tried to read.

    `entry` is what it looked for: "pmd" under a pud that maps 1 GiB, "pte" under a pmd that maps
    2 MiB. The first access was to [first, end) of that page.
    """

    pa: int
    size: int
    entry: Literal["pmd", "pte"]
    slot: int

    @property
    def first(self) -> int:
        """The offset in the page at which the first access may have begun."""
        return self.slot * (PMD_SIZE if self.entry == "pmd" else PAGE_SIZE)

    @property
    def end(self) -> int:
        """The offset at which that part of the page ends."""
        return self.first + (PMD_SIZE if self.entry == "pmd" else PAGE_SIZE)


class Verdict(NamedTuple):
    """The answer, by what, and what to keep in mind with it. None: the text does not tell."""

    unsynced: bool | None
    why: str
    caveats: tuple[str, ...] = ()
    handler: bool = False  # it was vmalloc_fault() that died
    large_page: LargePage | None = None


def judge(oops: OopsText, depth: Depth) -> Verdict:
    """Say whether the pattern is that of an unsynced top-level entry."""
    if oops.kind in _NOT_PAGE_FAULTS:
        return Verdict(False, _NOT_PAGE_FAULTS[oops.kind])
    if oops.kind == "double-fault":
        return Verdict(
            None,
            "a double fault prints no page-table line: a stack that this task's table lacks would "
            "die like this, and so does any overflow",
        )
    address, code = oops.address, oops.error_code
    if address is None:
        return Verdict(None, "the text does not say which address faulted")
    if not address >> 63:
        null = " (a null pointer)" if address < PAGE_SIZE else ""
        return Verdict(False, f"{address:#x} is in the user half{null}: no such entry is synced")
    if not is_canonical(address, depth.levels or 5):
        return Verdict(False, f"{address:#x} is not canonical: no table was walked for it")
    if oops.rip is not None and oops.rip.symbol.startswith(_HANDLER):
        return _judge_handler(address, code)
    return _judge_access(oops, address, code, depth)


def _judge_handler(address: int, code: int | None) -> Verdict:
    if code is None:
        return Verdict(None, "vmalloc_fault() died, but the text has no error code")
    if code:
        return Verdict(False, "vmalloc_fault() died, but of no read of an absent page")
    if address % 8 or (address & -PAGE_SIZE) % PMD_SIZE:
        return Verdict(None, "vmalloc_fault() died, but not of reading the start of a large page")
    return Verdict(
        True,
        "vmalloc_fault() died: the first fault was at a vmalloc address whose top-level entry this "
        "task lacked; the handler copied it from init_mm, went on to check the levels below, and "
        "took a large page for a table: this oops is its read of that page through the direct map",
        caveats=(_HANDLER_FIX,),
        handler=True,
        large_page=large_page(address),
    )


def large_page(address: int) -> LargePage | None:
    """Work out which page was taken for a table, if the direct map is where it was before 4.20.

    A pud that maps a page maps 1 GiB, and a pmd 2 MiB; a page of 1 GiB is meant where the table
    would lie at the start of one. None for an address that is not in that direct map.
    """
    layout = make_layout(era="direct-map-first")
    pa = layout.pa(address)
    table = pa & -PAGE_SIZE
    slot = (pa & PAGE_SIZE - 1) >> 3
    if not 0 <= pa < layout.physmem_end or table % PMD_SIZE:
        return None
    if table % PUD_SIZE:
        return LargePage(table, PMD_SIZE, "pte", slot)
    return LargePage(table, PUD_SIZE, "pmd", slot)


def _judge_access(oops: OopsText, address: int, code: int | None, depth: Depth) -> Verdict:
    table = dict(oops.table)
    if not table:
        return Verdict(None, "the text has no page-table line (PGD …)")
    top = table["pgd"]
    if top & P:
        levels = "" if depth.levels is None else f" (of {depth.levels} levels)"
        return Verdict(False, f"the top-level entry{levels} is present: {top:#x}")
    if not none(top):
        return Verdict(False, f"the top-level entry is not empty, but {top:#x}: it was overwritten")
    if code is None:
        return Verdict(None, "the text has no error code")
    if code & PF_P:
        return Verdict(
            False, f"error code {code:#x} has P set: when it faulted, no entry was absent"
        )
    if code & (PF_U | PF_RSVD):
        return Verdict(False, f"error code {code:#x} is not that of a supervisor's absent page")
    shown, fitting = depth.levels or 4, eras(oops)
    where = [p for p in places(address) if p.levels == shown and p.era in fitting]
    if any(place.region == GUARD_HOLE for place in where):
        return Verdict(False, f"{address:#x} is in {GUARD_HOLE}: in no table there is an entry")
    return Verdict(
        True,
        "a supervisor access to the kernel half found the top-level entry of this task's table "
        "empty",
        tuple(_caveats(oops, where)),
    )


def _caveats(oops: OopsText, where: list[Place]) -> list[str]:
    regions = {place.region for place in where}
    said = [
        "init_mm's entry is not in the text: if it is empty, too, the address was never mapped, "
        "and the pointer is wrong"
    ]
    if LDT_REMAP in regions:
        said.append(f"it may be {LDT_REMAP}, which is never synced on purpose (from 4.20 on)")
    if "vmalloc" in regions and oops.wording in ("4.4", "4.15"):
        said.append(
            "if it is a vmalloc address, init_mm's entry is empty, too: up to 5.7, vmalloc_fault() "
            "copies what it has before it comes to an oops"
        )
    if all(place.fixed for place in where) and LDT_REMAP not in regions:
        said.append("every table has that entry from boot on: this one's own memory was damaged")
    return said
