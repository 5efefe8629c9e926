"""`.if` and its kin: which statements are read at all.

Knows nesting and the conditions of GNU as. Refuses to know what the skipped statements say,
apart from the conditions among them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from asm.errors import Refused
from asm.source import Statement

if TYPE_CHECKING:
    from asm.assembler import Assembler

_COMPARISONS: Final[dict[str, Callable[[int], bool]]] = {
    ".if": lambda number: number != 0,
    ".ifne": lambda number: number != 0,
    ".ifeq": lambda number: number == 0,
    ".ifge": lambda number: number >= 0,
    ".ifgt": lambda number: number > 0,
    ".ifle": lambda number: number <= 0,
    ".iflt": lambda number: number < 0,
}
_DEFINED: Final = {".ifdef": True, ".ifndef": False, ".ifnotdef": False}


class _Level:
    """One `.if` that is still open."""

    def __init__(self, entry: Statement, *, outer: bool, holds: bool) -> None:
        self.line = entry.line
        self.outer = outer
        self.reading = outer and holds
        self.taken = holds
        self.has_else = False


class Conditions:
    """The conditions that are open at the present statement."""

    def __init__(self, assembler: "Assembler") -> None:
        self._assembler = assembler
        self._levels: list[_Level] = []

    @property
    def is_reading(self) -> bool:
        """Whether the present branch is taken."""
        return not self._levels or self._levels[-1].reading

    def take(self, entry: Statement) -> bool:
        """Whether `entry` is not to be read: a condition itself, or in a branch not taken."""
        operation = entry.operation
        reading = self.is_reading
        if operation in _COMPARISONS or operation in _DEFINED:
            holds = reading and self._holds(entry)
            self._levels.append(_Level(entry, outer=reading, holds=holds))
            return True
        if operation not in (".elseif", ".else", ".endif"):
            if operation.startswith(".if") and reading:
                raise Refused(f"the condition {operation} is not supported")
            return not reading
        if not self._levels:
            raise Refused(f"{operation} without .if")
        level = self._levels[-1]
        if operation == ".endif":
            self._levels.pop()
        elif level.has_else:
            raise Refused(f"{operation} after .else of the .if in line {level.line}")
        else:
            level.has_else = operation == ".else"
            wanted = level.outer and not level.taken
            level.reading = wanted and (level.has_else or self._holds(entry))
            level.taken = level.taken or level.reading
        return True

    def finish(self) -> None:
        """Raise Refused when a condition is still open."""
        if self._levels:
            raise Refused(f"the .if in line {self._levels[-1].line} has no .endif")

    def _holds(self, entry: Statement) -> bool:
        if entry.operation in _DEFINED:
            return self._assembler.is_defined(entry.operands) is _DEFINED[entry.operation]
        compare = _COMPARISONS.get(entry.operation, _COMPARISONS[".if"])
        return compare(self._assembler.constant(entry.operands))
