"""Draw the pictures of the documentation: `python tools/pictures.py DIRECTORY`.

What they show is asked for when they are drawn: bits and levels of `emu.paging`, names of
`kernel_model.pgtable`, a walk, roots and tables of the scenario `vmemmap-devdax`, and refusals of
the CPU itself. A test compares those in docs/pictures with what this draws.
"""

import sys
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from svg import WIDTH, Drawing

from emu import Case, PageFault, Probe, VirtAddr, Walk
from emu.fault import ERROR_BITS
from emu.paging import (
    ADDRESS,
    ENTRIES,
    ENTRY_NAME,
    ENTRY_SIZE,
    FRAME_SIZE,
    KEY_SHIFT,
    MAXPHYADDR,
    PCD,
    PWT,
    RW,
    US,
    XD,
    P,
    PhysAddr,
    address_bits,
    flags_text,
    index,
    page_shift,
)
from kernel_model import Kernel
from kernel_model.layout import ESPFIX, PAGE_SHIFT, Layout
from kernel_model.mm import Mm
from kernel_model.pgtable import linux_name
from kernel_model.scenarios import run_scenario

Field = tuple[int, int, str, float]
"""Bits of an entry, as drawn: the highest, the lowest, what they are, how wide."""
CACHING: Final = {PWT: "PWT", PCD: "PCD"}  # no walk depends on these, so nobody else names them


def draw_address(va: int, path: Path) -> None:
    """An address, cut into the fields that select entries, at 4 and 5 levels."""
    drawing = Drawing(
        "An address cut into index fields",
        f"{va:#x}: nine bits for each level, root first, then twelve bits of offset.",
    )
    a_bit = WIDTH / 64
    drawing.text(0, 14, f"{va:#x}", "code head")
    for levels, y in ((4, 34), (5, 150)):
        drawing.text(0, y + 8, f"{levels} levels", "head")
        sign = f"sign: copies of bit {address_bits(levels) - 1}"
        drawing.text(WIDTH, y + 8, sign, "small faint", "end")
        edges = [64, *(page_shift(level) for level in range(levels + 1, 0, -1)), 0]
        fields = [("sign", "none/faint small", "", "")]
        fields += [
            (str(index(va, level)), "mark/code", ENTRY_NAME[level], linux_name(level, levels))
            for level in range(levels, 0, -1)
        ]
        fields += [(f"{va & FRAME_SIZE - 1:#05x}", "/code", "offset", "")]
        for (high, low), (value, style, name, linux) in zip(pairwise(edges), fields, strict=True):
            left, width = (64 - high) * a_bit, (high - low) * a_bit
            drawing.text(left + 1, y + 29, str(high - 1), "small faint")
            drawing.text(left + width - 1, y + 29, str(low), "small faint", "end")
            drawing.field(left, y + 34, width, 26, value, style)
            drawing.text(left + width / 2, y + 76, name, "", "middle")
            drawing.text(left + width / 2, y + 92, linux, "small faint", "middle")
    drawing.save(path, 250)


def draw_walk(walk: Walk, root: int, path: Path) -> None:
    """A walk: from CR3 to the page, an entry of each table on the way."""
    drawing = Drawing(
        f"The walk for {walk.va:#x}",
        "From CR3 down: each table gives one entry, and the entry the next table, or the page.",
    )
    drawing.field(0, 2, 128, 24, f"CR3 {root:#x}", "mark/code small")
    left, y, step, width = 28.0, 40.0, 26.0, 274.0
    drawing.arrow((14, 26), (14, y + 32), (left - 2, y + 32), style="strong")
    for level, entry_pa, entry in walk.steps:
        nr = index(walk.va, level)
        drawing.text(left, y + 14, f"table at {entry_pa & ADDRESS:#x}", "small faint")
        drawing.box(left, y + 20, width, 24, "mark")
        drawing.text(left + 6, y + 36.5, ENTRY_NAME[level], "small head")
        linux = linux_name(level, walk.steps[0].level)
        drawing.text(left + 54, y + 36.5, linux, "small faint")
        drawing.text(left + 90, y + 36.5, f"[{nr}]", "small code")
        drawing.text(left + width - 6, y + 36.5, f"{entry:#x}", "small code", "end")
        drawing.text(left, y + 58, flags_text(entry, level), "small faint")
        drawing.arrow((left + 14, y + 66), (left + 14, y + 106), (left + step - 2, y + 106),
                      style="strong")  # fmt: skip
        left, y = left + step, y + 74
    offset = walk.va & FRAME_SIZE - 1
    drawing.text(left, y + 14, f"page at {walk.steps[-1].entry & ADDRESS:#x}", "small faint")
    drawing.box(left, y + 20, width, 24)
    drawing.text(left + 6, y + 36.5, f"+ {offset:#x}", "small code")
    drawing.text(left + width - 6, y + 36.5, f"pa {walk.pa:#x}", "small code head", "end")
    drawing.save(path, int(y) + 50)


