"""Expressions as they are written: numbers, names, and the operators of GNU as.

Knows spelling and precedence. Refuses to know what a name stands for: that is the caller's to
say.
"""

import re
from collections.abc import Callable

from asm.errors import Refused
from asm.expression import Binary, Node, Unary, fold

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number> 0[xX][0-9a-fA-F]+ | 0[bB][01]+ | [0-9]+[bf](?![\w.$]) | [0-9]+ )
    | (?P<name> [A-Za-z_.$][\w.$]* )
    | (?P<char> '(?:\\.|[^\\])'? )
    | (?P<operator> << | >> | <= | >= | <> | == | != | && | \|\| | [-+*/%<>&|^!~()] )
    )""",
    re.VERBOSE,
)
_LONGEST_NUMBER = 130  # as long as 0b and 128 bits
_ESCAPES = {"n": 10, "t": 9, "r": 13, "b": 8, "f": 12, "v": 11}

# Binary operators by rank, the highest first. The manual of GNU as ("Infix Operators") gives
# comparisons the rank of + and -; the program ranks them lower, and that is what counts here.
_RANK = {
    **dict.fromkeys(["*", "/", "%", "<<", ">>"], 6),
    **dict.fromkeys(["|", "&", "^", "!"], 5),
    **dict.fromkeys(["+", "-"], 4),
    **dict.fromkeys(["==", "<>", "!=", "<", "<=", ">", ">="], 3),
    "&&": 2,
    "||": 1,
}
# Words that Intel syntax allows for operators.
_WORDS = {"and": "&", "or": "|", "xor": "^", "mod": "%", "shl": "<<", "shr": ">>"}


def parse(text: str, lookup: Callable[[str], Node]) -> Node:
    """The tree of the expression `text`; `lookup` says what each name stands for.

    The location counter is looked up as `.`. Raises Refused when `text` is not one expression.
    """
    stripped = text.strip()
    if stripped.isdecimal():
        return _number(stripped)
    return _Parser(stripped, lookup).whole()


class _Parser:
    def __init__(self, text: str, lookup: Callable[[str], Node]) -> None:
        self._text = text
        self._lookup = lookup
        self._tokens = _tokens(text)
        self._at = 0

    def whole(self) -> Node:
        node = self._binary(1)
        if self._at < len(self._tokens):
            raise Refused(f"`{self._tokens[self._at][1]}` is not expected in `{self._text}`")
        return node

    def _binary(self, rank: int) -> Node:
        left = self._unary()
        while self._at < len(self._tokens):
            word = self._tokens[self._at][1]
            symbol = _WORDS.get(word.lower(), word)
            here = _RANK.get(symbol, 0)
            if here < rank:
                break
            self._at += 1
            left = fold(Binary(symbol, left, self._binary(here + 1)))
        return left

    def _unary(self) -> Node:
        if self._at >= len(self._tokens):
            raise Refused(f"`{self._text}` is not an expression: an operand is missing")
        kind, word = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            return self._lookup(word) if _is_numeric_label(word) else _number(word)
        if kind == "name":
            return self._lookup("." if word == "$" else word)
        if kind == "char":
            return _char(word)
        if word in "-~!":
            return fold(Unary(word, self._unary()))
        if word == "+":
            return self._unary()
        if word == "(":
            node = self._binary(1)
            if self._at >= len(self._tokens) or self._tokens[self._at][1] != ")":
                raise Refused(f"`{self._text}` is not an expression: `)` is missing")
            self._at += 1
            return node
        raise Refused(f"`{word}` is not expected in `{self._text}`")


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise Refused(f"`{text[at:].strip()}` is not expected in `{text}`")
        at = match.end()
        if match.lastgroup == "number" and re.match(r"[\w.$]", text[at:]):
            raise Refused(f"`{text}`: a number is 0x1f, 0b11, 017 or decimal")
        found.append((match.lastgroup, match[match.lastgroup]))
    return found


def _is_numeric_label(word: str) -> bool:
    return word[:-1].isdecimal() and word[-1] in "bf"


def _number(word: str) -> int:
    if len(word) > _LONGEST_NUMBER:
        raise Refused(f"a number of {len(word)} digits does not fit 128 bits")
    if word[:2] in ("0x", "0X", "0b", "0B"):
        return int(word, 0)
    if word[0] == "0" and len(word) > 1:
        if word.strip("01234567"):
            raise Refused(f"`{word}` is not octal, as its leading 0 says")
        return int(word, 8)
    return int(word)


def _char(word: str) -> int:
    body = word[1:-1] if len(word) > 2 and word.endswith("'") and word != "''" else word[1:]
    code = _ESCAPES.get(body[1], ord(body[1])) if body[0] == "\\" else ord(body[0])
    if code > 0x7F:
        raise Refused(f"{word} is not an ASCII character")
    return code
