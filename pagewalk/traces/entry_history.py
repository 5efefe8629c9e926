"""Who wrote a page-table entry: every store, every bit that the CPU set, every edit from outside.

Knows where an entry lies, from the roots and the walks in a trace, and what it held as far as the
trace tells. Refuses to know how that is shown. Both vocabularies.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from typing import Final, Literal, NamedTuple

from emu import PhysAddr
from emu.events import Accessed, Delivered, Edited, Event, Executed, Faulted, Walked
from emu.paging import ADDRESS, ENTRY_NAME, ENTRY_SIZE, U64, P, index, is_canonical, maps_page
from kernel_model.pgtable import linux_name
from pagewalk.arguments import BadInput, bad, number
from pagewalk.traces.reading import Seen, Trace
from pagewalk.traces.stores import bits_of_word

_SYNTAX: Final = "a physical address, or LEVEL:VA, LEVEL being one of"
_PHYSICAL_BITS: Final = 52  # the most that the architecture has


class Entry(NamedTuple):
    """An entry: where it lies, and what it is, if that is how it was asked for."""

    pa: PhysAddr
    level: int | None = None
    va: int | None = None
    task: str | None = None


class Write(NamedTuple):
    """Somebody wrote an entry, or a part of it. What it held is None where that is not known.

    `how`: the instruction stored, the CPU walked, an exception was delivered, or the function
    `by` wrote from outside the CPU.
    """

    seen: Seen
    how: Literal["store", "walk", "exception", "edit"]
    executed: Executed | None
    by: str | None
    before: int | None
    after: int | None


class Held:
    """What an entry holds, as far as is known: some of its bytes."""

    def __init__(self, pa: int) -> None:
        self._pa = pa
        self._value = self._mask = 0

    @property
    def value(self) -> int | None:
        """All of it, or None."""
        return self._value if self._mask == U64 else None

    def put(self, pa: int, size: int, value: int | None) -> None:
        """Learn what `size` bytes from `pa` on hold; nobody knows if that is None."""
        mask, bits = bits_of_word(self._pa, pa, size, value or 0)
        self._value &= ~mask
        self._mask &= ~mask
        if value is not None:
            self._value |= bits
            self._mask |= mask

    def covers(self, pa: int, size: int) -> bool:
        """Tell whether any of these bytes is the entry's."""
        return pa < self._pa + ENTRY_SIZE and self._pa < pa + size


def writes(trace: Trace, entry: Entry, held: Held) -> Iterator[Write]:
    """Read a trace, and yield every write to an entry, in order; `held` is what it holds then."""
    last: dict[int, Executed] = {}
    for seen in trace.events():
        event = seen.event
        if isinstance(event, Executed):
            last[seen.cpu] = event
            continue
        before = held.value
        how, by = _learn(held, entry, event)
        if how is not None:
            yield Write(seen, how, last.get(seen.cpu), by, before, held.value)


