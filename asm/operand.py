"""Operands of instructions in Intel syntax, as text and as numbers.

Knows registers, memory operands and how GNU as reads `sym`, `[rip+sym]`, `8[rsp]` and
`offset sym`. Refuses to know the values of expressions and which instruction takes what.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from asm.errors import Refused

_LEGACY = {
    8: "al cl dl bl ah ch dh bh spl bpl sil dil",
    16: "ax cx dx bx sp bp si di",
    32: "eax ecx edx ebx esp ebp esi edi",
    64: "rax rcx rdx rbx rsp rbp rsi rdi",
}
SEGMENTS: Final = frozenset("es cs ss ds fs gs".split())
REGISTER_BITS: Final[dict[str, int]] = {
    **{name: bits for bits, names in _LEGACY.items() for name in names.split()},
    **{f"r{n}{s}": b for n in range(8, 16) for s, b in (("b", 8), ("w", 16), ("d", 32), ("", 64))},
    **dict.fromkeys(SEGMENTS, 16),
    **{f"{kind}{n}": 64 for kind in ("cr", "dr") for n in range(16)},
    **{f"{kind}{n}": bits for kind, bits in (("xmm", 128), ("ymm", 256)) for n in range(16)},
    **{f"mm{n}": 64 for n in range(8)},
    **{f"st({n})": 80 for n in range(8)},
    "st": 80,
    "rip": 64,
}
SIZE_BITS: Final = {
    "byte": 8,
    "word": 16,
    "dword": 32,
    "fword": 48,
    "qword": 64,
    "tbyte": 80,
    "oword": 128,
    "xmmword": 128,
    "ymmword": 256,
}
# Registers of GNU as that no operand here may name; without this, they would pass for symbols.
_OTHER: Final = frozenset(
    [f"{kind}{n}" for kind in ("xmm", "ymm", "zmm") for n in range(32)]
    + [f"{kind}{n}" for kind in ("k", "bnd", "tmm", "tr") for n in range(8)]
    + ["eip", "eiz", "riz", "flat"]
) - frozenset(REGISTER_BITS)
_ADDRESSING = frozenset(
    name
    for name, bits in REGISTER_BITS.items()
    if bits in (32, 64) and name[:2] not in ("cr", "dr", "mm")
)
RESERVED: Final = _OTHER.union(REGISTER_BITS, SIZE_BITS, ["offset", "short", "ptr"])
_HEAD = re.compile(
    r"(?:(?P<size>" + "|".join(SIZE_BITS) + r")\s+ptr\s+)?"
    r"(?:(?P<modifier>offset|short)\s+)?"
    r"(?:(?P<segment>[c-gs]s)\s*:\s*)?(?P<rest>.*)\Z",
    re.IGNORECASE | re.DOTALL,
)
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_SCALED = re.compile(r"(?:([A-Za-z]\w*)\s*\*\s*([1248])|([1248])\s*\*\s*([A-Za-z]\w*))\Z")


class Register(NamedTuple):
    """A register by its name, lower case."""

    name: str


class Expression(NamedTuple):
    """An operand without brackets; `modifier` is `offset`, `short` or empty."""

    text: str
    modifier: str = ""


class Memory(NamedTuple):
    """A memory operand; `displacement` is the text of an expression, or empty.

    `size` is the word before `ptr`, or empty; so are the names of absent registers.
    """

    size: str
    segment: str
    base: str
    index_register: str
    scale: int
    displacement: str


Operand: TypeAlias = Register | Expression | Memory


@lru_cache(maxsize=8192)
def operand(text: str) -> Operand:
    """What `text` is: a register, a memory operand or an expression. Raises Refused."""
    lowered = text.lower()
    if lowered in REGISTER_BITS:
        return Register(lowered)
    if lowered.startswith("st") and lowered.replace(" ", "") in REGISTER_BITS:
        return Register(lowered.replace(" ", ""))
    match = _HEAD.match(text)
    if match is None or not match["rest"]:
        raise Refused(f"`{text}` is not an operand")
    size = (match["size"] or "").lower()
    segment = (match["segment"] or "").lower()
    modifier = (match["modifier"] or "").lower()
    rest = match["rest"]
    if "[" not in rest and "]" not in rest:
        if (size or segment) and not modifier:
            return Memory(size, segment, "", "", 1, rest)
        return Expression(rest, modifier)
    if modifier == "short" or rest.lower().startswith("far "):
        raise Refused(f"`{text}` is not an operand that is supported")
    return _memory(text, size, segment, rest)


def _memory(text: str, size: str, segment: str, rest: str) -> Memory:
    inside = _BRACKETS.findall(rest)
    outside = _BRACKETS.sub("", rest).strip()
    if not inside or "[" in outside or "]" in outside or not rest.endswith("]"):
        raise Refused(f"`{text}` is not a memory operand: [base + index*scale + displacement]")
    base = index = ""
    scale = 1
    constants = [outside] if outside else []
    for group in inside:
        if (match := _HEAD.match(group.strip())) is not None and match["segment"]:
            raise Refused(f"`{text}`: the segment goes in front of the bracket")
        for sign, term in _terms(group):
            name = term.lower()
            scaled = _SCALED.match(term)
            factor = int(scaled[2] or scaled[3]) if scaled else 0
            if scaled and (scaled[1] or scaled[4]).lower() in _ADDRESSING:
                if index:
                    raise Refused(f"`{text}` has two index registers")
                index, scale = (scaled[1] or scaled[4]).lower(), factor
            elif name in _ADDRESSING:
                if sign == "-":
                    raise Refused(f"`{text}` subtracts a register")
                if not base:
                    base = name
                elif not index:
                    index = name
                else:
                    raise Refused(f"`{text}` has three registers")
            elif name in REGISTER_BITS:
                raise Refused(f"`{text}`: {name} does not address memory")
            elif any(word in _ADDRESSING for word in re.findall(r"\w+", name)):
                raise Refused(f"`{text}`: {term} is not a register times 1, 2, 4 or 8")
            else:
                constants.append(f"{sign}{term}" if constants or sign == "-" else term)
    if index in ("rsp", "esp") and scale == 1:
        base, index = index, base
    if index in ("rsp", "esp", "rip") or (base == "rip" and index):
        raise Refused(f"`{text}`: {index} is not an index register")
    displacement = re.sub(r"(?i)^\s*offset\s+", "", " ".join(constants))
    return Memory(size, segment, base, index, scale, displacement)


def _terms(text: str) -> list[tuple[str, str]]:
    """What is added and subtracted in `text`, each with its sign."""
    found: list[tuple[str, str]] = []
    sign, start, depth = "+", 0, 0
    for at, character in enumerate(text):
        if character in "()":
            depth += 1 if character == "(" else -1
        elif character in "+-" and depth == 0:
            before = text[start:at].strip()
            if before and before[-1] not in "*/%<>&|^!~=":
                found.append((sign, before))
                sign, start = character, at + 1
            elif not before:
                sign, start = ("-" if (character == "-") != (sign == "-") else "+"), at + 1
    last = text[start:].strip()
    if not last:
        raise Refused(f"`[{text}]` lacks a term")
    return [*found, (sign, last)]
