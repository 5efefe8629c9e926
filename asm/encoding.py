"""One instruction with numbers for operands, as bytes.

Keystone encodes, capstone confirms, and what keystone lacks or does otherwise than GNU as is put
right here. Refuses to know names: a constant that is not known yet is a hole, and its place is
reported.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from asm.engines import decode, encode_text
from asm.errors import Refused
from asm.guard import PREFIXES, guard, register_name
from asm.numeric import (
    DISPLACEMENT_MARK,
    Address,
    Immediate,
    Operand,
    confirm,
    operand_bits,
    spelled,
)
from asm.operand import REGISTER_BITS, SEGMENTS, Register

# Whole instructions that keystone lacks, or encodes with an operand size of 16 bits.
_BYTES: Final = {
    name: bytes.fromhex(code)
    for name, code in {
        "cmpsd": "a7",
        "endbr32": "f30f1efb",
        "endbr64": "f30f1efa",
        "finit": "9bdbe3",
        "leaveq": "c9",
        "lretq": "48cb",
        "movsd": "a5",
        "popf": "9d",
        "pushf": "9c",
        "retfq": "48cb",
        "retq": "c3",
        "serialize": "0f01e8",
        "sysexitq": "480f35",
        "sysretl": "0f07",
        "sysretq": "480f07",
        "wbnoinvd": "f30f09",
    }.items()
}
# The order in which GNU as emits legacy prefixes.
_PREFIX_RANK: Final = {
    **dict.fromkeys([0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65], 0),
    0x67: 1,
    0x66: 2,
    0xF2: 3,
    0xF3: 3,
    0xF0: 4,
}
_ACCUMULATORS: Final = {"al": b"", "ax": b"\x66", "eax": b"", "rax": b"\x48"}
# What GNU as turns into a shorter instruction of another name.
_SHORTER: Final[dict[tuple[str, tuple[Operand, ...]], bytes]] = {
    ("int", (Immediate(3),)): b"\xcc",
    ("xchg", (Register("rax"), Register("rax"))): b"\x90",
}
# Constants that stand for one that is not known yet, by size: the widest first.
_MARKS: Final = ((8, 0x1122334455667788), (4, 0x11223344), (2, 0x1122), (1, 0x5A))


class Hole(NamedTuple):
    """Where in an instruction a constant goes: offset and size in bytes.

    `signed`: the CPU extends its sign to 64 bits, so that an address must fit with its sign.
    """

    offset: int
    size: int
    signed: bool


class Encoding(NamedTuple):
    """The bytes of an instruction and its holes, which are zero."""

    code: bytes
    displacement: Hole | None = None
    immediate: Hole | None = None


@lru_cache(maxsize=1 << 16)
def encode(prefixes: tuple[str, ...], mnemonic: str, operands: tuple[Operand, ...]) -> Encoding:
    """The encoding that GNU as gives to an instruction. Raises Refused."""
    guard(prefixes, mnemonic, operands)
    memory = next((o for o in operands if isinstance(o, Address)), None)
    front = bytes(PREFIXES[prefix] for prefix in prefixes)
    if (mnemonic, operands) in _SHORTER:
        return Encoding(_ordered(front + _SHORTER[mnemonic, operands]))
    if not operands and mnemonic in _BYTES:
        return Encoding(_ordered(front + _BYTES[mnemonic]))
    if memory is not None:
        front += _override(memory)
        if _is_far(mnemonic, operands, memory):
            return _far_move(mnemonic, operands, memory, front)
    mnemonic, adjusted = _as_gnu_reads(mnemonic, operands)
    refusal: Refused | None = None
    for mark in _marks(mnemonic, operands):
        try:
            return _encode(front, mnemonic, operands, adjusted, mark)
        except Refused as error:
            refusal = refusal or error
    raise refusal or Refused(f"`{mnemonic}` has no place for a constant that is not known yet")


def _encode(
    front: bytes,
    mnemonic: str,
    operands: tuple[Operand, ...],
    adjusted: tuple[Operand, ...],
    mark: tuple[int, int],
) -> Encoding:
    size, number = mark
    text = f"{mnemonic} {', '.join([spelled(o, number) for o in adjusted])}".rstrip()
    code = encode_text(text)
    decoded = decode(code, text)
    corrected = _corrected(code, mnemonic, operands, decoded.modrm_offset)
    if corrected != code:
        code, decoded = corrected, decode(corrected, text)
    for wanted, spelling in zip(operands, adjusted, strict=True):
        confirm(spelling if isinstance(wanted, Register) else wanted, decoded, number, text)
    code = _ordered(front + code)
    displacement = immediate = None
    if any(isinstance(o, Address) and o.displacement is None for o in operands):
        displacement = Hole(decoded.disp_offset + len(front), 4, True)
        code = _cleared(code, displacement, DISPLACEMENT_MARK, text)
    if any(isinstance(o, Immediate) and o.value is None for o in operands):
        extended = size == 4 and operand_bits(operands) in (0, 64)
        immediate = Hole(decoded.imm_offset + len(front), size, extended)
        code = _cleared(code, immediate, number, text)
    return Encoding(code, displacement, immediate)


def _override(memory: Address) -> bytes:
    default = "ss" if memory.base in ("rsp", "esp", "rbp", "ebp") else "ds"
    return b"" if memory.segment in ("", default) else bytes([PREFIXES[memory.segment]])


def _as_gnu_reads(mnemonic: str, operands: tuple[Operand, ...]) -> tuple[str, tuple[Operand, ...]]:
    """The spelling for which keystone picks the encoding that GNU as picks."""
    if mnemonic == "movsx" and any(isinstance(o, Address) and o.size == "dword" for o in operands):
        mnemonic = "movsxd"
    segment = mnemonic == "mov" and any(register_name(o) in SEGMENTS for o in operands)
    narrow: tuple[int, ...] = ()
    if segment or (operands and mnemonic in ("str", "sldt")):
        narrow = (16, 64) if register_name(operands[0]) in SEGMENTS else (64,)
    bits = operand_bits(operands) or 64
    adjusted: list[Operand] = []
    for operand in operands:
        if isinstance(operand, Register) and operand.name not in SEGMENTS:
            if REGISTER_BITS[operand.name] in narrow:
                operand = Register(_in_32_bits(operand.name))
        elif isinstance(operand, Immediate) and operand.value is not None:
            if 1 << (bits - 1) <= operand.value < 1 << bits:
                operand = Immediate(operand.value - (1 << bits))
        elif segment and isinstance(operand, Address):
            operand = operand._replace(size="word")
        adjusted.append(operand)
    return mnemonic, tuple(adjusted)


def _in_32_bits(name: str) -> str:
    return name.rstrip("w") + "d" if name[1].isdigit() else "e" + name[-2:]


def _corrected(code: bytes, mnemonic: str, operands: tuple[Operand, ...], modrm_at: int) -> bytes:
    """`code` with keystone's choices replaced by those of GNU as."""
    if mnemonic == "nop" and operands and code[modrm_at - 1] == 0x18:
        # Keystone takes a hint of another kind, 0f 18 /4, for the nop 0f 1f /0.
        nop = bytes([0x1F, code[modrm_at] & 0xC7])
        code = code[: modrm_at - 1] + nop + code[modrm_at + 1 :]
    if any(isinstance(o, Address) and not o.base and not o.index_register for o in operands):
        if code[modrm_at] & 0xC7 != 0x05:
            raise Refused(f"`{mnemonic}` does not take an absolute address")
        # [rip + disp32] becomes [disp32].
        absolute = bytes([code[modrm_at] & 0x38 | 0x04, 0x25])
        code = code[:modrm_at] + absolute + code[modrm_at + 1 :]
    stores_segment = mnemonic == "mov" and register_name(operands[-1]) in SEGMENTS
    if stores_segment and isinstance(operands[0], Address):
        code = code.replace(b"\x66", b"", 1) if 0x66 in code[: modrm_at - 1] else code
    return code