def _learn(
    held: Held, entry: Entry, event: Event
) -> tuple[Literal["store", "walk", "exception", "edit"] | None, str | None]:
    """Learn from an event what the entry holds, and return how it wrote the entry, and who."""
    match event:
        case Accessed(_, pa, size, value, kind) if held.covers(pa, size):
            held.put(pa, size, value)
            return ("store", None) if kind == "write" else (None, None)
        case Walked(_, _, _, steps):
            for step in steps:
                if step.entry_pa == entry.pa:
                    held.put(entry.pa, ENTRY_SIZE, step.after)
                    return ("walk", None) if step.before != step.after else (None, None)
        case Edited(pa, entries, by) if held.covers(pa, len(entries) * ENTRY_SIZE):
            held.put(entry.pa, ENTRY_SIZE, entries[(entry.pa - pa) // ENTRY_SIZE])
            return "edit", by
        case Faulted(stop):
            _learn_from_walks(held, entry, (stop,))
        case Delivered(delivery):
            _learn_from_walks(held, entry, delivery.exceptions)
            words = [(pa, value) for pa, value in delivery.stores.items() if held.covers(pa, 8)]
            for pa, value in words:
                held.put(pa, 8, value)
            return ("exception", None) if words else (None, None)
    return None, None


def _learn_from_walks(held: Held, entry: Entry, stops: Iterable[object]) -> None:
    for stop in stops:
        for pa, value in _walked_entries(stop):
            if pa == entry.pa:
                held.put(pa, ENTRY_SIZE, value)


def _walked_entries(stop: object) -> Iterator[tuple[int, int]]:
    """Yield the entries that were read before a fault, and what they held."""
    walk = getattr(stop, "walk", None)
    for _, pa, value in walk.steps if walk else ():
        yield pa, value


# ------------------------------------------------------------------ where an entry lies


def find_entry(trace: Trace, text: str, task: str | None) -> Entry:
    """Return the entry that a user means; BadInput if there is none, or more than one."""
    name, colon, address = text.partition(":")
    if not colon:
        pa = number("--writes-to", text, most=(1 << _PHYSICAL_BITS) - 1)
        if pa % ENTRY_SIZE:
            bad("--writes-to", repr(text), f"a multiple of {ENTRY_SIZE}, where an entry lies")
        if task is not None:
            _root(trace, task)  # refuses one that there is not
        return Entry(PhysAddr(pa))
    levels = trace.header.paging.levels
    known = {linux_name(level, levels): level for level in range(levels, 0, -1)}
    known |= {"p4d": known.get("p4d", levels)}  # folded into the pgd
    known |= {ENTRY_NAME[level].lower(): level for level in range(levels, 0, -1)}
    level = known.get(name.strip().lower())
    if level is None:
        words = ", ".join(sorted(known, key=lambda one: -known[one]))
        bad("--writes-to", repr(text), f"{_SYNTAX} {words}")
    va = _canonical(address, levels, text)
    root, task = _root(trace, task)
    return Entry(_follow(trace, root, va, level, text), level, va, task)


def _canonical(address: str, levels: int, text: str) -> int:
    """Read the VA of LEVEL:VA."""
    va = -1
    with suppress(BadInput):
        va = number("--writes-to", address)
    if not is_canonical(va, levels):
        expected = f"VA to be a canonical address of {levels} levels, such as 0xffffe70000000034"
        bad("--writes-to", repr(text), expected)
    return va


def _root(trace: Trace, task: str | None) -> tuple[int, str | None]:
    """Return the root of a task's table; the only one there is, if none is named."""
    if task is None or task not in trace.header.tasks.values():
        for _ in trace.events():
            pass
    roots = dict(trace.tasks)
    for cr3 in trace.header.cr3:
        roots.setdefault(cr3 & ADDRESS, "")
    found = [root for root, name in roots.items() if task in (None, name)]
    if not found:
        trace.has_no_task(str(task))
    if task is None and len(found) > 1:
        names = ", ".join(dict.fromkeys(name for name in roots.values() if name))
        raise BadInput(f"--writes-to LEVEL:VA: expected --task, one of {names}: whose table?")
    return found[-1], roots[found[-1]] or None


def _follow(trace: Trace, root: int, va: int, wanted: int, text: str) -> PhysAddr:
    """Follow what the trace tells of the entries for `va`, until the one of a level is found.

    A table that was replaced is followed into the last one.
    """
    levels = trace.header.paging.levels
    path = [root + ENTRY_SIZE * index(va, levels)]
    before = 0
    while len(path) > before and levels - len(path) + 1 > wanted:
        before = len(path)
        for pa, entry in _entries_told(trace):
            if pa not in path:
                continue
            at = path.index(pa)
            level = levels - at
            if level == wanted or not entry & P or maps_page(entry, level):
                continue
            next_pa = (entry & ADDRESS) + ENTRY_SIZE * index(va, level - 1)
            if path[at + 1 : at + 2] != [next_pa]:
                path[at + 1 :] = [next_pa]
    level = levels - len(path) + 1
    if level > wanted:
        raise BadInput(
            f"--writes-to {text!r}: expected an entry that the trace tells of; it does not say "
            f"which table the {ENTRY_NAME[level]} at {path[-1]:#x} points to"
        )
    return PhysAddr(path[-1])


def _entries_told(trace: Trace) -> Iterator[tuple[int, int]]:
    """Yield places and what they hold, wherever a trace tells of 8 bytes at once."""
    for _, _, _, event in trace.events():
        match event:
            case Walked(_, _, _, steps):
                for step in steps:
                    yield step.entry_pa, step.after
            case Accessed(_, pa, 8, value):
                yield pa, value
            case Edited(pa, entries):
                yield from zip(count(pa, ENTRY_SIZE), entries, strict=False)
            case Faulted(stop):
                yield from _walked_entries(stop)
            case Delivered(delivery):
                for exc in delivery.exceptions:
                    yield from _walked_entries(exc)
