"""Guests for the tests of the machine; a comparison that fails shows the walk."""

from collections.abc import Iterator

import pytest
from support.guest import Guest
from support.tables import Tables

from emu import OutsideRam, PageFault


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


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Print what each side says, and the walk of the one that has it."""
    if op != "==" or not isinstance(left, (PageFault, OutsideRam)):
        return None
    steps = left.walk.steps if left.walk else ()
    verdict = left.walk.verdict if left.walk else "no walk"
    return [
        f"{left} == {right}",
        *(f"  {step!r}" for step in steps),
        f"  -> {verdict}",
    ]
