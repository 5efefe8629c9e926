"""An oops read back: from the kernel's own wording, of any release, to a value.

Knows what the parts of a text mean, and what logs, consoles, mails and web pages make of it: it
is quoted, prefixed, wrapped, cut off, or all in one line. Refuses to know the words themselves
(`patterns`), and to judge (`explain`). Linux vocabulary.
"""

import html
from dataclasses import dataclass
from re import Match
from typing import Final, Literal, NamedTuple

from kernel_model.reading import patterns as say

Kind = Literal["page-fault", "general-protection", "double-fault", "bug", "trap", "unknown"]
Wording = Literal["4.4", "4.15", "5.4", "6.10", "6.15"]
"""The first release, of those looked at, that words an oops like this."""

MOST_FRAMES: Final = 256
_PAGE_FAULTS: Final = ("page-fault", "unknown")


class Frame(NamedTuple):
    """A place in the code. `sure` is false for one that was printed with a `? `."""

    symbol: str
    offset: int
    size: int
    module: str | None = None
    sure: bool = True
    address: int | None = None

    def __str__(self) -> str:
        module = f" [{self.module}]" if self.module else ""
        return f"{self.symbol}+{self.offset:#x}/{self.size:#x}{module}"


@dataclass(frozen=True, slots=True)
class OopsText:
    """What one oops says. None, or nothing, where it does not say it or is cut off.

    `line` is where it began in the input. `table` has the entries of the line that begins with
    PGD, by Linux's names; `table_ends` tells whether it is known to be complete. `taint` has the
    letters that mean something, "" for none. `lines` are the lines that were recognised, as the
    kernel prints them, whatever the input made of them.
    """

    line: int
    kind: Kind
    wording: Wording | None
    headline: str | None
    header: str | None
    what: str | None
    number: int | None
    flags: tuple[str, ...]
    address: int | None
    error_code: int | None
    table: tuple[tuple[str, int], ...]
    table_bad: bool
    table_ends: bool
    rip: Frame | None
    rip_address: int | None
    cpu: int | None
    uid: int | None
    pid: int | None
    comm: str | None
    taint: str | None
    uname: str | None
    registers: dict[str, int]
    trace: tuple[Frame, ...]
    elided: bool
    lines: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """The parts that the text does not have, in the order in which they are printed."""
        faulted = self.kind in _PAGE_FAULTS
        parts = (
            ("the faulting address", faulted and self.address is None),
            ("the error code", faulted and self.error_code is None),
            ("the line with the page-table entries (PGD …)", faulted and not self.table),
            ("the header with the number of oopses (… [#1])", self.header is None),
            ("the CPU line (task and release)", self.cpu is None),
            ("where it died (RIP)", self.rip is None and self.rip_address is None),
            ("the registers", "rax" not in self.registers),
            ("the call trace", not self.trace),
        )
        return tuple(name for name, is_missing in parts if is_missing)


def parse(data: bytes, line: int = 1) -> OopsText:
    """Read one oops; `data` begins with its first words (`stream.Block`)."""
    text = readable(data)
    start, end = _trace_bounds(text)
    bug, header, cpu = (p.search(text) for p in (say.BUG_LINE, say.HEADER, say.CPU))
    number = int(header["number"]) if header and header["number"] else None
    # What stands behind the call trace is the user's, or of the first oops since boot.
    again = say.END_TRACE.search(text, end) if number == 1 else None
    own = text[:start] if not again else f"{text[:start]}\n{text[again.end() :]}"
    rip = say.RIP.search(own)
    registers = _registers(own, text)
    kind = _kind(text, header, bug)
    address = _address(bug)
    if address is None and kind in _PAGE_FAULTS:
        address = registers.get("cr2")
    table, table_bad, table_ends = _table(text)
    frames = _frames(text[start:end])
    return OopsText(
        line=line,
        kind=kind,
        wording=_wording(text, bug, header, cpu),
        headline=_headline(text, bug),
        header=_words(header) if header else None,
        what=header["what"] if header else None,
        number=number,
        flags=tuple(header["flags"].split()) if header else (),
        address=address,
        error_code=_error_code(text, header),
        table=table,
        table_bad=table_bad,
        table_ends=table_ends,
        rip=_frame(rip) if rip and rip["symbol"] else None,
        rip_address=_rip_address(rip),
        cpu=int(cpu["cpu"]) if cpu else None,
        uid=int(cpu["uid"]) if cpu and cpu["uid"] else None,
        pid=int(cpu["pid"]) if cpu else None,
        comm=cpu["comm"] if cpu else None,
        taint="".join((cpu["taint"] or "").split()).removeprefix("G") if cpu else None,
        uname=cpu["uname"] if cpu else None,
        registers=registers,
        trace=frames,
        elided=bool(say.ELIDED.search(text[:end])),
        lines=tuple(_lines(text, table, rip, frames)),
    )


def readable(data: bytes) -> str:
    """Return bytes as text without what is no text: debris, markup, colours, quoting."""
    text = data.decode("utf-8", "replace")
    if "&" in text:
        text = html.unescape(text)
    text = say.BREAKS.sub("\n", say.ESCAPES.sub("", say.TAGS.sub("", text)))
    return say.QUOTES.sub("", text.translate(say.ODD))


def _words(found: Match[str]) -> str:
    """Return what was found as the kernel prints it: in one line, with single blanks."""
    return " ".join(found[0].split())


def _kind(text: str, header: Match[str] | None, bug: Match[str] | None) -> Kind:
    what = header["what"] if header else ""
    if what == "double fault" or any(p.search(text) for p in (say.PANIC, say.OVERRUN)):
        return "double-fault"
    if say.BUG_AT.search(text):
        return "bug"
    if bug or what == "Oops" or say.ACCESS.search(text) or say.CODE.search(text):
        return "page-fault"
    if "general protection fault" in what:
        return "general-protection"
    return "trap" if header else "unknown"


