"""`pagewalk trace FILE.S`: run a routine of one's own, and print everything that it does.

Knows the run's inputs, its limit and its end, and prints while it goes on. Refuses to know how an
event looks (`render_trace`) and what a machine is made of (`bare`).
"""

import argparse
import json
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from pagewalk.arguments import bad, number
from pagewalk.recording import (
    add_output_options,
    ending_json,
    open_bare,
    wants_registers,
)
from pagewalk.sources import (
    add_run_options,
    assemble_source,
    constants,
    header_options,
    read_source,
    shown,
)

if TYPE_CHECKING:
    from emu import Stop
    from emu.chunks import Chunk
    from emu.events import Event
    from pagewalk.bare import Bare, Region
    from pagewalk.guard import Guard
    from pagewalk.objects import Objects

_SLICE = 1 << 16  # steps; what is recorded of them is held in memory
_PRINTED_SLICE = 10_000  # where single events are wanted, soon
_BATCH = 1_000  # events that are printed at once
_MOST_STEPS = 1 << 62

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


def prepare(args: argparse.Namespace) -> "tuple[Bare, int]":
    """Check every input, and return the machine and the limit; nothing has been printed."""
    text = read_source(args.file)
    header = header_options(text, args.file)
    values = constants([*header.set, *args.set])

    def said(name: str, default: str) -> str:
        for options in (args, header):
            if getattr(options, name) is not None:
                return str(getattr(options, name))
        return default

    from pagewalk.bare import Bare, Wanted, read_maps, read_ram, read_registers
    from pagewalk.placing import MAX_STEPS

    levels = said("levels", "4")
    if levels not in ("4", "5"):
        bad("--levels", repr(levels), "4 or 5")
    max_steps = number("--max-steps", said("max_steps", str(MAX_STEPS)), least=1, most=_MOST_STEPS)
    ram = read_ram(said("ram", "1G"))
    maps = read_maps(args.map, ram, int(levels))
    wanted = Wanted(
        levels=int(levels),
        ram=ram,
        user=bool(header.user if args.user is None else args.user),
        entry=header.entry if args.entry is None else args.entry,
        maps=(*_unless_overlapped(read_maps(header.map, ram, int(levels)), maps), *maps),
        registers={**read_registers(header.reg), **read_registers(args.reg)},
    )
    return Bare(assemble_source(text, args.file, values), args.file, wanted), max_steps


def _unless_overlapped(
    weaker: "tuple[Region, ...]", stronger: "tuple[Region, ...]"
) -> "Iterator[Region]":
    """Yield the maps that no stronger one replaces."""
    return (r for r in weaker if not any(r.overlaps(other) for other in stronger))


class Tracing:
    """One run, in slices: events come while it goes on, and little of it is in memory."""

    def __init__(self, bare: "Bare", max_steps: int, *, registers: bool) -> None:
        self.stop: Stop | None = None
        self.failure: str | None = None
        self.instructions = 0
        self._bare = bare
        self._max_steps = max_steps
        self._registers = registers
        self._guard: Guard
        import emu.chunks  # noqa: F401 (NumPy takes its time, and the run is not to wait for it)

    @property
    def completed(self) -> bool:
        """Whether the routine has returned."""
        from emu import Returned

        return isinstance(self.stop, Returned)

    def chunks(self, steps: int = _SLICE) -> "Generator[Chunk, None, None]":
        """Run, and yield what happens; `stop` is known afterwards, unless the engine failed.

        Ctrl-C raises KeyboardInterrupt here and in `events` and nowhere else, so that whoever
        prints is never stopped between half a line and the other half.
        """
        from emu import EngineError, StepLimit, VirtAddr
        from emu.trace import Recorder
        from pagewalk.guard import guarded

        cpu, rip = self._bare.cpu, VirtAddr(self._bare.entry)
        recorder = Recorder(cpu, registers=self._registers)
        with recorder, guarded(cpu, seconds=None) as guard:
            self._guard = guard
            while not guard.interrupted:
                left = self._max_steps - recorder.steps
                if left <= 0 and rip != self._bare.returns_to:
                    self.stop = StepLimit(rip, self._max_steps)
                    return
                try:
                    stop = cpu.run(
                        rip,
                        returns_to=self._bare.returns_to,
                        step_limit=max(1, min(left, steps)),
                    )
                except EngineError as error:
                    self.failure = f"the engine cannot go on: {error}"
                yield from recorder.drain_chunks()
                if self.failure:
                    return
                if not isinstance(stop, StepLimit):
                    self.stop = stop
                    return
                rip = stop.rip
            raise KeyboardInterrupt

    def events(self) -> "Generator[Event, None, None]":
        """Run, and yield the events of `chunks`, counting instructions."""
        from emu.events import Executed

        for chunk in self.chunks(_PRINTED_SLICE):
            for event in chunk.events():
                self.instructions += isinstance(event, Executed)
                yield event
                if self._guard.interrupted:
                    raise KeyboardInterrupt


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
    from pagewalk.render_trace import outcome

    file = open_bare(args.output, bare, shown(args.file), registers=wants_registers(args))
    interrupted = False
    with closing(tracing.chunks()) as chunks:
        try:
            for chunk in chunks:
                file.write(chunk)
        except KeyboardInterrupt:
            interrupted = True
    tracing.instructions = file.instructions
    stop = tracing.stop
    word = outcome(stop) if stop else "error" if tracing.failure else "limit"
    ending = ending_json(word, stop or tracing.failure, file.instructions, bare.cpu, bare.symbol)
    file.close(ending)
    if args.json:
        print(json.dumps({**_head(bare, args.file), **ending, "written": file.as_json()}))
    else:
        if not interrupted:
            print(_end_line(bare, tracing))
        print(file)
    if interrupted:
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