def draw_entry(entry: int, level: int, path: Path) -> None:
    """The bits of an entry: what they are at its level, and their values in one."""
    drawing = Drawing(
        "The bits of an entry",
        "Bit 63 is XD, 62 to 59 the protection key, 51 to 12 the address, 8 to 0 the flags.",
    )
    key, top = KEY_SHIFT, ADDRESS.bit_length()
    upper: list[Field] = [
        (63, 63, "XD", 40),
        (62, key, "key", 56),
        (key - 1, top, "ignored", 92),
    ]
    upper += [(top - 1, MAXPHYADDR, "must be 0", 126), (MAXPHYADDR - 1, 32, "address", 126)]
    lower: list[Field] = [
        (31, PAGE_SHIFT, "address", 98),
        (11, 9, "ign.", 42),
    ]
    for bit in range(8, -1, -1):
        lower += [(bit, bit, CACHING.get(1 << bit) or flags_text(1 << bit, level), 33.3)]
    drawing.text(0, 14, f"{entry:#x}", "code head")
    for y, fields in ((28, upper), (118, lower)):
        left = 0.0
        for high, low, name, width in fields:
            drawing.text(left + 2, y + 10, str(high), "small faint")
            if low != high:
                drawing.text(left + width - 2, y + 10, str(low), "small faint", "end")
            flag = high == low
            drawing.field(left, y + 15, width, 26, name, "mark/small head" if flag else "/small")
            value = entry >> low & (1 << high - low + 1) - 1
            shown = str(value) if high - low < 4 else f"{value:#x}"
            colour = "strong head" if value else "faint"
            drawing.text(left + width / 2, y + 58, shown, f"small code {colour}", "middle")
            left += width
    drawing.save(path, 182)


