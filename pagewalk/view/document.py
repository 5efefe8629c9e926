"""What of a playback is in a page: texts, numbers in columns, and the words that the page needs.

Knows which facts the scripts work with, and takes every word from where it is at home (`render`,
`render_trace`, `entry_fields`), so that a page says what a terminal does. Refuses to know how it is
packed (`packing`) and what it looks like.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from emu.events import Accessed, Delivered, Event, Executed, Faulted, Walked
from emu.paging import ENTRIES, ENTRY_NAME, FRAME_SIZE, Paging, page_size
from emu.registers import GENERAL
from kernel_model.pgtable import folded_name, linux_name
from kernel_model.words import show_size
from pagewalk.entry_fields import fields
from pagewalk.playback.moments import Playback
from pagewalk.render import DIFFERENCE, ENDS, HAS, HAS_NOT
from pagewalk.render_trace import BLAMES, RULES, Lines

MOST_TABLES: Final = 1 << 14
"""How many tables are in a page at most: 64 MiB, as the browser holds them."""

_KINDS: Final = ("", "read", "write", "fetch")
_USER: Final = 4
_OFTEN: Final = 1 << 12


def document(
    playback: Playback, progress: Callable[[int], object] | None = None
) -> tuple[dict[str, Any], dict[str, tuple[str, Any]]]:
    """Return a page's small facts, and its columns by name with their types.

    `progress` is told now and then how many more events are done.
    """
    texts, columns = _events(playback, progress)
    columns |= _registers(playback)
    tables = _tables(playback)
    columns |= _table_columns(playback, tables)
    paging = playback.paging(0)
    levels = range(paging.levels, 0, -1)
    facts = {
        "title": playback.title,
        "ending": playback.ending,
        "nrEvents": playback.nr_events,
        "nrLeftOut": playback.nr_left_out,
        "hasTelling": playback.has_telling,
        "nrInstructions": playback.nr_instructions,
        "nrTables": len(playback.values.frames),
        "levels": paging.levels,
        "entryNames": {level: ENTRY_NAME[level] for level in levels},
        "linuxNames": {level: linux_name(level, paging.levels) for level in levels},
        "pageSizes": {level: show_size(page_size(level)) for level in levels},
        "linuxLabels": {level: folded_name(level, paging.levels) for level in levels},
        "registers": GENERAL,
        "ends": ENDS,
        "difference": [DIFFERENCE, HAS, HAS_NOT],
        "rules": RULES,
        "blames": {rule: [f"{bit:#x}", *rest] for rule, (bit, *rest) in BLAMES.items()},
        "fields": {
            f"{level} {sort}": fields(level, sort, paging)
            for level in levels
            for sort in ("table", "page", "absent")
        },
        "texts": texts,
        "moments": {kind: playback.moments(kind) for kind in ("fault", "change", "switch")},
        "pagings": {
            cpu: [[at, paging_facts(paging)] for at, paging in known]
            for cpu, known in playback.pagings.items()
        },
        "tasks": [[at, f"{root:#x}", name] for at, root, name in playback.names],
        "symbols": {name: f"{address:#x}" for name, address in playback.symbols.items()},
        "regions": [
            [name, f"{start:#x}", f"{end:#x}"]
            for name, start, end in (playback.layout.regions() if playback.layout else ())
        ],
        "ownSlots": sorted(playback.own_slots),
        "ram": _ram(playback),
    }
    return facts, columns


def _ram(playback: Playback) -> list[list[str]] | None:
    if playback.ram is None:
        return None
    return [[f"{start:#x}", f"{end:#x}"] for start, end in playback.ram]


def paging_facts(paging: Paging) -> dict[str, Any]:
    """Return control registers as the scripts read them."""
    return {
        **{name: f"{getattr(paging, name):#x}" for name in ("cr0", "cr3", "cr4", "efer", "pkru")},
        "root": f"{paging.root:#x}",
        "levels": paging.levels,
        "reserved": [f"{bits:#x}" for bits in paging.reserved_by_level],
    }


def _events(
    playback: Playback, progress: Callable[[int], object] | None
) -> tuple[list[str], dict[str, tuple[str, Any]]]:
    """Return the distinct texts, and a row for each event: its text, CPU, address and access."""
    texts: dict[str, int] = {}
    at = 0
    lines = Lines(playback.symbolise, lambda: playback.paging(at))
    rows: list[tuple[int, int, int, int]] = []
    for at, (event, cpu) in enumerate(zip(playback.events, playback.cpus, strict=True), 1):
        text = "\n".join(lines.of(event))
        va, access = _touched(event)
        rows.append((texts.setdefault(text, len(texts)), cpu, va or 0, access))
        if progress is not None and not at % _OFTEN:
            progress(_OFTEN)
    text_of, cpu_of, va_of, access_of = zip(*rows, strict=True) if rows else ((), (), (), ())
    return list(texts), {
        "eventText": ("u4", text_of),
        "eventNumber": ("u4", playback.numbers),
        "eventCpu": ("u1", cpu_of),
        "eventVa": ("u8", np.array(va_of, np.uint64)),
        "eventAccess": ("u1", access_of),
    }


def _registers(playback: Playback) -> dict[str, tuple[str, Any]]:
    """Return the general registers, if they were recorded: a row for each instruction.

    Each row is what differs from the row before, bit by bit, and they lie register by register:
    so it is mostly zeros. `eventRow` says which row is whose, from 1 on; 0 is none.
    """
    last: dict[int, int] = {}
    rows: list[tuple[int, ...]] = []
    row_of: list[int] = []
    for event, cpu in zip(playback.events, playback.cpus, strict=True):
        if isinstance(event, Executed) and event.registers is not None:
            rows.append(event.registers)
            last[cpu] = len(rows)
        row_of.append(last.get(cpu, 0))
    if not rows:
        return {}
    registers = np.array(rows, np.uint64)
    registers[1:] ^= registers[:-1]
    return {"eventRow": ("u4", row_of), "registerBits": ("u8", registers.T.ravel())}


def _touched(event: Event) -> tuple[int | None, int]:
    """Return the address that an event is about, and the access as a number; 0 is none."""
    match event:
        case Accessed(va, _, _, _, kind) if va is not None:
            return va, _KINDS.index(kind)
        case Walked(va, kind, user):
            return va, _KINDS.index(kind) | (_USER if user else 0)
        case Faulted(stop):
            return _faulted(stop)
        case Delivered(delivery):
            return _faulted(delivery.exceptions[0])
    return None, 0


def _faulted(stop: object) -> tuple[int | None, int]:
    walk = getattr(stop, "walk", None)
    if walk is None:
        return None, 0
    kind = getattr(stop, "access", None) or "read"
    return walk.va, _KINDS.index(kind) | (_USER if getattr(stop, "cpl", 0) == 3 else 0)


# ------------------------------------------------------------------ tables


def _tables(playback: Playback) -> list[int]:
    """Return the tables that are in the page: those nearest to a root, if there are too many."""
    known = set(playback.values.frames)
    levels = playback.levels
    waiting: deque[tuple[int, int]] = deque((one.root, levels) for one in playback.names)
    waiting += ((paging.root, levels) for p in playback.pagings.values() for _, paging in p)
    found: dict[int, None] = {}
    while waiting and len(found) < MOST_TABLES:
        table, level = waiting.popleft()
        if table not in known or table in found:
            continue
        found[table] = None
        waiting += ((below, level - 1) for below in playback.values.below(table, level))
    return sorted(found)


def _table_columns(playback: Playback, tables: list[int]) -> dict[str, tuple[str, Any]]:
    """Return where the tables lie, their words at the beginning, and every change."""
    place = {table: number * ENTRIES for number, table in enumerate(tables)}
    firsts = [playback.values.first(table) for table in tables]
    changes = [one for one in playback.values.changes if one.entry_pa & -FRAME_SIZE in place]
    return {
        "tableFrame": ("u4", [table // FRAME_SIZE for table in tables]),
        "words": ("u8", np.concatenate([words for words, _ in firsts]) if firsts else ()),
        "known": ("u1", np.concatenate([known for _, known in firsts]) if firsts else ()),
        "changeAt": ("u4", [change.at for change in changes]),
        "changeWord": (
            "u4",
            [
                place[change.entry_pa & -FRAME_SIZE] + change.entry_pa % FRAME_SIZE // 8
                for change in changes
            ],
        ),
        "changeBefore": ("u8", np.array([one.before or 0 for one in changes], np.uint64)),
        "changeAfter": ("u8", np.array([one.after or 0 for one in changes], np.uint64)),
        "changeKnown": (
            "u1",
            [(one.before is not None) | (one.after is not None) << 1 for one in changes],
        ),
    }
