"""Text of `why` and `audit`: who disagrees with init_mm's table, who wrote what, and why.

Knows how an answer reads, and that it fits a screen: tables that read the same share a column, and
of many names a few are told. Refuses to judge (`kernel_model.auditing`).
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from emu.paging import ENTRIES, ENTRY_NAME, flags_text, page_size
from emu.walk import Step, Walk
from kernel_model.auditing import Cause, Lacking, Reading, Table, Why
from kernel_model.pgtable import folded_name, linux_name, none
from kernel_model.words import show_size
from kernel_model.writers import Write
from pagewalk.render import end_text

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_NAMES: Final = 4
_BESIDE: Final = 2  # columns beside the labels and init_mm's
_BLOCKS: Final = 2
_FINDINGS: Final = 12

_KIND: Final = {
    "lacking": "missing from",
    "stale": "another table than init_mm's in",
    "flags": "other bits than init_mm's in",
}


def who(tables: Sequence[Table]) -> str:
    """Name some tables, or the first of them."""
    if len(tables) == 1:
        return tables[0].name
    names = list(dict.fromkeys(table.name for table in tables))
    more = ", …" if len(names) > _NAMES else ""
    return f"{len(tables):,} tables ({', '.join(names[:_NAMES])}{more})"


def written_text(entry: int, write: Write | None) -> str:
    """Say who wrote an entry."""
    if write is None:
        return "nobody" if none(entry) else "nobody noted it"
    if write.how == "forked":
        return f"{write.by}, at the fork"
    if write.how == "copied":
        return f"{write.by}, a copy"
    return f"cleared by {write.by}" if write.how == "cleared" else write.by


def cause_text(kernel: "Kernel", cause: Cause, slots: str, tables: Sequence[Table]) -> str:
    """Say why tables have not what init_mm has in a slot, or in neighbours with one story."""
    filled = _filled_text(kernel, cause, slots)
    match cause.reason:
        case "not-synced":
            due = f": {cause.by}'s own comes at its end, and it did not get there"
            return f"{filled}; no sync of it came after that{due if cause.by else ''}"
        case "sync-died":
            return f"{filled}; {cause.by} then died of a BUG before it came to {who(tables)}"
        case "left-to-faults":
            return f"{filled}; vmalloc_fault() copies it for a task that touches it"
        case "outside-pgd-list":
            reach = f"no sync reaches {who(tables)}: not on pgd_list"
            copied = f", and {cause.by} had copied the slot before that" if cause.by else ""
            return f"{filled}; {reach}{copied}" if filled else reach
        case "user-mode":
            return "a table for user mode has of the kernel what its entries need, by design"
        case "replaced":
            return f"{filled}; what was there before is still in {who(tables)}: no sync replaces it"
        case "per-mm":
            return "each mm has this slot to itself: no fork copies it and no sync reaches it"
        case "unseen":
            return f"nothing in the history explains that{f': {filled}' if filled else ''}"


def _filled_text(kernel: "Kernel", cause: Cause, slots: str) -> str:
    """Say who wrote init_mm's entry, and when; nothing if the history does not."""
    if cause.path is None or cause.at is None:
        return ""
    times = [f"after {cause.after} was forked"] if cause.after else []
    times += [f"before {cause.before} was"] if cause.after and cause.before else []
    times += [f"before {cause.before} was forked"] if not cause.after and cause.before else []
    when = "at boot" if cause.at < kernel.nr_boot_events else " and ".join(times)
    return f"{cause.path} wrote {slots} of init_mm {when}".rstrip()


# -- why


def why_lines(kernel: "Kernel", found: Why) -> Iterator[str]:
    """Tell an answer: the walks side by side, what is different, and why."""
    start = found.addr & -kernel.layout.pgdir_size
    span = f"{start:016x} - {start + kernel.layout.pgdir_size - 1:016x}"
    yield f"{found.addr:016x}: {found.region}, slot {found.slot} of the top tables ({span})"
    shown = found.others[: _BESIDE * _BLOCKS]
    for block in (shown[:_BESIDE], shown[_BESIDE:]):
        if block or not shown:
            yield ""
            yield from _columns(kernel, found.reference, block)
        if not shown:
            break
    rest = found.others[len(shown) :]
    if rest:
        nr_tables = sum(len(reading.tables) for reading in rest)
        yield f"… and {_count(nr_tables)} in {len(rest):,} ways (all of them: --json)"
    yield ""
    yield from _answer(kernel, found, shown)


def _columns(kernel: "Kernel", reference: Reading, readings: Sequence[Reading]) -> Iterator[str]:
    """One column a reading, two lines an entry: what it is, and who wrote it."""
    readings = (reference, *readings)
    longest = max(readings, key=lambda reading: len(reading.walk.steps))
    columns = [["", *_labels(longest.walk.steps, kernel.layout.levels), ""]]
    for reading in readings:
        cells = [_title(reading)]
        for step, write in zip(reading.walk.steps, reading.written, strict=True):
            if reading is not reference and step in reference.walk.steps:
                cells += ["the same entry", ""]
                continue
            cells.append(f"{step.entry:#x}  {flags_text(step.entry, step.level)}")
            cells.append(f"  {written_text(step.entry, write)}")
        cells.append(f"-> {_end(reading.walk)}")
        columns.append(cells + [""] * (len(columns[0]) - len(cells)))
    widths = [max(map(len, cells)) for cells in columns]
    for row in zip(*columns, strict=True):
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _end(walk: Walk) -> str:
    """Say in a few words what a walk comes to."""
    if walk.pa is not None:
        return f"pa {walk.pa:#x}, a {show_size(page_size(walk.level))} page"
    return walk.verdict.replace("-", " ")


