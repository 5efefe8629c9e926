"""`pagewalk show FILE`: print a trace file, or what of it somebody is looking for.

Knows the conditions' options, and what is said of a file that was cut off. Refuses to know how a
file is read, what a condition selects (`traces`) and how events look (`render_trace`).
"""

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from kernel_model.words import did_you_mean, is_number
from pagewalk.arguments import bad, number

if TYPE_CHECKING:
    from pagewalk.guard import Guard
    from pagewalk.traces.reading import Seen, Trace
    from pagewalk.traces.selecting import Selection, Span

_EPILOG: Final = """\
FILE is what `pagewalk trace` or `pagewalk run` has written with -o: .jsonl.zst or .parquet. What
is printed looks as `pagewalk trace` prints it. Conditions combine. With an access or a walk that
is selected comes the instruction it belongs to. A file that was cut off is read up to there.

--writes-to ENTRY: a physical address, or LEVEL:VA, LEVEL being PML5E, PML4E, PDPTE, PDE, PTE, or
  pgd, p4d, pud, pmd, pte; --task says in whose table.

--json: the outcome is that of the run, or "cut" if the file was cut off, or "interrupted".

exit status: 0 the file could be read, 2 bad input, 130 interrupted
example: pagewalk show run.jsonl.zst --va 0xffffe70000000000-0xffffe70000000fff"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a trace file")
    parser.add_argument(
        "--rip", metavar="A[-B]|SYMBOL", help="only instructions at these addresses; B is the last"
    )
    parser.add_argument(
        "--va", metavar="A[-B]", help="only accesses, walks and faults at these linear addresses"
    )
    parser.add_argument("--task", metavar="T", help="only what happened under T's table")
    parser.add_argument("--faults", action="store_true", help="only faults and exceptions")
    parser.add_argument("--last", metavar="N", help="only the last N events of what is selected")
    parser.add_argument(
        "--writes-to", metavar="ENTRY", help="tell who wrote a page-table entry, instead"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Print what is selected; 0 if the file could be read."""
    last = None if args.last is None else number("--last", args.last, least=1, most=10_000_000)
    from pagewalk.traces.reading import read_trace
    from pagewalk.traces.selecting import Selection

    names = {"rip": args.rip, "va": args.va}
    if args.writes_to is not None:
        others = {**names, "faults": args.faults or None, "last": args.last}
        for name, value in others.items():
            if value is not None:
                bad("--writes-to", repr(args.writes_to), f"no --{name} beside it")
    symbol = None
    if args.rip is not None and not _is_span(args.rip):
        symbol = args.rip.partition("/")[0]
    selection = Selection(
        rip=None if args.rip is None or symbol else _span("--rip", args.rip),
        symbol=symbol,
        va=None if args.va is None else _span("--va", args.va),
        task=args.task,
        faults=args.faults,
    )
    trace = read_trace(args.file)
    if args.writes_to is not None:
        _show_writes(trace, args)
    elif args.json:
        _print_json(trace, selection, last)
    else:
        from pagewalk.terminal import awaited, show

        show(awaited(_lines(trace, _selected(trace, selection, last)), f"reading {args.file}"))
    if trace.cut_off:
        print(
            f"pagewalk: {args.file} was cut off: it was read up to there, "
            f"{trace.nr_events} events ({trace.nr_instructions} instructions)",
            file=sys.stderr,
        )
    return 0


def _is_span(text: str) -> bool:
    return text[:1].isdigit() or is_number(text.partition("-")[0])


def _span(argument: str, text: str) -> "Span":
    """Read A or A-B."""
    from pagewalk.traces.selecting import Span

    first, dash, last = text.partition("-")
    start = number(argument, first)
    end = number(argument, last) if dash else start
    if end < start:
        bad(argument, repr(text), "A-B with B not below A")
    return Span(start, end)


def _selected(
    trace: "Trace", selection: "Selection", last: int | None, guard: "Guard | None" = None
) -> "Iterator[Seen]":
    """Yield the events that are wanted. If there are none, a name may be wrong: BadInput then.

    With a guard, Ctrl-C raises KeyboardInterrupt here and nowhere else.
    """
    from pagewalk.traces.selecting import groups

    def of_all() -> "Iterator[Seen]":
        for group in groups(trace.events()):
            if guard is not None and guard.interrupted:
                raise KeyboardInterrupt
            yield from selection.of(group, trace.symbols)

    nothing = True
    for seen in of_all() if last is None else deque(of_all(), maxlen=last):
        nothing = False
        yield seen
    if nothing:
        _check_names(trace, selection)


