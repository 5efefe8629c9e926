"""Text of a failed assertion about a stop, and of what led there.

Knows the order of telling: what is different, the walk, where init_mm's differs, the last
instructions. Refuses to judge (`expectation`) and to know how a walk or an event looks (`render`,
`render_trace`).
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import Final

from emu import OutsideRam, PageFault, Paging, Stop, Walk
from emu.events import Delivered, Event, Executed, Faulted
from emu.paging import ENTRY_NAME, FRAME_SIZE, index
from kernel_model.pgtable import linux_name
from pagewalk import render
from pagewalk.render_trace import Lines, refusal_text
from pagewalk.testing.expectation import (
    Expectation,
    error_letters,
    level_name,
    levels_of,
)
from pagewalk.testing.watch import Watched, Watching, whose

_FAULTS: Final = (Faulted, Delivered)
_FEW: Final = 5  # instructions in an assertion's own report; the section behind it has the rest


def comparison_lines(watching: Watching, left: Stop, right: Stop) -> Iterator[str]:
    """Say in what two stops differ, of which a run came to one and a test wrote the other down."""
    found, wanted = (right, left) if _was_seen(right) and not _was_seen(left) else (left, right)
    if isinstance(found, PageFault) and isinstance(wanted, PageFault):
        watched = whose(watching, found)
        symbol = watched.subject.describe(wanted.rip) if watched else None
        expected = Expectation.same_as(wanted, symbol)
        yield from failure_lines(watching, found, difference_lines(found, expected))
    else:
        at = wanted.address if isinstance(wanted, PageFault) else None
        yield from failure_lines(watching, found, [f"  expected {wanted}"], at)


def failure_lines(
    watching: Watching, stop: Stop, differences: Iterable[str], missed: int | None = None
) -> Iterator[str]:
    """Say how a run ended, in what that is not as expected, and how it came to that.

    `missed` is the address of a page fault that did not come.
    """
    watched = whose(watching, stop)
    yield str(stop)
    yield from differences
    yield from walk_lines(stop, watched)
    if missed is not None and watched is not None and not watched.is_closed:
        yield from _one_walk(watched.walk(missed))
    if watched is not None and watched.subject.last_stop is stop:
        last = list(instruction_lines(watched))[-_FEW:]
        if last:
            yield "The last instructions"
            yield from ("  " + line for line in last)


def difference_lines(fault: PageFault, expected: Expectation) -> Iterator[str]:
    """Say in what a fault is different, with both values."""
    for name in expected.differences(fault):
        yield from ("  " + line for line in _DIFFERENCES[name](fault, expected))


def walk_lines(stop: Stop, watched: Watched | None) -> Iterator[str]:
    """Show the walk of a stop that has one, which rule refused, and where init_mm's differs."""
    if not isinstance(stop, (PageFault, OutsideRam)) or stop.walk is None:
        return
    yield from _one_walk(stop.walk, getattr(stop, "reason", ""))
    if isinstance(stop, PageFault):
        if why := refusal_text(stop):
            yield "  " + why
        yield from _against_init_mm(stop, stop.walk, watched)


def instruction_lines(watched: Watched) -> Iterator[str]:
    """Show the last instructions that were recorded, the one that faulted last."""
    for event, lines in _events(watched):
        if isinstance(event, (Executed, *_FAULTS)):
            yield lines[0]


def sections(watching: Watching) -> Iterator[tuple[str, str]]:
    """Yield, for each machine and kernel that has run something, titles and texts of sections."""
    for watched in watching:
        stop = watched.subject.last_stop
        if stop is None or watched.is_closed:
            continue
        walk = _walk_section(stop, watched)
        if walk:
            yield f"walk ({watched.name})", "\n".join(walk)
        trace = _trace_section(watched)
        if trace:
            yield f"last instructions ({watched.name})", "\n".join([*trace, str(stop)])


def text_of(what: Walk | Stop) -> Iterator[str]:
    """Show a walk, or a stop with its walk, by itself."""
    if isinstance(what, Walk):
        yield from _one_walk(what)
    else:
        yield str(what)
        yield from walk_lines(what, None)


def _one_walk(walk: Walk, reason: str = "") -> Iterator[str]:
    yield f"The walk for {walk.va:016x}"
    for line in render.walk_lines(walk, _paging_of(walk, reason)):
        yield "  " + line


def _paging_of(walk: Walk, reason: str) -> Paging:
    """Return the paging that a walk was made under, as far as the walk says: root and levels.

    `reason` is the rule that refused its access: it tells whether XD was reserved.
    """
    if not walk.steps:
        return Paging.long_mode(walk.table)
    level, entry_pa, _ = walk.steps[0]
    return Paging.long_mode(entry_pa & -FRAME_SIZE, levels=level, nxe=reason != "rsvd-xd")


def _against_init_mm(fault: PageFault, walk: Walk, watched: Watched | None) -> Iterator[str]:
    from pagewalk.testing.kernel import WatchedKernel

    kernel = watched.subject if watched and not watched.is_closed else None
    if not isinstance(kernel, WatchedKernel) or fault.cr3 == kernel.init_mm.pgd:
        return
    table = kernel.table_of(fault)
    name = table.name if table else "the task"
    ours = kernel.walk(fault.address)
    yield "  init_mm's: " + render.end_text(ours, kernel.paging(kernel.init_mm))
    yield "  " + render.difference_text(walk, ours, name, "init_mm", levels_of(fault))


