"""Every question of every lab: what is nearly right is wrong, and what the CPU accepts is right."""

import pytest

from emu.paging import RW, US, XD, A, D
from pagewalk.labs import find, labs
from pagewalk.labs.judge import judge
from pagewalk.labs.lab import ErrorCode, Numbers, Source, Word

OFF = 0x201000  # another page, small or large, and another table


class Answers:
    """Answers that need no directory."""

    def __init__(self, answers):
        self.answers = answers

    def value(self, ask):
        return self.answers[ask.key]


def slips(ask, answer):
    """Return what a student might write instead."""
    if isinstance(ask, Word):
        return [choice for choice in ask.choices if choice != answer]
    if isinstance(ask, ErrorCode):
        return [0, 2, 9] if answer is None else [None, answer ^ 1, answer ^ 2]
    if isinstance(ask, Numbers):
        return [[*answer[:n], answer[n] ^ OFF, *answer[n + 1 :]] for n in range(ask.count)]
    return [answer ^ OFF] if answer > 511 else [(answer + 1) % 512, answer ^ 256]


def accepted(lab, seed):
    """Return the slips that earn points all the same."""
    exercise = lab.of_seed(seed)
    right = exercise.solution()
    return [
        (part.title, ask.key, slip)
        for part in exercise.parts
        for ask in part.asks
        if not isinstance(ask, Source)
        for slip in slips(ask, right[ask.key])
        if judge(part, Answers(right | {ask.key: slip})) is None
    ]


@pytest.mark.parametrize(
    ("name", "key", "other"),
    [
        ("cr3", "entry", lambda entry: entry & ~RW | 0xE00),  # bits 11:9 are software's
        ("four-levels", "entries", lambda entries: [entry & ~(RW | US) for entry in entries]),
        ("four-levels", "entries", lambda entries: [entry | A for entry in entries]),
        ("five-levels", "pml5e", lambda entry: entry | 1 << 52),
        ("large-pages", "pde", lambda pde: pde | 1 << 12),  # PAT
        ("large-pages", "split_pte", lambda pte: pte | A | D | XD),
    ],
)
def test_another_entry_that_the_cpu_accepts_earns_the_points(name, key, other):
    exercise = find(name).of_seed("ada")
    right = exercise.solution()
    part = next(part for part in exercise.parts if key in {ask.key for ask in part.asks})

    assert judge(part, Answers(right | {key: other(right[key])})) is None


@pytest.mark.parametrize("lab", labs(), ids=lambda lab: lab.name)
def test_a_slip_in_an_answer_loses_its_part(lab):
    assert accepted(lab, "ada") == []


@pytest.mark.slow
@pytest.mark.parametrize("lab", labs(), ids=lambda lab: lab.name)
@pytest.mark.parametrize("seed", [str(number) for number in range(20)])
def test_a_slip_in_an_answer_loses_its_part_with_other_seeds(lab, seed):
    assert accepted(lab, seed) == []
