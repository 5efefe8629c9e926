"""The numbers of a seed: the same everywhere, for ever.

Knows SHA-256 in counter mode, and nothing else: `random` promises little across versions of Python.
Refuses to know what is drawn.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, TypeVar

_T = TypeVar("_T")
_WIDTH: Final = 16  # bytes of a draw: what is left of its remainder's bias is below 2**-64


class Dice:
    """Draws, decided by `words` alone."""

    def __init__(self, *words: str) -> None:
        key = sha256("\0".join(words).encode()).digest()
        self._draws: Final = self._bytes(key)

    @staticmethod
    def _bytes(key: bytes) -> Iterator[bytes]:
        count = 0
        while True:
            yield sha256(key + count.to_bytes(8, "big")).digest()[:_WIDTH]
            count += 1

    def below(self, end: int) -> int:
        """Draw from 0 to end - 1."""
        return int.from_bytes(next(self._draws), "big") % end

    def between(self, first: int, last: int) -> int:
        """Draw from `first` to `last`, both included."""
        return first + self.below(last - first + 1)

    def word(self) -> int:
        """Draw 64 bits, with no half of them zero, as what is found in memory is to be seen."""
        return self.between(1 << 28, (1 << 32) - 1) << 32 | self.between(1 << 28, (1 << 32) - 1)

    def choice(self, of: Sequence[_T]) -> _T:
        """Draw one of them."""
        return of[self.below(len(of))]

    def sample(self, of: Sequence[_T], count: int) -> list[_T]:
        """Draw `count` of them, none twice, in an order that is drawn, too."""
        left = list(of)
        return [left.pop(self.below(len(left))) for _ in range(count)]
