"""Values of expressions: numbers, and addresses that are not known yet.

Knows 64-bit arithmetic, and that addresses may only be added to and subtracted. Refuses to know
how an expression is written, and sections: how far apart two places are is known only to whoever
has laid them out.
"""

import operator
from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeAlias

from asm.errors import Refused

_COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Unary(NamedTuple):
    """An operator with one operand: `-`, `~` or `!`."""

    operator: str
    operand: "Node"


class Binary(NamedTuple):
    """An operator between two operands."""

    operator: str
    left: "Node"
    right: "Node"


class Name:
    """One name of one source: what it stands for, once that is known.

    A name is a place (`section` is set: the place is in front of piece `index`), an expression
    (`expression` is set), or undefined. `run` and `position` say how far it is from other
    places in front of which nothing can change its size any more.
    """

    __slots__ = (
        "binding",
        "expression",
        "extent",
        "index",
        "kind",
        "line",
        "name",
        "position",
        "run",
        "section",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.section: Hashable | None = None
        self.index = 0
        self.run = 0
        self.position = 0
        self.expression: Node | None = None
        self.binding = "local"
        self.kind = "notype"
        self.extent: Node = 0
        self.line = 0

    @property
    def defined(self) -> bool:
        """Whether it stands for something by now."""
        return self.section is not None or self.expression is not None


Node: TypeAlias = int | Name | Unary | Binary


class Value(NamedTuple):
    """`number`, plus the address of `plus`, minus the address of `minus`."""

    number: int
    plus: Hashable | None = None
    minus: Hashable | None = None

    @property
    def is_constant(self) -> bool:
        """Whether it is a number, wherever things lie."""
        return self.plus is None and self.minus is None


Locate = Callable[[Name], Value]


def signed(number: int) -> int:
    """The 64-bit two's complement reading of `number`."""
    return ((number + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


def fits(number: int, size: int) -> bool:
    """Whether `number` fits `size` bytes, read either as signed or as unsigned."""
    return -(1 << (8 * size - 1)) <= number < 1 << (8 * size)


def fold(node: Node) -> Node:
    """`node`, or its number when it holds no names."""
    if isinstance(node, Unary) and isinstance(node.operand, int):
        return _unary(node.operator, node.operand)
    if isinstance(node, Binary) and isinstance(node.left, int) and isinstance(node.right, int):
        return _binary(node.operator, Value(node.left), Value(node.right)).number
    return node


def evaluate(node: Node, locate: Locate) -> Value:
    """The value of `node`, with `locate` saying where each name lies.

    Raises Refused for anything but sums and differences of addresses.
    """
    if isinstance(node, int):
        return Value(node)
    if isinstance(node, Name):
        return locate(node)
    if isinstance(node, Unary):
        value = evaluate(node.operand, locate)
        if node.operator == "-":
            return Value(signed(-value.number), value.minus, value.plus)
        return Value(_unary(node.operator, _constant(value, node.operator)))
    return _binary(node.operator, evaluate(node.left, locate), evaluate(node.right, locate))


def _unary(symbol: str, number: int) -> int:
    _word(number)
    if symbol == "-":
        return signed(-number)
    return signed(~number) if symbol == "~" else int(number == 0)


def _binary(symbol: str, left: Value, right: Value) -> Value:
    _word(left.number)
    _word(right.number)
    if symbol == "+":
        return _sum(left, right)
    if symbol == "-":
        return _sum(left, Value(-right.number, right.minus, right.plus))
    if symbol in _COMPARE:
        distance = _sum(left, Value(-right.number, right.minus, right.plus))
        _constant(distance, symbol)
        if left.is_constant:
            return Value(-int(_COMPARE[symbol](signed(left.number), signed(right.number))))
        return Value(-int(_COMPARE[symbol](distance.number, 0)))
    return Value(_arithmetic(symbol, _constant(left, symbol), _constant(right, symbol)))


def _sum(left: Value, right: Value) -> Value:
    plus = [base for base in (left.plus, right.plus) if base is not None]
    minus = [base for base in (left.minus, right.minus) if base is not None]
    for base in tuple(plus):
        if base in minus:
            plus.remove(base)
            minus.remove(base)
    if len(plus) > 1 or len(minus) > 1:
        raise Refused("two addresses cannot be added")
    return Value(
        signed(left.number + right.number),
        plus[0] if plus else None,
        minus[0] if minus else None,
    )


def _arithmetic(symbol: str, left: int, right: int) -> int:
    match symbol:
        case "*":
            return signed(left * right)
        case "/" | "%":
            return _divide(symbol, signed(left), signed(right))
        case "<<" | ">>":
            if not 0 <= right < 64:
                raise Refused(f"shift by {right:#x}: 0 to 63 was expected")
            unsigned = left & ((1 << 64) - 1)
            return signed(unsigned << right if symbol == "<<" else unsigned >> right)
        case "|":
            return signed(left | right)
        case "&":
            return signed(left & right)
        case "^":
            return signed(left ^ right)
        case "!":
            return signed(left | ~right)
        case "&&":
            return int(bool(left) and bool(right))
        case _:
            return int(bool(left) or bool(right))


def _divide(symbol: str, left: int, right: int) -> int:
    if right == 0:
        raise Refused("division by zero")
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    return signed(quotient if symbol == "/" else left - quotient * right)


def _constant(value: Value, symbol: str) -> int:
    if not value.is_constant:
        raise Refused(f"operator `{symbol}` was given an address: a constant was expected")
    return value.number


def _word(number: int) -> None:
    if not -(1 << 63) <= number < 1 << 64:
        raise Refused(f"{number:#x} does not fit 64 bits")
