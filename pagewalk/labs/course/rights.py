"""Lab 5: an entry that is present may still refuse: WP, U/S, XD, SMEP, SMAP, protection keys.

One access for each rule; which of them go through is the seed's. Of those that do not, the student
names the rule, and takes it away.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from emu.case import Case
from emu.paging import (
    ADDRESS,
    ENTRY_SIZE,
    KEY_SHIFT,
    RW,
    US,
    XD,
    P,
    Paging,
    VirtAddr,
    index,
)
from emu.rights import Access, Kind, refusal
from emu.walk import walk
from pagewalk.labs.cases import check_error_code, command, entries_text, verdict
from pagewalk.labs.lab import Answer, ErrorCode, Exercise, Lab, Lost, Numbers, Part, Word
from pagewalk.labs.seeded import Dice

_RW, _US, _XD, _SMEP, _SMAP, _KEY = _RULES = ("rw", "us", "xd", "smep", "smap", "key")
_RULE: Final = {"wp": _RW, "pk-ad": _KEY, "pk-wd": _KEY}
"""What the emulator's rules are called here, where that is not the same."""
_BIT: Final = {_RW: RW, _US: US, _XD: XD}
"""The rules that one bit in one entry is enough to satisfy."""
_DATA: Final[tuple[Kind, ...]] = ("read", "write")
_ANY: Final[tuple[Kind, ...]] = (*_DATA, "fetch")
_REGISTERS: Final = (
    ("CR0.WP", "wp"),
    ("CR4.SMEP", "smep"),
    ("CR4.SMAP", "smap"),
    ("RFLAGS.AC", "ac"),
    ("CR4.PKE", "pke"),
)


def _entries(dice: Dice, *, user: bool, clear: int = 0, put: int = 0) -> tuple[int, ...]:
    """Draw four entries; in one of them, bits are cleared and set."""
    flags = P | RW | (US if user else 0)
    frames = [(at << 16 | dice.below(1 << 16)) << 12 for at in (1, 2, 3, 4)]
    odd = dice.below(4)
    return tuple(
        frame | (flags & ~clear | put if at == odd else flags) for at, frame in enumerate(frames)
    )


def _flip(dice: Dice) -> bool:
    return dice.choice((False, True))


def _supervisor_write(dice: Dice) -> Case:
    entries = _entries(dice, user=False, clear=RW)
    return Case(0, entries, kind="write", wp=_flip(dice), smep=_flip(dice), smap=_flip(dice))


def _user_write(dice: Dice) -> Case:
    entries = _entries(dice, user=True, clear=RW)
    return Case(0, entries, kind="write", user=True, wp=_flip(dice), smap=_flip(dice))


def _user_access(dice: Dice) -> Case:
    entries = _entries(dice, user=True, clear=US)
    kind = dice.choice(_ANY)
    return Case(0, entries, kind=kind, user=True, smep=_flip(dice), smap=_flip(dice))


def _fetch(dice: Dice) -> Case:
    user = _flip(dice)
    return Case(0, _entries(dice, user=user, put=XD), kind="fetch", user=user, smep=_flip(dice))


def _supervisor_fetch(dice: Dice) -> Case:
    return Case(0, _entries(dice, user=True), kind="fetch", smep=_flip(dice), smap=_flip(dice))


def _supervisor_access(dice: Dice) -> Case:
    kind = dice.choice(_DATA)
    return Case(0, _entries(dice, user=True), kind=kind, smap=True, ac=_flip(dice))


def _keyed(dice: Dice) -> Case:
    key, other = dice.sample(range(1, 16), 2)
    *tables, leaf = _entries(dice, user=True)
    rights = dice.choice((1, 2)) << 2 * dice.choice((key, key, other))
    return Case(
        0,
        (*tables, leaf | key << KEY_SHIFT),
        kind=dice.choice(_DATA),
        user=True,
        pke=True,
        pkru=rights,
    )


def _allowed(dice: Dice) -> Case:
    kind = dice.choice(_ANY)
    return Case(0, _entries(dice, user=False), kind=kind, smep=True, smap=True)


_DRAWS: Final[tuple[Callable[[Dice], Case], ...]] = (
    _supervisor_write,
    _user_write,
    _user_access,
    _fetch,
    _supervisor_fetch,
    _supervisor_access,
    _keyed,
    _allowed,
)


