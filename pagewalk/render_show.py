"""Text and JSON of what `pagewalk show` finds: a file's header, its end, who wrote an entry.

Knows how these look; events look as they do everywhere (`render_trace`, `objects`). Refuses to
know how they were found.
"""

from collections.abc import Iterator
from typing import Any

from emu.events import Walked
from emu.paging import ENTRY_NAME
from kernel_model.pgtable import linux_name
from kernel_model.words import show_hex
from pagewalk.render_trace import end_line, mnemonic, walked_line
from pagewalk.traces.entry_history import Entry, Write
from pagewalk.traces.reading import Trace


def header_line(trace: Trace) -> str:
    """Say what was run, and what the machine was then."""
    header = trace.header
    source = header.source
    what = str(source.get("file") or source.get("scenario"))
    if "release" in source:
        what += f", release {source['release']}"
    where = "" if header.entry is None else f"{header.entry:#x}, "
    paging = header.paging
    return f"{what}: {where}CPL {header.cpl}, {paging.levels} levels, CR3 {paging.cr3:#x}"


def end_lines(trace: Trace) -> Iterator[str]:
    """Say how the run ended, if the file does."""
    ending = trace.ending
    if ending is not None:
        named = trace.symbols.get
        yield end_line(ending.outcome, ending.stop, ending.instructions, ending.message, named)


def entry_text(entry: Entry, levels: int) -> str:
    """Name an entry: "PML4E (pgd) for ffffe70000000000 in init_mm's table, at 0x2100e70"."""
    if entry.level is None or entry.va is None:
        return f"the 8 bytes at {entry.pa:#x}"
    whose = f" in {entry.task}'s table" if entry.task else ""
    names = f"{ENTRY_NAME[entry.level]} ({linux_name(entry.level, levels)})"
    return f"the {names} for {entry.va:016x}{whose}, at {entry.pa:#x}"


def write_lines(write: Write, symbols: dict[int, str]) -> Iterator[str]:
    """Say who wrote an entry, and what it held before and holds now."""
    task = f"  [{write.seen.task}]" if write.seen.task else ""
    yield _who(write, symbols) + task
    event = write.seen.event
    if isinstance(event, Walked):
        yield walked_line(event)
    before = "?" if write.before is None else f"{write.before:#x}"
    after = "?" if write.after is None else f"{write.after:#x}"
    yield f"    {before} -> {after}"


def last_line(entry: Entry, last: Write | None, holds: int | None, trace: Trace) -> str:
    """Say who wrote an entry last, and what it holds."""
    levels = trace.header.paging.levels
    value = "what it holds is not known" if holds is None else f"it holds {holds:#x}"
    if last is None:
        return f"nobody wrote {entry_text(entry, levels)}; {value}"
    return f"last written by {_who(last, trace.symbols)}; {value}"


def write_json(write: Write, symbols: dict[int, str]) -> dict[str, Any]:
    """Return one write as an object."""
    executed = None if write.how == "edit" else write.executed
    return {
        "how": write.how,
        "rip": show_hex(executed and executed.rip),
        "symbol": symbols.get(executed.rip) if executed else None,
        "text": mnemonic(executed.rip, executed.code) if executed else None,
        "by": write.by,
        "cpu": write.seen.cpu,
        "task": write.seen.task,
        "before": show_hex(write.before),
        "after": show_hex(write.after),
    }


def entry_json(entry: Entry) -> dict[str, Any]:
    """Return an entry as an object."""
    return {
        "entry_pa": f"{entry.pa:#x}",
        "level": entry.level,
        "va": show_hex(entry.va),
        "task": entry.task,
    }


def _who(write: Write, symbols: dict[int, str]) -> str:
    if write.how == "edit":
        return f"{write.by} (from outside the CPU)"
    executed = write.executed
    if executed is None:
        where = "the CPU, before its first instruction"
    else:
        name = symbols.get(executed.rip)
        text = mnemonic(executed.rip, executed.code)
        where = f"{executed.rip:016x}{f' {name}' if name else ''}: {text}"
    event = write.seen.event
    if isinstance(event, Walked) and event.kind == "fetch":
        return f"the CPU's walk for its fetch from {event.va:016x}"
    if write.how == "walk":
        return f"the CPU's walk for {where}"
    if write.how == "exception":
        return f"the CPU's delivery of an exception, after {where}"
    return where
