"""`.rept` and `.macro`: statements that are read again, perhaps changed.

Knows bodies, parameters and where a body ends. Refuses to know what the statements mean.
"""

from typing import TYPE_CHECKING, Final

from asm.errors import Refused
from asm.source import Line, Statement

if TYPE_CHECKING:
    from asm.assembler import Assembler

_MOST_LINES: Final = 1 << 16


class Macros:
    """The bodies that are being collected and the macros that are known."""

    def __init__(self, assembler: "Assembler") -> None:
        self._assembler = assembler
        self._body: list[Line] = []
        self._opening: Statement | None = None
        self._depth = 0
        self._count = 0
        self._produced = 0

    @property
    def is_collecting(self) -> bool:
        """Whether a body is open, so that statements are to be kept and not read."""
        return self._opening is not None

    def collect(self, entry: Statement) -> None:
        """Keep `entry` for the body, or repeat the body if `entry` ends it."""
        self._depth += (entry.operation == ".rept") - (entry.operation == ".endr")
        if self._depth:
            self._body.append(Line(entry.line, entry.raw))
        else:
            self._opening = None
            self._repeat()

    def take(self, entry: Statement) -> bool:
        """Whether `entry` opened a body."""
        if entry.operation == ".endr":
            raise Refused(".endr without .rept")
        if entry.operation != ".rept":
            return False
        self._count = self._assembler.constant(entry.operands)
        if self._count < 0:
            raise Refused(f".rept of {self._count}: 0 or more was expected")
        self._opening, self._depth, self._body = entry, 1, []
        return True

    def finish(self) -> None:
        """Raise Refused when a body has no end."""
        if self._opening is not None:
            raise Refused(f"the .rept in line {self._opening.line} has no .endr")

    def _repeat(self) -> None:
        self._produced += self._count * len(self._body)
        if self._produced > _MOST_LINES:
            raise Refused(f".rept makes more than the {_MOST_LINES:#x} statements expected")
        self._assembler.push(self._body * self._count)
