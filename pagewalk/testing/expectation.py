"""What a test expects of a page fault, and in what a fault is different.

Knows how a test names a level, an error code and an instruction. Refuses to know how a
difference is told (`report`). Both vocabularies: levels have their names from `pgtable`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from emu import PageFault
from emu.paging import ENTRY_NAME
from kernel_model.pgtable import linux_name
from kernel_model.reading.explain import ERROR_CODE_BITS
from kernel_model.words import did_you_mean

if TYPE_CHECKING:
    from pagewalk.testing.watch import Watched

_FOLDED: Final = "p4d"  # with 4 levels, into the pgd
_ERROR_SYNTAX: Final = "a number, or letters of P W U I, and RSVD, PK, such as 'W' or 'P W U'"


class Expectation(NamedTuple):
    """What a fault is to be; None for what does not matter.

    `rip` is known where the symbol could be looked up; otherwise `symbol` is compared as text.
    """

    address: int | None = None
    error_code: int | None = None
    rip: int | None = None
    symbol: str | None = None
    level: str | None = None

    @classmethod
    def same_as(cls, fault: PageFault, symbol: str | None) -> "Expectation":
        """Return what `==` compares; `symbol` is the name of the instruction, if it has one."""
        return cls(fault.address, fault.error_code, fault.rip, symbol)

    def differences(self, fault: PageFault) -> tuple[str, ...]:
        """Return the names of what is different: address, error_code, rip, symbol, level."""
        found = {
            "address": self.address is None or fault.address == self.address,
            "error_code": self.error_code is None or fault.error_code == self.error_code,
            "rip": self.rip is None or fault.rip == self.rip,
            "symbol": self.rip is not None or _is_named(fault, self.symbol),
            "level": self.level is None or _level_of(fault) == level_number(self.level, fault),
        }
        return tuple(name for name, same in found.items() if not same)


def read_error(error: int | str) -> int:
    """Return an error code that is given as a number, or as the letters of its bits.

    P: all entries were present. W: a write. U: a user-mode access. RSVD: a reserved bit was set.
    I: an instruction fetch. PK: a protection key forbade it. "" is a supervisor read of what is
    not present. Letters may be joined: "WU" is "W U". ValueError for others.
    """
    if isinstance(error, int):
        return error
    code = 0
    for word in error.upper().replace("|", " ").split():
        for name in (word,) if word in ERROR_CODE_BITS else word:
            if name not in ERROR_CODE_BITS:
                near = did_you_mean(word, ERROR_CODE_BITS)
                raise ValueError(f"error {error!r}: expected {_ERROR_SYNTAX}{near}")
            code |= ERROR_CODE_BITS[name]
    return code


def error_letters(code: int) -> str:
    """Return the letters of an error code: "P W"; "-" if no bit is set."""
    return " ".join(name for name, bit in ERROR_CODE_BITS.items() if code & bit) or "-"


def read_symbol(symbol: str, watched: "Watched | None") -> int | None:
    """Return the address that `symbol` names; None where there is nobody to ask.

    Raises UnknownSymbol, and ValueError for a size that is not the symbol's.
    """
    return None if watched is None else watched.subject.symbol(symbol)


def check_level(level: str) -> str:
    """Return the name of a level, if it is one; ValueError names the nearest otherwise."""
    names = [name for levels in (5, 4) for name in _names(levels)]
    if level.lower() not in (name.lower() for name in names):
        known = list(dict.fromkeys(names))
        near = did_you_mean(level, known) or did_you_mean(level.upper(), known)
        raise ValueError(f"level {level!r}: expected one of {', '.join(known)}{near}")
    return level


def level_number(level: str, fault: PageFault) -> int | None:
    """Return the level of that name where the fault was; None if there is none such there."""
    by_name = {name.lower(): number for name, number in _names(levels_of(fault)).items()}
    return by_name.get(level.lower())


def level_name(number: int, levels: int) -> str:
    """Name a level in both vocabularies: "pgd (PML4E)"; the folded p4d is the pgd."""
    if not number:
        return "none: CR3 leads nowhere"
    return f"{linux_name(number, levels)} ({ENTRY_NAME[number]})"


def levels_of(fault: PageFault) -> int:
    """Return how many levels of paging the fault's walk had to go through; 4 without a walk."""
    steps = fault.walk.steps if fault.walk else ()
    return steps[0].level if steps else 4


def _level_of(fault: PageFault) -> int:
    return fault.walk.level if fault.walk else 0


def _names(levels: int) -> dict[str, int]:
    """Return every name of a level, with its number."""
    numbers: Iterable[int] = range(levels, 0, -1)
    names = {name: n for n in numbers for name in (linux_name(n, levels), ENTRY_NAME[n])}
    return names if _FOLDED in names else {**names, _FOLDED: levels}


def _is_named(fault: PageFault, symbol: str | None) -> bool:
    """Tell whether a fault's own symbol is `symbol`, with its size or without."""
    if symbol is None:
        return True
    found = fault.symbol or ""
    return symbol in (found, found.partition("/")[0], found.partition("+0x0")[0])
