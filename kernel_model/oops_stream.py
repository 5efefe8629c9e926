"""Where the oopses are in a stream of bytes: a log, a mail, a serial console's noise.

Knows by which words an oops can be told to begin, and which of them belong to one and the same.
Refuses to know what they say (`oops_text`). Holds a few MiB at most, however long the stream is or
its lines are. Linux vocabulary; source: arch/x86/mm/fault.c, arch/x86/kernel/traps.c, dumpstack.c
(v4.4 to v6.17).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

LONGEST: Final = 1 << 16  # bytes of one oops, with all that a log puts between its lines
_CHUNK: Final = 1 << 20
_OVERLAP: Final = 512  # no mark is longer
_KEPT: Final = 1024  # bytes before the next mark: what it is judged by
_BEFORE: Final = 160  # bytes before "[#1]" in which the header may begin
_SAME_HEADER: Final = 16  # bytes from "Oops: 0002" to "[#1]", with something to spare
_GAP: Final = rb"[\s>|]{1,80}"  # between two words, where a mail was wrapped and quoted
_DEBRIS: Final = ((b"\0", b""), (b"\xc2\xa0", b" "), (b"\xc3\x82", b" "))  # NBSP, and Â of one
_HALF: Final = (b"\xc2", b"\xc3")

# A mark's group says what it is. "die" is the header that has the number of deaths, by its end.
_MARK: Final = re.compile(
    rb"(?P<bug>BUG: unable"
    + _GAP
    + rb"to"
    + _GAP
    + rb"handle"
    + _GAP
    + rb"(?:kernel|page"
    + _GAP
    + rb"fault)"
    rb"|BUG: kernel NULL pointer"
    rb"|BUG: [A-Z#\d ]{0,12}stack guard page was hit"
    rb"|kernel BUG at \S"
    rb"|PANIC: double fault)"
    rb"|(?P<access>#PF: (?:supervisor|user) )"
    rb"|(?P<code>#PF: error_code\()"
    rb"|(?P<table>PGD (?:0|[0-9a-f]{1,16}067|[0-9a-f]{3,16}" + _GAP + rb"P[4U]D)\s)"
    rb"|(?P<oops>Oops: [0-9a-f]{4}(?![0-9a-z]| ilc))"
    rb"|(?P<die>(?<=: [0-9a-f]{4} )\[#\d{1,6}\])"
    rb"|(?P<end>---\[ cut here \]---|WARNING: CPU:|WARNING: [a-z/]{2,40}\.[ch]:\d)"
    rb"|(?P<weak>RIP: 0010:[\[\w])"
    rb"|(?P<other>Mem abort info|pstate: ?[0-9a-f]{8}|PC is at \S|epc ?: ?[0-9a-f]{8}"
    rb"|Kernel access of bad area|Krnl PSW|EIP: [0-9a-f]{4}:|\*pd(?:e|pt) ?= )"
)
# How each of them begins. Looking for these first is twenty times as fast.
_BEGINNINGS: Final = (
    b"BUG: ",
    b"kernel BUG at ",
    b"PANIC: double",
    b"#PF: ",
    b"PGD ",
    b"Oops: ",
    b"[#",
    b"---[ cut here",
    b"WARNING: ",
    b"RIP: 0010:",
    b"Mem abort",
    b"pstate: ",
    b"PC is at ",
    b"epc",
    b"Kernel access",
    b"Krnl PSW",
    b"EIP: ",
    b"*pd",
)
_ARCHITECTURE: Final = {
    b"Mem": "arm64",
    b"pst": "arm64",
    b"PC ": "arm",
    b"epc": "riscv",
    b"Ker": "powerpc",
    b"Krn": "s390",
    b"EIP": "32-bit x86",
    b"*pd": "32-bit x86",
}


@dataclass(frozen=True, slots=True)
class Block:
    """One oops's bytes, from its first word to the next oops; `line` counts from 1."""

    line: int
    data: bytes


