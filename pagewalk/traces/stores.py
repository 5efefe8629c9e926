"""What an access of some bytes has to do with a word of 8.

Knows that it may lie across its borders. Refuses to know whose word it is.
"""

from emu.paging import U64


def bits_of_word(word_pa: int, pa: int, size: int, value: int) -> tuple[int, int]:
    """Return which bits of the word at `word_pa` the `size` bytes at `pa` are, and their values."""
    shift = 8 * (pa - word_pa)
    mask = _shifted((1 << 8 * size) - 1, shift)
    return mask, _shifted(value, shift) & mask


def _shifted(value: int, shift: int) -> int:
    return (value << shift if shift >= 0 else value >> -shift) & U64
