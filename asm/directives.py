"""Directives: what each one adds to the source being assembled.

Knows GNU as's directives for data, space, symbols and sections. Refuses to know instructions,
and conditions (`.if`), which decide whether a statement is read at all.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from asm.errors import Refused
from asm.expression import Node
from asm.layout import Field, Origin, Padding, Piece, Repeat, number_bytes
from asm.source import split, string

if TYPE_CHECKING:
    from asm.assembler import Assembler

_DATA: Final = {
    **dict.fromkeys([".byte"], 1),
    **dict.fromkeys([".2byte", ".short", ".word", ".hword", ".value"], 2),
    **dict.fromkeys([".4byte", ".long", ".int"], 4),
    **dict.fromkeys([".8byte", ".quad"], 8),
    ".octa": 16,
}
_NAME: Final = re.compile(r"[A-Za-z_.$][\w.$]*\Z")
_TYPES: Final = {
    "function": "function",
    "func": "function",
    "stt_func": "function",
    "object": "object",
    "stt_object": "object",
    "notype": "notype",
    "stt_notype": "notype",
}
_FLAGS: Final = {".text": "ax", ".data": "aw", ".bss": "aw", ".rodata": "a", ".init": "ax"}
_FILL_WIDTH: Final = {"w": 2, "l": 4}  # of .balignw and .p2alignl
_LARGEST_ALIGNMENT: Final = 1 << 21

Directive = Callable[["Assembler", str, list[str]], None]


def directive(assembler: "Assembler", name: str, operands: str) -> None:
    """Do what the directive `name` says. Raises Refused for one that is not known."""
    handler = _HANDLERS.get(name)
    if handler is None:
        raise Refused(f"the directive {name} is not supported")
    handler(assembler, name, split(operands))


def _data(assembler: "Assembler", name: str, operands: list[str]) -> None:
    size = _DATA[name]
    data = bytearray()
    fields: list[Field] = []
    for operand in operands:
        value = assembler.expression(operand, ahead=len(data))
        if isinstance(value, int):
            data += number_bytes(value, size, signed=False)
        elif size > 8:
            raise Refused(f"{name} takes numbers only")
        else:
            fields.append(Field(len(data), size, value))
            data += bytes(size)
    assembler.add(Piece(bytes(data), tuple(fields)))


def _strings(assembler: "Assembler", name: str, operands: list[str]) -> None:
    end = b"" if name == ".ascii" else b"\0"
    assembler.add(Piece(b"".join(string(operand) + end for operand in operands)))


def _space(assembler: "Assembler", name: str, operands: list[str]) -> None:
    _count(name, operands, 1, 2)
    fill = assembler.constant(operands[1]) if len(operands) > 1 else 0
    _repeat(assembler, operands[0], number_bytes(fill, 1, signed=False))


def _fill(assembler: "Assembler", name: str, operands: list[str]) -> None:
    _count(name, operands, 1, 3)
    size = assembler.constant(operands[1]) if len(operands) > 1 and operands[1] else 1
    value = assembler.constant(operands[2]) if len(operands) > 2 else 0
    if not 0 <= size <= 8:
        raise Refused(f".fill of units of {size:#x} bytes: 0 to 8 were expected")
    # GNU as takes 32 bits of the value, and fills longer units up with zeros.
    unit = number_bytes(value, min(size, 4), signed=False) if size else b""
    if size > 4 and value < 0:
        raise Refused(f".fill of units of {size} bytes with {value:#x}: 0 or more was expected")
    _repeat(assembler, operands[0], unit.ljust(size, b"\0"))


def _repeat(assembler: "Assembler", count: str, unit: bytes) -> None:
    piece = Repeat(assembler.expression(count), unit)
    if isinstance(piece.node, int):
        piece.check(assembler.value)
        piece.settle(assembler.value)
        assembler.add(Piece(piece.data))
    else:
        assembler.add(piece)


def _align(assembler: "Assembler", name: str, operands: list[str]) -> None:
    _count(name, operands, 1, 3)
    alignment = assembler.constant(operands[0])
    if name.startswith(".p2align"):
        if not 0 <= alignment < 22:
            raise Refused(f"{name} of {alignment:#x}: 0 to 21 was expected")
        alignment = 1 << alignment
    alignment = alignment or 1
    if alignment & (alignment - 1) or not 0 < alignment <= _LARGEST_ALIGNMENT:
        raise Refused(f"alignment {alignment:#x}: a power of two up to 0x200000 was expected")
    width = _FILL_WIDTH.get(name[-1], 1)
    fill: bytes | None = None if assembler.section.kind == "code" else b"\0"
    if len(operands) > 1 and operands[1]:
        fill = number_bytes(assembler.constant(operands[1]), width, signed=False)
    most = assembler.constant(operands[2]) if len(operands) > 2 else None
    assembler.section.alignment = max(assembler.section.alignment, alignment)
    assembler.add(Padding(alignment, fill, most or None))


def _org(assembler: "Assembler", name: str, operands: list[str]) -> None:
    _count(name, operands, 1, 2)
    fill = assembler.constant(operands[1]) if len(operands) > 1 else 0
    number_bytes(fill, 1, signed=False)
    assembler.add(Origin(assembler.expression(operands[0]), fill & 0xFF, assembler.section))


def _set(assembler: "Assembler", name: str, operands: list[str]) -> None:
    _count(name, operands, 2, 2)
    assembler.assign(_name(operands[0]), assembler.expression(operands[1]))


def _binding(assembler: "Assembler", name: str, operands: list[str]) -> None:
    binding = {".weak": "weak", ".local": "local"}.get(name, "global")
    _count(name, operands, 1, 1 << 16)
    for operand in operands:
        assembler.name(_name(operand)).binding = binding


def _type(assembler: "Assembler", name: str, operands: list[str]) -> None:
    if len(operands) == 1:
        operands = operands[0].split(None, 1)
    _count(name, operands, 2, 2)
    kind = _TYPES.get(operands[1].strip('"').lstrip("@%").lower())
    if kind is None:
        raise Refused(f"`{operands[1]}`: @function, @object or @notype was expected")
    assembler.name(_name(operands[0])).kind = kind


def _size(assembler: "Assembler", name: str, operands: list[str]) -> None:
    _count(name, operands, 2, 2)
    extent: Node = assembler.expression(operands[1])
    entry = assembler.name(_name(operands[0]))
    entry.extent = extent
    assembler.sized(entry)


def _section(assembler: "Assembler", name: str, operands: list[str]) -> None:
    if name != ".section":
        _count(name, operands, 0, 0)
        assembler.enter(name, _FLAGS[name])
        return
    _count(name, operands, 1, 3)
    section = string(operands[0]).decode() if operands[0].startswith('"') else operands[0]
    flags = None
    if len(operands) > 1:
        flags = string(operands[1]).decode()
        if set(flags) - set("awx"):
            raise Refused(f'section flags "{flags}": only a, w and x are supported')
    if len(operands) > 2 and operands[2].lstrip("@%") not in ("progbits", "nobits", "note"):
        raise Refused(f"section type `{operands[2]}`: @progbits or @nobits was expected")
    stem = "." + section.split(".")[1] if section.startswith(".") else ""
    default = _FLAGS.get(stem, "")
    nobits = stem == ".bss" or (len(operands) > 2 and operands[2].lstrip("@%") == "nobits")
    assembler.enter(section, flags, default=default, nobits=nobits)


def _ignored(assembler: "Assembler", name: str, operands: list[str]) -> None:
    """Nothing: `.file`, `.ident` and the call frame directives describe, and we read the code."""


def _syntax(assembler: "Assembler", name: str, operands: list[str]) -> None:
    if operands not in (["noprefix"], [""], []):
        raise Refused(f".intel_syntax {operands[0]}: noprefix was expected")


def _error(assembler: "Assembler", name: str, operands: list[str]) -> None:
    raise Refused(string(operands[0]).decode() if operands else ".err was reached")


def _count(name: str, operands: list[str], least: int, most: int) -> None:
    if not least <= len(operands) <= most or (least and not operands[0]):
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise Refused(f"{name} takes {wanted} operands, not {len(operands)}")


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise Refused(f"`{text}` is not the name of a symbol")
    return text


_HANDLERS: Final[dict[str, Directive]] = {
    **dict.fromkeys(_DATA, _data),
    **dict.fromkeys([".ascii", ".asciz", ".string"], _strings),
    **dict.fromkeys([".zero", ".skip", ".space"], _space),
    ".fill": _fill,
    ".align": _align,
    **{f".{kind}align{width}": _align for kind in ("p2", "b") for width in ("", "w", "l")},
    ".org": _org,
    **dict.fromkeys([".set", ".equ"], _set),
    **dict.fromkeys([".globl", ".global", ".weak", ".local"], _binding),
    ".type": _type,
    ".size": _size,
    **dict.fromkeys([".section", ".text", ".data", ".bss"], _section),
    **dict.fromkeys([".code64", ".file", ".ident", ".extern"], _ignored),
    **{f".cfi_{name}": _ignored for name in ("startproc", "endproc", "def_cfa_offset", "offset")},
    ".intel_syntax": _syntax,
    **dict.fromkeys([".err", ".error"], _error),
}
