"""An oops explained, for people.

Knows how `pagewalk oops` looks. Refuses to know what any of it means: the model says that.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.reading.explain import (
    access_text,
    entries,
    eras,
    error_bits,
    kaslr_text,
    places,
    stop_text,
)
from kernel_model.reading.judge import LargePage
from kernel_model.reading.oopses import Judged, Reading
from kernel_model.reading.proof import Match, history
from kernel_model.reading.text import OopsText
from kernel_model.words import show_size
from pagewalk.reproducer import command_line

_ANSWER: Final = {True: "yes", False: "no", None: "the text does not tell"}
_TAINT: Final = {
    "P": "a proprietary module",
    "F": "a module was forced in",
    "S": "a CPU out of specification",
    "R": "a module was forced out",
    "M": "a machine check",
    "B": "a bad page",
    "U": "a user asked for it",
    "D": "it has died before",
    "A": "an ACPI table was overridden",
    "W": "a warning before this",
    "C": "a staging driver",
    "I": "a firmware bug was worked around",
    "O": "an out-of-tree module",
    "E": "an unsigned module",
    "L": "a soft lockup",
    "K": "a live patch",
    "X": "the distribution's own flag",
    "T": "randomised structures",
    "N": "a test was run",
    "J": "a firmware was told to",
}
_ERA: Final = {"ldt-below": "since 4.20", "direct-map-first": "before 4.20"}
_WORDED: Final = {
    "4.4": "4.4",
    "4.15": "4.15",
    "5.4": "5.4 to 6.9",
    "6.10": "6.10 to 6.14",
    "6.15": "6.15 or later",
}


def oops_lines(name: str, reading: Reading, match: Match | None) -> Iterator[str]:
    """Tell the first oops in full, and the others in a line each."""
    assert reading.first is not None
    oops, depth, verdict = reading.first
    yield f"{name}, line {oops.line}: {_count(reading.nr_others)}"
    yield ""
    yield from _death_lines(oops)
    yield from _code_lines(oops)
    yield from _table_lines(oops, depth.levels)
    yield f"Paging: {depth.levels or 'unknown'} levels: {depth.why}"
    yield ""
    if oops.address is not None:
        yield from _place_lines(oops, oops.address)
    yield from _trace_lines(oops)
    yield from _register_lines(oops)
    if oops.missing:
        yield f"Missing from the text: {', '.join(oops.missing)}"
        yield ""
    yield f"An unsynced top-level entry: {_ANSWER[verdict.unsynced]}"
    yield f"  {verdict.why}"
    yield from (f"  note: {caveat}" for caveat in verdict.caveats)
    if verdict.large_page is not None and oops.address is not None:
        yield from _large_page_lines(oops.address, verdict.large_page)
    yield ""
    yield from _match_lines(match)
    yield from _other_lines(reading)


def _count(nr_others: int) -> str:
    return "an oops" if not nr_others else f"the first of {nr_others + 1} oopses"


def _death_lines(oops: OopsText) -> Iterator[str]:
    yield "What died"
    for line in (oops.headline, oops.header):
        if line:
            yield f"  {line}"
    if oops.kind != "page-fault":
        yield f"  not a page fault: {oops.kind}" if oops.kind != "unknown" else "  of what is lost"
    if oops.wording:
        yield f"  worded as {_WORDED[oops.wording]} does"
    if oops.rip or oops.rip_address is not None:
        at = "" if oops.rip_address is None else f" at {oops.rip_address:#x}"
        yield f"  in {oops.rip or 'code without a name'}{at}"
    if oops.cpu is not None:
        uid = "" if oops.uid is None else f", uid {oops.uid}"
        yield f"  task {oops.comm}, pid {oops.pid}{uid}, on CPU {oops.cpu} of {oops.uname}"
        meanings = [f"{flag} ({_TAINT.get(flag, 'unknown')})" for flag in oops.taint or ""]
        yield f"  tainted: {', '.join(meanings) or 'no'}"
    yield ""


def _code_lines(oops: OopsText) -> Iterator[str]:
    code = oops.error_code
    if code is None:
        return
    yield f"Error code {code:#06x}: {access_text(code)}"
    for bit in error_bits(code):
        yield f"  {bit.name:5} bit {bit.bit:2}  {int(bit.is_set)}  {bit.meaning}"
    yield ""


def _table_lines(oops: OopsText, levels: int | None) -> Iterator[str]:
    if not oops.table:
        return
    yield "Page tables, as the kernel read them from CR3 on"
    for entry in entries(oops, levels):
        yield f"  {entry.name} = {entry.value:#x}: {entry.meaning}"
    yield f"  {stop_text(oops)}"
    yield ""


def _place_lines(oops: OopsText, address: int) -> Iterator[str]:
    yield f"Where {address:016x} lies"
    moved = False
    for place in places(address):
        if place.era not in eras(oops):
            continue
        era = f", layout {_ERA[place.era]}"
        if place.slot is None:
            yield f"  {place.levels} levels{era}: {place.region}"
            continue
        moved |= not place.fixed
        if_plain = "" if place.fixed else "with nokaslr: "
        yield f"  {place.levels} levels{era}: slot {place.slot}, {if_plain}{place.region}"
    if moved:
        yield f"  {kaslr_text(oops)}"
    yield ""


def _trace_lines(oops: OopsText) -> Iterator[str]:
    if not oops.trace:
        return
    yield f"Call trace{', of which the text leaves something out' if oops.elided else ''}"
    yield from (f"  {frame}" for frame in oops.trace if frame.sure)
    unsure = [str(frame) for frame in oops.trace if not frame.sure]
    if unsure:
        yield "  on the stack, too, and perhaps left over: " + ", ".join(unsure)
    yield ""


def _register_lines(oops: OopsText) -> Iterator[str]:
    if not oops.registers:
        return
    yield "Registers"
    shown = [f"{name} {value:x}" for name, value in oops.registers.items()]
    for i in range(0, len(shown), 4):
        yield "  " + "  ".join(shown[i : i + 4])
    yield ""


def _large_page_lines(address: int, page: LargePage) -> Iterator[str]:
    size = show_size(page.size)
    base = address - page.pa - 8 * page.slot
    part = "2 MiB" if page.entry == "pmd" else "4 KiB"
    yield f"  {address:#x} = {base:#x}, where the direct map was, + {page.pa:#x} + 8 * {page.slot}"
    yield (
        f"  so the {size} page at physical {page.pa:#x} was taken for a table, and {page.entry} "
        f"{page.slot} was read from it"
    )
    yield (
        f"  the first access was to {part} of that page: physical {page.pa + page.first:#x} - "
        f"{page.pa + page.end - 1:#x}"
    )


def _match_lines(match: Match | None) -> Iterator[str]:
    if match is None:
        yield "No scenario here dies like this"
        return
    yield f"Scenario: {match.candidate.scenario}"
    yield f"  {command_line(match)}"
    yield from (f"  {line}" for line in match.candidate.because)
    if match.exactly:
        yield "  it was run, and reproduces exactly: same address, error code and symbol+offset"
    else:
        known = (("address", match.address), ("error code", match.error_code))
        named = (*known, ("symbol+offset", match.symbol))
        same = ", ".join(name for name, is_same in named if is_same) or "nothing"
        yield f"  it was run; the same: {same}"
    yield from (f"  differs in {difference}" for difference in match.differences)
    yield from (f"  {word}: {commit}" for word, commit in history(match).items())


def _other_lines(reading: Reading) -> Iterator[str]:
    if not reading.nr_others:
        return
    yield ""
    yield f"Others: {reading.nr_others}"
    yield from (f"  line {other.oops.line}: {_brief(other)}" for other in reading.others)
    left = reading.nr_others - len(reading.others)
    if left:
        yield f"  and {left} more"


def _brief(other: Judged) -> str:
    oops = other.oops
    where = f" in {oops.rip}" if oops.rip else ""
    unsynced = "; an unsynced top-level entry" if other.verdict.unsynced else ""
    return f"{oops.headline or oops.header or oops.kind}{where}{unsynced}"
