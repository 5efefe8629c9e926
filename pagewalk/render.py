"""Text for people: what several commands show: walks, rights, layouts, what a kernel did.

Knows how these look, in plain lines; what only one command shows is formatted with that command,
and `terminal` adds the colours. Refuses to know how they came about.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby, zip_longest
from typing import Final

from emu import Access, Paging, refusal
from emu.paging import ENTRY_NAME, A, D, flags_text
from emu.walk import ENDS as _ENDS
from emu.walk import Step, Walk
from kernel_model.errors import ERRNO_NAME
from kernel_model.history import (
    Cleared,
    Copied,
    Event,
    Exited,
    Forked,
    LazyFault,
    LeftOut,
    Mapped,
    Populated,
    Refused,
    Switched,
    SyncDied,
    Synced,
    Unmapped,
)
from kernel_model.layout import TIB, Layout
from kernel_model.pgtable import folded_name, linux_name
from kernel_model.words import show_size

ENDS: Final = {
    **_ENDS,
    "reserved-bit": _ENDS["reserved-bit"] + " (bits {bits})",
    "untold": "nobody told what this entry holds: the walk stops here",
}
"""What a walk comes to, if its paging is known, or its entries are not."""
DIFFERENCE: Final = "they differ at the {entry} ({linux}) slot {slot}: {values}"
HAS: Final = "{name} has {value}"
HAS_NOT: Final = "{name} has not got that far"


def step_text(step: Step, levels: int) -> str:
    """One line for one entry: both names, index, place, value, bits."""
    level, entry_pa, entry = step
    names = f"{ENTRY_NAME[level]:5} {folded_name(level, levels):7}"
    return f"{names} [{step.slot:3}] at {entry_pa:#x}: {entry:#x}  {flags_text(entry, level)}"


def walk_lines(walk: Walk, paging: Paging) -> Iterator[str]:
    """Every entry read, its bits, where the walk stops and why."""
    yield f"CR3 = {paging.cr3:#x}, {paging.levels} levels"
    for step in walk.steps:
        yield "  " + step_text(step, paging.levels)
    yield "  -> " + end_text(walk, paging)


def end_text(walk: Walk, paging: Paging) -> str:
    """What the walk came to."""
    if walk.verdict != "reserved-bit":
        return walk.end
    level, _, entry = walk.steps[-1]
    return ENDS["reserved-bit"].format(bits=f"{paging.reserved(entry, level):#x}")


def rights_lines(walk: Walk, paging: Paging) -> Iterator[str]:
    """Which accesses may use the walk, and the rule that refuses the others."""
    if walk.verdict in ("outside-ram", "non-canonical"):
        return
    for who, user in (("supervisor", False), ("user", True)):
        verdicts = []
        for kind in ("read", "write", "fetch"):
            refused = refusal(walk, Access(kind, user), paging)
            verdicts.append(f"{kind} {refused.reason if refused else 'ok'}")
        yield f"  {who}: {', '.join(verdicts)}"


def beside(left: Iterable[str], right: Iterable[str]) -> Iterator[str]:
    """Two columns of lines, side by side."""
    left, right = list(left), list(right)
    width = max(map(len, left), default=0)
    for a, b in zip_longest(left, right, fillvalue=""):
        yield f"{a:{width}}  |  {b}".rstrip()


def first_difference(a: Walk, b: Walk) -> int | None:
    """Return the index of the first step that the two walks read differently, if any."""
    for i, (x, y) in enumerate(zip_longest(a.steps, b.steps)):
        if x is None or y is None or x.entry & ~(A | D) != y.entry & ~(A | D):
            return i
    return None


def difference_text(a: Walk, b: Walk, name_a: str, name_b: str, levels: int) -> str:
    """Name the entry by which two walks differ first."""
    at = first_difference(a, b)
    if at is None:
        return f"{name_a} and {name_b} read the same entries"
    step_a = a.steps[at] if at < len(a.steps) else None
    step_b = b.steps[at] if at < len(b.steps) else None
    parting = step_a or step_b or a.steps[-1]
    values = ", ".join(
        HAS.format(name=name, value=f"{step.entry:#x}") if step else HAS_NOT.format(name=name)
        for name, step in ((name_a, step_a), (name_b, step_b))
    )
    return DIFFERENCE.format(
        entry=ENTRY_NAME[parting.level],
        linux=linux_name(parting.level, levels),
        slot=parting.slot,
        values=values,
    )


def layout_lines(layout: Layout) -> Iterator[str]:
    """The regions, lowest first, with their top-level slots."""
    for name, start, end in layout.regions():
        if name == "user space":
            continue
        size = f"{(end - start) // TIB} TiB" if (end - start) % TIB == 0 else show_size(end - start)
        slots = f"{layout.pgd_index(start)}..{layout.pgd_index(end - 1)}"
        yield f"{name:20} {start:016x} - {end - 1:016x}  {size:>9}  slots {slots}"


def history_lines(events: Iterable[Event], *, most: int = 40) -> Iterator[str]:
    """What the kernel did, in order; neighbours of one kind share a line, and so do syncs that
    had nothing to do. Of more than `most` lines the middle is left out.
    """
    times = [(line, len(list(same))) for line, same in groupby(_grouped(events))]
    lines = [line if nr == 1 else f"{line} ({nr} times)" for line, nr in times]
    if len(lines) <= most:
        yield from lines
        return
    half = most // 2
    yield from lines[:half]
    yield f"… {len(lines) - 2 * half} more …"
    yield from lines[-half:]


def _grouped(events: Iterable[Event]) -> Iterator[str]:
    """Say each event, ranges that continue each other and idle syncs together."""
    run: list[Mapped] = []
    idle: list[Synced] = []
    fills: list[Populated] = []
    for event in events:
        if fills and not (isinstance(event, Populated) and _next_slot(fills[-1], event)):
            yield _fills_text(fills)
            fills.clear()
        if isinstance(event, Populated):
            yield from _flush(run, idle)
            fills.append(event)
            continue
        if isinstance(event, Synced) and not event.filled:
            idle.append(event)
            continue
        continues = isinstance(event, Mapped) and run and _continues(run[-1], event)
        if not continues:
            yield from _flush(run, idle)
        if isinstance(event, Mapped):
            run.append(event)
        else:
            yield _event_text(event)
    if fills:
        yield _fills_text(fills)
    yield from _flush(run, idle)


def _next_slot(last: Populated, event: Populated) -> bool:
    return (last.path, last.name, last.slot + 1) == (event.path, event.name, event.slot)


def _fills_text(fills: list[Populated]) -> str:
    first, last = fills[0], fills[-1]
    if first is last:
        return f"{first.path}: fills slot {first.slot} of init_mm, {first.name} = {first.entry:#x}"
    return f"{first.path}: fills slots {first.slot}..{last.slot} of init_mm"


def _continues(last: Mapped, event: Mapped) -> bool:
    return (last.path, last.region, last.end) == (event.path, event.region, event.start)


def _flush(run: list[Mapped], idle: list[Synced]) -> Iterator[str]:
    if run:
        details = " or ".join(dict.fromkeys(event.detail for event in run))
        first, last = run[0], run[-1]
        span = f"{first.start:016x} - {last.end - 1:016x}"
        yield f"{first.path}: {first.region} {span}, {details}"
    if idle:
        start, end = min(s.start for s in idle), max(s.end for s in idle)
        times = "" if len(idle) == 1 else f"{len(idle)} times, "
        by = " and ".join(dict.fromkeys(s.by for s in idle))
        yield f"{by}: {times}{_span(start, end)}, no table lacked it"
    run.clear()
    idle.clear()


def _event_text(event: Event) -> str:
    match event:
        case Forked(comm, pgd):
            return f"fork: {comm} gets a table at pa {pgd:#x}, a copy of init_mm's kernel slots"
        case Copied(table, first, last, path):
            slots = f"slot {first}" if first == last else f"slots {first}..{last}"
            return f"{path}: copies {slots} of init_mm to {table}"
        case Exited(comm, pgd):
            return f"exit: {comm}'s table at pa {pgd:#x} is freed"
        case LazyFault(comm, address, slot, filled, repeated):
            if repeated:
                how = f"copies slot {slot} from init_mm" if filled else "finds the slot filled"
                end = f"vmalloc_fault() {how}; the access is made again"
            elif filled:
                end = f"vmalloc_fault() copies slot {slot} from init_mm, and does not return"
            else:
                end = "the handler does not get to repair it"
            return f"page_fault: {comm} at {address:016x}: {end}"
        case Unmapped(region, start, end, path):
            return f"{path}: {region} {_span(start, end - 1)} is unmapped"
        case Cleared(_, slot, path, tables):
            others = f" and in {_counted(tables, 'task table')}" if tables else " alone"
            return f"{path}: empties slot {slot}, in init_mm{others}"
        case Switched(name, cr3):
            return f"switch_mm: CR3 = {cr3:#x}, {name}'s table"
        case Populated():
            return _fills_text([event])
        case Synced(start, end, by, tables, filled):
            entries = _counted(filled, "entry", "entries")
            return f"{by}: {_span(start, end)}, fills {entries} of {_counted(tables, 'task table')}"
        case SyncDied(_, addr, by, comm, _):
            return f"{by}: for {addr:016x} {comm}'s table has another table than init_mm's: a BUG"
        case Refused(path, errno, why):
            return f"{path}: -{ERRNO_NAME.get(errno, errno)}: {why}"
        case LeftOut(path, why):
            return f"{path}: {why}"
        case Mapped(region, start, end, path, detail):
            return f"{path}: {region} {_span(start, end - 1)}, {detail}"


def _counted(nr: int, one: str, more: str = "") -> str:
    return f"{nr} {one if nr == 1 else more or one + 's'}"


def _span(start: int, end: int) -> str:
    return f"{start:016x}" if start == end else f"{start:016x} - {end:016x}"
