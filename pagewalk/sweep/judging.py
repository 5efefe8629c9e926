"""Judging cases: what the CPU did, what the tables say, and what the oracle predicted.

Knows when the three agree, and the names of the ways in which the engine is known not to. What
differs otherwise has no such name, and is an error of one of the three.
"""

import threading
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from emu import Refusal, Walk, refusal
from emu.fault import VECTOR_NAME
from emu.paging import ENTRY_NAME, A, D, maps_page
from emu.walk import walk
from pagewalk.sweep import oracle
from pagewalk.sweep.bench import NO_VECTOR, THROUGH, Bench, Outcome
from pagewalk.sweep.conditions import Conditions
from pagewalk.sweep.entries import Setting, page, setting
from pagewalk.sweep.families import families
from pagewalk.sweep.tally import Difference, Found, Tally, Unit

_MUST_GET: Final = (0, 0, A, A | D)  # by the oracle's mark
_MAY_GET: Final = (0, A, A, A | D)


class Judgement(NamedTuple):
    """One case, and what is known of it; `refusal` is what the rights make of the walk."""

    case: Setting
    outcome: Outcome
    after: tuple[int, ...]
    prediction: oracle.Prediction
    walk: Walk
    refusal: Refusal | None

    @property
    def rule(self) -> str | None:
        """The id of the rule by which walk and rights refuse the access."""
        if self.walk.verdict == "non-canonical":
            return self.walk.verdict
        return None if self.refusal is None else self.refusal.reason

    @property
    def ruled(self) -> Outcome:
        """What walk and rights say that the access comes to."""
        if self.walk.verdict == "non-canonical":
            return Outcome(13, 0)
        if self.refusal is None:
            pa = self.walk.pa
            return THROUGH if pa == page(self.case.va, self.walk.level) else _elsewhere(pa)
        return Outcome(14, self.refusal.error_code, self.case.va)

    def agrees(self) -> bool:
        """Tell whether CPU, walk and oracle say the same."""
        predicted = self.prediction[:3]
        return (
            self.outcome[:3] == predicted
            and self.ruled[:3] == predicted
            and not self.wrong_entries()
        )

    def wrong_entries(self) -> list[tuple[int, str]]:
        """Return the level of each entry that became what it may not, and what is wrong."""
        entries, marks = self.case.entries, self.prediction.marks
        level = len(entries)
        wrong = []
        for before, after, mark in zip(entries, self.after, marks, strict=True):
            if after != before or mark > oracle.MAY_BE_ACCESSED:
                extra = after & ~(before | _MAY_GET[mark])
                lacking = (before | _MUST_GET[mark]) & ~after
                if extra or lacking:
                    wrong.append((level, _bits_text(extra, lacking)))
            level -= 1
        return wrong

    def difference(self) -> Difference:
        """Say what the three say."""
        va = self.case.va
        predicted = Outcome(*self.prediction[:3])
        return Difference(
            cpu=outcome_text(self.outcome, va),
            walk=outcome_text(self.ruled, va),
            oracle=outcome_text(predicted, va),
            entries=", ".join(f"{ENTRY_NAME[n]} {what}" for n, what in self.wrong_entries()),
        )

    def deviation(self) -> str:
        """Name the class that a case belongs to on which the three differ."""
        difference = self.difference()
        if difference.cpu == difference.walk == difference.oracle and self._only_leaf_gets_a():
            if self.walk.level == 3:
                return "refused-gigabyte"
            if self.case.update:
                return "refused-update"
        cpu, *others = (said.partition(":")[0] for said in difference[:3])
        unnamed = f"CPU {cpu}; walk {others[0]}; oracle {others[1]}"
        return f"{unnamed}; {difference.entries}" if difference.entries else unnamed

    def _only_leaf_gets_a(self) -> bool:
        """Tell whether A in the entry that should map the page is all that is wrong."""
        level, _, entry = self.walk.steps[-1] if self.walk.steps else (0, 0, 0)
        return (
            self.walk.verdict in ("mapped", "reserved-bit")
            and maps_page(entry, level)
            and self.wrong_entries() == [(level, "gets A")]
        )


def _elsewhere(pa: int | None) -> Outcome:
    return Outcome(
        NO_VECTOR, otherwise=f"leads to pa {pa:#x}" if pa is not None else "leads nowhere"
    )


def do_unit(unit: Unit) -> Tally:
    """Judge all cases of a unit, on this thread's own machines."""
    cases = families(unit.levels)[unit.family].cases(unit.numbers)
    tally: Tally = {}
    for number, judgement in zip(unit.numbers, judge(cases, unit.levels), strict=True):
        if not judgement.agrees():
            name = judgement.deviation()
            known = tally.get(name)
            if known is None:
                tally[name] = Found(1, unit.family, unit.levels, number, judgement.difference())
            else:
                tally[name] = known._replace(cases=known.cases + 1)
    return tally


def judge(cases: Iterable[Conditions], levels: int) -> Iterator[Judgement]:
    """Yield what is known of each case, in order."""
    bench = _bench(levels)
    read, root = bench.memory.read_u64, bench.root
    for conditions in cases:
        case = setting(conditions, levels, root)
        outcome, after = bench.do(case)
        predicted = oracle.predict(conditions, levels, case.va)
        found = walk(read, case.paging, case.va)
        try:
            refused = refusal(found, case.access, case.paging) if found.steps else None
        except ValueError as error:  # no walk that can page-fault
            refused = Refusal(0, str(error))
        yield tuple.__new__(Judgement, (case, outcome, after, predicted, found, refused))


_of_thread = threading.local()  # an engine belongs to one thread


def _bench(levels: int) -> Bench:
    """Return this thread's machine of a depth."""
    benches: dict[int, Bench] = _of_thread.__dict__.setdefault("benches", {})
    if levels not in benches:
        benches[levels] = Bench(levels)
    return benches[levels]


def outcome_text(outcome: Outcome, va: int) -> str:
    """Say what an access came to; CR2 only where it is not the address."""
    vector, error_code, cr2, otherwise = outcome
    if otherwise:
        return otherwise
    if vector is None:
        return "goes through"
    text = VECTOR_NAME[vector] + ("" if error_code is None else f" {error_code:#x}")
    expected = va if vector == oracle.PAGE_FAULT else None
    return text if cr2 == expected else f"{text} with a wrong CR2"


def _bits_text(extra: int, lacking: int) -> str:
    texts = []
    for verb, bits in (("gets", extra), ("lacks", lacking)):
        names = [name for name, bit in (("A", A), ("D", D)) if bits & bit]
        if bits & ~(A | D):
            names.append(f"{bits & ~(A | D):#x}")
        if bits:
            texts.append(f"{verb} {' and '.join(names)}")
    return ", ".join(texts)
