"""Ending a run from outside: Ctrl-C, and the wall clock.

Knows that Python's signal handler does not run while the engine does. One thread waits for
either event and stops the CPU; it repeats itself until the run has ended, since a stop that
arrives just before the engine starts is lost. Runs of microseconds are let through instead.
Refuses to know what is run.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")
SECONDS: Final = 60
"""How long a scenario may take."""


class Stoppable(Protocol):
    """What can be ended from another thread: a Cpu."""

    def stop(self) -> None:
        """End the current run."""


class Guard:
    """What became of a guarded run."""

    def __init__(self) -> None:
        self.interrupted = False
        self.timed_out = False


@contextmanager
def uninterrupted(run: Callable[[_T], _R]) -> Iterator[Callable[[_T], _R]]:
    """Give a `run` that Ctrl-C ends only when it is over; must be entered by the main thread.

    That is for short runs: a KeyboardInterrupt that is raised in a hook of the engine gets lost.
    """
    inside = came = False

    def on_signal(*_: object) -> None:
        nonlocal came
        came = True
        if not inside:
            raise KeyboardInterrupt

    def run_through(argument: _T) -> _R:
        nonlocal inside
        inside = True
        try:
            return run(argument)
        finally:
            inside = False
            if came:
                raise KeyboardInterrupt

    old_handler = signal.signal(signal.SIGINT, on_signal)
    try:
        yield run_through
    finally:
        signal.signal(signal.SIGINT, old_handler)


@contextmanager
def postponed() -> Iterator[Guard]:
    """Only note Ctrl-C; must be entered by the main thread. The body looks at the guard."""
    guard = Guard()

    def on_signal(*_: object) -> None:
        guard.interrupted = True

    old_handler = signal.signal(signal.SIGINT, on_signal)
    try:
        yield guard
    finally:
        signal.signal(signal.SIGINT, old_handler)


@contextmanager
def guarded(cpu: Stoppable, seconds: float | None = SECONDS) -> Iterator[Guard]:
    """Stop `cpu` on Ctrl-C, or when `seconds` have gone by; must be entered by the main thread.

    The body goes on when its run has been stopped, and looks at the guard to see why.
    """
    guard = Guard()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    done = threading.Event()

    def wait() -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        while not done.is_set():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([reader], [], [], left)
            if done.is_set():
                return
            guard.interrupted |= bool(ready)
            guard.timed_out |= not ready
            while not done.wait(0.02):
                cpu.stop()

    old_handler = signal.signal(signal.SIGINT, lambda *_: None)
    old_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield guard
    finally:
        done.set()
        os.write(writer, b"\0")
        thread.join()
        signal.set_wakeup_fd(old_fd)
        signal.signal(signal.SIGINT, old_handler)
        os.close(reader)
        os.close(writer)
