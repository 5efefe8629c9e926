"""What people type: numbers with suffixes, and names that are nearly right; and numbers as shown.

One place for each, whoever asks. Refuses to know what they are for.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_AS_PRINTED: Final = re.compile(r"(?=0|\d*[a-f])[0-9a-f]{16}")  # as an oops prints an address
SUFFIX: Final = {"K": 10, "M": 20, "G": 30, "T": 40}


def parse_number(text: str) -> int:
    """Read hex with 0x, or decimal, with K, M, G or T behind it; ValueError if it is no number.

    Underscores may group digits. Sixteen hex digits with a letter among them, or a zero before
    them, need no 0x.
    """
    digits, shift = text.strip(), 0
    if _AS_PRINTED.fullmatch(digits):
        return int(digits, 16)
    if not (digits.isascii() and digits.removeprefix("-")[:1].isdigit()):
        raise ValueError(f"{text!r} is no number")
    if digits[-1:].upper() in SUFFIX and not digits.lower().startswith("0x"):
        shift = SUFFIX[digits[-1].upper()]
        digits = digits[:-1]
    return int(digits, 0) << shift


def is_number(text: str) -> bool:
    """Tell whether `parse_number` takes it."""
    try:
        parse_number(text)
    except ValueError:
        return False
    return True


def show_size(size: int) -> str:
    """Write a size as people do: 512M, 4G; hex if no suffix fits."""
    for suffix, shift in reversed(SUFFIX.items()):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{suffix}"
    return f"{size:#x}"


def show_hex(value: int | None) -> str | None:
    """Write a number as JSON has it here, in hex with 0x; None stays None."""
    return None if value is None else f"{value:#x}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for a word that is close to a known one, or nothing."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
