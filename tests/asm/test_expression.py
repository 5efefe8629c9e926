"""Expressions: 64-bit arithmetic, precedence, and what may be done with addresses.

Python's integers, cut to 64 bits after each operator, are the second opinion.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asm import AssemblyError, assemble

MASK = (1 << 64) - 1


def signed(number):
    return (number + (1 << 63) & MASK) - (1 << 63)


def quotient(left, right):
    return abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)


OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": quotient,
    "%": lambda a, b: a - b * quotient(a, b),
    "<<": lambda a, b: a << (b & 63),
    ">>": lambda a, b: (a & MASK) >> (b & 63),
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "!": lambda a, b: a | ~b,
    "==": lambda a, b: -(a == b),
    "!=": lambda a, b: -(a != b),
    "<>": lambda a, b: -(a != b),
    "<": lambda a, b: -(a < b),
    "<=": lambda a, b: -(a <= b),
    ">": lambda a, b: -(a > b),
    ">=": lambda a, b: -(a >= b),
    "&&": lambda a, b: int(a != 0 and b != 0),
    "||": lambda a, b: int(a != 0 or b != 0),
}
PREFIXES = {"-": lambda a: -a, "~": lambda a: ~a, "!": lambda a: int(a == 0), "+": lambda a: a}

numbers = st.integers(0, MASK)
spellings = st.sampled_from(["{}", "{:#x}", "{:#b}", "0{:o}"])
leaves = st.tuples(spellings, numbers).map(lambda leaf: (leaf[0].format(leaf[1]), signed(leaf[1])))


def infix(operator, left, right):
    amount = right[1] & 63 if operator in ("<<", ">>") else right[1] or 1
    text = f"({left[0]} {operator} {right[0] if amount == right[1] else amount})"
    return text, signed(OPERATORS[operator](left[1], amount))


def prefix(operator, operand):
    return f"({operator}{operand[0]})", signed(PREFIXES[operator](operand[1]))


trees = st.recursive(
    leaves,
    lambda inner: (
        st.builds(infix, st.sampled_from(sorted(OPERATORS)), inner, inner)
        | st.builds(prefix, st.sampled_from(sorted(PREFIXES)), inner)
    ),
    max_leaves=12,
)


def quad(source):
    data = assemble(source).sections[".text"].data
    return int.from_bytes(data[-8:], "little", signed=True)


@settings(deadline=None)
@given(trees)
def test_an_expression_is_what_python_makes_of_it(tree):
    text, expected = tree

    assert quad(f".quad {text}") == expected


@settings(deadline=None)
@given(trees)
def test_an_expression_is_the_same_once_a_symbol_holds_a_part(tree):
    text, expected = tree

    assert quad(f"zero = late - late\n.quad {text} + zero\nlate: .quad {text}") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("2 * 3 << 1", 12),
        ("1 | 6 & 3", 3),
        ("1 + 1 | 4", 6),
        ("1 + 2 == 3", -1),
        ("2 == 2 && 0 || 1", 1),
        ("10 - 3 - 2", 5),
        ("100 / 7 / 2", 7),
        ("-7 / 2", -3),
        ("-7 % 3", -1),
        ("-1 >> 60", 15),
        ("- - 1", 1),
        ("'a' + 1", 98),
        ("'\\n'", 10),
        ("0x7fffffffffffffff + 1", -(1 << 63)),
        ("7 and 3 or 8", 11),
        ("1 shl 4", 16),
    ],
)
def test_precedence_is_that_of_gnu_as(text, expected):
    assert quad(f".quad {text}") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an operand is missing"),
        ("1 +", "an operand is missing"),
        ("(1", "`)` is missing"),
        ("1)", "`)` is not expected"),
        ("1 2", "`2` is not expected"),
        ("@", "`@` is not expected"),
        ("08", "is not octal"),
        ("12h", "a number is 0x1f, 0b11, 017 or decimal"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("1 << 64", "shift by 0x40: 0 to 63 was expected"),
        ("1 >> -1", "shift by -0x1: 0 to 63 was expected"),
        ("0x10000000000000000", "0x10000000000000000 does not fit 8 bytes"),
        ("0x10000000000000000 - 1", "0x10000000000000000 does not fit 64 bits"),
        ("9" * 1000, "a number of 1000 digits does not fit 128 bits"),
        ("a + a", "two addresses cannot be added"),
        ("a * 2", "operator `*` was given an address"),
        ("~a", "operator `~` was given an address"),
        ("1b", "there is no label 1: before this"),
        ("1f", "there is no label 1: after this"),
        ("rax", "rax is a register"),
        ("(" * 2000, "nested too deeply"),
        ("-" * 5000 + "1", "nested too deeply"),
        ("'é'", "'é' is not an ASCII character"),
    ],
)
def test_what_is_no_expression_is_refused(text, message):
    with pytest.raises(AssemblyError) as refusal:
        assemble(f"a: nop\n.quad 0, {text}")

    assert message in refusal.value.message
    assert refusal.value.line == 2


def test_symbols_that_refer_to_each_other_are_refused():
    with pytest.raises(AssemblyError, match="refers to itself"):
        assemble(".set a, b\n.set b, a\n.quad a")
