"""Going through the checklist: each step, on real tables and under the CPU.

Knows how a step is done, and that helpers are looked up when they are used: what is judged is
whatever stands under the name. Refuses to know which steps there are (`checklist`). Linux
vocabulary; source: mm/debug_vm_pgtable.c (v6.17).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from emu import PhysAddr
from kernel_model import inplace, pgtable, populate, swapops
from kernel_model.debug_vm_pgtable.args import BELOW, NUMBER, PATH, SIZE, Args
from kernel_model.debug_vm_pgtable.checklist import CHECKLIST, LACKING
from kernel_model.debug_vm_pgtable.judge import Judge, absent
from kernel_model.debug_vm_pgtable.report import Report
from kernel_model.debug_vm_pgtable.steps import (
    Ask,
    Cpu,
    Do,
    Given,
    Group,
    Helpers,
    Kept,
    Level,
    Look,
    Need,
    Offset,
    Put,
    Same,
    Step,
)
from kernel_model.entries import (
    PROTECTION_MAP,
    VM_EXEC,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
    pfn_entry,
    protection_name,
)
from kernel_model.layout import PAGE_SHIFT

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_RIGHTS: Final = VM_READ | VM_WRITE | VM_EXEC
_SWAPPED_OUT: Final = tuple(
    swapops.swp_entry_to_pte(entry) for entry in (swapops.EVERY_BIT, swapops.SwpEntry(0, 0))
)
_NOISE: Final = (1 << 64) - 1


def debug_vm_pgtable(kernel: "Kernel", seed: int, report: Report) -> None:
    """Check every helper, and fill `report`; the running task dies of a check that failed.

    `seed` decides the address. Raises OutOfFrames if the tables cannot be made; what was made is
    given back in any case.
    """
    args = Args(kernel, seed)
    report.vaddr = args.vaddr
    before = kernel.current.mm
    try:
        kernel.switch_mm(args.init())
        checker = Checker(kernel, args, report)
        with checker.judge.unhandled():
            for group in CHECKLIST:
                checker.go_through(group)
    finally:
        kernel.switch_mm(before)
        report.begin("destroy_args", "that all comes back")
        args.destroy(report)
    if report.failures:
        kernel.call("debug_vm_pgtable")  # its ud2


class Checker:
    """One run. The entry at hand is that of `_level`, made with the VM_* flags `_flags`."""

    def __init__(self, kernel: "Kernel", args: Args, report: Report) -> None:
        self.judge: Final = Judge(kernel, args.random)
        self._kernel: Final = kernel
        self._args: Final = args
        self._report: Final = report
        self._level: Level = "pte"
        self._flags = _RIGHTS
        self._protection = ""  # in a report, where the check is about one
        self._fresh = 0
        self._pfn = 0
        self._before = 0
        self._helpers: Final[dict[tuple[Level, str], Callable[[Any], Any]]] = {}
        self._do: Final[dict[type[Step], Callable[[Any], None]]] = {
            Ask: self._ask,
            Same: self._same,
            Given: self._given,
            Put: self._put,
            Do: self._change,
            Look: self._look,
            Kept: self._kept,
            Offset: self._offset,
            Cpu: self._cpu,
        }

    def go_through(self, group: Group) -> None:
        """Do the steps of a group, or what is to be done where the kernel leaves it out."""
        lacking = next((LACKING[need] for need in group.needs if not self._has(need)), "")
        self._report.begin(group.name, group.title, lacking)
        self._level, self._protection = group.level, ""
        self._begin(group, 0 if group.prot == "none" else _RIGHTS)
        if lacking:
            self._steps(group.otherwise)
            return
        for fresh in _SWAPPED_OUT if group.start == "swap" else (self._fresh,):
            self._fresh = fresh
            self._steps(group.steps)
        for flags in range(len(PROTECTION_MAP) if group.each else 0):
            self._protection = protection_name(flags)
            self._begin(group, flags)
            self._steps(group.each)

    def _begin(self, group: Group, flags: int) -> None:
        """Make the fresh entry."""
        self._flags = flags
        pfns = self._args.range if group.start == "range" else self._args.page
        self._pfn = pfns.get(group.level, 0)
        match group.start:
            case "noise":
                self._fresh = _NOISE
            case "pfn":
                self._fresh = self._pfn
            case _:
                self._fresh = pfn_entry(self._pfn, PROTECTION_MAP[flags])

    def _steps(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            self._do[type(step)](step)

    def _has(self, need: Need) -> bool:
        """Tell whether this kernel, with this memory, has what a group needs."""
        match need:
            case "p4d":
                return not self._kernel.pgtable.p4d_folded
            case "pmd-page" | "pud-page":
                return need.removesuffix("-page") in self._args.page
            case "pmd-range":
                return self._args.range_size >= SIZE["pmd"]
            case "pud-range":
                return self._args.range_size >= SIZE["pud"]
            case _:
                return need in self._kernel.release.entry_features

    # -- helpers by name

    def _helper(self, name: str) -> Callable[[Any], Any]:
        """Return a level's helper: its own, or the one that all levels share."""
        key = self._level, name
        if key not in self._helpers:
            self._helpers[key] = self._find_helper(name)
        return self._helpers[key]

    def _find_helper(self, name: str) -> Callable[[Any], Any]:
        own = f"{self._level}_{name}"
        for owner in (self._kernel.pgtable, self._args.entries, swapops):
            if hasattr(owner, own):
                return getattr(owner, own)  # type: ignore[no-any-return]
        for owner in (self._args.entries, swapops, pgtable):
            if hasattr(owner, name):
                return getattr(owner, name)  # type: ignore[no-any-return]
        raise AttributeError(f"no helper is called {own} or {name}")

    def _apply(self, helpers: Helpers, value: Any) -> Any:
        for name in helpers:
            value = self._helper(name)(value)
        return value

    def _text(self, helpers: Helpers, value: str) -> str:
        """Write it as C would, as in pte_young(pte_mkold(pte))."""
        for name in helpers:
            own = name if name.startswith(("is_", "make_", "pte_to_", "swp_entry_")) else ""
            value = f"{own or f'{self._level}_{name}'}({value})"
        return value

    def _check(self, check: str, expected: str, found: str, *, by_cpu: int = 0) -> None:
        self._report.check(
            check, self._level, expected, found, protection=self._protection, by_cpu=by_cpu
        )

    # -- steps on values

    def _ask(self, step: Ask) -> None:
        value = self._apply(step.of, self._fresh)
        found = bool(self._helper(step.predicate)(value))
        text = self._text((*step.of, step.predicate), self._level)
        self._check(text, str(step.wanted), f"{found}: {_show(value)}")

    def _same(self, step: Same) -> None:
        value = self._apply(step.of, self._fresh)
        found = self._args.entries.same(value, self._fresh)
        text = f"{self._level}_same({self._text(step.of, self._level)}, {self._level})"
        self._check(text, "True", f"{found}: {_show(value)} and {_show(self._fresh)}")

    def _given(self, step: Given) -> None:
        wanted = step.folded if self._kernel.pgtable.p4d_folded else step.real
        found = bool(self._helper(step.predicate)(step.value))
        self._check(self._text((step.predicate,), f"{step.value:#x}"), str(wanted), str(found))

    # -- steps on the entry in the table

    def _put(self, step: Put) -> None:
        inplace.set_at(self._args.place(self._level), self._apply(step.of, self._fresh))

    def _change(self, step: Do) -> None:
        level = BELOW[self._level] if step.below else self._level
        at = self._args.place(level)
        self._before = at.entry
        done: object = None
        match step.helper:
            case "populate":
                self._populate(at.pa)
            case "set_huge":
                done = inplace.set_huge(at, self._pfn, PROTECTION_MAP[_RIGHTS])
            case "set_access_flags":
                done = inplace.set_access_flags(at, self._apply(step.of, at.entry))
            case "deposit":
                self._args.deposits.deposit(at.pa, self._args.table["pte"])
            case "withdraw":
                done = self._args.deposits.withdraw(at.pa) == self._args.table["pte"]
            case helper:
                shared = getattr(inplace, helper)
                done = getattr(inplace, f"{level}_{helper}", shared)(at)
        if step.wanted is not None:
            was = f"{_show(self._before)} became {_show(at.entry)}"
            text = f"{self._level}_{step.helper}({self._level}p)"
            self._check(text, str(step.wanted), f"{bool(done)}: {was}")

    def _populate(self, entry_pa: PhysAddr) -> None:
        """Put the table that belongs there under the entry."""
        kernel, addr = self._kernel, self._args.vaddr
        table = self._args.table[BELOW[self._level]]
        match self._level:
            case "pgd":
                populate.pgd_populate(kernel, addr, entry_pa, table, PATH)
            case "p4d":
                populate.p4d_populate(kernel, addr, entry_pa, table, PATH)
            case "pud":
                populate.pud_populate(kernel, entry_pa, table)
            case _:
                populate.pmd_populate_kernel(kernel, entry_pa, table)

    def _look(self, step: Look) -> None:
        wanted = step.wanted
        if wanted == "as-protected":
            wanted = self._readable if step.predicate == "young" else self._writable
        entry = self._args.place(self._level).entry
        found = bool(self._helper(step.predicate)(entry))
        text = f"{self._text((step.predicate,), f'*{self._level}p')}"
        self._check(text, str(wanted), f"{found}: {_show(entry)}")

    def _kept(self, _: Kept) -> None:
        entry = self._args.place(self._level).entry
        self._check(f"*{self._level}p is kept", _show(self._before), _show(entry))

    def _offset(self, _: Offset) -> None:
        at, pgd = self._args.at, self._args.at["pgd"]
        is_folded = self._kernel.pgtable.p4d_offset(pgd, self._args.vaddr) == pgd
        wanted = self._kernel.pgtable.p4d_folded
        self._check("p4d_offset(pgdp) is pgdp", str(wanted), f"{is_folded}: {at['p4d']:#x}")

    # -- the CPU

    @property
    def _readable(self) -> bool:
        return bool(self._flags & _RIGHTS)

    @property
    def _writable(self) -> bool:
        return self._flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED

    def _cpu(self, step: Cpu) -> None:
        kind, _, which = step.access.partition(" ")
        size = SIZE.get(self._level, SIZE["pte"])
        offset = {"": self._args.vaddr % size, "last": size - 8, "behind": size}[which]
        addr = (self._args.vaddr & -size) + offset
        pa = PhysAddr((self._pfn << PAGE_SHIFT) + offset) if which != "behind" else None
        expected, found = self._expected(step, kind), self.judge.verdict(kind, addr, pa)
        if expected == "absent":  # at whatever level
            found = found.replace("absent at", "absent: at", 1)
        self._check(f"the CPU's {step.access} at {addr:#x}", expected, found, by_cpu=1)

    def _expected(self, step: Cpu, kind: str) -> str:
        verdict: str = step.verdict
        if verdict == "as-protected":
            verdict = "allowed" if kind == "read" or self._writable else "refused"
        if not self._readable:
            verdict = "absent"
        if verdict == "absent below":
            return self._absent(BELOW[self._level])
        if verdict == "absent" and step.access != "read behind":
            return self._absent(self._level)
        return verdict

    def _absent(self, level: Level) -> str:
        return absent(NUMBER[level], self._args.at[level])


def _show(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else repr(value)
