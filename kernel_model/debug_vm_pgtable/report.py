"""What the checklist found: counts, and each check that failed, with what was there instead.

Knows how the kernel words its lines, and what people and programs are told besides. Refuses to
know the checks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

_BANNER: Final = "Validating architecture page table helpers"


class Failure(NamedTuple):
    """One check that did not hold. `protection` is "" where the check is not about one."""

    group: str
    check: str
    level: str
    protection: str
    expected: str
    found: str


@dataclass(slots=True)
class Found:
    """What became of one group; `lacking` says why it was left out, if it was."""

    name: str
    title: str
    lacking: str = ""
    nr_checks: int = 0
    nr_by_cpu: int = 0
    failures: list[Failure] = field(default_factory=list)


class Report:
    """Filled group by group."""

    def __init__(self) -> None:
        self.vaddr = 0
        self.groups: Final[list[Found]] = []

    def begin(self, name: str, title: str, lacking: str = "") -> None:
        """Say which group the checks from now on belong to."""
        self.groups.append(Found(name, title, lacking))

    def check(
        self,
        check: str,
        level: str,
        expected: str,
        found: str,
        *,
        protection: str = "",
        by_cpu: int = 0,
    ) -> None:
        """Count one check; it failed if what was found is not what was expected.

        `by_cpu` is 1 if the CPU was asked. What follows a ":" explains, and is not compared.
        """
        group = self.groups[-1]
        group.nr_checks += 1
        group.nr_by_cpu += by_cpu
        if found.partition(":")[0] != expected:
            group.failures.append(Failure(group.name, check, level, protection, expected, found))

    @contextmanager
    def refusal(self, check: str, level: str) -> Iterator[None]:
        """Count what is done inside as one check: that it is not refused (ValueError)."""
        refused = "done"
        try:
            yield
        except ValueError as error:
            refused = f"refused: {error}"
        self.check(check, level, "done", refused)

    @property
    def failures(self) -> list[Failure]:
        """All checks that failed, in order."""
        return [failure for group in self.groups for failure in group.failures]

    @property
    def nr_checks(self) -> int:
        """How many checks were made."""
        return sum(group.nr_checks for group in self.groups)

    @property
    def nr_by_cpu(self) -> int:
        """How many of them the CPU decided."""
        return sum(group.nr_by_cpu for group in self.groups)

    def lines(self) -> Iterator[str]:
        """Tell it as the kernel's log does, with what came of each group behind it."""
        yield _log("debug_vm_pgtable", _BANNER)
        for group in self.groups:
            yield _log(group.name, f"Validating {group.title}: {_counts(group)}")
            yield from _failure_lines(group.failures)
        yield (
            f"{self.nr_checks} checks at {self.vaddr:016x}, {self.nr_by_cpu} of them by the CPU; "
            f"{len(self.failures)} failed"
        )

    def facts(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "vaddr": f"{self.vaddr:#x}",
            "checks": self.nr_checks,
            "checks_by_cpu": self.nr_by_cpu,
            "left_out": {g.name: g.lacking for g in self.groups if g.lacking},
            "groups": {g.name: g.nr_checks for g in self.groups},
            "failures": [failure._asdict() for failure in self.failures],
        }


def _log(function: str, text: str) -> str:
    return f"debug_vm_pgtable: [{function:25}]: {text}"


def _counts(group: Found) -> str:
    checks = f"{group.nr_checks} check{'' if group.nr_checks == 1 else 's'}"
    if group.lacking:
        instead = f"; {checks} that it does nothing" if group.nr_checks else ""
        return f"left out, {group.lacking}{instead}"
    by_cpu = f", {group.nr_by_cpu} by the CPU" if group.nr_by_cpu else ""
    failed = f", {len(group.failures)} FAILED" if group.failures else ""
    return checks + by_cpu + failed


def _failure_lines(failures: list[Failure]) -> Iterator[str]:
    """One line for a check, whatever the number of protections that it failed with."""
    by_check: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        by_check.setdefault((failure.check, failure.expected), []).append(failure)
    for (check, expected), same in by_check.items():
        where = ", ".join(failure.protection for failure in same if failure.protection)
        behind = f" ({where})" if where else ""
        yield f"  FAILED {check}: expected {expected}, found {same[0].found}{behind}"