def _check_names(trace: "Trace", selection: "Selection") -> None:
    """Refuse names that are nowhere in the file, which has been read now."""
    task, symbol = selection.task, selection.symbol
    if task is not None and task not in trace.tasks.values():
        trace.has_no_task(task)
    known = {name.partition("/")[0] for name in trace.symbols.values()}
    known |= {name.partition("+")[0] for name in known}
    if symbol is not None and symbol not in known:
        near = did_you_mean(symbol, known)
        bad("--rip", repr(symbol), f"an address, or a symbol that the trace has{near}")


def _lines(trace: "Trace", found: "Iterator[Seen]") -> Iterator[str]:
    """Tell events to people."""
    from pagewalk.render_show import end_lines, header_line
    from pagewalk.render_trace import Lines

    first = list(islice(found, 1))  # or it is said that there can be nothing, before anything else
    yield header_line(trace)
    yield ""
    cpu, cr3 = 0, trace.header.paging.cr3
    lines = Lines(trace.symbols.get, lambda: replace(trace.paging(cpu), cr3=cr3))
    for seen in chain(first, found):
        cr3 = seen.cr3
        if seen.cpu != cpu:
            cpu = seen.cpu
            yield f"CPU {cpu}"
        yield from lines.of(seen.event)
    yield ""
    yield from end_lines(trace)


def _print_json(trace: "Trace", selection: "Selection", last: int | None) -> None:
    """Print the document while the file is read. It is whole even if that is interrupted."""
    from pagewalk.guard import postponed

    head = json.dumps(trace.header.as_json())[:-1] + ', "events": ['
    before = head + "\n"
    outcome = "cut"
    with postponed() as guard:
        try:
            for text in _objects(trace, _selected(trace, selection, last, guard)):
                sys.stdout.write(before + text)
                before = ",\n"
        except KeyboardInterrupt:
            outcome = "interrupted"
        if before != ",\n":
            sys.stdout.write(head)
        tail = {"instructions": trace.nr_instructions, "outcome": outcome, "stop": None}
        if trace.ending is not None:
            tail = trace.ending.found
        sys.stdout.write("\n], " + json.dumps(tail)[1:] + "\n")
    if guard.interrupted:
        raise KeyboardInterrupt


def _objects(trace: "Trace", found: "Iterator[Seen]") -> Iterator[str]:
    """Yield the events' objects, and before one of another CPU, one that says so."""
    from pagewalk.objects import Objects

    objects = Objects(trace.symbols.get, trace.header.paging.levels, trace.tasks.get)
    cpu = 0
    for seen in found:
        text = objects.of(seen.event)
        if seen.cpu != cpu:
            cpu = seen.cpu
            text = f'{{"event": "cpu", "cpu": {cpu}}},\n{text}'
        yield text


def _show_writes(trace: "Trace", args: argparse.Namespace) -> None:
    """Tell who wrote an entry."""
    from pagewalk import render_show
    from pagewalk.terminal import awaited, show, working
    from pagewalk.traces.entry_history import Held, find_entry, writes

    reading = f"reading {args.file}"
    with working(reading):
        entry = find_entry(trace, args.writes_to, args.task)
    held = Held(entry.pa)
    found = writes(trace, entry, held)
    if args.json:
        objects = [render_show.write_json(write, trace.symbols) for write in found]
        value = None if held.value is None else f"{held.value:#x}"
        document = {**render_show.entry_json(entry), "writes": objects, "holds": value}
        print(json.dumps({"schema": 1, "file": args.file, **document}, indent=2))
        return

    def lines() -> Iterator[str]:
        last = None
        first = list(islice(found, 1))
        yield f"Writes to {render_show.entry_text(entry, trace.header.paging.levels)}"
        for write in chain(first, found):
            yield from render_show.write_lines(write, trace.symbols)
            last = write
        yield render_show.last_line(entry, last, held.value, trace)

    show(awaited(lines(), reading))