def _labels(steps: Sequence[Step], levels: int) -> Iterator[str]:
    for step in steps:
        yield f"{ENTRY_NAME[step.level]:5} {folded_name(step.level, levels):7} [{step.slot:3}]"
        yield ""


def _title(reading: Reading) -> str:
    first = reading.tables[0]
    if first.name == "init_mm":
        return "init_mm, the reference"
    return who(reading.tables) + ("" if first.on_pgd_list else ", not on pgd_list")


def _answer(kernel: "Kernel", found: Why, shown: Sequence[Reading]) -> Iterator[str]:
    """The verdict, where the walks part, and why."""
    counted = [r for r in found.others if not (r.cause and r.cause.reason == "user-mode")]
    yield f"{found.verdict.replace('-', ' ')}: {_verdict_text(kernel, found, counted)}"
    if found.verdict == "per-mm":
        return
    top = found.reference.walk.steps[0]
    name = f"{ENTRY_NAME[top.level]} ({linux_name(top.level, kernel.layout.levels)})"
    for reading in shown:
        if reading.kind is None:
            continue
        entry = reading.walk.steps[0].entry
        values = f"init_mm has {top.entry:#x}, {who(reading.tables)} {entry:#x}"
        yield f"they differ first at the {name} slot {found.slot}: {values}"
        if reading.cause is not None:
            yield f"  {cause_text(kernel, reading.cause, f'slot {found.slot}', reading.tables)}"
    for reading in shown:
        if reading.kind is None and reading.walk.steps[0].entry != top.entry:
            yield f"{who(reading.tables)}: only A and D differ, which the CPU writes"


def _verdict_text(kernel: "Kernel", found: Why, counted: Sequence[Reading]) -> str:
    """Say the verdict in a sentence; `counted` are those that should have what init_mm has."""
    walk = found.reference.walk
    nr_tables = sum(len(reading.tables) for reading in counted)
    nr_differ = sum(len(reading.tables) for reading in counted if reading.kind)
    match found.verdict:
        case "mapped" if not nr_tables:
            return "there is no other table than init_mm's"
        case "mapped":
            return f"the same page under init_mm's table and {_count(nr_tables)}"
        case "unsynced":
            does = "does" if nr_differ == 1 else "do"
            return f"init_mm maps it, {nr_differ:,} of {_count(nr_tables)} {does} not"
        case "stale" | "different":
            return f"{nr_differ:,} of {_count(nr_tables)} with another entry than init_mm's"
        case "malformed":
            return f"in init_mm's table: {end_text(walk, kernel.paging(kernel.init_mm))}"
        case "per-mm":
            if found.addr < 1 << 63:
                return "a user address: only its own task's table matters, and no sync reaches it"
            own = found.slot == kernel.layout.ldt_slot
            return f"{'the LDT slot' if own else 'a slot'} of each mm: not copied, never synced"
        case "never-mapped" | "unmapped":
            step = walk.steps[-1]
            entry = linux_name(step.level, kernel.layout.levels)
            write = found.reference.written[-1]
            return f"init_mm's own walk ends at an empty {entry}: " + (
                written_text(step.entry, write) if write else "nobody has ever filled it"
            )


def _count(nr_tables: int) -> str:
    return f"{nr_tables:,} other table{'' if nr_tables == 1 else 's'}"


# -- audit


def audit_lines(kernel: "Kernel", found: Sequence[Lacking], nr_tables: int) -> Iterator[str]:
    """Tell what tables lack: neighbouring slots with one story share it."""
    first = kernel.layout.kernel_pgd_boundary
    yield f"init_mm's table and {_count(nr_tables)}, slots {first} to {ENTRIES - 1}"
    findings = sorted(_runs(found), key=lambda run: run[0].slot)
    for finding in findings[:_FINDINGS]:
        one, last = finding[0], finding[-1]
        slots = f"slot {one.slot}" if one is last else f"slots {one.slot} to {last.slot}"
        yield ""
        yield f"{slots} ({one.addr:016x}, {_regions(kernel, one.slot, last.slot)})"
        yield f"  {_KIND[one.kind]} {who(one.tables)}{_values(one)}"
        yield f"  {cause_text(kernel, one.cause, slots, one.tables)}"
    if findings[_FINDINGS:]:
        yield ""
        yield f"… and {len(findings) - _FINDINGS} more (all of them: --json)"
    if not findings:
        yield "no table lacks what init_mm has" if nr_tables else "there is nothing to compare"


def _runs(found: Sequence[Lacking]) -> Iterator[list[Lacking]]:
    """Put neighbouring slots together that differ in the same way, in the same tables."""
    numbered = enumerate(sorted(found, key=lambda one: (_story(one), one.slot)))
    for _, run in groupby(numbered, key=lambda item: (_story(item[1]), item[1].slot - item[0])):
        yield [one for _, one in run]


def _story(one: Lacking) -> tuple[str, ...]:
    cause = one.cause
    same = one.kind, cause.reason, cause.path, cause.after, cause.before, cause.by
    entry = "" if one.kind == "lacking" else f"{one.slot}"
    return (*map(str, same), entry, *(f"{table.mm.pgd:x}" for table in one.tables))


def _values(one: Lacking) -> str:
    if one.kind == "lacking":
        return ""
    return f": {one.entry:#x}, and init_mm has {one.reference:#x}"


def _regions(kernel: "Kernel", first: int, last: int) -> str:
    """Name what lies in a run of slots."""
    layout = kernel.layout
    start, end = layout.slot_base(first), layout.slot_base(last) + layout.pgdir_size
    names = [name for name, low, high in layout.regions() if low < end and start < high]
    return ", ".join(names) or "no region"
