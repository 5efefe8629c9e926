"""Pieces of a section, and how long each of them is.

Knows that a jump, a padding and an `.org` have a size that depends on where everything else lies,
and settles these sizes as GNU as does: jumps start short and only ever grow. Refuses to know
where a piece came from.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from asm.errors import Refused
from asm.expression import Node, Value, fits

Evaluate = Callable[[Node], Value]
_Result = TypeVar("_Result")

# The n-th does nothing in n + 1 bytes. GNU as fills code with these, the longest first; of more
# than seven it jumps over them.
_NOPS: Final = tuple(
    bytes.fromhex(code)
    for code in """
    90 6690 0f1f00 0f1f4000 0f1f440000 660f1f440000 0f1f8000000000 0f1f840000000000
    660f1f840000000000 662e0f1f840000000000 66662e0f1f840000000000
    """.split()
)
_LONGEST_OF_LD: Final = 10  # see nops_between_programs
_MOST_NOPS: Final = 7
_MOST_ROUNDS: Final = 64
LARGEST: Final = 1 << 24  # bytes in a section: more is a slip in a `.skip` or `.org`


class Misplaced(Refused):
    """A Refused that knows its piece."""

    def __init__(self, message: str, piece: "Piece") -> None:
        super().__init__(message)
        self.piece = piece


class Field(NamedTuple):
    """A place in a piece for the value of an expression.

    `end` is the offset in the piece that a `relative` value counts from; a field that may not be
    left to the linker has no `relocatable`.
    """

    offset: int
    size: int
    node: Node
    end: int | None = None
    signed: bool = False
    relocatable: bool = True


class Piece:
    """What one statement becomes: bytes, with fields to fill in."""

    __slots__ = ("data", "fields", "is_instruction", "line", "offset", "text")
    varies = False

    def __init__(
        self, data: bytes, fields: tuple[Field, ...] = (), *, is_instruction: bool = False
    ) -> None:
        self.data = data
        self.fields = fields
        self.is_instruction = is_instruction
        self.line = 0
        self.offset = 0
        self.text = ""

    def settle(self, evaluate: Evaluate) -> None:
        """Take the size that the present layout asks for. Raises Refused."""

    def check(self, evaluate: Evaluate) -> None:
        """Raise Refused when the final layout leaves no room for this piece."""


class Jump(Piece):
    """A jump to a label: two bytes, or as many as `near` when that does not reach."""

    __slots__ = ("near", "node", "section")
    varies = True

    def __init__(self, short: bytes, near: bytes, node: Node, section: object) -> None:
        super().__init__(short + b"\0", is_instruction=True)
        self.near = near
        self.node = node
        self.section = section
        self._take(short, 1)

    def _take(self, opcode: bytes, size: int) -> None:
        end = len(opcode) + size
        self.data = opcode + bytes(size)
        self.fields = (Field(len(opcode), size, self.node, end, True, size == 4),)

    def grow(self, evaluate: Evaluate) -> bool:
        """Become near if the target is out of reach; whether that was so. Raises Refused."""
        if not self.near or self.fields[0].size != 1:
            return False
        target = evaluate(self.node)
        away = target.number - self.offset - len(self.data)
        if target.plus is self.section and target.minus is None and -128 <= away < 128:
            return False
        self._take(self.near, 4)
        return True


class Padding(Piece):
    """Bytes up to the next multiple of `alignment`; nops in code where `fill` is None."""

    __slots__ = ("alignment", "fill", "most")
    varies = True

    def __init__(self, alignment: int, fill: bytes | None, most: int | None) -> None:
        super().__init__(b"")
        self.alignment = alignment
        self.fill = fill
        self.most = most

    def settle(self, evaluate: Evaluate) -> None:
        """Fill up to the alignment, or not at all if that takes more than `most`."""
        count = -self.offset % self.alignment
        if self.most is not None and count > self.most:
            count = 0
        self.data = nops(count) if self.fill is None else self.fill * (count // len(self.fill))

    def check(self, evaluate: Evaluate) -> None:
        """Refuse a fill that does not come out even. Raises Refused."""
        if self.fill is not None and (odd := -self.offset % len(self.fill)):
            raise Refused(f"{odd} bytes are left over by a filling of {len(self.fill)} bytes")


class Origin(Piece):
    """Bytes up to the place that an expression names."""

    __slots__ = ("fill", "node", "section")
    varies = True

    def __init__(self, node: Node, fill: int, section: object) -> None:
        super().__init__(b"")
        self.node = node
        self.fill = fill
        self.section = section

    def settle(self, evaluate: Evaluate) -> None:
        """Fill up to the place, unless it lies behind. Raises Refused."""
        self.data = bytes([self.fill]) * max(0, _bounded(self._target(evaluate) - self.offset))

    def check(self, evaluate: Evaluate) -> None:
        """Refuse a place that lies behind. Raises Refused."""
        target = self._target(evaluate)
        if target < self.offset:
            raise Refused(
                f".org to {target:#x} goes back: the code before it ends at {self.offset:#x}"
            )

    def _target(self, evaluate: Evaluate) -> int:
        target = evaluate(self.node)
        if target.minus is not None or target.plus not in (None, self.section):
            raise Refused(".org leaves its section: a place in this section was expected")
        return target.number


class Repeat(Piece):
    """`unit` as many times as an expression says."""

    __slots__ = ("node", "unit")
    varies = True

    def __init__(self, node: Node, unit: bytes) -> None:
        super().__init__(b"")
        self.node = node
        self.unit = unit

    def settle(self, evaluate: Evaluate) -> None:
        """Take as many units as there are now. Raises Refused."""
        self.data = self.unit * _bounded(max(0, self._count(evaluate)), len(self.unit))

    def check(self, evaluate: Evaluate) -> None:
        """Refuse a negative number of units. Raises Refused."""
        if (count := self._count(evaluate)) < 0:
            raise Refused(f"{count} repetitions: 0 or more were expected")

    def _count(self, evaluate: Evaluate) -> int:
        count = evaluate(self.node)
        if not count.is_constant:
            raise Refused("the number of repetitions is an address: a constant was expected")
        return count.number


def place(sections: Sequence[list[Piece]], evaluate: Evaluate) -> None:
    """Give every piece its size and offset. Raises Misplaced.

    Jumps are looked at only in a layout that fits together, and grow only: so each is as short
    as the others allow.
    """
    jumps = [piece for pieces in sections for piece in pieces if isinstance(piece, Jump)]
    _spread(sections, evaluate)
    while any([_about(jump, jump.grow, evaluate) for jump in jumps]):  # noqa: C419 (ask them all)
        _spread(sections, evaluate)
    for pieces in sections:
        for piece in pieces:
            if piece.varies:
                _about(piece, piece.check, evaluate)


def _spread(sections: Sequence[list[Piece]], evaluate: Evaluate) -> None:
    """Lay out the pieces, with the present sizes of the jumps."""
    for _ in range(_MOST_ROUNDS):
        restless: Piece | None = None
        for pieces in sections:
            offset = 0
            for piece in pieces:
                before = piece.offset, len(piece.data)
                piece.offset = offset
                if piece.varies:
                    _about(piece, piece.settle, evaluate)
                offset += len(piece.data)
                if offset > LARGEST:
                    raise Misplaced(f"the section grows beyond {LARGEST:#x} bytes here", piece)
                if before != (piece.offset, len(piece.data)):
                    restless = piece
        if restless is None:
            return
    raise Misplaced("where this lies depends on itself", restless or sections[0][0])


def _about(piece: Piece, method: Callable[[Evaluate], _Result], evaluate: Evaluate) -> _Result:
    """The result of `method`; if it refuses, say which piece it was about."""
    try:
        return method(evaluate)
    except Refused as error:
        raise Misplaced(str(error), piece) from None


def nops(count: int) -> bytes:
    """`count` bytes that do nothing, as GNU as fills code to an alignment."""
    if count // len(_NOPS) <= _MOST_NOPS:
        return _run_of_nops(count)
    short = count - 2 < 128
    jump = b"\xeb" + bytes([count - 2]) if short else b"\xe9" + (count - 5).to_bytes(4, "little")
    return jump + _run_of_nops(count - len(jump))


def nops_between_programs(count: int) -> bytes:
    """`count` bytes that do nothing, as GNU ld fills the space between two pieces of code.

    The linker has no part of as in it: its nops are those of libbfd, whose table ends at ten bytes
    where that of as goes on to eleven. And it jumps over nothing.
    """
    return _run_of_nops(count, _NOPS[:_LONGEST_OF_LD])


def _run_of_nops(count: int, choice: tuple[bytes, ...] = _NOPS) -> bytes:
    whole, rest = divmod(count, len(choice))
    return choice[-1] * whole + (choice[rest - 1] if rest else b"")


def _bounded(count: int, unit: int = 1) -> int:
    if count * unit > LARGEST:
        raise Refused(f"{count * unit:#x} bytes: at most {LARGEST:#x} were expected")
    return count


def number_bytes(number: int, size: int, *, signed: bool) -> bytes:
    """`number` in `size` bytes, little-endian. Raises Refused when it does not fit."""
    if 1 << 63 <= number < 1 << 64:
        number = number if size >= 8 else number - (1 << 64)
    limit = 1 << (8 * size - 1)
    if not (-limit <= number < limit if signed else fits(number, size)):
        raise Refused(f"{number:#x} does not fit {size} byte{'s' if size > 1 else ''}")
    return (number & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
