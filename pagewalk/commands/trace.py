"""`pagewalk trace FILE.S`: run a routine of one's own, and print everything that it does.

Knows what is printed, and prints while the run goes on. Refuses to know how it is made (`tracing`)
and how an event looks (`render_trace`).
"""

import argparse
import json
import sys
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

from pagewalk.recording import add_output_options, open_bare, wants_registers
from pagewalk.sources import add_run_options, shown
from pagewalk.tracing import Tracing, prepare

if TYPE_CHECKING:
    from pagewalk.bare import Bare
    from pagewalk.objects import Objects

_BATCH = 1_000  # events that are printed at once

_EPILOG = """\
FILE.S is in GNU as's Intel syntax. Its first function (or else its first label) is called; a
`ret` from it ends the run. Sections lie from 0xffffffff81000000 on (--user: 0x400000), each on
pages of its own with the rights of its flags; the stack has 16 KiB. All of that takes frames
from the top of RAM. There is no IDT: until the program's own lidt, a fault ends the run, and its
walk is printed; from then on exceptions go to its handlers.

Options may also stand in the file, in comment lines; the command line outranks them:

    # pagewalk: --map 0x1000=0x2000:rw --reg rdi=0x1000

--map: pages are always readable; w adds RW, x takes XD away, u adds US. From 2 MiB on, a SIZE
  is mapped with the largest pages that its addresses allow.
--reg: a 64-bit register or fs_base, gs_base; VALUE is a number, or a symbol of the file. RSP is
  as the routine finds it, and the return address is put there, if that is memory.
--max-steps: an iteration of a rep is one step.

exit status: 0 the routine returned, 1 it did not, 2 bad input, 130 interrupted
example: pagewalk trace copy.S --map 0x1000=0x2000:rw --reg rdi=0x1000 --reg rcx=8"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", metavar="FILE.S", help="an assembly source")
    add_run_options(parser)
    add_output_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Run the routine; 0 if it returned."""
    registers = wants_registers(args)
    bare, max_steps = prepare(args)
    try:
        tracing = Tracing(bare, max_steps, registers=registers)
        if args.output is not None:
            _write_file(bare, tracing, args)
        elif args.json:
            _print_json(bare, tracing, args.file)
        else:
            from pagewalk.terminal import show

            with closing(_lines(bare, tracing, args.file)) as lines:
                show(lines)
    finally:
        bare.close()
    if tracing.failure:
        print(f"pagewalk: {tracing.failure}", file=sys.stderr)
    return 0 if tracing.completed else 1


def _lines(bare: "Bare", tracing: Tracing, file: str) -> "Generator[str, None, None]":
    """Tell the run to people, while it goes on."""
    from pagewalk.render_trace import Lines

    paging = bare.cpu.paging
    name = bare.symbol(bare.entry) or "code"
    who = f"CPL {bare.cpu.cpl}, {paging.levels} levels, CR3 {paging.cr3:#x}"
    yield f"{shown(file)}: {name} at {bare.entry:#x}, {who}"
    for region in sorted((*bare.regions, *bare.maps), key=lambda region: region.va):
        yield (
            f"  {region.va:016x} - {region.last:016x}  pa {region.pa:#x}  {region.rights:4}  "
            f"{region.name}"
        )
    yield ""

    lines = Lines(bare.symbol, lambda: bare.cpu.paging)
    batch: list[str] = []  # one write for many lines
    try:
        for event in tracing.events():
            batch += lines.of(event)
            if len(batch) >= _BATCH:
                yield "\n".join(batch)
                batch.clear()
    except KeyboardInterrupt:
        yield "\n".join(batch)
        raise
    yield "\n".join([*batch, ""])
    yield _end_line(bare, tracing)


def _end_line(bare: "Bare", tracing: Tracing) -> str:
    from pagewalk.render_trace import end_line, outcome

    stop = tracing.stop
    word = "error" if stop is None else outcome(stop)
    return end_line(word, stop, tracing.instructions, tracing.failure, bare.symbol)


def _write_file(bare: "Bare", tracing: Tracing, args: argparse.Namespace) -> None:
    """Record into a file while the run goes on. It has an ending even if the run is interrupted."""
    file = open_bare(args.output, bare, shown(args.file), registers=wants_registers(args))
    ending = tracing.write(file)
    if args.json:
        print(json.dumps({**_head(bare, args.file), **ending, "written": file.as_json()}))
    else:
        if not tracing.interrupted:
            print(_end_line(bare, tracing))
        print(file)
    if tracing.interrupted:
        raise KeyboardInterrupt


def _print_json(bare: "Bare", tracing: Tracing, file: str) -> None:
    """Print the document while the run goes on. It is whole even if the run is interrupted."""
    from pagewalk.objects import Objects

    objects = Objects(bare.symbol, bare.cpu.paging.levels)
    write = sys.stdout.write
    write(json.dumps(_head(bare, file))[:-1] + ', "events": [')
    separator = "\n"
    interrupted = False
    batch = []
    with closing(tracing.events()) as events:
        try:
            for event in events:
                batch.append(objects.of(event))
                if len(batch) == _BATCH:
                    write(separator + ",\n".join(batch))
                    separator, batch = ",\n", []
        except KeyboardInterrupt:
            interrupted = True
    if batch:
        write(separator + ",\n".join(batch))
    write("\n], " + json.dumps(_tail(tracing, objects))[1:] + "\n")
    if interrupted:
        raise KeyboardInterrupt


def _head(bare: "Bare", file: str) -> "dict[str, object]":
    from kernel_model.scenarios.spec import SCHEMA

    paging = bare.cpu.paging
    return {
        "schema": SCHEMA,
        "file": shown(file),
        "levels": paging.levels,
        "cpl": bare.cpu.cpl,
        "cr3": f"{paging.cr3:#x}",
        "entry": f"{bare.entry:#x}",
    }


def _tail(tracing: Tracing, objects: "Objects") -> "dict[str, object]":
    from pagewalk.render_trace import outcome

    if tracing.stop is not None:
        ending = outcome(tracing.stop), objects.stop(tracing.stop)
    elif tracing.failure:
        ending = "error", {"kind": "error", "message": tracing.failure}
    else:
        ending = "limit", {"kind": "limit", "steps": None}  # Ctrl-C
    return {"instructions": tracing.instructions, "outcome": ending[0], "stop": ending[1]}
