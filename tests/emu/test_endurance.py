"""A CPU that runs for long stays right, and stays as small as it was."""

from collections.abc import Iterator
from itertools import islice

import pytest
from support.endurance import Ran, Wanderer
from support.guest import DATA, Guest

MIB = 1 << 20
WARM_UP = 5_000


def resident() -> int:
    """The bytes of this process that are in memory."""
    with open("/proc/self/status") as lines:
        found = next(line for line in lines if line.startswith("VmRSS:"))
    return int(found.split()[1]) << 10


def faults(accesses: Iterator[Ran], number: int) -> list[str]:
    """Run until so many have faulted, and return what went wrong, at most 10 of it."""
    wrong = []
    while number:
        ran = next(accesses)
        number -= ran.faulted
        if ran.wrong:
            wrong.append(ran.wrong)
    return wrong[:10]


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize(
    "number", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)], ids=["sample", "million"]
)
def test_random_faults_in_a_row_are_all_right_and_leave_nothing_behind(
    levels: int, number: int
) -> None:
    accesses = Wanderer(levels, seed=number + levels).run()
    faults(accesses, WARM_UP)
    before = resident()

    wrong = faults(accesses, number)

    assert wrong == []
    assert resident() - before < 16 * MIB


@pytest.mark.parametrize("levels", [4, 5])
def test_what_is_drawn_differs_in_every_way(levels: int) -> None:
    ran = list(islice(Wanderer(levels, seed=1).run(), 10_000))

    assert 0.6 < sum(one.faulted for one in ran) / len(ran) < 0.95
    assert {len(one.case.entries) for one in ran} == {levels, levels - 1, levels - 2}
    assert len({(one.case.kind, one.case.user, one.case.ac, one.faulted) for one in ran}) == 24
    assert len({(one.case[5:9] + one.case[10:11]) for one in ran}) == 32


def take_turns(guest: Guest, number: int) -> None:
    """Have two CPUs take `number` turns, a thousand in a schedule."""
    for _ in range(number // 1000):
        guest.machine.interleave([(0, 2), (1, 2)] * 500)


@pytest.mark.parametrize(
    "number", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)], ids=["sample", "million"]
)
def test_turns_are_all_counted_and_leave_nothing_behind(number: int) -> None:
    guest = Guest(cpus=2)
    counter = guest.page(DATA)
    routine = guest.put("again: lock inc qword ptr [rdi]; jmp again")
    for cpu in guest.machine.cpus:
        cpu.write(rip=routine.rip, rdi=DATA)
    take_turns(guest, WARM_UP)
    before = resident()

    take_turns(guest, number)

    assert guest.u64(counter) == WARM_UP + number
    assert resident() - before < 16 * MIB
