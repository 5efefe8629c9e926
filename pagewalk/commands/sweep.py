"""`pagewalk sweep`: a matrix of accesses, each judged by the CPU, by the walk and by an oracle.

Knows what is swept, and by whom. Refuses to know how a case is judged (`pagewalk.sweep`).
"""

import argparse
import json
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel_model.scenarios.spec import SCHEMA
from pagewalk.arguments import BadInput, bad, bad_name, number
from pagewalk.sweep.conditions import PATH, VOCABULARY, complete, written
from pagewalk.sweep.families import Family, families
from pagewalk.terminal import progress, show

if TYPE_CHECKING:
    from pagewalk.sweep.journal import Journal
    from pagewalk.sweep.judging import Judgement
    from pagewalk.sweep.tally import Tally, Unit

    Work = Generator[tuple[int, Tally], None, None]

OK, FAILED = 0, 1
_BAR_FROM = 20_000  # cases: what takes less than a second or so needs no progress bar
_ONLY_WHOLE = ("family", "sample", "seed", "jobs", "scheduler", "state", "fresh")
_MARK_TEXT = ("as it was", "A may be set", "A is set", "A and D are set")  # by the oracle's mark
_SHOWN = ("pde.pse", "pde.13", "pte.51")  # conditions that stand for others like them
_HELP = """\
A case is a list of conditions: those named hold, all others do not. An entry of which no condition
is named is open (present, writable, the user's) if the access may need it; naming one condition of
an entry spells that entry out. So "pde.rw write" writes below a PDE that is not present, and
"pde.empty" has a PDE of which nothing holds.

The sweep goes on where the last one with the same arguments was interrupted. Exit status: 0 if the
three agree, or differ only in ways of the engine's that have a name; 1 if they differ otherwise."""
_EXAMPLE = 'example: pagewalk sweep --case "pte.p pte.rw write user cr0.wp" --levels 4'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    known = families(5)
    parser.add_argument("--case", metavar="NAMES", help="rerun one case, and show its walk")
    parser.add_argument("--levels", metavar="4|5", help="one depth only (default: both)")
    parser.add_argument(
        "--family",
        metavar="FAMILY",
        action="append",
        help=f"sweep these only; may be repeated: {', '.join(known)}",
    )
    parser.add_argument("--sample", metavar="N", help="N cases drawn from all of them")
    parser.add_argument("--seed", metavar="N", help="which sample (default: 0)")
    parser.add_argument("--jobs", metavar="N", help="worker processes (default: one a core)")
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="work on the Dask cluster of this scheduler; it and its workers need pagewalk, too",
    )
    parser.add_argument(
        "--state", metavar="FILE", help="remember there what is finished (default: XDG_STATE_HOME)"
    )
    parser.add_argument("--fresh", action="store_true", help="begin at the beginning")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = f"{_HELP}\n\nconditions:\n{_vocabulary()}\n\n{_EXAMPLE}"


def run(args: argparse.Namespace) -> int:
    """Sweep, or rerun one case; 0 if all that differs is known."""
    if args.case is not None:
        return _one_case(args)
    chosen = _families(args)
    return _sweep(args, chosen, _units(args, chosen))


# -- what is swept


def _depths(args: argparse.Namespace) -> tuple[int, ...]:
    if args.levels not in (None, "4", "5"):
        bad("--levels", repr(args.levels), "4 or 5")
    return (4, 5) if args.levels is None else (int(args.levels),)


def _families(args: argparse.Namespace) -> list[Family]:
    for name in args.family or ():
        known = families(5)
        if name not in known:
            bad_name("--family", name, known)
    return [
        family
        for name in families(5)
        for levels in _depths(args)
        for family in (families(levels)[name],)
        if args.family is None or name in args.family
    ]


def _units(args: argparse.Namespace, chosen: list[Family]) -> "list[Unit]":
    from pagewalk.sweep.tally import sample, whole

    if args.sample is None:
        if args.seed is not None:
            bad("--seed", args.seed, "a --sample to draw")
        return whole(chosen)
    size = number("--sample", args.sample, least=1, most=sum(family.size for family in chosen))
    return sample(chosen, size, number("--seed", args.seed or "0"))


# -- a sweep


def _sweep(args: argparse.Namespace, chosen: list[Family], units: "list[Unit]") -> int:
    from pagewalk.sweep.report import Report
    from pagewalk.sweep.tally import from_json, merged

    work = _workers(args)
    with _journal(args, chosen) as journal:
        left = {i: unit for i, unit in enumerate(units) if i not in journal.finished}
        if len(left) < len(units):
            done = f"{len(units) - len(left)} of {len(units)} units"
            print(f"pagewalk: {done} are finished: going on (or --fresh)", file=sys.stderr)
        total = sum(len(unit.numbers) for unit in left.values())
        with progress("sweeping", total, _BAR_FROM) as advance, closing(work(left)) as results:
            for i, tally in results:
                journal.add(i, tally)
                if advance:
                    advance(len(units[i].numbers))
        report = Report(units, merged(from_json(tally) for tally in journal.finished.values()))
        if args.json:
            print(json.dumps(report.json(), indent=2))
        else:
            show(report.lines())
        sys.stdout.flush()
        journal.remove()
    return OK if report.explained else FAILED


