"""How deep the stack is at each instruction of a function.

Knows what instructions do to rsp, and to an rbp that remembers it. Refuses to know values: a
depth that depends on one is unknown.

Follows every path from the entry. A call is taken to leave rsp as it was. `hlt` and `ud2` end a
path, but a `hlt` right behind a call does not: it stops the machine between two calls of a
function that runs elsewhere, and is then stepped over. Where paths of different depths meet, the
depth is unknown from there on.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from asm.engines import disassemble

_ENDS: Final = frozenset(
    "ret retf retfq iret iretd iretq sysret sysretq sysexit sysexitq hlt ud0 ud1 ud2 int3".split()
)
_CHANGE: Final = {
    "pushfq": 8,
    "popfq": -8,
    "pushf": 2,
    "popf": -2,
}
_FRAME: Final = re.compile(r"\[rbp(?: ([-+]) (0x[0-9a-f]+|\d+))?\]\Z")
_STACK: Final = re.compile(r"\[rsp(?: ([-+]) (0x[0-9a-f]+|\d+))?\]\Z")
_WRITES_NOTHING: Final = frozenset("cmp test bt call jmp nop".split())
_WRITES_BOTH: Final = frozenset("xchg xadd cmpxchg".split())
_STACK_POINTER: Final = frozenset("rsp esp sp spl".split())
_FRAME_POINTER: Final = frozenset("rbp ebp bp bpl".split())
_NOP: Final = 0x90
_AHEAD: Final = 64  # bytes to decode at a time


class _Instruction(NamedTuple):
    size: int
    mnemonic: str
    operands: str
    code: bytes


class _State(NamedTuple):
    """Depths of rsp and of where rbp points; None is unknown."""

    depth: int | None
    frame: int | None


def stack_depths(code: bytes, start: int) -> Mapping[int, int]:
    """Address -> bytes between rsp and the return address, for the function `code` at `start`.

    Addresses that no path reaches, or reaches with an unknown depth, are left out.
    """
    states: dict[int, _State] = {}
    decoded: dict[int, _Instruction] = {}
    pending = [(start, _State(0, None), False)]
    while pending:
        address, state, behind_call = pending.pop()
        if not start <= address < start + len(code):
            continue
        known = states.get(address)
        if known is not None:
            state = _State(_join(known.depth, state.depth), _join(known.frame, state.frame))
            if state == known and not behind_call:
                continue
        if code[address - start] == _NOP:
            pending.append((_pad(code, start, address, state, states), state, False))
            continue
        if address not in decoded:
            _decode(code, start, address, decoded)
        instruction = decoded.get(address)
        if instruction is None:
            continue
        states[address] = state
        after = _step(instruction, state)
        is_call = instruction.mnemonic == "call"
        for successor in _successors(instruction, address, behind_call=behind_call):
            pending.append((successor, after, is_call))
    return {address: s.depth for address, s in states.items() if s.depth is not None}


def _join(one: int | None, other: int | None) -> int | None:
    return one if one == other else None


def _pad(code: bytes, start: int, address: int, state: _State, states: dict[int, _State]) -> int:
    """Step over the nops at `address`, and return where they end or were passed before."""
    states[address] = state
    address += 1
    while address - start < len(code) and code[address - start] == _NOP and address not in states:
        states[address] = state
        address += 1
    return address


def _decode(code: bytes, start: int, address: int, decoded: dict[int, _Instruction]) -> None:
    """Add the instructions from `address` on to `decoded`, up to one that is there already."""
    offset = address - start
    for at, size, mnemonic, operands in disassemble(code[offset : offset + _AHEAD], address):
        if at in decoded:
            return
        end = at - start + size
        plain = mnemonic.rpartition(" ")[2]
        decoded[at] = _Instruction(size, plain, operands, code[at - start : end])


def _successors(instruction: _Instruction, address: int, *, behind_call: bool) -> tuple[int, ...]:
    mnemonic, operands = instruction.mnemonic, instruction.operands
    following = address + instruction.size
    if mnemonic in _ENDS:
        return (following,) if mnemonic == "hlt" and behind_call else ()
    is_jump = mnemonic[0] == "j" or mnemonic.startswith("loop")
    target = (int(operands, 16),) if is_jump and operands.startswith("0x") else ()
    return target if mnemonic == "jmp" else (following, *target)


def _step(instruction: _Instruction, state: _State) -> _State:
    """The state behind `instruction`."""
    mnemonic, operands = instruction.mnemonic, instruction.operands
    depth, frame = state
    target, _, source = operands.partition(", ")
    if mnemonic in _CHANGE:
        return _State(_plus(depth, _CHANGE[mnemonic]), frame)
    if mnemonic == "push":
        return _State(_plus(depth, _width(instruction)), frame)
    if mnemonic == "pop":
        return _pop(target, _width(instruction), state)
    if mnemonic == "leave":
        return _State(_plus(frame, -8), None)
    if mnemonic == "enter":
        return _enter(target, source, depth)
    if mnemonic in _WRITES_NOTHING:
        return state
    if mnemonic in _WRITES_BOTH:
        return _State(
            None if _STACK_POINTER & {target, source} else depth,
            None if _FRAME_POINTER & {target, source} else frame,
        )
    if target == "rsp":
        return _State(_new_depth(mnemonic, source, state), frame)
    if target in _FRAME_POINTER:
        return _State(depth, _new_frame(mnemonic, source, state))
    if target in _STACK_POINTER:
        return _State(None, frame)
    return state


def _new_depth(mnemonic: str, source: str, state: _State) -> int | None:
    constant = int(source, 0) if re.match(r"-?(0x)?[0-9a-f]+\Z", source) else None
    if mnemonic == "sub" and constant is not None:
        return _plus(state.depth, _signed(constant))
    if mnemonic == "add" and constant is not None:
        return _plus(state.depth, -_signed(constant))
    if mnemonic == "mov" and source == "rbp":
        return state.frame
    if mnemonic == "lea":
        return _address(source, state)
    return None


def _new_frame(mnemonic: str, source: str, state: _State) -> int | None:
    if mnemonic == "mov" and source == "rsp":
        return state.depth
    return _address(source, state) if mnemonic == "lea" else None


def _address(source: str, state: _State) -> int | None:
    """The depth of the address that `source` computes from rsp or rbp."""
    for pattern, base in ((_FRAME, state.frame), (_STACK, state.depth)):
        if (match := pattern.match(source)) is not None:
            offset = int(match[2], 0) if match[2] else 0
            return _plus(base, offset if match[1] == "-" else -offset)
    return None


def _pop(target: str, width: int, state: _State) -> _State:
    depth = _plus(state.depth, -width)
    if target == "rsp":
        return _State(None, state.frame)
    return _State(depth, None if target == "rbp" else state.frame)


def _enter(size: str, nesting: str, depth: int | None) -> _State:
    frame = _plus(depth, 8)
    return _State(None if int(nesting, 0) else _plus(frame, int(size, 0)), frame)


def _width(instruction: _Instruction) -> int:
    return 2 if instruction.code[0] == 0x66 else 8


def _plus(depth: int | None, change: int) -> int | None:
    return None if depth is None else depth + change


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >= 1 << 63 else constant