def _without(rule: str, case: Case) -> Case:
    """Return the case with nothing left for the rule to say."""
    entries = case.entries
    return {
        _RW: case._replace(entries=tuple(entry | RW for entry in entries)),
        _US: case._replace(entries=tuple(entry | US for entry in entries)),
        _XD: case._replace(entries=tuple(entry & ~XD for entry in entries)),
        _SMEP: case._replace(smep=False),
        _SMAP: case._replace(smap=False),
        _KEY: case._replace(pke=False),
    }[rule]


def _check_rule(case: Case, rule: str) -> None:
    """Take the rule away: does the access go through?"""
    code = verdict(_without(rule, case)).error_code
    if code is not None:
        raise Lost(f'"{rule}": without that rule, the access still ends in error code {code:#x}')


def _check_fix(case: Case, entries: list[int]) -> None:
    """Make the access under the student's entries: one bit of them is another one."""
    changed = sum((old ^ new).bit_count() for old, new in zip(case.entries, entries, strict=True))
    if changed != 1:
        raise Lost(f"{changed} bits are changed: expected one")
    code = verdict(case._replace(entries=tuple(entries))).error_code
    if code is not None:
        raise Lost(f"the access still ends in a page fault, with error code {code:#x}")


def _rule(case: Case) -> str | None:
    """Return which rule refuses the access, by the names of this lab; None if none does."""
    table, words = 0, {}
    for level, entry in zip((4, 3, 2, 1), case.entries, strict=True):
        words[table + ENTRY_SIZE * index(case.va, level)] = entry
        table = entry & ADDRESS
    switches = {name: getattr(case, name) for name in ("wp", "smep", "smap", "pke", "pkru")}
    paging = Paging.long_mode(0, **switches)
    found = refusal(
        walk(words.get, paging, VirtAddr(case.va)),
        Access(case.kind, case.user, ac=case.ac),
        paging,
    )
    return found and _RULE.get(found.reason, found.reason)


def _exercise(dice: Dice) -> Exercise:
    va = dice.between(3, 255) << 39 | dice.below(1 << 39)
    drawn = [draw(dice)._replace(va=va) for draw in _DRAWS]
    cases = dict(zip("abcdefgh", dice.sample(drawn, len(drawn)), strict=True))
    rules = {name: rule for name, case in cases.items() if (rule := _rule(case))}
    asked = dice.sample([*rules], 2)
    to_fix = dice.choice([name for name, rule in rules.items() if rule != _KEY])

    def solution() -> dict[str, Answer]:
        return {
            **{name: verdict(case).error_code for name, case in cases.items()},
            **{f"rule_{name}": rules[name] for name in asked},
            "fix": _fixed(cases[to_fix], rules[to_fix]),
        }

    return Exercise(
        parts=(
            *(
                Part(
                    f"Access {name}",
                    1,
                    (ErrorCode(name, f"What access {name} comes to."),),
                    partial(check_error_code, case),
                )
                for name, case in cases.items()
            ),
            *(
                Part(
                    f"Why {name} is refused",
                    1,
                    (Word(f"rule_{name}", f"The rule that refuses access {name}.", _RULES),),
                    partial(_check_rule, cases[name]),
                )
                for name in asked
            ),
            Part(
                f"Access {to_fix} allowed",
                2,
                (
                    Numbers(
                        "fix",
                        f"The four entries of access {to_fix}, with one bit changed in one of them "
                        "so that it goes through.",
                        4,
                    ),
                ),
                partial(_check_fix, cases[to_fix]),
            ),
        ),
        values={
            "va": f"{va:#x}",
            "cases": "\n\n".join(_case_text(name, case) for name, case in cases.items()),
            "commands": "\n".join(f"    {command(case)}" for case in cases.values()),
            "asked": " and ".join(f"`rule_{name}`" for name in asked),
            "to_fix": to_fix,
        },
        solution=solution,
    )


def _fixed(case: Case, rule: str) -> list[int]:
    """Return the entries with one bit changed, so that the rule has nothing to say."""
    if rule in _BIT:
        return list(_without(rule, case).entries)
    return [*case.entries[:-1], case.entries[-1] & ~US]  # no user page, no SMEP, no SMAP


def _case_text(name: str, case: Case) -> str:
    registers = [f"{register}={getattr(case, field):d}" for register, field in _REGISTERS]
    registers += [f"PKRU={case.pkru:#x}"] if case.pke else []
    who = f"{case.kind} at CPL {3 if case.user else 0}"
    return f"{name}   {who:15} {' '.join(registers)}\n    {entries_text(case)}"


LAB = Lab(
    number=5,
    name="rights",
    title="Rights",
    idea="An entry that is present may still refuse an access, and the error code says how far it "
    "came.",
    points=12,
    exercise=_exercise,
)
