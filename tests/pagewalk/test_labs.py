"""Every lab, with several seeds: what earns its points, and what does not."""

from hashlib import sha256

import pytest

from pagewalk.labs import find, labs
from pagewalk.labs.directory import solved, write
from pagewalk.labs.judge import judge
from pagewalk.labs.seeded import Dice
from pagewalk.labs.submission import Submission

NAMES = [lab.name for lab in labs()]
SEEDS = ["ada", '"\\#', "…\N{SNOWMAN}"]
NUMBERS = {
    "cr3": (1, "6658585669a8f44c"),
    "four-levels": (1, "6ef68680a792dc9c"),
    "five-levels": (1, "4792051e5e64b492"),
    "large-pages": (1, "c4c4f348b52a3933"),
    "rights": (1, "02c479600d251927"),
    "accessed-dirty": (1, "fb5d0d2c86f315a9"),
    "stale": (1, "4b190c7bfde1d3ca"),
    "kernel-half": (1, "9b8b33c56a6a1a3f"),
    "missing-entry": (1, "0916dedc31f2392d"),
    "lazy": (1, "7d683d54db3ae782"),
    "demand": (1, "7b6f803c62ff2670"),
    "cow": (1, "9779122d3d7fbb22"),
}
every_lab = pytest.mark.parametrize("name", NAMES)
every_seed = pytest.mark.parametrize("seed", SEEDS)


def earned(directory, name, seed):
    """Judge every part in this process, and return the points."""
    exercise, submission = find(name).of_seed(seed), Submission(directory)
    reasons = {part.title: judge(part, submission) for part in exercise.parts}
    return sum(part.points for part in exercise.parts if reasons[part.title] is None), reasons


def fill(directory, texts):
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")


@every_lab
@every_seed
def test_the_teacher_s_answers_earn_all_points(name, seed, tmp_path):
    write(tmp_path, find(name), seed)
    fill(tmp_path, solved(find(name), seed))

    points, reasons = earned(tmp_path, name, seed)

    assert {title: reason for title, reason in reasons.items() if reason} == {}
    assert points == find(name).points


@pytest.mark.slow
@every_lab
@pytest.mark.parametrize("seed", [str(number) for number in range(100)])
def test_the_teacher_s_answers_earn_all_points_with_other_seeds(name, seed, tmp_path):
    write(tmp_path, find(name), seed)
    fill(tmp_path, solved(find(name), seed))

    _, reasons = earned(tmp_path, name, seed)

    assert {title: reason for title, reason in reasons.items() if reason} == {}


@every_lab
@every_seed
def test_a_directory_that_nobody_filled_in_earns_nothing(name, seed, tmp_path):
    write(tmp_path, find(name), seed)

    points, _ = earned(tmp_path, name, seed)

    assert points == 0


@every_lab
@every_seed
def test_the_answers_to_another_seed_lose_points(name, seed, tmp_path):
    theirs = solved(find(name), "bob")
    write(tmp_path, find(name), seed)
    fill(tmp_path, solved(find(name), seed) | {"answers.toml": theirs["answers.toml"]})

    points, _ = earned(tmp_path, name, seed)

    assert points < find(name).points


@every_lab
@every_seed
def test_a_seed_gives_the_same_texts_every_time(name, seed, tmp_path):
    names = write(tmp_path / "one", find(name), seed)
    write(tmp_path / "two", find(name), seed)

    assert [(tmp_path / "one" / file).read_bytes() for file in names] == [
        (tmp_path / "two" / file).read_bytes() for file in names
    ]


@every_lab
def test_a_lab_s_points_are_those_of_its_parts(name):
    lab = find(name)

    assert lab.points == sum(part.points for part in lab.of_seed("ada").parts)


def numbers(lab):
    """Return a digest of the answers to one seed's questions, files left out."""
    answers = [answer for key, answer in lab.of_seed("ada").solution().items() if "." not in key]
    return sha256(repr(answers).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_change_with_the_edition_alone(name):
    lab = find(name)

    assert (lab.edition, numbers(lab)) == NUMBERS[name]


def test_draws_are_the_same_everywhere():
    dice = Dice("a", "seed")

    drawn = dice.below(1000), dice.between(5, 9), dice.word(), dice.sample("abcdef", 3)

    assert drawn == (977, 7, 13612610616479084713, ["d", "a", "b"])
