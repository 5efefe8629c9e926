"""What a lab is: one idea, its parts, what each part asks, and how points are lost.

Knows points, and the forms that an answer may have. Refuses to know which answer is right: that is
found out by a part's check, which runs the CPU on what it is given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pagewalk.labs.seeded import Dice

U64: Final = (1 << 64) - 1
Answer = int | str | list[int] | None
"""A number, a word or the text of a file, numbers; None is "no exception", where that is asked."""


class Lost(Exception):
    """The part's points are lost; the text is the reason, one line for the student."""


@dataclass(frozen=True, slots=True)
class Number:
    """Asks for a number, under `key` in answers.toml."""

    key: str
    ask: str
    most: int = U64

    @property
    def form(self) -> str:
        """What an answer looks like, for the student."""
        return "a number" if self.most == U64 else f"a number from 0 to {self.most}"

    def read(self, value: object) -> int:
        """Return the answer; ValueError if `value` is none."""
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= self.most:
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class Numbers:
    """Asks for `count` numbers, in order."""

    key: str
    ask: str
    count: int
    most: int = U64

    @property
    def form(self) -> str:
        """What an answer looks like, for the student."""
        return f"{self.count} numbers: [{', '.join(['0x…'] * self.count)}]"

    def read(self, value: object) -> list[int]:
        """Return the answer; ValueError if `value` is none."""
        if not isinstance(value, list) or len(value) != self.count:
            raise ValueError
        one = Number(self.key, self.ask, self.most)
        return [one.read(number) for number in value]


@dataclass(frozen=True, slots=True)
class Word:
    """Asks for one of some words."""

    key: str
    ask: str
    choices: tuple[str, ...]

    @property
    def form(self) -> str:
        """What an answer looks like, for the student."""
        return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)

    def read(self, value: object) -> str:
        """Return the answer; ValueError if `value` is none."""
        if not isinstance(value, str) or value not in self.choices:
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """Asks for the error code of an access, or None where it goes through."""

    key: str
    ask: str

    @property
    def form(self) -> str:
        """What an answer looks like, for the student."""
        return 'the error code as a number, or "none" if there is no exception'

    def read(self, value: object) -> int | None:
        """Return the answer; ValueError if `value` is none."""
        return None if value == "none" else Number(self.key, self.ask).read(value)


@dataclass(frozen=True, slots=True)
class Source:
    """Asks for a file to be completed: `key` is its name, `text` what it holds at first."""

    key: str
    ask: str
    text: str = field(repr=False)


Ask = Number | Numbers | Word | ErrorCode | Source


@dataclass(frozen=True, slots=True)
class Part:
    """What earns `points`, all of them or none.

    `check` is called with the answers to `asks`, in order, and raises Lost unless they are right.
    """

    title: str
    points: int
    asks: tuple[Ask, ...]
    check: Callable[..., None]


@dataclass(frozen=True, slots=True)
class Exercise:
    """A lab with the numbers of one seed.

    `values` are for its text, `files` are given beside it, to be run and read. `solution` works
    the right answers out, by the keys of what is asked; a Source's is the completed file.
    """

    parts: tuple[Part, ...]
    values: Mapping[str, object]
    solution: Callable[[], Mapping[str, Answer]]
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def asks(self) -> tuple[Ask, ...]:
        """All that is asked, each once, in order."""
        return tuple({ask.key: ask for part in self.parts for ask in part.asks}.values())


@dataclass(frozen=True, slots=True)
class Lab:
    """One idea. `exercise` makes its numbers; `edition` counts the times that these changed.

    The text is a string.Template in the file `NAME.md` beside the lab's module.
    """

    number: int
    name: str
    title: str
    idea: str
    points: int
    exercise: Callable[[Dice], Exercise] = field(repr=False)
    edition: int = 1

    def of_seed(self, seed: str) -> Exercise:
        """Return the exercise that this seed gives, always the same."""
        return self.exercise(Dice(self.name, str(self.edition), seed))
