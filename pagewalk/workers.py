"""Doing units of work on every core: a pool of processes, which ends with whoever started it.

Knows about processes and Ctrl-C. Refuses to know what a unit is made of.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
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
    the work, units that are half done too. Raises WorkerDied, whose text ends with `if_one_dies`.
    """
    if jobs == 1:
        for number, unit in units.items():
            yield number, do(unit)
        return
    # Neither forked nor interrupted: an engine survives no fork from a process with threads, and a
    # Ctrl-C is for the one who tells the others to stop.
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(jobs, len(units)) or 1, context, _end_when_told, (told,))
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
    except BaseException:
        tell.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _end_when_told(told: Connection) -> None:
    """End this process when the other end of a pipe is closed: by the one who started it, or by
    its end, however that comes.
    """

    def end() -> None:
        wait([told])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
