"""Work that is done in a thread while the next is prepared: one piece at a time, in order.

For what leaves Python's lock alone: compression. Refuses to know what the work is.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Behind(Generic[T]):
    """A thread with at most one piece of work."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._work: Future[T] | None = None

    def result(self) -> T | None:
        """Return what the work that was begun has come to; None if there is none."""
        work, self._work = self._work, None
        return None if work is None else work.result()

    def begin(self, work: Callable[[], T]) -> None:
        """Begin the next piece, once the result of the one before was taken."""
        assert self._work is None
        self._work = self._thread.submit(work)

    def stop(self) -> None:
        """End the thread; what it still does is thrown away."""
        self._thread.shutdown()
