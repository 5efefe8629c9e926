"""What users type: numbers, sizes, settings, and what is wrong with them.

Knows how to say what was expected. Refuses to know what the values are for.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import NoReturn

from kernel_model.words import did_you_mean, parse_number


class BadInput(Exception):
    """The user's input is wrong: one line for stderr, exit status 2."""


def bad(argument: str, value: object, expected: str) -> NoReturn:
    """Refuse a value: name the argument, the value, and what was expected."""
    raise BadInput(f"{argument} {value}: expected {expected}")


def bad_name(argument: str, value: str, known: Iterable[str], word: str = "") -> NoReturn:
    """Refuse a word that is none of those known, with the nearest of them.

    `word` is the part of `value` that is wrong, if that is not all of it.
    """
    known = list(known)
    bad(argument, repr(value), f"one of {', '.join(known)}{did_you_mean(word or value, known)}")


def reason(error: Exception) -> str:
    """Return what the system says of an error, without its number and the file's name."""
    return str(getattr(error, "strerror", None) or error)


def why_unreadable(path: str, error: OSError | ValueError) -> str:
    """Return what kept a file from being read; of one that is not there, also the nearest name."""
    near = ""
    if isinstance(error, FileNotFoundError):
        directory, name = os.path.split(path)
        with suppress(OSError, ValueError):
            there = filter(str.isprintable, os.listdir(directory or "."))
            near = did_you_mean(name, there)
    return reason(error) + near


def number(argument: str, text: str, *, least: int = 0, most: int = (1 << 64) - 1) -> int:
    """Read a number as `parse_number` does; BadInput, naming the argument, if it is none."""
    try:
        value = parse_number(text)
    except ValueError:
        example = "4096" if most < 1 << 32 else "0xffffe70000000034, 4096 or 2M"
        bad(argument, repr(text), f"a number, such as {example}")
    if not least <= value <= most:
        form = "d" if most < 1 << 24 else "#x"
        bad(argument, repr(text), f"a number from {least:{form}} to {most:{form}}")
    return value
