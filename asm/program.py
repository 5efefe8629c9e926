"""An assembled source, not yet placed anywhere.

Knows sections, symbols and relocations as values, and lists them for people to read. Refuses to
know how they came about, and every address: offsets here count from the start of a section.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from asm.engines import disassemble
from asm.errors import AssemblyError

Kind = Literal["function", "object", "notype"]
Binding = Literal["local", "global", "weak"]


class Section(NamedTuple):
    """A named run of bytes; `loaded` is false for sections that take no memory (no `a` flag)."""

    name: str
    data: bytes
    alignment: int
    kind: Literal["code", "data", "bss"]
    flags: str
    loaded: bool


class ProgramSymbol(NamedTuple):
    """A name of the source; `section` is None for a number, which is then the `offset`."""

    name: str
    section: str | None
    offset: int
    size: int
    kind: Kind
    binding: Binding


class Base(NamedTuple):
    """What an address counts from: a section of the same program, or a symbol of any."""

    name: str
    is_section: bool


class Relocation(NamedTuple):
    """A field to fill in once addresses are known.

    The field gets `base + addend`, less its own address when `relative`. A base of None is
    address zero. A `signed` field must fit as a signed number, another one of 4 bytes as an
    unsigned one, shorter ones as either.
    """

    section: str
    offset: int
    size: int
    relative: bool
    signed: bool
    base: Base | None
    addend: int
    line: int


class Call(NamedTuple):
    """A call instruction; `target` is None when a register or memory holds it."""

    section: str
    offset: int
    size: int
    target: tuple[Base | None, int] | None


class Piece(NamedTuple):
    """What one statement became."""

    section: str
    offset: int
    size: int
    line: int
    text: str
    is_instruction: bool
    is_symbolic: bool


class ListingLine(NamedTuple):
    """One line of a listing; `symbol` is the name defined at this offset.

    A second name for the same offset, and one at the end of a section, has a line without data.
    """

    section: str
    offset: int
    data: bytes
    text: str
    line: int
    symbol: str | None


@dataclass(frozen=True, eq=False)
class Program:
    """What one source became; `weak` are the names that may stay undefined, and are then 0."""

    name: str
    sections: Mapping[str, Section]
    symbols: Mapping[str, ProgramSymbol]
    relocations: tuple[Relocation, ...]
    calls: tuple[Call, ...]
    pieces: tuple[Piece, ...]
    weak: frozenset[str]
    source: tuple[str, ...] = field(repr=False)

    @property
    def lines(self) -> Mapping[tuple[str, int], int]:
        """The source line of each statement, by section and offset."""
        return {(piece.section, piece.offset): piece.line for piece in self.pieces}

    def error(self, message: str, line: int) -> AssemblyError:
        """An error about `line` of this source."""
        text = self.source[line - 1] if 0 < line <= len(self.source) else ""
        return AssemblyError(message, file=self.name, line=line, source=text)

    def listing(self) -> Iterator[ListingLine]:
        """Every statement that became bytes, section by section.

        An instruction is shown as capstone reads its bytes; where these still depend on the
        address of a symbol, as it stands in the source.
        """
        for section in self.sections.values():
            names: dict[int, list[str]] = {}
            for symbol in self.symbols.values():
                if symbol.section == section.name:
                    names.setdefault(symbol.offset, []).append(symbol.name)
            for piece in self.pieces:
                if piece.section != section.name or not piece.size:
                    continue
                here = names.pop(piece.offset, [])
                for name in here[:-1]:
                    yield ListingLine(section.name, piece.offset, b"", "", piece.line, name)
                data = section.data[piece.offset : piece.offset + piece.size]
                last = here[-1] if here else None
                text = _shown(piece, data)
                yield ListingLine(section.name, piece.offset, data, text, piece.line, last)
            for offset, left in sorted(names.items()):
                for name in left:
                    yield ListingLine(section.name, offset, b"", "", 0, name)


def _shown(piece: Piece, data: bytes) -> str:
    if not piece.is_instruction or piece.is_symbolic:
        return " ".join(piece.text.split())
    for _, size, mnemonic, operands in disassemble(data, piece.offset):
        if size == len(data):
            return f"{mnemonic} {operands}".strip()
    return " ".join(piece.text.split())
