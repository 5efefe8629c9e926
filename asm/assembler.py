"""One source in Intel syntax, assembled as GNU as does it.

Knows statements, labels, conditions and the order of things: read everything once, settle the
sizes, then fill in what is known and leave the rest to the linker. Refuses to know addresses,
and files beyond reading one: nothing is included.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from asm import layout
from asm.conditions import Conditions
from asm.directives import directive
from asm.errors import AssemblyError, Refused
from asm.expression import Binary, Name, Node, Value, evaluate
from asm.instruction import instruction
from asm.layout import Piece
from asm.macros import Macros
from asm.operand import RESERVED
from asm.output import Part, program
from asm.parser import parse
from asm.program import Program
from asm.source import LARGEST, Line, decoded, lines, statement

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_NO_CONSTANTS: Final[Mapping[str, int]] = MappingProxyType({})


def assemble(
    source: str, *, name: str = "<asm>", constants: Mapping[str, int] = _NO_CONSTANTS
) -> Program:
    """The program that `source` says, as `as --defsym NAME=VALUE … -msyntax=intel` makes it.

    `name` stands for the file in errors, `constants` for what its `.if` may ask. A constant that
    does not fit its place is refused, never cut. Raises AssemblyError.
    """
    if len(source) > LARGEST:
        raise AssemblyError(f"too long: expected at most {LARGEST:#x} characters", file=name)
    return Assembler(source, name, constants).program()


def assemble_file(
    path: "Path | Traversable", *, constants: Mapping[str, int] = _NO_CONSTANTS
) -> Program:
    """The program in the file `path`; see `assemble`.

    Raises AssemblyError, also for what is not UTF-8 or larger than 1 MiB, and OSError as reading
    raises it.
    """
    with path.open("rb") as file:
        raw: bytes = file.read(LARGEST + 1)
    source = decoded(raw, file=path.name)
    return assemble(source, name=path.name, constants=constants)


class Assembler:
    """The state of one source while it is read; what directives and instructions act upon."""

    def __init__(self, source: str, file: str, constants: Mapping[str, int]) -> None:
        self.section = Part(".text", "ax")
        self.sections = {".text": self.section}
        self._file = file
        self._source = source.splitlines()
        self._pending = lines(source, file=file)[::-1]
        self._constants = dict(constants)
        self._names: dict[str, Name] = {}
        self._numeric: dict[str, int] = {}
        self._sized: list[tuple[Name, Line]] = []
        self._conditions = Conditions(self)
        self._macros = Macros(self)
        self._line = Line(0, "")
        self._entry = statement(self._line)
        self._ahead = 0

    def program(self) -> Program:
        """Read every statement and return what they make."""
        try:
            self._read()
            self._line = Line(0, "")
            self._settle()
            return program(self._file, self._source, self.sections, self._names, self.value)
        except layout.Misplaced as error:
            raise self._error(str(error), error.piece.line) from None
        except Refused as error:
            raise self._error(str(error), self._line.number) from None
        except RecursionError:
            message = "an expression refers to itself, or is nested too deeply"
            raise self._error(message, self._line.number) from None

    def _read(self) -> None:
        while self._pending:
            self._line = self._pending.pop()
            entry = self._entry = statement(self._line)
            if self._macros.is_collecting:
                self._macros.collect(entry)
                continue
            if self._conditions.is_reading:
                for label in entry.labels:
                    self._label(label)
            if self._conditions.take(entry) or self._macros.take(entry) or not entry.operation:
                continue
            if entry.operation[0] == ".":
                directive(self, entry.operation, entry.operands)
            else:
                instruction(self, entry.operation, entry.operands)
        self._conditions.finish()
        self._macros.finish()
        self._line = Line(0, "")
        if not any(section.pieces for section in self.sections.values()):
            raise Refused("nothing to assemble: the source has no instruction and no data")

    def _settle(self) -> None:
        layout.place([section.pieces for section in self.sections.values()], self.value)
        for name, line in self._sized:
            self._line = line
            if not name.defined:
                raise Refused(f"nothing in this source is called {name.name}")
            if not self.value(name.extent).is_constant:
                raise Refused(f"the size of {name.name} is an address: a constant was expected")

    def _error(self, message: str, number: int) -> AssemblyError:
        text = self._source[number - 1] if 0 < number <= len(self._source) else ""
        return AssemblyError(message, file=self._file, line=number, source=text)

    # Names.

    def name(self, name: str) -> Name:
        """What `name` stands for, known or not yet."""
        if name.lower() in RESERVED:
            raise Refused(f"{name} is a register or a word of Intel syntax, and cannot stand here")
        entry = self._names.get(name)
        if entry is None:
            entry = self._names[name] = Name(name)
        return entry

    def _label(self, label: str) -> None:
        if label.isdecimal():
            self._numeric[label] = self._numeric.get(label, 0) + 1
            entry = self.name(_numeric(label, self._numeric[label]))
        else:
            entry = self.name(label)
            if entry.defined or label in self._constants:
                where = f" in line {entry.line}" if entry.line else ""
                raise Refused(f"{label} is already defined{where}")
        self.section.mark(entry)
        entry.line = self._line.number

    def assign(self, name: str, node: Node) -> None:
        """Let `name` stand for `node` from here on."""
        if name == ".":
            self.add(layout.Origin(node, 0, self.section))
            return
        entry = self.name(name)
        if entry.section is not None:
            raise Refused(f"{name} is already a label, in line {entry.line}")
        if entry.expression is not None and not isinstance(entry.expression, int):
            entry = self._names[name] = Name(name)
        self._constants.pop(name, None)
        entry.expression = node
        entry.line = self._line.number

    def sized(self, name: Name) -> None:
        """Remember to check the size of `name` once it is known."""
        self._sized.append((name, self._line))

    def is_defined(self, name: str) -> bool:
        """Whether `name` stands for something by now."""
        return name in self._constants or (name in self._names and self._names[name].defined)

    def _lookup(self, word: str) -> Node:
        if word == ".":
            here = Name(".")
            self.section.mark(here)
            return Binary("+", here, self._ahead) if self._ahead else here
        if word in self._constants:
            return self._constants[word]
        if word[0].isdecimal():
            number, direction = word[:-1], word[-1]
            count = self._numeric.get(number, 0) + (direction == "f")
            if not count:
                raise Refused(f"{word}: there is no label {number}: before this")
            return self.name(_numeric(number, count))
        entry = self.name(word)
        return entry.expression if isinstance(entry.expression, int) else entry

    # Expressions.

    def expression(self, text: str, *, ahead: int = 0) -> Node:
        """The expression `text`: a number as soon as it is one. Raises Refused.

        `ahead` bytes of the present statement lie before the place that `.` stands for.
        """
        self._ahead = ahead
        node = parse(text, self._lookup)
        if isinstance(node, int):
            return node
        try:
            value = evaluate(node, _so_far)
        except Refused:
            return node
        return value.number if value.is_constant else node

    def constant(self, text: str) -> int:
        """The number that the expression `text` is by now. Raises Refused."""
        node = self.expression(text)
        if not isinstance(node, int):
            raise Refused(f"`{text}` is not known here: a constant was expected")
        return node

    def so_far(self, node: Node) -> Value:
        """The value of `node` as far as it is fixed by now. Raises Refused."""
        return evaluate(node, _so_far)

    def value(self, node: Node) -> Value:
        """The value of `node` in the present layout. Raises Refused."""
        return evaluate(node, self._locate)

    def _locate(self, name: Name) -> Value:
        if name.binding == "weak":
            return Value(0, name)
        if isinstance(name.section, Part):
            return Value(name.section.offset(name.index), name.section)
        return Value(0, name) if name.expression is None else self.value(name.expression)

    # Output.

    def add(self, piece: Piece) -> None:
        """Append `piece` to the current section."""
        piece.line, piece.text = self._line.number, self._entry.text
        self.section.add(piece)

    def push(self, source: list[Line]) -> None:
        """Read `source` before what follows the present statement."""
        self._pending += reversed(source)

    def enter(
        self, name: str, flags: str | None, *, default: str = "", nobits: bool = False
    ) -> None:
        """Continue in the section `name`. Flags that differ from earlier ones are refused."""
        section = self.sections.get(name)
        if section is None:
            section = Part(name, default if flags is None else flags, nobits=nobits)
            self.sections[name] = section
        elif flags is not None and set(flags) != set(section.flags):
            raise Refused(f'section {name} has the flags "{section.flags}", not "{flags}"')
        self.section = section


def _numeric(label: str, count: int) -> str:
    return f"\0{label}\0{count}"


def _so_far(name: Name) -> Value:
    if isinstance(name.section, Part):
        return Value(name.position, (name.section, name.run))
    return Value(0, name) if name.expression is None else evaluate(name.expression, _so_far)
