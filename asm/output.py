"""Sections while they grow, and the program that they become.

Knows how a field is filled in: with a number where everything is known, else with a relocation.
Refuses to know statements.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from asm.errors import Refused
from asm.expression import Name, Value
from asm.layout import LARGEST, Evaluate, Field, Misplaced, Piece, number_bytes
from asm.program import Base, Binding, Call, Kind, Program, ProgramSymbol, Relocation, Section
from asm.program import Piece as Listed


class Part:
    """One section of a source while it is read.

    `run` counts the pieces so far whose size may still change, `position` the bytes since.
    """

    def __init__(self, name: str, flags: str, *, nobits: bool = False) -> None:
        self.name = name
        self.flags = flags
        self.alignment = 1
        self.pieces: list[Piece] = []
        self.run = 0
        self.position = 0
        self.total = 0
        self.calls: list[tuple[Piece, bool]] = []
        self.kind: Literal["code", "data", "bss"] = "data"
        if nobits or name == ".bss":
            self.kind = "bss"
        elif "x" in flags:
            self.kind = "code"

    def add(self, piece: Piece) -> None:
        """Append `piece`."""
        if self.kind == "bss" and (piece.fields or any(piece.data)):
            raise Refused(f"section {self.name} holds no data: only space was expected")
        self.total += len(piece.data)
        if self.total > LARGEST:
            raise Refused(f"section {self.name} grows beyond {LARGEST:#x} bytes here")
        self.pieces.append(piece)
        if piece.varies:
            self.run += 1
            self.position = 0
        else:
            self.position += len(piece.data)

    def mark(self, name: Name) -> None:
        """Let `name` be the present end of the section."""
        name.section = self
        name.index = len(self.pieces)
        name.run = self.run
        name.position = self.position

    def offset(self, index: int) -> int:
        """Where piece `index` starts; one past the last gives the size of the section."""
        if index < len(self.pieces):
            return self.pieces[index].offset
        if not self.pieces:
            return 0
        return self.pieces[-1].offset + len(self.pieces[-1].data)


def program(
    file: str,
    source: Sequence[str],
    parts: Mapping[str, Part],
    names: Mapping[str, Name],
    evaluate: Evaluate,
) -> Program:
    """The program of a source whose layout is settled. Raises Refused."""
    relocations: list[Relocation] = []
    calls: list[Call] = []
    listed: list[Listed] = []
    sections: dict[str, Section] = {}
    for part in parts.values():
        data = bytearray()
        for piece in part.pieces:
            filled = bytearray(piece.data)
            for field in piece.fields:
                try:
                    left = _fill(filled, field, piece, part, evaluate)
                except Misplaced:
                    raise
                except Refused as error:
                    raise Misplaced(str(error), piece) from None
                if left is not None:
                    relocations.append(left)
            data += filled
            text = piece.text.strip()
            size, symbolic = len(filled), bool(piece.fields)
            listed.append(
                Listed(
                    part.name, piece.offset, size, piece.line, text, piece.is_instruction, symbolic
                )
            )
        calls += [_call(part, piece, direct, evaluate) for piece, direct in part.calls]
        loaded = "a" in part.flags
        sections[part.name] = Section(
            part.name, bytes(data), part.alignment, part.kind, part.flags, loaded
        )
    return Program(
        file,
        MappingProxyType(sections),
        MappingProxyType(_symbols(names, evaluate)),
        tuple(relocations),
        tuple(calls),
        tuple(listed),
        frozenset(name.name for name in names.values() if name.binding == "weak"),
        tuple(source),
    )


def _fill(
    data: bytearray, field: Field, piece: Piece, part: Part, evaluate: Evaluate
) -> Relocation | None:
    """Put the value of `field` into `data`, or return what the linker has to do."""
    value = evaluate(field.node)
    at = piece.offset + field.offset
    if field.end is not None:
        value = _less_place(value, piece.offset + field.end, part)
    if value.is_constant:
        end = field.offset + field.size
        if field.end is not None and field.size == 1 and not -128 <= value.number < 128:
            away = value.number
            raise Refused(f"the target is {away:#x} bytes away: -0x80 to 0x7f were expected")
        data[field.offset : end] = number_bytes(value.number, field.size, signed=field.signed)
        return None
    if value.minus not in (None, part):
        raise Refused("the difference of these places is not known before linking")
    if not field.relocatable:
        raise Refused("the target is not in this section, and this jump reaches no further")
    relative = value.minus is not None
    addend = value.number + (at if relative else 0)
    base = _base(value)
    return Relocation(part.name, at, field.size, relative, field.signed, base, addend, piece.line)


def _less_place(value: Value, end: int, part: Part) -> Value:
    if value.minus is not None:
        raise Refused("a difference of addresses is no target")
    if value.plus is part:
        return Value(value.number - end)
    return Value(value.number - end, value.plus, part)


def _base(value: Value) -> Base | None:
    if isinstance(value.plus, Part):
        return Base(value.plus.name, is_section=True)
    if isinstance(value.plus, Name):
        if value.plus.name[0] == "\0":
            _, label, _ = value.plus.name.split("\0")
            raise Refused(f"{label}f: there is no label {label}: after this")
        return Base(value.plus.name, is_section=False)
    return None


def _call(part: Part, piece: Piece, direct: bool, evaluate: Evaluate) -> Call:
    target = None
    if direct:
        value = evaluate(piece.fields[0].node)
        target = (_base(value), value.number)
    return Call(part.name, piece.offset, len(piece.data), target)


def _symbols(names: Mapping[str, Name], evaluate: Evaluate) -> dict[str, ProgramSymbol]:
    symbols: dict[str, ProgramSymbol] = {}
    for name in names.values():
        if name.defined and not name.name.startswith((".L", "\0")):
            symbols[name.name] = _symbol(name, evaluate)
    return symbols


def _symbol(name: Name, evaluate: Evaluate) -> ProgramSymbol:
    node = name.expression
    if node is None:
        assert isinstance(name.section, Part)
        section: str | None = name.section.name
        offset = name.section.offset(name.index)
    else:
        value = evaluate(node)
        if value.minus is not None or isinstance(value.plus, Name):
            raise Refused(f"{name.name} is set to what is not a place in this source")
        offset = value.number
        section = value.plus.name if isinstance(value.plus, Part) else None
    like = node if isinstance(node, Name) and name.kind == "notype" else name
    extent = evaluate(like.extent).number
    return ProgramSymbol(
        name.name, section, offset, extent, _kind(like.kind), _binding(name.binding)
    )


def _kind(kind: str) -> Kind:
    return "function" if kind == "function" else "object" if kind == "object" else "notype"


def _binding(binding: str) -> Binding:
    return "global" if binding == "global" else "weak" if binding == "weak" else "local"