def kernel_slots(kernel: Kernel, mm: Mm) -> dict[int, int]:
    """Return the slots of a root's kernel half that are not empty."""
    entries = (
        (nr, kernel.memory.read_u64(PhysAddr(mm.pgd + ENTRY_SIZE * nr))) for nr in range(ENTRIES)
    )
    return {nr: entry for nr, entry in entries if entry and nr >= ENTRIES // 2}


def regions_in(layout: Layout, slot: int) -> str:
    """Name the regions that a slot has a part of."""
    first = layout.slot_base(slot)
    last = first + layout.pgdir_size - 1
    found = [name for name, start, end in layout.regions() if start <= last and first < end]
    return ", ".join(found) or ("espfix" if first == ESPFIX else "")


def draw_roots(kernel: Kernel, name: str, task: Mm, fault: PageFault, path: Path) -> None:
    """Two roots: the kernel half of both points to the same tables, but for one slot."""
    ours, theirs = kernel_slots(kernel, kernel.init_mm), kernel_slots(kernel, task)
    drawing = Drawing(
        "Two top-level tables that share all tables below, but for one",
        f"init_mm has an entry in slot {index(fault.address, 4)}, and {name} has none there.",
    )
    wide, far, middle = 124, WIDTH - 124, WIDTH / 2
    for x, who, mm in ((0, name, task), (far, "init_mm", kernel.init_mm)):
        drawing.text(x + wide / 2, 14, who, "head", "middle")
        drawing.text(x + wide / 2, 30, f"root {mm.pgd:#x}", "small faint code", "middle")
    drawing.text(middle, 14, "the tables below,", "small", "middle")
    drawing.text(middle, 29, "one of each", "small", "middle")
    y = 42
    alike = groupby(sorted(ours), lambda slot: (regions_in(kernel.layout, slot), slot in theirs))
    for (regions, shared), slots in alike:
        first, *more = slots
        for x, root in ((0, theirs), (far, ours)):
            drawing.box(x, y, wide, 24, "mark" if first in root else "bad")
            drawing.text(x + 7, y + 16, f"[{first}]", "small code faint")
            style = "small code" if first in root else "small code bad head"
            drawing.text(x + wide - 7, y + 16, f"{root.get(first, 0):#x}", style, "end")
        drawing.field(180, y, 80, 24, f"{ours[first] & ADDRESS:#x}", "/small code")
        drawing.arrow((far, y + 12), (262, y + 12), style="strong")
        if shared:
            drawing.arrow((wide, y + 12), (178, y + 12), style="strong")
        else:
            drawing.arrow((wide, y + 12), (178, y + 12), style="bad", head=False)
            drawing.text((wide + 178) / 2, y + 7, "#PF", "small bad head", "middle")
        also = f", and {len(more)} more" if more else ""
        drawing.text(middle, y + 39, regions + also, "small faint", "middle")
        y += 50
    drawing.save(path, y)


ENTRY: Final = 0x1067  # of every level: P RW US A D, and some frame


def a_case(kind: str, leaf: int = ENTRY, *, va: int = 0x7F0012345678, **features: object) -> Case:
    """Return a case whose upper entries allow everything."""
    entries = tuple((level << PAGE_SHIFT) | ENTRY & 0xFFF for level in (2, 3, 4))
    return Case(va=va, entries=(*entries, leaf), kind=kind, **features)  # type: ignore[arg-type]


CHECKS: Final = {
    "the address": [("is canonical", a_case("read", va=1 << 47))],
    "each entry, from the root down to the one that maps the page": [
        ("has P", a_case("read", ENTRY & ~P)),
        ("has no reserved bit", a_case("read", ENTRY | 1 << MAXPHYADDR)),
    ],
    "all entries together, for a fetch": [
        ("user: US in all", a_case("fetch", ENTRY & ~US, user=True)),
        ("supervisor, SMEP: not in all", a_case("fetch", smep=True)),
        ("XD in none", a_case("fetch", ENTRY | XD)),
    ],
    "all entries together, for data": [
        ("user: US in all", a_case("read", ENTRY & ~US, user=True)),
        ("supervisor, SMAP: not in all", a_case("read", smap=True)),
        ("PKE: no AD for the key", a_case("read", pke=True, pkru=1)),
        ("PKE, to write: no WD either", a_case("write", pke=True, pkru=2)),
        ("user, to write: RW in all", a_case("write", ENTRY & ~RW, user=True)),
        ("supervisor, WP: the same", a_case("write", ENTRY & ~RW)),
    ],
}


def draw_rights(path: Path) -> None:
    """The checks from the address to the page, each with what the CPU says when it fails."""
    drawing = Drawing(
        "What is checked, and in which order",
        "The address, then each entry, then the rights that all entries together give.",
    )
    y = 0
    with Probe() as probe:
        for what, conditions in CHECKS.items():
            drawing.text(0, y + 14, what, "small head")
            y += 22
            for condition, case in conditions:
                verdict = probe.access(case)
                code = verdict.error_code or 0
                bits = " ".join(name for name, (bit, *_) in ERROR_BITS.items() if code & bit)
                exception = "#GP" if verdict.cr2 is None else "#PF"
                drawing.box(0, y, 184, 24, "mark")
                drawing.text(8, y + 16, condition, "small")
                drawing.arrow((184, y + 12), (208, y + 12))
                drawing.box(210, y, WIDTH - 210, 24, "bad")
                drawing.text(218, y + 16, exception, "small head")
                drawing.text(248, y + 16, f"{code:#x} {bits}", "small code")
                drawing.text(WIDTH - 6, y + 16, verdict.rule or "", "small code faint", "end")
                y += 29
            y += 8
    drawing.save(path, y)


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python tools/pictures.py DIRECTORY", file=sys.stderr)
        return 2
    where = Path(sys.argv[1])
    run = run_scenario("vmemmap-devdax")
    kernel, task, fault = run.kernel, run.ending.task, run.ending.stop
    assert isinstance(fault, PageFault)
    walk = kernel.walk_under(kernel.paging(kernel.init_mm), VirtAddr(fault.address))
    draw_address(fault.address, where / "address.svg")
    draw_walk(walk, kernel.init_mm.pgd, where / "walk.svg")
    draw_entry(walk.steps[-1].entry, walk.steps[-1].level, where / "entry.svg")
    draw_roots(kernel, task.comm, task.mm, fault, where / "roots.svg")
    draw_rights(where / "rights.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
