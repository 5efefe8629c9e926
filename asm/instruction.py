"""Instructions: operands made of names, turned into bytes and fields.

Knows jumps and calls, which it encodes itself, and how GNU as reads a bare name. Refuses to know
every other encoding: it passes numbers and holes to `encoding`.
"""

from typing import TYPE_CHECKING, Final

from asm.encoding import Encoding, encode
from asm.errors import Refused
from asm.expression import Node, signed
from asm.guard import PREFIXES
from asm.layout import Field, Jump, Piece
from asm.numeric import Address, Immediate, Operand
from asm.operand import Expression, Memory, Register, operand
from asm.source import split

if TYPE_CHECKING:
    from asm.assembler import Assembler

_CONDITIONS: Final = (
    "o",
    "no",
    "b c nae",
    "ae nb nc",
    "e z",
    "ne nz",
    "be na",
    "a nbe",
    "s",
    "ns",
    "p pe",
    "np po",
    "l nge",
    "ge nl",
    "le ng",
    "g nle",
)
# Opcodes of direct jumps: the one for 8 bits of distance and the one for 32, where there is one.
_JUMPS: Final[dict[str, tuple[bytes, bytes]]] = {
    "jmp": (b"\xeb", b"\xe9"),
    **{
        f"j{condition}": (bytes([0x70 + number]), bytes([0x0F, 0x80 + number]))
        for number, conditions in enumerate(_CONDITIONS)
        for condition in conditions.split()
    },
    "loopne": (b"\xe0", b""),
    "loopnz": (b"\xe0", b""),
    "loope": (b"\xe1", b""),
    "loopz": (b"\xe1", b""),
    "loop": (b"\xe2", b""),
    "jrcxz": (b"\xe3", b""),
    "jecxz": (b"\x67\xe3", b""),
}
_NEAR_ONLY: Final = {"call": b"\xe8", "callq": b"\xe8", "xbegin": b"\xc7\xf8"}


def instruction(assembler: "Assembler", mnemonic: str, text: str) -> None:
    """Add one instruction. Raises Refused."""
    prefixes: list[str] = []
    while mnemonic in PREFIXES:
        prefixes.append(mnemonic)
        if not text:
            assembler.add(Piece(bytes(PREFIXES[p] for p in prefixes), is_instruction=True))
            return
        mnemonic, _, text = text.partition(" ")
        mnemonic, text = mnemonic.lower(), text.strip()
    operands = [operand(part) for part in split(text)]
    if mnemonic in _JUMPS or mnemonic in _NEAR_ONLY:
        if len(operands) == 1 and isinstance(operands[0], Expression):
            _branch(assembler, prefixes, mnemonic, operands[0])
            return
        mnemonic = "call" if mnemonic == "callq" else mnemonic
    piece = _piece(assembler, tuple(prefixes), mnemonic, operands)
    assembler.add(piece)
    if mnemonic == "call":
        assembler.section.calls.append((piece, False))


def _branch(assembler: "Assembler", prefixes: list[str], mnemonic: str, target: Expression) -> None:
    if prefixes:
        raise Refused(f"`{prefixes[0]}` in front of `{mnemonic}` is not supported")
    if target.modifier == "offset":
        raise Refused(f"`offset {target.text}`: a target is written without `offset`")
    node = assembler.expression(target.text)
    if mnemonic in _NEAR_ONLY:
        if target.modifier:
            raise Refused(f"`{mnemonic}` has no short form")
        opcode = _NEAR_ONLY[mnemonic]
        end = len(opcode) + 4
        field = Field(len(opcode), 4, node, end, signed=True)
        piece = Piece(opcode + bytes(4), (field,), is_instruction=True)
        assembler.add(piece)
        if mnemonic != "xbegin":
            assembler.section.calls.append((piece, True))
        return
    short, near = _JUMPS[mnemonic]
    assembler.add(Jump(short, b"" if target.modifier else near, node, assembler.section))


def _piece(
    assembler: "Assembler",
    prefixes: tuple[str, ...],
    mnemonic: str,
    operands: list[Register | Expression | Memory],
) -> Piece:
    wanted: list[Operand] = []
    displacement: Node = 0
    immediate: Node = 0
    for one in operands:
        if isinstance(one, Register):
            wanted.append(one)
        elif isinstance(one, Memory):
            displacement = assembler.expression(one.displacement) if one.displacement else 0
            number = signed(displacement) if isinstance(displacement, int) else None
            wanted.append(
                Address(one.size, one.segment, one.base, one.index_register, one.scale, number)
            )
        else:
            node = assembler.expression(one.text)
            if isinstance(node, int):
                wanted.append(Immediate(node))
            elif one.modifier == "offset" or not _is_place(assembler, node):
                immediate = node
                wanted.append(Immediate(None))
            else:
                displacement = node
                wanted.append(Address("", "", "", "", 1, None))
    if sum(isinstance(o, Address) for o in wanted) > 1:
        raise Refused(f"`{mnemonic}` has two memory operands: one was expected")
    if sum(isinstance(o, Immediate) and o.value is None for o in wanted) > 1:
        raise Refused(f"`{mnemonic}` has two constants that are not known yet")
    found = encode(prefixes, mnemonic, tuple(wanted))
    relative = any(isinstance(o, Address) and o.base == "rip" for o in wanted)
    fields = _fields(found, displacement, immediate, relative=relative)
    return Piece(found.code, fields, is_instruction=True)


def _fields(
    found: Encoding, displacement: Node, immediate: Node, *, relative: bool
) -> tuple[Field, ...]:
    fields: list[Field] = []
    if (hole := found.displacement) is not None:
        end = len(found.code) if relative else None
        fields.append(Field(hole.offset, hole.size, displacement, end, hole.signed))
    if (hole := found.immediate) is not None:
        fields.append(Field(hole.offset, hole.size, immediate, None, hole.signed))
    return tuple(fields)


def _is_place(assembler: "Assembler", node: Node) -> bool:
    """Whether a bare `node` is a memory operand, as GNU as reads the name of a place."""
    try:
        return assembler.so_far(node).minus is None
    except Refused:
        return False
