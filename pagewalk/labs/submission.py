"""What a student left in a lab's directory: answers.toml, and files to complete.

Knows that anything may be there: nothing, garbage, a fifo, a link to somewhere else, a gigabyte.
Refuses to know what is right. Nothing outside the directory is read, and no file beyond its limit.
"""

import os
import stat
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Final

from pagewalk.arguments import reason
from pagewalk.labs.lab import Answer, Ask, Lost, Source
from pagewalk.sources import shown

ANSWERS: Final = "answers.toml"
MOST_TOML: Final = 1 << 16
MOST_SOURCE: Final = 1 << 18
_SHOWN: Final = 40  # characters of a wrong value


class Unreadable(Exception):
    """There is no such file, or it is none; the text says what was found."""


class Submission:
    """A lab's directory, as the student left it."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory

    def value(self, ask: Ask) -> Answer:
        """Return the answer to what is asked; Lost if there is none, or it has another form."""
        if isinstance(ask, Source):
            return self._text(ask.key, MOST_SOURCE)
        answers = self._answers
        if isinstance(answers, Lost):
            raise answers
        answer = answers.get(ask.key, "")
        if answer == "":
            raise Lost(f"{ask.key} is not answered")
        try:
            return ask.read(answer)
        except ValueError:
            hint = "; a number has no quotes" if _has_number_in_quotes(answer) else ""
            raise Lost(f"{ask.key} is {_show(answer)}: expected {ask.form}{hint}") from None

    @cached_property
    def _answers(self) -> dict[str, object] | Lost:
        """What answers.toml says, or why it says nothing."""
        try:
            return tomllib.loads(self._text(ANSWERS, MOST_TOML))
        except Lost as lost:
            return lost
        except (ValueError, RecursionError) as error:
            return Lost(f"{ANSWERS} is not TOML: {shown(str(error))}")

    def _text(self, name: str, most: int) -> str:
        try:
            return read_text(self._directory / name, most)
        except Unreadable as error:
            raise Lost(f"{name}: {error}") from None


def read_text(path: Path, most: int) -> str:
    """Return the text of a regular file; Unreadable if it is anything else, or too much."""
    try:
        # A fifo must not keep us waiting, and a link might lead to the teacher's files.
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise Unreadable(reason(error)) from None
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise Unreadable("no regular file")
        with open(opened, "rb", closefd=False) as file:
            raw = file.read(most + 1)
    finally:
        os.close(opened)
    if len(raw) > most:
        raise Unreadable(f"more than {most} bytes")
    try:
        return raw.decode("utf-8-sig")  # Windows marks UTF-8
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8") from None


def _has_number_in_quotes(answer: object) -> bool:
    """Tell whether somebody wrote a number between the quotes of what was not answered."""
    values = answer if isinstance(answer, list) else [answer]
    return any(isinstance(value, str) and value.strip()[:1].isdigit() for value in values)


def _show(value: object) -> str:
    """Return a value of TOML as one short piece of a line."""
    try:
        text = hex(value) if type(value) is int and value >= 0 else repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is too large"
    text = shown(text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
