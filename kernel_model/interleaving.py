"""Several CPUs inside the kernel at once, under a schedule that is given.

Knows how two calls of modelled functions are interleaved: a switch can only be where a function is
entered, and everything between two of these is one step. Refuses to know what the functions do.
Nothing runs at the same time, so the same schedule always gives the same run.

The calls are threads that hand one baton on, since each needs a Python stack of its own.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from emu import Stop

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


class Step(NamedTuple):
    """One step: by which CPU, and before which function it ended ("" at the end)."""

    cpu: int
    before: str


class Interleaved(NamedTuple):
    """How each CPU's call stopped, and the steps in the order in which they were made."""

    stops: tuple[Stop, ...]
    steps: tuple[Step, ...]


def interleave(
    kernel: "Kernel", calls: Sequence[Callable[[], Stop]], schedule: Sequence[int]
) -> Interleaved:
    """Run `calls`, one on each CPU, switching after each step to the CPU that `schedule` names.

    Behind the end of the schedule, or where it names a CPU that is done, the running CPU goes on;
    when that is done, the lowest that is not. Each call is a `Kernel.run`; what it raises comes out
    here. Raises ValueError for more calls than CPUs.
    """
    if len(calls) > len(kernel.machine.cpus):
        raise ValueError(f"{len(calls)} calls: expected at most {len(kernel.machine.cpus)}")
    return _Baton(kernel, calls, schedule).run()


def one_switch(steps: int, *, first: int, second: int) -> Iterator[tuple[int, ...]]:
    """Yield the schedules in which `first` is interrupted once, after 1 to `steps` of its steps."""
    for made in range(1, steps + 1):
        yield (*(first,) * made, second)


class _Baton:
    """Who may run. All threads but one wait for their event."""

    def __init__(
        self, kernel: "Kernel", calls: Sequence[Callable[[], Stop]], schedule: Sequence[int]
    ) -> None:
        self._kernel = kernel
        self._calls = calls
        self._schedule = iter(schedule)
        self._turn = [threading.Event() for _ in calls]
        self._over = threading.Event()
        self._todo = set(range(len(calls)))
        self._stops: dict[int, Stop] = {}
        self._steps: list[Step] = []
        self._error: BaseException | None = None
        self._now = next(self._schedule, 0)

    def run(self) -> Interleaved:
        kernel = self._kernel
        before, kernel.preempt = kernel.preempt, self._stepped
        here = kernel.cpu_nr
        threads = [
            threading.Thread(target=self._run_one, args=(cpu,), daemon=True)
            for cpu in range(len(self._calls))
        ]
        try:
            for thread in threads:
                thread.start()
            self._pass_on(self._now)
            self._over.wait()
        finally:
            kernel.preempt = before
            kernel.use_cpu(here)
        if self._error is not None:
            raise self._error
        stops = tuple(self._stops[cpu] for cpu in range(len(self._calls)))
        return Interleaved(stops, tuple(self._steps))

    def _run_one(self, cpu: int) -> None:
        self._turn[cpu].wait()
        self._turn[cpu].clear()
        try:
            self._kernel.use_cpu(cpu)
            self._stops[cpu] = self._calls[cpu]()
        except BaseException as error:  # noqa: BLE001 (it is raised again, in the caller's thread)
            self._error = error
            self._over.set()
            return
        self._todo.discard(cpu)
        self._steps.append(Step(cpu, ""))
        if not self._todo:
            self._over.set()
            return
        wanted = next(self._schedule, cpu)
        self._pass_on(wanted if wanted in self._todo else min(self._todo))

    def _stepped(self, name: str) -> None:
        """A function is about to be entered: perhaps it is another CPU's turn first."""
        cpu = self._now
        self._steps.append(Step(cpu, name))
        wanted = next(self._schedule, cpu)
        if wanted == cpu or wanted not in self._todo:
            return
        self._pass_on(wanted)
        self._turn[cpu].wait()
        self._turn[cpu].clear()
        self._kernel.use_cpu(cpu)

    def _pass_on(self, cpu: int) -> None:
        self._now = cpu
        self._turn[cpu].set()
