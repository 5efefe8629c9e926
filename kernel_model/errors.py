"""How the model says no, and how a task's death travels through Python.

Knows the errnos that the modelled functions return. Refuses to know when.
"""

from typing import Final

from emu import EmuError, Stop

EBUSY: Final = 16
EEXIST: Final = 17
EINVAL: Final = 22
ENOMEM: Final = 12
ERANGE: Final = 34
ERRNO_NAME: Final = {
    EBUSY: "EBUSY",
    EEXIST: "EEXIST",
    EINVAL: "EINVAL",
    ENOMEM: "ENOMEM",
    ERANGE: "ERANGE",
}


class KernelError(EmuError):
    """The model was used in a way that no kernel can be."""


class TaskDied(KernelError):
    """The running task met `stop` and does not return to its callers.

    `Kernel.run` turns it back into the Stop; it is seen only by who calls a modelled function
    without `Kernel.run`.
    """

    def __init__(self, stop: Stop) -> None:
        super().__init__(f"the running task died: {stop}")
        self.stop = stop