def _workers(args: argparse.Namespace) -> "Callable[[Mapping[int, Unit]], Work]":
    """Return what does units, and yields them by number as they are done."""
    if args.scheduler is not None:
        from pagewalk.sweep.cluster import on_cluster

        if args.jobs is not None:
            bad("--jobs", args.jobs, "no --scheduler beside it")
        return partial(on_cluster, address=args.scheduler)
    from pagewalk.sweep.judging import do_unit
    from pagewalk.sweep.tally import KEPT
    from pagewalk.workers import nr_cores, on_cores

    jobs = nr_cores() if args.jobs is None else number("--jobs", args.jobs, least=1, most=1024)
    return partial(on_cores, do_unit, jobs=jobs, if_one_dies=f"; {KEPT}")


def _journal(args: argparse.Namespace, chosen: list[Family]) -> "Journal":
    from pagewalk.sweep.identity import identity
    from pagewalk.sweep.journal import Journal, NotOurs, default_path

    swept: dict[str, Any] = {
        "families": [[family.name, family.levels] for family in chosen],
        "sample": args.sample,
        "seed": args.seed,
    }
    key = {"sweep": swept, **identity()}
    if args.state is not None:
        if not args.state:
            bad("--state", "''", "a file")
        try:
            return Journal(Path(args.state), key, fresh=args.fresh)
        except NotOurs:
            bad("--state", repr(args.state), "no file yet, or a journal of this very sweep")
    name = sha256(json.dumps(swept).encode()).hexdigest()[:16]
    path = default_path(f"sweep-{name}.jsonl")
    try:
        return Journal(path, key, fresh=args.fresh)
    except NotOurs:  # by other sources, or torn in its first line
        assert path is not None
        path.unlink()
        return Journal(path, key)


# -- one case


def _one_case(args: argparse.Namespace) -> int:
    beside = next((name for name in _ONLY_WHOLE if getattr(args, name) not in (None, False)), None)
    if beside:
        raise BadInput(f"--{beside}: expected no --case beside it")
    names = args.case.split()
    if not names:
        bad("--case", repr(args.case), "the names of conditions (see --help)")
    depths = _depths(args)
    if args.levels is None and any(name.startswith("pml5e.") for name in names):
        depths = (5,)
    try:
        cases = {levels: complete(names, levels) for levels in depths}
    except ValueError as error:
        raise BadInput(f"--case {error}") from None

    from pagewalk.sweep.judging import judge
    from pagewalk.sweep.report import KNOWN

    judged = {levels: next(iter(judge([case], levels))) for levels, case in cases.items()}
    if args.json:
        documents = [_case_json(written(cases[n], n), n, judged[n]) for n in depths]
        print(json.dumps({"schema": SCHEMA, "cases": documents}, indent=2))
    else:
        for levels in depths:
            show(_case_lines(written(cases[levels], levels), levels, judged[levels]))
            if levels != depths[-1]:
                print()
    return OK if all(j.agrees() or j.deviation() in KNOWN for j in judged.values()) else FAILED


def _case_lines(case: str, levels: int, judged: "Judgement") -> "Iterator[str]":
    from emu.paging import ENTRY_NAME
    from pagewalk import render
    from pagewalk.sweep.report import KNOWN

    cpu, walk, oracle, wrong = judged.difference()
    by = judged.rule
    yield f"{case}, {levels} levels, at {judged.case.va:#x}"
    yield from render.walk_lines(judged.walk, judged.case.paging)
    yield f"CPU:    {cpu}"
    yield f"walk:   {walk}" + (f", by the rule {by}" if by else "")
    yield f"oracle: {oracle}"
    path = zip(range(levels, 0, -1), judged.case.entries, judged.after, strict=True)
    for (level, before, after), mark in zip(path, judged.prediction.marks, strict=True):
        yield (
            f"{ENTRY_NAME[level]:6} {before:#x}, afterwards {after:#x}; oracle: {_MARK_TEXT[mark]}"
        )
    if judged.agrees():
        yield "they agree"
        return
    name = judged.deviation()
    said = f"known deviation: {name}: {KNOWN[name]}" if name in KNOWN else "they do not agree"
    yield f"{said}; {wrong}" if wrong else said


def _case_json(case: str, levels: int, judged: "Judgement") -> dict[str, Any]:
    from kernel_model.scenarios.outcome import walk_json
    from pagewalk.sweep.report import KNOWN

    agrees = judged.agrees()
    name = None if agrees else judged.deviation()
    return {
        "case": case,
        "levels": levels,
        "address": f"{judged.case.va:#x}",
        "agree": agrees,
        "deviation": name,
        "known": name in KNOWN,
        **judged.difference()._asdict(),
        "rule": judged.rule,
        "entries_before": [f"{entry:#x}" for entry in judged.case.entries],
        "entries_after": [f"{entry:#x}" for entry in judged.after],
        "walk_read": walk_json(judged.walk, levels),
    }


def _vocabulary() -> str:
    """List the names; those of one entry stand for those of the others."""
    lines = []
    for name, what in VOCABULARY.items():
        entry, dot, word = name.partition(".")
        alike = entry in PATH[5] and (entry != "pte" or word.isdigit())
        if not (dot and alike) or name in _SHOWN:
            lines.append(f"  {name:14} {what}")
    lines.append("  … and likewise for pde, pdpte, pml4e and pml5e")
    return "\n".join(lines)
