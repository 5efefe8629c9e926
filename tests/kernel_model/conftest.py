"""Kernels for the tests of the model; a comparison that fails shows the walk."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.kernel_facts import FIVE, FOUR, Where, boot

from emu import PageFault
from kernel_model import Kernel


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """6.8 with the vmemmap of the first oops."""
    with boot(FOUR) as booted:
        yield booted


@pytest.fixture(params=[FOUR, FIVE], ids=["4-level", "5-level"])
def where(request: pytest.FixtureRequest) -> Where:
    """A vmemmap at 4 levels, and one at 5."""
    found: Where = request.param
    return found


@pytest.fixture
def any_kernel(where: Where) -> Iterator[Kernel]:
    """6.8 at 4 levels, and at 5."""
    with boot(where) as booted:
        yield booted


@pytest.fixture
def make() -> Iterator[Callable[..., Kernel]]:
    """Kernels as the test wants them, freed behind it."""
    with ExitStack() as stack:

        def make(release: str = "6.8", **options: object) -> Kernel:
            return stack.enter_context(Kernel(release, **options))  # type: ignore[arg-type]

        yield make


@pytest.fixture(scope="session", params=[4, 5], ids=["4-level", "5-level"])
def plain(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """6.8 without KASLR, to be looked at only."""
    with Kernel(levels=request.param) as booted:
        yield booted


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Print what each side says, and the walk of the one that has it."""
    if op != "==" or not isinstance(left, PageFault):
        return None
    walk = left.walk
    steps, verdict = (walk.steps, walk.verdict) if walk else ((), "no walk")
    return [
        f"{left} == {right}",
        *(f"  {step!r}" for step in steps),
        f"  -> {verdict}",
    ]