def _is_far(mnemonic: str, operands: tuple[Operand, ...], memory: Address) -> bool:
    """Whether the instruction moves the accumulator from or to a 64-bit address."""
    if memory.base or memory.index_register or len(operands) != 2:
        return False
    far = memory.displacement is not None and not -(1 << 31) <= memory.displacement < 1 << 31
    accumulator = any(register_name(o) in _ACCUMULATORS for o in operands)
    return mnemonic == "movabs" or (mnemonic == "mov" and far and accumulator)


def _far_move(
    mnemonic: str, operands: tuple[Operand, ...], memory: Address, front: bytes
) -> Encoding:
    stores = operands[0] is memory
    name = register_name(operands[1 if stores else 0])
    if name not in _ACCUMULATORS:
        raise Refused(f"`{mnemonic}` with an absolute address takes al, ax, eax or rax only")
    opcode = 0xA0 | stores << 1 | (name != "al")
    code = _ordered(front + _ACCUMULATORS[name] + bytes([opcode]))
    address = (memory.displacement or 0) & ((1 << 64) - 1)
    hole = Hole(len(code), 8, False) if memory.displacement is None else None
    return Encoding(code + address.to_bytes(8, "little"), hole)


def _marks(mnemonic: str, operands: tuple[Operand, ...]) -> list[tuple[int, int]]:
    """What may stand for an unknown constant: as wide as the operands allow comes first."""
    if not any(isinstance(o, Immediate) and o.value is None for o in operands):
        return [(0, 0)]
    if mnemonic == "movabs":
        return [_MARKS[0]]
    widest = min(4, (operand_bits(operands) or 64) // 8)
    return [mark for mark in _MARKS if mark[0] <= widest]


def _ordered(code: bytes) -> bytes:
    """`code` with its legacy prefixes in the order in which GNU as emits them."""
    end = 0
    while end < len(code) and code[end] in _PREFIX_RANK:
        end += 1
    prefixes = sorted(set(code[:end]), key=lambda prefix: _PREFIX_RANK[int(prefix)])
    return bytes(prefixes) + code[end:]


def _cleared(code: bytes, hole: Hole, mark: int, text: str) -> bytes:
    end = hole.offset + hole.size
    if code[hole.offset : end] != mark.to_bytes(hole.size, "little"):
        raise Refused(f"`{text}` has no place for a constant that is not known yet")
    return code[: hole.offset] + bytes(hole.size) + code[end:]
