"""What users type: numbers, sizes, settings, and what is wrong with them.

Knows how to say what was expected. Refuses to know what the values are for.
"""

from difflib import get_close_matches
from typing import NoReturn

_SUFFIX = {"K": 10, "M": 20, "G": 30, "T": 40}


class BadInput(Exception):
    """The user's input is wrong: one line for stderr, exit status 2."""


def bad(argument: str, value: object, expected: str) -> NoReturn:
    """Refuse a value: name the argument, the value, and what was expected."""
    raise BadInput(f"{argument} {value}: expected {expected}")


def number(argument: str, text: str, *, least: int = 0, most: int = (1 << 64) - 1) -> int:
    """Read a number: hex with 0x, or decimal, with K, M, G or T behind it; BadInput if it is none.

    Underscores may group digits.
    """
    digits, shift = text.strip(), 0
    if digits[-1:].upper() in _SUFFIX and not digits.lower().startswith("0x"):
        shift = _SUFFIX[digits[-1].upper()]
        digits = digits[:-1]
    try:
        value = int(digits, 0) << shift
    except ValueError:
        bad(argument, repr(text), "a number, such as 0xffffe70000000034, 4096 or 2M")
    if not least <= value <= most:
        bad(argument, repr(text), f"a number from {least:#x} to {most:#x}")
    return value


def nearest(word: str, known: list[str]) -> str:
    """Return "; did you mean X?" for a word that is close to a known one, or nothing."""
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
