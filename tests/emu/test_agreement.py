"""CPU, walk + rights, and an oracle of its own agree on every combination of bits and controls."""

import random
from collections.abc import Iterable

import pytest
from support.matrix import Matrix
from support.oracle import error_code

SAMPLE = 2000
DEPTHS = [(levels, leaf) for levels in (4, 5) for leaf in (1, 2, 3)]


def disagreements(matrix: Matrix, numbers: Iterable[int]) -> list[str]:
    """Run the cases and describe those on which not all three say the same."""
    found = []
    for number in numbers:
        case = matrix.case(number)
        code = error_code(case)
        stop = matrix.run(case)
        predicted = matrix.predict(case)
        if stop != matrix.stop(case, code) or (predicted and predicted.error_code) != code:
            found.append(
                f"case {number}: {case}\n  oracle {code}, CPU {stop}, rights {predicted}\n"
                f"  {matrix.guest.walk(matrix.va)}"
            )
    return found[:10]


@pytest.mark.parametrize(("levels", "leaf"), DEPTHS)
def test_a_sample_of_all_combinations(levels: int, leaf: int) -> None:
    matrix = Matrix(levels, leaf)
    numbers = random.Random(levels * 10 + leaf).sample(range(matrix.size), SAMPLE)

    assert disagreements(matrix, sorted(numbers)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "leaf"), DEPTHS)
def test_all_combinations(levels: int, leaf: int) -> None:
    matrix = Matrix(levels, leaf)

    assert disagreements(matrix, range(matrix.size)) == []


@pytest.mark.parametrize("access", ["read", "write", "update", "fetch"])
def test_a_sample_has_many_ways_to_be_refused(access: str) -> None:
    matrix = Matrix(4, 1)
    numbers = random.Random(1).sample(range(matrix.size), 4000)

    codes = {error_code(case) for case in map(matrix.case, numbers) if case.access == access}

    assert len(codes) >= 9
