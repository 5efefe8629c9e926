"""Guests with a layout of their own; where it does not matter there is the plugin's `machine`."""

from collections.abc import Iterator

import pytest
from support.guest import Guest
from support.tables import Tables


@pytest.fixture
def guest() -> Iterator[Guest]:
    """A machine with 4 levels."""
    built = Guest()
    with built.machine:
        yield built


@pytest.fixture(params=[4, 5], ids=["4-level", "5-level"])
def any_guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A machine with 4 levels, and one with 5."""
    built = Guest(levels=request.param)
    with built.machine:
        yield built


@pytest.fixture(params=[4, 5])
def tables(request: pytest.FixtureRequest) -> Iterator[Tables]:
    """Empty tables of each depth."""
    built = Tables(request.param)
    with built.machine:
        yield built
