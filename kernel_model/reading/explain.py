"""What an oops means: its error code, its page-table line, and where its address lies.

Knows how to read off an oops what it says of the tables, and what of that is certain: a text does
not say where KASLR put the regions. Refuses to know wording (`text`), whether an entry was
never synced (`judge`) and what else dies alike (`match`). Error codes are told in the
SDM's terms, tables in Linux's; source: Intel SDM volume 3A, "Interrupt 14 - Page-Fault Exception
(#PF)", and arch/x86/mm/fault.c (v4.4 to v6.17).
"""

from typing import Final, NamedTuple

from emu.fault import ERROR_BITS, PF_P, PF_RSVD, PF_U, access_of
from emu.paging import CR4_LA57, PS, P, is_canonical
from kernel_model.layout import CPU_ENTRY_AREA, ESPFIX, TIB, Era, Layout, make_layout
from kernel_model.reading.text import OopsText

PF_SHSTK: Final = 1 << 6
PF_SGX: Final = 1 << 15
PF_RMP: Final = 1 << 31
_CLEAR_AND_SET: Final = {
    **ERROR_BITS,
    "SHSTK": (PF_SHSTK, "no shadow-stack access", "a shadow-stack access"),
    "SGX": (PF_SGX, "SGX did not forbid it", "the access-control requirements of SGX forbade it"),
    "RMP": (PF_RMP, "no RMP check failed", "AMD's reverse-map table forbade it"),
}
ERROR_CODE_BITS: Final = {name: bit for name, (bit, _, _) in _CLEAR_AND_SET.items()}
"""The bits of a #PF error code, by the SDM's and AMD's names."""

GUARD_HOLE: Final = "the guard hole, where the kernel maps nothing"
LDT_REMAP: Final = "the LDT remap area, one for each mm"
_SLOT: Final = 1 << 39
_LARGEST: Final = 2 * TIB  # vmemmap of 64 TiB with struct pages of 80 or 96 bytes
_EFI: Final = (0xFFFF_FFEF_0000_0000, 0xFFFF_FFFF_0000_0000)
_ERAS: Final[tuple[Era, ...]] = ("ldt-below", "direct-map-first")


class Bit(NamedTuple):
    """One bit of an error code, and what it says as it is."""

    name: str
    bit: int
    is_set: bool
    meaning: str


class Entry(NamedTuple):
    """One entry of the page-table line, and what it says."""

    name: str
    value: int
    present: bool
    leaf: bool
    meaning: str


class Depth(NamedTuple):
    """How many levels of paging the text shows, if it does, and by what."""

    levels: int | None
    why: str


class Place(NamedTuple):
    """Where an address lies at so many levels, in the layout of an era.

    `slot` is None where the address is not canonical at that depth. `fixed` is whether KASLR
    leaves alone what lies there; if not, `region` is what nokaslr would have there.
    """

    levels: int
    era: Era
    slot: int | None
    region: str
    fixed: bool


def error_bits(code: int) -> tuple[Bit, ...]:
    """Take an error code apart, lowest bit first."""
    return tuple(
        Bit(name, mask.bit_length() - 1, bool(code & mask), if_set if code & mask else if_clear)
        for name, (mask, if_clear, if_set) in _CLEAR_AND_SET.items()
    )


def access_text(code: int) -> str:
    """Say in a few words what the access was, and what stood in its way."""
    who = "user" if code & PF_U else "supervisor"
    if not code & PF_P:
        why = "the page is not present"
    elif code & PF_RSVD:
        why = "a reserved bit is set in an entry"
    else:
        why = "the page is present, and does not allow it"
    return f"{who} {access_of(code)}, {why}"


def depth(oops: OopsText) -> Depth:
    """Say how many levels of paging the text shows."""
    table = dict(oops.table)
    if "cr4" in oops.registers:
        la57 = bool(oops.registers["cr4"] & CR4_LA57)
        return Depth(5 if la57 else 4, f"CR4.LA57 is {int(la57)}")
    if "p4d" in table:
        if table["pgd"] == table["p4d"]:
            return Depth(4, "PGD and P4D are one entry, printed twice: the p4d is folded")
        return Depth(5, "PGD and P4D are two entries")
    if "pud" in table:
        return Depth(4, "there is a PUD and no P4D: a kernel that knows 4 levels only")
    if oops.wording == "4.4":
        return Depth(4, "a kernel that words its oopses so knows 4 levels only")
    if table and oops.table_ends and oops.wording in ("5.4", "6.10", "6.15"):
        return Depth(5, "PGD stands alone: with 4 levels, P4D would follow, whatever PGD is")
    address = oops.address
    if address is not None and address >> 63 and not is_canonical(address, 4):
        return Depth(5, "the address is canonical with 5 levels only")
    return Depth(None, "nothing in the text tells 4 levels from 5")


