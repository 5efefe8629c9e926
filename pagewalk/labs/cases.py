"""One access under raw entries, as a question: what does it come to?

Knows how to ask the CPU, and the `pagewalk access` that shows the same. Refuses to know which
accesses are worth asking about.
"""

from typing import TYPE_CHECKING, Final

from emu.paging import ENTRY_NAME
from pagewalk.labs.lab import Lost

if TYPE_CHECKING:
    from emu import Case, Verdict

_FLAGS: Final = ("wp", "smep", "smap", "nxe", "ac", "pke")


def verdict(case: "Case") -> "Verdict":
    """Have the CPU make the access."""
    from emu import BadCase, Probe

    with Probe() as probe:
        try:
            return probe.access(case)
        except BadCase as error:
            raise Lost(str(error)) from None


def check_error_code(case: "Case", answer: int | None) -> None:
    """Have the CPU make the access; Lost unless it comes to this error code, or to none."""
    require_error_code(verdict(case).error_code, answer)


def require_error_code(found: int | None, answer: int | None) -> None:
    """Raise Lost, without telling what was found, unless that is the answer."""
    if found != answer:
        what = "go through" if answer is None else f"raise error code {answer:#x}"
        raise Lost(f"on the CPU, this access does not {what}")


def command(case: "Case") -> str:
    """Return the `pagewalk access` that makes it."""
    from emu import Case

    default = Case(case.va, case.entries)
    words = [f"pagewalk access --va {case.va:#x}"]
    words.append(f"--entries {','.join(f'{entry:#x}' for entry in case.entries)}")
    words.append(f"--kind {case.kind}")
    words += ["--user"] if case.user else []
    words += [
        f"--{flag} {getattr(case, flag):d}"
        for flag in _FLAGS
        if getattr(case, flag) != getattr(default, flag)
    ]
    words += [f"--pkru {case.pkru:#x}"] if case.pkru else []
    words += [f"--levels {case.levels}"] if case.levels != default.levels else []
    return " ".join(words)


def entries_text(case: "Case") -> str:
    """Return the entries with their names."""
    levels = range(case.levels, 0, -1)
    named = zip(levels, case.entries, strict=False)
    return ", ".join(f"{ENTRY_NAME[level]} {entry:#x}" for level, entry in named)