def _wording(
    text: str, bug: Match[str] | None, header: Match[str] | None, cpu: Match[str] | None
) -> Wording | None:
    """Say whose wording it is, by the words that changed; None if none of those is there."""
    if cpu and cpu["model"]:
        return "6.15"
    if (header and header["twice"]) or (cpu and cpu["uid"]):
        return "6.10"
    if say.ACCESS.search(text) or say.CODE.search(text):
        return "5.4"
    if bug and (bug["null"] or bug["how"].startswith("page")):
        return "5.4"
    if "IP: [<" in text or "IP: 0010:[<" in text:
        return "4.4"
    return "4.15" if bug else None


def _headline(text: str, bug: Match[str] | None) -> str | None:
    if bug:
        return _words(bug)
    founds = (p.search(text) for p in (say.BUG_AT, say.OVERRUN, say.PANIC))
    return next((_words(found) for found in founds if found), None)


def _address(bug: Match[str] | None) -> int | None:
    """Return the address of the first line: all sixteen digits of it, or none."""
    if bug is None:
        return None
    if bug["address"] == "(null)":
        return 0
    return int(bug["address"], 16) if len(bug["address"]) == 16 else None


def _error_code(text: str, header: Match[str] | None) -> int | None:
    code = say.CODE.search(text)
    if code:
        return int(code["code"], 16)
    return int(header["code"], 16) if header and header["what"] == "Oops" else None


def _table(text: str) -> tuple[tuple[tuple[str, int], ...], bool, bool]:
    """Return the entries, whether the line says BAD, and whether it is known to be complete.

    A last number that touches the end of the text may have been cut off, and is left out; but not
    a 0, since no entry is printed with a leading one.
    """
    found = say.PGD.search(text)
    if not found:
        return (), False, False
    entries, at = [("pgd", found[1])], found.end()
    for name, pattern in say.BELOW_PGD:
        found = pattern.match(text, at)
        if found:
            entries.append((name, found[1]))
            at = found.end()
    rest = text[at:]
    if not rest and entries[-1][1] != "0":
        entries.pop()
    ends = bool(rest.strip()) and not say.CUT_TABLE.match(rest)
    is_bad = bool(say.BAD_TABLE.match(rest))
    return tuple((name, int(entry, 16)) for name, entry in entries), is_bad, ends


def _rip_address(found: Match[str] | None) -> int | None:
    if not found or not (found["at"] or found["raw"]):
        return None
    digits = found["at"] or found["raw"]
    return 0 if digits == "(null)" else int(digits, 16)


def _frame(found: Match[str], *, unsure: str | None = None) -> Frame:
    return Frame(
        symbol=found["symbol"],
        offset=int(found["offset"], 16),
        size=int(found["size"], 16),
        module=found["module"],
        sure=not unsure,
        address=int(found["at"], 16) if found["at"] else None,
    )


def _trace_bounds(text: str) -> tuple[int, int]:
    """Return where the call trace begins and ends; the text's end, twice, if there is none."""
    start = say.TRACE.search(text)
    if not start:
        return len(text), len(text)
    end = say.BEHIND_TRACE.search(text, start.end())
    return start.start(), end.start() if end else len(text)


def _frames(text: str) -> tuple[Frame, ...]:
    """Return the frames of a call trace. The RIP of who was interrupted is none of them."""
    frames: list[Frame] = []
    for found in say.IN_TRACE.finditer(text):
        if found["symbol"]:
            frames.append(_frame(found, unsure=found["unsure"]))
        if len(frames) == MOST_FRAMES:
            break
    return tuple(frames)


def _registers(own: str, text: str) -> dict[str, int]:
    """Return the registers in the part that shows the task's own, by their names in emu."""
    values: dict[str, int] = {}
    for found in say.REGISTER.finditer(own):
        segment = found["segment"]
        for name, value in (
            (found["name"], found["value"]),
            (found["short"], found["short_value"]),
            (found["rsp"] and "rsp", found["rsp"]),
            (found["ss"] and "ss", found["ss"]),
            (segment and f"{segment}_base", found["base"]),
            (found["plain"], found["selector"]),
        ):
            if name:
                short = f"r{name[2:]}" if name in ("R08", "R09") else name.lower()
                values.setdefault(short, int(value, 16))
    cr2 = say.CR2.search(text)
    if cr2:
        values.setdefault("cr2", int(cr2[1], 16))
    return values


def _lines(
    text: str,
    table: tuple[tuple[str, int], ...],
    rip: Match[str] | None,
    frames: tuple[Frame, ...],
) -> list[str]:
    """Return the recognised lines as the kernel prints them, in its order."""
    before = (say.BUG_LINE, say.BUG_AT, say.OVERRUN, say.PANIC, say.ACCESS, say.CODE)
    lines = [_words(found) for pattern in before if (found := pattern.search(text))]
    if table:
        between = "\n" if say.LINE_EACH.search(text) and "#PF: " not in text else " "
        shown = between.join(f"{name.upper()} {entry:x}" for name, entry in table)
        lines += shown.split("\n")
    header = say.HEADER.search(text)
    if header:
        lines.append(_words(header))
    if rip:
        lines.append(_words(rip) if not rip["at"] else rip[0].strip())
    for frame in frames:
        at = "" if frame.address is None else f"[<{frame.address:016x}>] "
        lines.append(f" {at}{'' if frame.sure else '? '}{frame}")
    return lines
