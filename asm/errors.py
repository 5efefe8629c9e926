"""What goes wrong with a source, and how it is said.

Knows the two exceptions that callers see and the one that stays inside. Refuses to know the
syntax: whoever finds a mistake words it, and the assembler adds file and line.
"""

_LONGEST = 300  # characters of a message or a line that are shown


class Refused(ValueError):
    """A mistake found where file and line are not known; the assembler puts them in front."""


class AssemblyError(ValueError):
    """A source that cannot be assembled or linked, with the place and the line that is to blame.

    `line` counts from 1; it is 0, and `source` empty, where the whole file is to blame.
    """

    def __init__(self, message: str, *, file: str, line: int = 0, source: str = "") -> None:
        self.message = _shortened(message)
        self.file = file
        self.line = line
        self.source = _shortened(source.strip())
        place = f"{file}:{line}" if line else file
        super().__init__(f"{place}: {self.message}" + (f"\n    {self.source}" if source else ""))

    def __reduce__(self) -> tuple[object, ...]:
        state = {"file": self.file, "line": self.line, "source": self.source}
        return _rebuild, (self.message, state)


class UnknownSymbol(ValueError):
    """A name that the image does not have, or has more than once."""


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _rebuild(message: str, state: dict[str, str | int]) -> AssemblyError:
    return AssemblyError(message, **state)  # type: ignore[arg-type]
