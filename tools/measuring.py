"""How `bench.py` measures: rows, the shortest of many rounds, and ratios taken in turns."""

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

ROUNDS = 60


class Row(NamedTuple):
    """One line of the table. The budget is the most, or with `at_least` the least, that is good."""

    what: str
    budget: float
    unit: str
    measure: Callable[[], float]
    at_least: bool = False


def seconds(function: Callable[[], object], number: int) -> float:
    """Return how long one call of `function` takes, over `number` calls."""
    calls = range(number)
    begin = perf_counter()
    for _ in calls:
        function()
    return (perf_counter() - begin) / number


def ratio(
    subject: Callable[[], object],
    baseline: Callable[[], object],
    number: int = 500,
    rounds: int = ROUNDS,
) -> float:
    """Return how many times as long `subject` takes, measured in turns."""
    times = [(seconds(subject, number), seconds(baseline, number)) for _ in range(rounds)]
    return min(time for time, _ in times) / min(time for _, time in times)


def best(function: Callable[[], object], number: int = 200, rounds: int = ROUNDS) -> float:
    """Return the shortest time of one call, in seconds."""
    return min(seconds(function, number) for _ in range(rounds))
