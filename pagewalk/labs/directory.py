"""A lab's directory: what `lab new` writes, and which lab and seed one is for.

Knows the files' names and forms. Refuses to know the answers: nothing that is written here follows
from them.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Final, NamedTuple

from kernel_model.words import did_you_mean
from pagewalk.arguments import BadInput, bad, reason
from pagewalk.labs import find, labs
from pagewalk.labs.lab import Answer, Exercise, Lab, Source
from pagewalk.labs.submission import ANSWERS, MOST_TOML, Unreadable, read_text
from pagewalk.labs.templates import course_text
from pagewalk.sources import shown

LAB: Final = "lab.toml"
README: Final = "README.md"
_LONGEST_SEED: Final = 100


class Given(NamedTuple):
    """Which lab a directory is for, and whose numbers."""

    lab: Lab
    seed: str


def named_lab(argument: str, name: str) -> Lab:
    """Return the lab of that name or number; BadInput if there is none."""
    lab = find(name)
    if lab is None:
        names = [lab.name for lab in labs()]
        close = did_you_mean(name, names)
        bad(argument, repr(name), f"one of {', '.join(names)}, or its number{close}")
    return lab


def read_seed(argument: str, seed: str) -> str:
    """Return a seed that can stand in a file; BadInput for another."""
    if not (seed.isprintable() and 0 < len(seed) <= _LONGEST_SEED):
        bad(argument, ascii(seed[:_LONGEST_SEED]), f"1 to {_LONGEST_SEED} printable characters")
    return seed


def write(directory: Path, lab: Lab, seed: str) -> list[str]:
    """Make the directory, with all that the student gets, and return the names of the files."""
    texts = _texts(lab, seed)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            bad("--dir", shown(str(directory)), "a new or empty directory; this one has files")
        for name, text in texts.items():
            (directory / name).write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        bad("--dir", ascii(str(directory)), f"a directory that can be written: {reason(error)}")
    return list(texts)


def read(directory: Path, lab: Lab | None, seed: str | None) -> Given:
    """Return which lab a directory is for; what is given as an argument outranks what it says."""
    if lab is None or seed is None:
        said = _said(directory)
        lab, seed = lab or said.lab, seed or said.seed
    return Given(lab, seed)


def solved(lab: Lab, seed: str) -> dict[str, str]:
    """Return the files that a student completes, as the teacher would: their texts by name."""
    exercise = lab.of_seed(seed)
    solution = exercise.solution()
    completed = {a.key: str(solution[a.key]) for a in exercise.asks if isinstance(a, Source)}
    return {ANSWERS: _answers_toml(lab, seed, exercise, solution), **completed}


def points_text(points: int) -> str:
    """Return "1 point", "2 points"."""
    return f"{points} point{'' if points == 1 else 's'}"


def _answers_toml(lab: Lab, seed: str, exercise: Exercise, solution: Mapping[str, Answer]) -> str:
    """Return the text of answers.toml, with these answers filled in and the others open."""
    lines = [f"# Answers to lab {lab.number}, {lab.title}. Seed: {seed}"]
    lines += ['# Numbers are hex with 0x, or decimal, and have no quotes. "" is no answer yet.']
    asked = set()
    for position, part in enumerate(exercise.parts, 1):
        lines += ["", f"# {position}. {part.title} ({points_text(part.points)})"]
        gap = "#"
        for ask in part.asks:
            if isinstance(ask, Source):
                lines.append(f"#    Complete {ask.key}: {ask.ask}")
            elif ask.key not in asked:
                lines += [gap, *_comment(ask.ask), *_comment(f"Form: {ask.form}.")]
                lines.append(f"{ask.key} = {_toml(solution.get(ask.key, ''))}")
                asked.add(ask.key)
                gap = ""
    return "\n".join(lines) + "\n"


def _texts(lab: Lab, seed: str) -> dict[str, str]:
    exercise = lab.of_seed(seed)
    return {
        README: _readme(lab, seed, exercise),
        ANSWERS: _answers_toml(lab, seed, exercise, {}),
        LAB: _lab_toml(lab, seed),
        **exercise.files,
        **{ask.key: ask.text for ask in exercise.asks if isinstance(ask, Source)},
    }


def _readme(lab: Lab, seed: str, exercise: Exercise) -> str:
    beside = course_text(f"{lab.name.replace('-', '_')}.md")
    text = Template(beside).substitute(exercise.values)
    head = f"# Lab {lab.number}: {lab.title}\n\n*{lab.idea}* (Seed: {seed})\n\n"
    return head + text.rstrip() + "\n\n" + "\n".join(_points_table(lab, exercise)) + "\n"


def _points_table(lab: Lab, exercise: Exercise) -> Iterator[str]:
    yield f"## Points: {lab.points}"
    yield ""
    yield "| | what | answers | points |"
    yield "|-:|---|---|-:|"
    for position, part in enumerate(exercise.parts, 1):
        where = ", ".join(f"`{ask.key}`" for ask in part.asks)
        yield f"| {position} | {part.title} | {where} | {part.points} |"
    yield ""
    yield f"Names without an ending are in `{ANSWERS}`. `pagewalk lab check .` tells where you are."


def _lab_toml(lab: Lab, seed: str) -> str:
    # What is printable has the same escapes in JSON and in TOML.
    return (
        "# Which lab this is, for `pagewalk lab check`.\n"
        f'lab = "{lab.name}"\n'
        f"seed = {json.dumps(seed, ensure_ascii=False)}\n"
        f"edition = {lab.edition}\n"
    )


def _said(directory: Path) -> Given:
    """Return what lab.toml says; BadInput if it says nothing of use."""
    file = shown(str(directory / LAB))
    try:
        said = tomllib.loads(read_text(directory / LAB, MOST_TOML))
    except Unreadable as error:
        bad("DIR", shown(str(directory)), f"a directory of `pagewalk lab new`; {LAB}: {error}")
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: {shown(str(error))}: expected TOML") from None
    for key, kind in (("lab", str), ("seed", str), ("edition", int)):
        if type(said.get(key)) is not kind:
            raise BadInput(f"{file}: {key}: expected what `pagewalk lab new` wrote there")
    lab = named_lab(f"{file}: lab", said["lab"])
    if said["edition"] != lab.edition:
        bad(f"{file}: edition", said["edition"], f"{lab.edition}, which this pagewalk has")
    return Given(lab, read_seed(f"{file}: seed", said["seed"]))


def _comment(text: str) -> Iterator[str]:
    from textwrap import wrap

    return (f"#    {line}" for line in wrap(text, 92))


def _toml(answer: Answer) -> str:
    if answer is None:
        return '"none"'
    if isinstance(answer, list):
        return f"[{', '.join(map(_toml, answer))}]"
    if isinstance(answer, int):
        return f"{answer:#x}" if answer > 511 else str(answer)  # an index is decimal
    return f'"{answer}"'
