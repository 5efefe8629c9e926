"""Operands with numbers, spelled for keystone and compared with what capstone reads back.

Knows when an encoding says what was asked for: every register, constant and displacement has to
come back. Refuses to know instructions.
"""

from typing import Any, Final, NamedTuple, TypeAlias

from asm.engines import register_names
from asm.errors import Refused
from asm.operand import REGISTER_BITS, SIZE_BITS, Register

# What stands for a displacement that is not known yet while keystone encodes.
DISPLACEMENT_MARK: Final = 0x11223344
# Capstone's kinds of operands.
_REGISTER, _IMMEDIATE, _MEMORY = 1, 2, 3
_SHIFTS: Final = frozenset("shl shr sal sar rol ror rcl rcr".split())


class Immediate(NamedTuple):
    """A constant; None is a hole."""

    value: int | None


class Address(NamedTuple):
    """A memory operand whose displacement is a number; None is a hole."""

    size: str
    segment: str
    base: str
    index_register: str
    scale: int
    displacement: int | None


Operand: TypeAlias = Register | Immediate | Address


def operand_bits(operands: tuple[Operand, ...]) -> int:
    """The operand size: that of the first register, else of memory; 0 where neither tells."""
    for operand in operands:
        if isinstance(operand, Register):
            return REGISTER_BITS[operand.name]
        if isinstance(operand, Address) and operand.size:
            return SIZE_BITS[operand.size]
    return 0


def spelled(operand: Operand, mark: int) -> str:
    """`operand` as keystone reads it, with `mark` for a constant that is not known yet.

    An address without registers is spelled relative to rip, and turned around later: keystone
    would pick either form by the address of the instruction.
    """
    if isinstance(operand, Register):
        return operand.name
    if isinstance(operand, Immediate):
        return _hex(mark if operand.value is None else operand.value)
    number = _displacement(operand)
    terms = operand.base or ("" if operand.index_register else "rip")
    if operand.index_register:
        terms += f"{' + ' if terms else ''}{operand.index_register}*{operand.scale}"
    if number or terms == "rip":
        terms += f" {'-' if number < 0 else '+'} {abs(number):#x}"
    return (f"{operand.size} ptr " if operand.size else "") + f"[{terms}]"


def confirm(wanted: Operand, decoded: Any, mark: int, text: str) -> None:
    """Raise Refused unless `wanted` is among the operands of capstone's instruction."""
    seen: list[str] = []
    if isinstance(wanted, Register):
        found = _has_register(wanted, decoded, seen)
    elif isinstance(wanted, Immediate):
        found = _has_constant(mark if wanted.value is None else wanted.value, decoded, seen)
    else:
        found = _has_memory(wanted, decoded, seen)
    if not found:
        became = f": it would become {', '.join(seen)}" if seen else ""
        raise Refused(f"{spelled(wanted, mark)} does not fit `{text}`{became}")


def _has_register(wanted: Register, decoded: Any, seen: list[str]) -> bool:
    names = register_names()
    seen += [names[found.reg] for found in decoded.operands if found.type == _REGISTER]
    # st(0) is implied, and exchanging a register with itself is a nop.
    return wanted.name in seen or wanted.name in ("st", "st(0)") or decoded.mnemonic == "nop"


def _has_constant(value: int, decoded: Any, seen: list[str]) -> bool:
    for found in decoded.operands:
        if found.type == _IMMEDIATE:
            modulus = 1 << (8 * found.size)
            if (found.imm - value) % modulus == 0 and -modulus // 2 <= value < modulus:
                return True
            seen.append(_hex(found.imm))
    return value == 1 and decoded.mnemonic in _SHIFTS


def _has_memory(wanted: Address, decoded: Any, seen: list[str]) -> bool:
    names = register_names()
    for found in decoded.operands:
        if found.type == _MEMORY:
            memory = found.mem
            index = names.get(memory.index, "")
            if (
                names.get(memory.base, "") == wanted.base
                and ("" if index in ("riz", "eiz") else index) == wanted.index_register
                and (memory.scale == wanted.scale or not wanted.index_register)
                and memory.disp == _displacement(wanted)
            ):
                return True
            seen.append(f"a displacement of {_hex(memory.disp)}")
    return False


def _displacement(operand: Address) -> int:
    return DISPLACEMENT_MARK if operand.displacement is None else operand.displacement


def _hex(number: int) -> str:
    return f"-{-number:#x}" if number < 0 else f"{number:#x}"
