"""A case: one access under raw entries; what was seen of it, and what it comes to.

Knows which cases there are, and when the CPU and the tables agree on one. Refuses to know how it is
put before a CPU (`probe`). Imports no engine. SDM vocabulary.
"""

from typing import Final, NamedTuple, get_args

from emu.fault import GP, PF, VECTOR_NAME, EngineError, error_code_html
from emu.paging import U64, A, PhysAddr, VirtAddr
from emu.rights import Kind, Refusal
from emu.walk import Walk

NON_CANONICAL: Final = "non-canonical"
"""The rule of an address that is none: #GP(0), and no table is read."""

Outcome = tuple[int | None, int | None, VirtAddr | None]  # vector, error code, CR2
WENT_THROUGH: Final[Outcome] = (None, None, None)
_KINDS: Final = get_args(Kind)
_U32: Final = (1 << 32) - 1


class Case(NamedTuple):
    """One access, of one byte, and all that decides what it comes to.

    `entries` are raw values, the root's first, at least one; the last need not map a page. Each
    names a frame with its bits 39:12, whatever its P and PS say, and there the next one lies, at
    the index that `va` selects. All other RAM is zero.
    """

    va: int
    entries: tuple[int, ...]
    levels: int = 4
    kind: Kind = "read"
    user: bool = False
    wp: bool = True
    smep: bool = False
    smap: bool = False
    nxe: bool = True
    ac: bool = False
    pke: bool = False
    pkru: int = 0


class Verdict(NamedTuple):
    """What a case came to: the exception and the rule behind it, or None where it went through.

    `cr2` is None for a #GP, which leaves CR2 alone. `entries_after` are the case's entries after
    the access, reached or not, in the order given.
    """

    vector: int | None
    error_code: int | None
    cr2: VirtAddr | None
    rule: str | None
    entries_after: tuple[int, ...]

    def __repr__(self) -> str:
        after = " ".join(f"{entry:#x}" for entry in self.entries_after)
        what = _exception_text(self.vector, self.error_code, self.cr2)
        return f"Verdict({what}, {self.rule!r}, after {after})"

    def _repr_html_(self) -> str:
        from emu import markup

        what = _exception_text(self.vector, self.error_code, self.cr2)
        sentence = markup.sentence(f"{what}: {self.rule}" if self.rule else what)
        code = error_code_html(self.error_code or 0) if self.vector == PF else ""
        rows = [(f"{n}", f"{entry:#x}") for n, entry in enumerate(self.entries_after)]
        caption = "the entries after the access, the root's first"
        return sentence + code + markup.table(caption, ("entry", "value"), rows)


class Seen(NamedTuple):
    """What the CPU did with a case, and beside it, uncompared, what the tables say.

    `entries_after` is as the engine left it. `walk` is that of the case's address, before the
    access; `refusal` is what the rights make of it, None if nothing or if there is no walk.
    `slots` says where each entry lies.
    """

    vector: int | None
    error_code: int | None
    cr2: VirtAddr | None
    entries_after: tuple[int, ...]
    walk: Walk
    refusal: Refusal | None
    slots: tuple[PhysAddr, ...]


class BadCase(ValueError):
    """A case that is bad input: which field, its value, and what was expected.

    Of the entries, `entry` says which: 0 is the root's.
    """

    def __init__(self, field: str, value: str, expected: str, *, entry: int = 0) -> None:
        super().__init__(f"{field} {value}: expected {expected}")
        self.field, self.value, self.expected, self.entry = field, value, expected, entry


def judge(case: Case, seen: Seen) -> Verdict:
    """Return what a case comes to on a CPU; EngineError if this CPU and the tables disagree."""
    expected = WENT_THROUGH
    rule = None
    if seen.refusal is not None:
        expected = PF, seen.refusal.error_code, VirtAddr(case.va)
        rule = seen.refusal.reason
    elif seen.walk.verdict == NON_CANONICAL:
        expected, rule = (GP, 0, None), NON_CANONICAL
    if seen[:3] != expected:
        raise EngineError(
            f"the CPU reports {_exception_text(*seen[:3])}, the tables say "
            f"{_exception_text(*expected)}: {case}, {seen.walk!r}"
        )
    return tuple.__new__(Verdict, (*expected, rule, corrected(seen)))


def corrected(seen: Seen) -> tuple[int, ...]:
    """Return the entries as a CPU leaves them (deviation "refused-gigabyte")."""
    found = seen.walk
    if seen.vector != PF or found.level != 3:
        return seen.entries_after
    _, leaf_pa, leaf = found.steps[-1]
    if leaf & A:
        return seen.entries_after
    # No entry above lies in the same place: it would have ended the walk, as this one did.
    return tuple(
        entry & ~A if slot == leaf_pa else entry
        for slot, entry in zip(seen.slots, seen.entries_after, strict=True)
    )


def check(case: Case) -> None:
    """Raise BadCase unless every field of the case is what it may be."""
    va, entries, levels, kind = case[:4]
    if levels not in (4, 5):
        raise BadCase("levels", str(levels), "4 or 5")
    if not 0 <= va <= U64:
        raise BadCase("va", f"{va:#x}", "a 64-bit address")
    if not 1 <= len(entries) <= levels:
        raise BadCase("entries", f"{len(entries)} of them", f"1 to {levels}, the root's first")
    for n, entry in enumerate(entries):
        if not 0 <= entry <= U64:
            raise BadCase("entries", f"{entry:#x}", "a 64-bit value", entry=n)
    if kind not in _KINDS:
        raise BadCase("kind", repr(kind), "read, write or fetch")
    if not 0 <= case.pkru <= _U32:
        raise BadCase("pkru", f"{case.pkru:#x}", "a 32-bit value")


def check_shared(entries: tuple[int, ...], slots: list[PhysAddr]) -> None:
    """Raise BadCase if one place should hold two values."""
    held: dict[PhysAddr, int] = {}
    for n, (slot, entry) in enumerate(zip(slots, entries, strict=True)):
        other = held.setdefault(slot, entry)
        if other != entry:
            same = f"{other:#x}, which lies in the same place, pa {slot:#x}"
            raise BadCase("entries", f"{entry:#x}", same, entry=n)


def _exception_text(vector: int | None, error_code: int | None, cr2: int | None) -> str:
    if vector is None:
        return "no exception"
    where = "" if cr2 is None else f" at {cr2:#x}"
    return f"{VECTOR_NAME[vector]} {error_code:#x}{where}"
