"""The kernel of a test: a Kernel, and how its last run ended.

Knows which table a fault was raised under. Refuses to know who asks. Linux vocabulary.
"""

from collections.abc import Callable
from typing import Any

from emu import PageFault, Stop
from emu.paging import ADDRESS
from kernel_model import Kernel, Mm, Task


class WatchedKernel(Kernel):
    """A Kernel that remembers how its last run ended."""

    last_stop: Stop | None = None

    def run(
        self, task: Task, what: "str | Callable[..., int | None]", *args: Any, **kwargs: Any
    ) -> Stop:
        """Run something in a task; see `Kernel.run`."""
        self.last_stop = super().run(task, what, *args, **kwargs)
        return self.last_stop

    def __repr__(self) -> str:
        return f"<Kernel {self.release.name} of {self.layout.levels} levels>"

    def describe(self, address: int) -> str | None:
        """Name an address of the kernel's text or data; None if it is in none."""
        return self.image.describe(address)

    def table_of(self, fault: PageFault) -> Mm | None:
        """Return the table that a fault was raised under; None if it has been freed since."""
        tables = (*self.pgd_list, *self.outside)
        return next((mm for mm in tables if mm.pgd == fault.cr3 & ADDRESS), None)