def _walk_section(stop: Stop, watched: Watched) -> list[str]:
    """Show the walk, beside init_mm's if a task's own table was used."""
    from pagewalk.story import two_walks
    from pagewalk.testing.kernel import WatchedKernel

    kernel = watched.subject
    if isinstance(kernel, WatchedKernel) and isinstance(stop, PageFault) and stop.walk:
        table = kernel.table_of(stop)
        if table is not None and table is not kernel.init_mm:
            title = f"{stop.address:016x}, under {table.name}'s table and under init_mm's"
            return [str(stop), title, *two_walks(kernel, table, stop.walk)]
    lines = list(walk_lines(stop, watched))
    return [str(stop), *lines] if lines else []


def _trace_section(watched: Watched) -> list[str]:
    """Show all that was recorded of the last instructions: accesses, walks, writes of CR3."""
    return [line for _, lines in _events(watched) for line in lines]


def _events(watched: Watched) -> Iterator[tuple[Event, list[str]]]:
    """Yield what was recorded with its lines; of a fault only its instruction, if that is known.

    What a kernel's handler did with the fault that ended the run is left out: it led nowhere.
    """
    lines = Lines(watched.subject.describe, _no_paging)
    events = _until_delivery(watched.events(), watched.subject.last_stop)
    events = [e for e in events if not isinstance(e, _FAULTS) or e.code]
    for event in events:
        next(lines.of(event))  # the column of the symbols is then as wide as it gets
    for event in events:
        one = isinstance(event, _FAULTS)
        yield event, list(islice(lines.of(event), 1 if one else None))


def _until_delivery(events: list[Event], stop: Stop | None) -> list[Event]:
    """Return the events up to the delivery that `stop` is; all if the run ended in it at once."""
    for nr in range(len(events), 0, -1):
        event = events[nr - 1]
        if isinstance(event, Faulted):
            break
        if isinstance(event, Delivered) and stop in event.delivery.exceptions:
            return events[:nr]
    return events


def _was_seen(stop: Stop) -> bool:
    """Tell whether a stop carries what only a run can know."""
    return any(getattr(stop, name, None) is not None for name in ("walk", "registers"))


def _no_paging() -> Paging:
    raise AssertionError("unreachable: the walk of a fault is told apart from its instruction")


def _address(fault: PageFault, expected: Expectation) -> Iterator[str]:
    """Both addresses, the digits and the bits that differ, and what these bits select."""
    assert expected.address is not None
    wanted, found = expected.address, int(fault.address)
    rows = [f"{wanted:#018x}", f"{found:#018x}"]
    marks = "".join(" " if a == b else "^" for a, b in zip(*rows, strict=True))
    yield f"address     expected {rows[0]}"
    yield f"            found    {rows[1]}"
    yield f"            differ   {marks.rstrip()}  {_bits(wanted ^ found)}"
    levels = levels_of(fault)
    for level in range(levels, 0, -1):
        a, b = index(wanted, level), index(found, level)
        if a != b:
            name = f"{ENTRY_NAME[level]} ({linux_name(level, levels)})"
            yield f"            {name} slot {b}, not {a}"
    offset = FRAME_SIZE - 1
    if (wanted ^ found) & offset:
        yield f"            offset in the page {found & offset:#x}, not {wanted & offset:#x}"


def _bits(value: int) -> str:
    """Name the bits that are set, runs of them as 47:39, the highest first."""
    numbers = [n for n in range(value.bit_length() - 1, -1, -1) if value >> n & 1]
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: sum(pair))]
    names = [f"{run[0]}:{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return f"bit{'s' if len(numbers) > 1 else ''} {', '.join(names)}"


def _error_code(fault: PageFault, expected: Expectation) -> Iterator[str]:
    assert expected.error_code is not None
    wanted, found = expected.error_code, fault.error_code
    yield f"error code  expected {wanted:#x} ({error_letters(wanted)})"
    yield f"            found    {found:#x} ({error_letters(found)})"


def _rip(fault: PageFault, expected: Expectation) -> Iterator[str]:
    wanted = f" ({expected.symbol})" if expected.symbol else ""
    found = f" ({fault.symbol})" if fault.symbol else ""
    yield f"rip         expected {expected.rip:#x}{wanted}"
    yield f"            found    {fault.rip:#x}{found}"


def _symbol(fault: PageFault, expected: Expectation) -> Iterator[str]:
    yield f"symbol      expected {expected.symbol}"
    yield f"            found    {fault.symbol or f'none, rip {fault.rip:#x}'}"


def _level(fault: PageFault, expected: Expectation) -> Iterator[str]:
    reached = fault.walk.level if fault.walk else 0
    yield f"level       expected {expected.level}"
    yield f"            found    {level_name(reached, levels_of(fault))}"


_DIFFERENCES: Final[dict[str, Callable[[PageFault, Expectation], Iterator[str]]]] = {
    "address": _address,
    "error_code": _error_code,
    "rip": _rip,
    "symbol": _symbol,
    "level": _level,
}
