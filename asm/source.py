"""The text of a source, taken apart into statements.

Knows what GNU as on x86-64 takes for a comment, a label, a string and the end of a statement.
Refuses to know what any statement means.
"""

import re
from typing import Final, NamedTuple

from asm.errors import AssemblyError, Refused

LARGEST: Final = 1 << 20  # bytes of a source

_LEXEME = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\\n])*"|'\\?[^\n]'?)"""
    r"""|(?P<block>/\*.*?\*/)|(?P<line>\#[^\n]*|(?:(?<=\n)|\A)[ \t]*/(?!\*)[^\n]*)"""
    r"""|(?P<open>/\*|")""",
    re.DOTALL,
)
_LABEL = re.compile(r"\s*([A-Za-z_.$][\w.$]*|[0-9]+)\s*:(?!:)")
_ASSIGNMENT = re.compile(r"\s*([A-Za-z_.$][\w.$]*)\s*==?(?!=)(.*)", re.DOTALL)
_OPERATION = re.compile(r"\s*(\S+)\s*(.*?)\s*\Z", re.DOTALL)
_PIECE = re.compile(r"""(?:[^;"']|"(?:\\.|[^"\\])*"|'\\?.'?)+""")
_ESCAPE = re.compile(r"\\([0-7]{1,3}|x[0-9a-fA-F]+|.)", re.DOTALL)
_CONTROL = {"n": 10, "t": 9, "r": 13, "b": 8, "f": 12, "v": 11, "\\": 92, '"': 34}


class Line(NamedTuple):
    """One statement's text, and the line that it stands on."""

    number: int
    text: str


class Statement(NamedTuple):
    """Labels, then an operation and its operands; the operation is empty after bare labels.

    An assignment `name = value` is the operation `.set` with the operands `name, value`. `text`
    is operation and operands as written, `raw` the whole.
    """

    line: int
    labels: tuple[str, ...]
    operation: str
    operands: str
    text: str
    raw: str


def decoded(raw: bytes, *, file: str) -> str:
    """The text that a source file of the bytes `raw` holds, without Windows' mark of UTF-8.

    Raises AssemblyError for what is not UTF-8 or larger than LARGEST; whoever reads a file need
    not read more than one byte beyond that.
    """
    if len(raw) > LARGEST:
        raise AssemblyError(f"too long: expected at most {LARGEST:#x} bytes", file=file)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"byte {raw[error.start]:#x} at offset {error.start:#x}: expected UTF-8"
        number = raw.count(b"\n", 0, error.start) + 1
        raise AssemblyError(message, file=file, line=number) from None


def lines(source: str, *, file: str) -> list[Line]:
    """The statements of `source` without their comments. Raises AssemblyError."""

    def blank(match: re.Match[str]) -> str:
        if match.lastgroup == "string":
            return match[0]
        if match.lastgroup == "open":
            what = "comment" if match[0] == "/*" else "string"
            number = source.count("\n", 0, match.start()) + 1
            text = source.splitlines()[number - 1]
            raise AssemblyError(f"the {what} is never closed", file=file, line=number, source=text)
        return " " + "\n" * match[0].count("\n") if match.lastgroup == "block" else ""

    source = source.replace("\r\n", "\n")
    found: list[Line] = []
    for number, text in enumerate(_LEXEME.sub(blank, source).split("\n"), 1):
        if not text.isascii() and not (bare := _LEXEME.sub("", text)).isascii():
            strange = next(character for character in bare if not character.isascii())
            message = f"`{strange}` is not ASCII: only strings and comments may hold it"
            raise AssemblyError(message, file=file, line=number, source=text)
        if ";" in text:
            found += [Line(number, piece) for piece in _PIECE.findall(text) if piece.strip()]
        elif text and not text.isspace():
            found.append(Line(number, text))
    return found


def statement(line: Line) -> Statement:
    """`line` taken apart."""
    text = line.text
    labels: list[str] = []
    while (match := _LABEL.match(text)) is not None:
        labels.append(match[1])
        text = text[match.end() :]
    if "=" in text and (match := _ASSIGNMENT.match(text)) is not None:
        operands = f"{match[1]},{match[2]}"
        return Statement(line.number, tuple(labels), ".set", operands, text, line.text)
    match = _OPERATION.match(text)
    if match is None:
        return Statement(line.number, tuple(labels), "", "", "", line.text)
    return Statement(line.number, tuple(labels), match[1].lower(), match[2], text, line.text)


def split(text: str) -> list[str]:
    """The operands in `text`: what stands between commas outside brackets and quotes."""
    if not text:
        return []
    if '"' not in text and "'" not in text and "(" not in text:
        return [part.strip() for part in text.split(",")]
    parts: list[str] = []
    depth = start = at = 0
    while at < len(text):
        character = text[at]
        if character == '"':
            at = _end_of_string(text, at)
        elif character == "'":
            at += 2 if text[at + 1 : at + 2] == "\\" else 1
            at += text[at + 1 : at + 2] == "'"
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
        at += 1
    return [*parts, text[start:].strip()]


def _end_of_string(text: str, start: int) -> int:
    at = start + 1
    while at < len(text) and text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return at


def string(text: str) -> bytes:
    """The bytes of the quoted string `text`, with GNU as's escapes. Raises Refused."""
    if len(text) < 2 or text[0] != '"' or _end_of_string(text, 0) != len(text) - 1:
        raise Refused(f"`{text}` is not a string in double quotes")

    def escape(match: re.Match[str]) -> str:
        body = match[1]
        if body[0] in "01234567":
            return chr(int(body, 8) & 0xFF)
        if body[0] == "x" and len(body) > 1:
            return chr(int(body[1:], 16) & 0xFF)
        if body not in _CONTROL:
            raise Refused(f"`\\{body}` is not an escape of a string")
        return chr(_CONTROL[body])

    raw = text[1:-1].encode().decode("latin-1")
    return _ESCAPE.sub(escape, raw).encode("latin-1")