def entries(oops: OopsText, levels: int | None) -> tuple[Entry, ...]:
    """Explain the entries of the page-table line, root first."""
    return tuple(_entry(name, value, levels) for name, value in oops.table)


def _entry(name: str, value: int, levels: int | None) -> Entry:
    present = bool(value & P)
    leaf = present and (name == "pte" or (bool(value & PS) and name != "pgd"))
    what = "the top entry" if name == "pgd" else "an entry"
    if name == "p4d" and levels == 4:
        what = "the top entry again, as the p4d is folded into the pgd"
    if not value:
        return Entry(name, value, False, False, f"{what}, empty")
    if not present:
        return Entry(name, value, False, False, f"{what}, not present and not empty")
    where = "maps the page" if leaf else "points to the next table"
    return Entry(name, value, True, leaf, f"{what}, present: {where}")


def stop_text(oops: OopsText) -> str:
    """Say at which entry the kernel's own walk stopped, and why."""
    if oops.table_bad:
        return "the next table could not be read (BAD)"
    name, value = oops.table[-1]
    last = _entry(name, value, None)
    if not last.present:
        return f"the kernel's walk of CR3's tables stopped at the {name}: not present"
    if last.leaf:
        return f"the kernel's walk of CR3's tables reached the page, at the {name}"
    return f"the line breaks off behind the {name}, which is present"


def eras(oops: OopsText) -> tuple[Era, ...]:
    """Say whose layout a text may have: wordings changed before the layout did, and behind it."""
    if oops.wording == "4.4":
        return ("direct-map-first",)
    return _ERAS if oops.wording in ("4.15", None) else ("ldt-below",)


def places(address: int) -> tuple[Place, ...]:
    """Say where an address lies: at 4 levels and at 5, in both layouts that there have been."""
    return tuple(
        _place(address, era, make_layout(levels=levels, era=era))
        for levels in (4, 5)
        for era in _ERAS
    )


def _place(address: int, era: Era, layout: Layout) -> Place:
    levels = layout.levels
    if not is_canonical(address, levels):
        return Place(levels, era, None, "not canonical", True)
    slot = layout.pgd_index(address)
    if not address >> 63:
        null = address < 4096
        return Place(
            levels, era, slot, "user space: a null pointer" if null else "user space", True
        )
    for name, start, end in _fixed(layout):
        if start <= address < end:
            return Place(levels, era, slot, name, True)
    in_window = layout.page_offset_base <= address < CPU_ENTRY_AREA
    region = layout.region(address)
    shadow = layout.kasan_shadow_start <= address < layout.kasan_shadow_end
    if region == "no region" and layout.vmemmap_end <= address < layout.vmemmap_base + _LARGEST:
        region = "vmemmap, if a struct page has more than 64 bytes"
    elif region == "no region" and shadow:
        region = "KASAN's shadow, if the kernel has it"
    return Place(levels, era, slot, region, not in_window)


def _fixed(layout: Layout) -> list[tuple[str, int, int]]:
    """List the parts of the kernel half that KASLR does not move, and Layout does not name."""
    ldt = layout.slot_base(layout.ldt_slot)
    first = min(ldt, layout.page_offset_base)
    return [
        (GUARD_HOLE, layout.slot_base(256), first),
        (LDT_REMAP, ldt, ldt + layout.pgdir_size),
        ("espfix stacks", ESPFIX, ESPFIX + _SLOT),
        ("EFI run-time services", *_EFI),
    ]


def kaslr_text(oops: OopsText) -> str:
    """Say what is known of where the regions are."""
    told = "from 4.8 on, " if oops.wording in ("4.4", "4.15") else ""
    told += (
        "KASLR may have put the direct map, vmalloc and vmemmap anywhere, 1 GiB aligned and in "
        "this order, between the direct map's first place and the cpu entry area"
    )
    gs = oops.registers.get("gs_base", 0)
    if 0 <= gs - make_layout().page_offset_base < _SLOT:
        return f"{told}; GS {gs:#x} is where the direct map begins without it: probably it did not"
    return told
