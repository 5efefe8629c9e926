"""What a test runs, how each run ended, and the last that was recorded of it.

Knows the machines and kernels that are alive in a test. Refuses to know how that is told
(`report`), and pytest.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from emu import Cpu, Machine, PageFault, Stop, Trap, VirtAddr
from emu.walk import Walk, walk

if TYPE_CHECKING:
    from emu.events import Event
    from emu.trace import MachineRecorder, Recorder
    from pagewalk.testing.kernel import WatchedKernel
    from pagewalk.testing.machine import GuestMachine


_HANDLER: Final = 120
"""Events, about: of a kernel's own page-fault handler, up to the oops that ends a run."""


class Subject(Protocol):
    """What can be watched: a GuestMachine, a WatchedKernel."""

    last_stop: Stop | None

    @property
    def machine(self) -> Machine:
        """What it runs on."""

    @property
    def cpu(self) -> Cpu:
        """The CPU that ran last."""

    def symbol(self, text: str) -> int:
        """Return the address that a symbol names."""

    def describe(self, address: int) -> str | None:
        """Name an address."""


class Watched(NamedTuple):
    """A machine or a kernel, and its recorder, if it has one."""

    name: str
    subject: Subject
    recorder: "Recorder | MachineRecorder | None"

    @property
    def is_closed(self) -> bool:
        """Whether the test has freed it itself: then there are no tables to look at."""
        return not self.subject.machine.cpus

    def walk(self, va: int) -> Walk:
        """Walk `va` as the CPU that ran last would now."""
        memory = self.subject.machine.memory
        return walk(memory.read_u64, self.subject.cpu.paging, VirtAddr(va))

    def events(self) -> "list[Event]":
        """Return the last events that were recorded, the oldest first."""
        return [] if self.recorder is None else self.recorder.events()


Watching = list[Watched]
"""All that is alive in a test, in the order in which it was made."""


@contextmanager
def watched_machine(
    watching: Watching, *, keep: int, levels: int, features: dict[str, bool]
) -> "Iterator[GuestMachine]":
    """Make a machine, keep about the last `keep` events of its runs (0: none), and free it."""
    from pagewalk.testing.machine import GuestMachine

    with ExitStack() as stack:
        machine = stack.enter_context(GuestMachine(levels=levels, **features))
        recorder = None
        if keep:
            from emu.trace import Recorder

            recorder = stack.enter_context(Recorder(machine.cpu, keep=keep))
        stack.enter_context(_among(watching, Watched("machine", machine, recorder)))
        yield machine


@contextmanager
def watched_kernel(
    watching: Watching, release: str, *, keep: int, **options: Any
) -> "Iterator[WatchedKernel]":
    """Boot a kernel, keep about the last `keep` events of its runs (0: none), and free it."""
    from pagewalk.testing.kernel import WatchedKernel

    with ExitStack() as stack:
        kernel = stack.enter_context(WatchedKernel(release, **options))
        recorder = None
        if keep:
            from emu.trace import MachineRecorder

            if kernel.handles_faults:
                keep += _HANDLER
            # Not what Python writes (`recording`): that doubles the time of tests that populate.
            recorder = stack.enter_context(MachineRecorder(kernel.machine, keep=keep))
        name = f"kernel {release}, {kernel.layout.levels} levels"
        stack.enter_context(_among(watching, Watched(name, kernel, recorder)))
        yield kernel


@contextmanager
def _among(watching: Watching, watched: Watched) -> Iterator[None]:
    watching.append(watched)
    try:
        yield
    finally:
        watching.remove(watched)


def whose(watching: Watching, stop: Stop) -> Watched | None:
    """Return what stopped so: last of all, or else earlier, in the code that has its symbol."""
    for watched in watching:
        if watched.subject.last_stop is stop:
            return watched
    if isinstance(stop, (PageFault, Trap)) and stop.symbol:
        for watched in watching:
            if watched.subject.describe(stop.rip) == stop.symbol:
                return watched
    return None
