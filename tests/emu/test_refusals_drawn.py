"""Drawn programs: what is watched for comes to what asking before every instruction comes to."""

import pytest
from support.stepping import both_ways

from emu import Trap
from emu.fault import GP

SEEDS = [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 200))]


@pytest.mark.parametrize("seed", SEEDS)
def test_watching_for_refusals_comes_to_what_asking_always_comes_to(seed: int) -> None:
    found = both_ways(seed, runs=25)

    assert [whole for whole, _ in found] == [stepped for _, stepped in found]


def test_enough_of_what_is_drawn_is_refused() -> None:
    found = [stepped.stop for seed in range(3) for _, stepped in both_ways(seed, runs=25)]

    refused = [stop for stop in found if isinstance(stop, Trap) and stop.vector == GP]

    assert len(found) > 40
    assert 0.2 < len(refused) / len(found) < 0.9
