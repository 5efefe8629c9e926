"""Where the oopses are in a stream of bytes: a log, a mail, a serial console's noise.

Knows by which words an oops can be told to begin, and which of them belong to one and the same.
Refuses to know what they say (`text`). Holds a few MiB at most, however long the stream is or
its lines are. Linux vocabulary; source: arch/x86/mm/fault.c, arch/x86/kernel/traps.c, dumpstack.c
(v4.4 to v6.17).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, Literal, NamedTuple

LONGEST: Final = 1 << 16  # bytes of one oops, with all that a log puts between its lines
_CHUNK: Final = 1 << 20
_OVERLAP: Final = 512  # no mark is longer
_KEPT: Final = 1024  # bytes before the next mark: what it is judged by
_BEFORE: Final = 160  # bytes before "[#1]" in which the header may begin
_SAME_HEADER: Final = 16  # bytes from "Oops: 0002" to "[#1]", with something to spare
_GAP: Final = rb"[\s>|]{1,80}"  # between two words, where a mail was wrapped and quoted
_DEBRIS: Final = ((b"\0", b""), (b"\xc2\xa0", b" "), (b"\xc3\x82", b" "))  # NBSP, and Â of one
_HALF: Final = (b"\xc2", b"\xc3")

_Kind = Literal["bug", "access", "code", "table", "die", "end", "weak", "other"]


class _Sign(NamedTuple):
    """Words that say something of where an oops begins or ends.

    All of them begin with `first`: bytes that are quickly looked for. So many bytes `before` may
    belong to them.
    """

    kind: _Kind
    first: bytes
    pattern: re.Pattern[bytes]
    architecture: str = ""
    before: int = 0


def _sign(
    kind: _Kind, first: bytes, rest: bytes = b"", *, architecture: str = "", before: int = 0
) -> _Sign:
    return _Sign(kind, first, re.compile(re.escape(first) + rest), architecture, before)


# "die" is the header that has the number of deaths; it is found by its code, and by its end.
_SIGNS: Final = (
    _sign("bug", b"BUG: unable", _GAP + b"to" + _GAP + b"handle" + _GAP + b"(?:kernel|page)"),
    _sign("bug", b"BUG: kernel NULL pointer"),
    _sign("bug", b"stack guard page was hit", before=17),
    _sign("bug", b"ernel BUG at ", rb"\S", before=1),
    _sign("bug", b"PANIC: double fault"),
    _sign("access", b"#PF: ", rb"(?:supervisor|user) "),
    _sign("code", b"#PF: error_code("),
    _sign("table", b"PGD ", rb"(?:0|[0-9a-f]{1,16}067|[0-9a-f]{3,16}" + _GAP + rb"P[4U]D)\s"),
    _sign("die", b"Oops: ", rb"[0-9a-f]{4}(?![0-9a-z]| ilc)"),
    _sign("die", b"[#", rb"(?<=: [0-9a-f]{4} \[#)\d{1,6}\]"),
    _sign("end", b"---[ cut here ]---"),
    _sign("end", b"WARNING: ", rb"(?:CPU:|[a-z/]{2,40}\.[ch]:\d)"),
    _sign("weak", b"RIP: 0010:", rb"[\[\w]"),
    _sign("other", b"Mem abort info", architecture="arm64"),
    _sign("other", b"pstate: ", rb"[0-9a-f]{8}", architecture="arm64"),
    _sign("other", b"PC is at ", architecture="arm"),
    _sign("other", b"epc", rb" ?: ?[0-9a-f]{8}", architecture="riscv"),
    _sign("other", b"Kernel access of bad area", architecture="powerpc"),
    _sign("other", b"Krnl PSW", architecture="s390"),
    _sign("other", b"EIP: ", rb"[0-9a-f]{4}:", architecture="32-bit x86"),
    _sign("other", b"*pd", rb"(?:e|pt) ?= ", architecture="32-bit x86"),
)


class _Mark(NamedTuple):
    """Where a sign was found."""

    start: int
    end: int
    sign: _Sign


class Block(NamedTuple):
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
    _seen: set[_Kind] = field(default_factory=set)  # the marks that it has
    _last_die: int = -_SAME_HEADER
    _line: int = 1  # that of the byte at `_line_at`
    _line_at: int = 0

    def blocks(self, read: Callable[[int], bytes]) -> Iterator[Block]:
        """Yield the oopses in what `read(n)` returns, in order, each when it has ended."""
        data, held, at = b"", b"", 0
        while True:
            more = read(_CHUNK)
            self.size += len(more)
            held += more
            whole = len(held) - (1 if more and held.endswith(_HALF) else 0)
            data, held = data + _cleaned(held[:whole]), held[whole:]
            decided = len(data) - _OVERLAP if more else len(data)
            for mark in _marks(data, at):
                if mark.sign.kind == "weak" and more and mark.start + LONGEST > len(data):
                    decided = min(decided, mark.start)
                if mark.start >= decided:
                    break
                at = max(at, mark.end)
                ended = self._ended_by(mark, data)
                if ended is not None:
                    yield self._block(data, *ended)
                if mark.sign.kind == "weak":
                    self._note_weak(data, mark.start)
            at = max(at, decided)
            if self._start >= 0 and (not more or at - self._start > LONGEST):
                yield self._block(data, self._start, len(data))
                self._start = -1
            if not more:
                return
            drop = max(0, at - _KEPT if self._start < 0 else min(at - _KEPT, self._start))
            self._forget(data, drop)
            data, at = data[drop:], at - drop

    def _ended_by(self, mark: _Mark, data: bytes) -> tuple[int, int] | None:
        """Take in one mark; return where the open block began and ended, if it is over."""
        kind, where = mark.sign.kind, mark.start
        if kind == "other":
            self.other = self.other or mark.sign.architecture
        if kind in ("weak", "other"):
            return None
        if kind == "die":
            same = where - self._last_die < _SAME_HEADER and self._start >= 0
            self._last_die = where
            if same:
                return None
            where = _header_start(data, where, max(self._start, 0))
        elif kind == "bug":
            where = max(where - mark.sign.before, self._start, 0)
        start = self._start
        goes_on = start >= 0 and where - start <= LONGEST and self._allows(kind)
        if not goes_on:
            self._start, self._seen = (-1 if kind == "end" else where), set()
        self._seen.add(kind)
        return None if goes_on or start < 0 else (start, where)

    def _allows(self, kind: _Kind) -> bool:
        """Tell whether the open block goes on when a mark of this kind comes."""
        if kind == "end":
            return "die" not in self._seen
        return kind != "bug" and not self._seen & {kind, "die"}

    def _note_weak(self, data: bytes, where: int) -> None:
        """Keep registers for when there is nothing better; a warning shows them, too."""
        if self.weak is None and self._start < 0:
            warned = b"WARNING: " in data[max(0, where - _KEPT) : where]
            self.weak = None if warned else self._block(data, where, len(data))

    def _block(self, data: bytes, start: int, end: int) -> Block:
        self._line += data.count(b"\n", self._line_at, start)
        self._line_at = max(self._line_at, start)
        return Block(self._line, data[start : min(end, start + LONGEST)])

    def _forget(self, data: bytes, drop: int) -> None:
        """Count from `drop` on instead of from the start of the data."""
        self._line += data.count(b"\n", self._line_at, drop)
        self._line_at = max(self._line_at, drop) - drop
        self._last_die -= drop
        self._start = self._start - drop if self._start >= 0 else -1


def _marks(data: bytes, at: int) -> list[_Mark]:
    """Return the marks from `at` on, in order."""
    marks = [
        _Mark(found.start(), found.end(), sign)
        for sign in _SIGNS
        if data.find(sign.first, at) >= 0
        for found in sign.pattern.finditer(data, at)
    ]
    marks.sort(key=itemgetter(0))
    return marks


def _cleaned(data: bytes) -> bytes:
    """Take out what consoles and mail programs put between and into words."""
    for debris, instead in _DEBRIS:
        data = data.replace(debris, instead)
    return data


def _header_start(data: bytes, where: int, least: int) -> int:
    """Return where the line of a die header begins, or far enough before its number."""
    return max(data.rfind(b"\n", 0, where) + 1, where - _BEFORE, least)
