"""Doing units of work on every core: a pool of processes, which dies with whoever started it.

Knows about processes and Ctrl-C. Refuses to know what a unit is made of.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from emu import EmuError

Unit = TypeVar("Unit")
Result = TypeVar("Result")


class WorkerDied(EmuError):
    """A process that was doing units ended."""


def nr_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def on_cores(
    do: Callable[[Unit], Result], units: Mapping[int, Unit], *, jobs: int, if_one_dies: str = ""
) -> Generator[tuple[int, Result], None, None]:
    """Yield each unit's number and what `do` makes of it as it is done, in any order.

    `jobs` are done at a time; a single one by this process itself. Whoever stops iterating stops
    the work. Raises WorkerDied, whose text ends with `if_one_dies`.
    """
    if jobs == 1:
        for number, unit in units.items():
            yield number, do(unit)
        return
    # Neither forked nor interrupted: an engine survives no fork from a process with threads, and a
    # Ctrl-C is for the one who tells the others to stop.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(units)) or 1, context, _end_with_parent)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            numbers = {pool.submit(do, unit): number for number, unit in units.items()}
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for future in as_completed(list(numbers)):
            yield numbers.pop(future), future.result()
    except BrokenProcessPool:
        raise WorkerDied(f"a worker process ended{if_one_dies}") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process when the one that started it ends, however that comes."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
