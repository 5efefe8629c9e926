"""What must not reach keystone, or must not be guessed: refused before anything is encoded.

Knows on what keystone hangs, ends the process or prints; which instructions it would take for
another operand size; and what the CPU itself forbids. Refuses to know encodings.
"""

import re
from typing import Final

from asm.errors import Refused
from asm.numeric import Address, Operand, spelled
from asm.operand import Register

PREFIXES: Final = {
    "lock": 0xF0,
    "rep": 0xF3,
    "repe": 0xF3,
    "repz": 0xF3,
    "repne": 0xF2,
    "repnz": 0xF2,
    "xacquire": 0xF2,
    "xrelease": 0xF3,
    "bnd": 0xF2,
    "notrack": 0x3E,
    "data16": 0x66,
    "addr32": 0x67,
    "es": 0x26,
    "cs": 0x2E,
    "ss": 0x36,
    "ds": 0x3E,
    "fs": 0x64,
    "gs": 0x65,
}
# GNU as takes these for 32 bits, with a warning; keystone takes some for 16 or 64.
_AMBIGUOUS: Final = {
    "iret": "iretq or iretd",
    "lret": "lretq",
    "retf": "retfq",
    "sysexit": "sysexitq",
    "sysret": "sysretq or sysretl",
}
_LOCKABLE: Final = frozenset(
    """
    adc add and btc btr bts cmpxchg cmpxchg8b cmpxchg16b dec inc neg not or sbb sub xadd xchg xor
    """.split()
)
# Without a register beside it, a memory operand of these must say its size.
_SIZED: Final = _LOCKABLE - {"cmpxchg8b", "cmpxchg16b"} | frozenset(
    """
    bt cmp div fadd fdiv fild fist fistp fld fmul fst fstp fsub idiv imul mov mul rcl rcr rol ror
    sal sar shl shr test
    """.split()
)
# A register beside it does not tell the size of memory to these.
_CONVERTING: Final = frozenset("movsx movzx cvtsi2sd cvtsi2ss".split())
_COUNT_IN_CL: Final = frozenset("rcl rcr rol ror sal sar shl shr".split())
_HIGH_BYTES: Final = frozenset(["ah", "bh", "ch", "dh"])
_NEW_BYTES: Final = frozenset(["spl", "bpl", "sil", "dil"])
_NEW_VECTORS: Final = frozenset(["m8", "m9", "10", "11", "12", "13", "14", "15"])
# A prefix for keystone, which then waits for a statement where an operand stands, for ever.
_HANGS_KEYSTONE: Final = frozenset(["rex64", *PREFIXES])
# Written with operands, these make keystone print warnings about the ones that are implied.
_STRING: Final = re.compile(r"(?:(?:movs|cmps|stos|lods|scas|ins|outs)[bwdq]?|xlatb?)\Z")
_MNEMONIC: Final = re.compile(r"[a-z][a-z0-9]*\Z")


def guard(prefixes: tuple[str, ...], mnemonic: str, operands: tuple[Operand, ...]) -> None:
    """Raise Refused for an instruction that is not to be encoded."""
    if not _MNEMONIC.match(mnemonic) or mnemonic in _HANGS_KEYSTONE:
        raise Refused(f"`{mnemonic}` is not the name of an instruction")
    if not operands and mnemonic in _AMBIGUOUS:
        raise Refused(f"`{mnemonic}` has no operand size: {_AMBIGUOUS[mnemonic]} was expected")
    vector = any(register_name(o).startswith("xmm") for o in operands)
    if operands and not vector and _STRING.match(mnemonic):
        raise Refused(f"`{mnemonic}` is written without operands: b, w, d or q says the size")
    memory = next((o for o in operands if isinstance(o, Address)), None)
    if "lock" in prefixes and not (mnemonic in _LOCKABLE and memory):
        raise Refused(f"`lock` does not go with this `{mnemonic}`")
    if memory is not None:
        if mnemonic == "lea" and memory.segment:
            raise Refused(f"`lea` computes an offset: {memory.segment} has no effect on it")
        _require_size(mnemonic, operands, memory)
    _keep_high_bytes_from_rex(operands)


def register_name(operand: Operand) -> str:
    """The name of `operand` if it is a register, else an empty string."""
    return operand.name if isinstance(operand, Register) else ""


def _keep_high_bytes_from_rex(operands: tuple[Operand, ...]) -> None:
    """Raise Refused for ah beside what takes a REX prefix: keystone ends the process on it."""
    names: list[str] = []
    for operand in operands:
        if isinstance(operand, Register):
            names.append(operand.name)
        elif isinstance(operand, Address):
            # Of the registers in an address, only r8 and up take the prefix.
            names += [n for n in (operand.base, operand.index_register) if n[1:2].isdigit()]
    for high in _HIGH_BYTES.intersection(names):
        for other in names:
            if other in _NEW_BYTES or other[0] == "r" or other[-2:] in _NEW_VECTORS:
                raise Refused(f"{high} cannot stand beside {other}")


def _require_size(mnemonic: str, operands: tuple[Operand, ...], memory: Address) -> None:
    told = memory.size or any(
        isinstance(o, Register) and not (o.name == "cl" and mnemonic in _COUNT_IN_CL)
        for o in operands
    )
    if (mnemonic in _SIZED and not told) or (mnemonic in _CONVERTING and not memory.size):
        raise Refused(
            f"the size of {spelled(memory, 0)} is not known:"
            " byte, word, dword or qword ptr was expected"
        )
