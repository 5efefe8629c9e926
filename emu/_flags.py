"""What the arithmetic flags were before an instruction that the engine called a hook for.

Knows how the engine keeps flags that nobody has asked for: the operation that they follow from, its
result, and one operand. Before it calls a hook, it works the flags out and leaves them in the
operand's place; a fault then brings the operation back, but not the operand (deviation
"hooked-flags"). Refuses to know which instructions were hooked. Imports no engine.
"""

from typing import Final

ARITHMETIC: Final = 0x8D5  # OF SF ZF AF PF CF
WORKED_OUT: Final = 1  # the operation when the flags are where the operand was
_FIRST: Final = 2  # of the operations, which come in fours: for 1, 2, 4 and 8 bytes
_BY_RESULT_ALONE: Final = range(22, 26)  # and, or, xor: the operand's place means nothing
_LAST: Final = 41
_SF, _ZF, _PF = 0x80, 0x40, 0x04


def before(result: int, operand: int, operation: int) -> int | None:
    """Return the arithmetic flags that stand in the operand's place; None if they do not.

    Then what the engine says is right. Flags in an operand's place are told from an operand by the
    three that follow from the result.
    """
    if not _FIRST <= operation <= _LAST or operation in _BY_RESULT_ALONE:
        return None
    if operand & ~ARITHMETIC:
        return None
    bits = 8 << (operation - _FIRST) % 4
    result &= (1 << bits) - 1
    follow = 0 if result else _ZF
    follow |= _SF if result >> bits - 1 else 0
    follow |= 0 if (result & 0xFF).bit_count() & 1 else _PF
    return operand if operand & (_SF | _ZF | _PF) == follow else None
