"""Running a routine of one's own: its inputs, its limit and its end.

Knows what the command line and the source's header lines say, and how the run is cut into slices,
so that events come while it goes on. Refuses to know what becomes of them (`commands.trace`,
`playback.of_source`) and what a machine is made of (`bare`).
"""

import argparse
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from pagewalk.arguments import bad, number
from pagewalk.recording import ending_json
from pagewalk.sources import assemble_source, constants, header_options, read_source

if TYPE_CHECKING:
    from emu import Stop
    from emu.chunks import Chunk
    from emu.events import Event
    from pagewalk.bare import Bare, Region
    from pagewalk.guard import Guard
    from pagewalk.traces.files import TraceFile

_SLICE: Final = 1 << 16  # steps; what is recorded of them is held in memory
_PRINTED_SLICE: Final = 10_000  # where single events are wanted, soon
_MOST_STEPS: Final = 1 << 62


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
        self.interrupted = False
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

    def write(self, file: "TraceFile") -> dict[str, Any]:
        """Run, write what happens into a file and close it; return its ending.

        It has one even if Ctrl-C is pressed: that is in `interrupted`, and for the caller to raise.
        """
        from pagewalk.render_trace import outcome

        with closing(self.chunks()) as chunks:
            try:
                for chunk in chunks:
                    file.write(chunk)
            except KeyboardInterrupt:
                self.interrupted = True
        self.instructions = file.instructions
        stop, bare = self.stop, self._bare
        word = outcome(stop) if stop else "error" if self.failure else "limit"
        ending = ending_json(word, stop or self.failure, self.instructions, bare.cpu, bare.symbol)
        file.close(ending)
        return ending
