"""How the kernels are booted that the tests of the model run on."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.kernel_facts import FIVE, FOUR, GIB, Where

from kernel_model import Kernel


@pytest.fixture
def where(levels: int) -> Where:
    """A vmemmap that runs into the next top-level slot: that of the first oops, or at 5 levels."""
    return {4: FOUR, 5: FIVE}[levels]


@pytest.fixture
def boot_parameters(boot_parameters: dict[str, Any], where: Where) -> dict[str, Any]:
    """4 GiB of RAM, and that vmemmap, unless the mark `boot` says more."""
    return {"ram": 4 * GIB, **(boot_parameters or {"vmemmap_base": where.vmemmap_base})}


@pytest.fixture(scope="session", params=[4, 5], ids=["4-level", "5-level"])
def plain(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """6.8 without KASLR, to be looked at only."""
    with Kernel(levels=request.param) as booted:
        yield booted