@dataclass(slots=True)
class Search:
    """What a stream was found to hold besides the blocks, once it has been read."""

    size: int = 0
    other: str = ""  # another architecture whose oops was seen
    weak: Block | None = None  # registers that nothing introduces
    _start: int = -1  # where the open block begins, if there is one
    _seen: set[str] = field(default_factory=set)  # the marks that it has
    _last_die: int = -_SAME_HEADER

    def blocks(self, read: Callable[[int], bytes]) -> Iterator[Block]:
        """Yield the oopses in what `read(n)` returns, in order, each when it has ended."""
        data, held, line, at = b"", b"", 1, 0
        while True:
            more = read(_CHUNK)
            self.size += len(more)
            held += more
            whole = len(held) - (1 if more and held.endswith(_HALF) else 0)
            data, held = data + _cleaned(held[:whole]), held[whole:]
            decided = len(data) - _OVERLAP if more else len(data)
            for mark in _marks(data, at):
                if mark.lastgroup == "weak" and more and mark.start() + LONGEST > len(data):
                    decided = min(decided, mark.start())
                if mark.start() >= decided:
                    break
                at = mark.end()
                ended = self._ended_by(mark, data)
                if ended is not None:
                    yield _block(data, line, *ended)
                if mark.lastgroup == "weak":
                    self._note_weak(data, line, mark.start())
            at = max(at, decided)
            if self._start >= 0 and (not more or at - self._start > LONGEST):
                yield _block(data, line, self._start, len(data))
                self._start = -1
            if not more:
                return
            drop = max(0, at - _KEPT if self._start < 0 else min(at - _KEPT, self._start))
            line += data.count(b"\n", 0, drop)
            data, at = data[drop:], at - drop
            self._last_die -= drop
            self._start = self._start - drop if self._start >= 0 else -1

    def _ended_by(self, mark: re.Match[bytes], data: bytes) -> tuple[int, int] | None:
        """Take in one mark; return where the open block began and ended, if it is over."""
        kind, where = str(mark.lastgroup), mark.start()
        if kind == "weak":
            return None
        if kind == "other":
            self.other = self.other or _ARCHITECTURE[mark[0][:3]]
            return None
        if kind in ("oops", "die"):
            same = where - self._last_die < _SAME_HEADER and self._start >= 0
            self._last_die = where
            if same:
                return None
            kind, where = "die", _header_start(data, where, max(self._start, 0))
        start = self._start
        goes_on = start >= 0 and where - start <= LONGEST and self._allows(kind)
        if not goes_on:
            self._start, self._seen = (-1 if kind == "end" else where), set()
        self._seen.add(kind)
        return None if goes_on or start < 0 else (start, where)

    def _allows(self, kind: str) -> bool:
        """Tell whether the open block goes on when a mark of this kind comes."""
        if kind == "end":
            return "die" not in self._seen
        return kind != "bug" and not self._seen & {kind, "die"}

    def _note_weak(self, data: bytes, line: int, where: int) -> None:
        """Keep registers for when there is nothing better; a warning shows them, too."""
        warned = b"WARNING: " in data[max(0, where - _KEPT) : where]
        if self.weak is None and self._start < 0 and not warned:
            self.weak = _block(data, line, where, len(data))


def _marks(data: bytes, at: int) -> Iterator[re.Match[bytes]]:
    """Yield the marks from `at` on, in order."""
    for where in sorted([where for text in _BEGINNINGS for where in _occurrences(data, text, at)]):
        mark = _MARK.match(data, where)
        if mark:
            yield mark


def _occurrences(data: bytes, text: bytes, at: int) -> Iterator[int]:
    at = data.find(text, at)
    while at >= 0:
        yield at
        at = data.find(text, at + 1)


def _cleaned(data: bytes) -> bytes:
    """Take out what consoles and mail programs put between and into words."""
    for debris, instead in _DEBRIS:
        data = data.replace(debris, instead)
    return data


def _block(data: bytes, line: int, start: int, end: int) -> Block:
    return Block(line + data.count(b"\n", 0, start), data[start : min(end, start + LONGEST)])


def _header_start(data: bytes, where: int, least: int) -> int:
    """Return where the line of a die header begins, or far enough before its number."""
    return max(data.rfind(b"\n", 0, where) + 1, where - _BEFORE, least)
