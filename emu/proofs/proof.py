"""A proof: one behaviour that the project relies on, and how to see it.

Knows what a proof is. Refuses to know engines, and what becomes of a proof that fails.
"""

from collections.abc import Callable
from typing import NamedTuple


class ProofFailed(Exception):
    """The behaviour is another one. The text says what was seen instead."""


class Proof(NamedTuple):
    """`see` returns what was seen, or raises ProofFailed with what was seen instead."""

    name: str
    relies_on: str
    see: Callable[[], str]


def proof(name: str, relies_on: str) -> Callable[[Callable[[], str]], Proof]:
    """Make a Proof of the function below. The sentence `relies_on` is that function's docstring."""

    def make(see: Callable[[], str]) -> Proof:
        see.__doc__ = relies_on
        return Proof(name, relies_on, see)

    return make


def seen(holds: bool, what: str) -> str:
    """Return what was seen if it is as it should be; raise ProofFailed with it if not."""
    if not holds:
        raise ProofFailed(what)
    return what
