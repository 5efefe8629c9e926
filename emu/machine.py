"""A machine: one physical memory, n CPUs over it.

Knows what must be created and freed together. Refuses to know what runs on it.
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Final

from emu.cpu import Cpu
from emu.memory import Frames, PhysMemory
from emu.paging import Paging


class Machine:
    """RAM, free frames and CPUs; paging is on, from a root whose 512 entries are empty.

    `ram` is a size in bytes or (start, end) pieces; `paging` replaces the root and the default
    features; `code` lists the physical ranges that will hold code which the guest may also
    store to. Frames come from the last piece of RAM only, from its end down to `frames_floor` (by
    default its start): what lies below is the caller's. Free with close(), with `with`, or by
    dropping the last reference.
    """

    def __init__(
        self,
        *,
        ram: int | Iterable[tuple[int, int]] = 1 << 30,
        levels: int = 4,
        cpus: int = 1,
        paging: Paging | None = None,
        code: Iterable[tuple[int, int]] = (),
        frames_floor: int | None = None,
    ) -> None:
        if cpus < 1:
            raise ValueError(f"{cpus} CPUs: expected at least 1")
        self.memory: Final = PhysMemory(ram)
        last = self.memory.pieces[-1]
        floor = last.start if frames_floor is None else frames_floor
        self.frames: Final = Frames(self.memory, floor, last.end)
        if paging is None:
            paging = Paging.long_mode(self.frames.allocate(), levels=levels)
        code = tuple(code)
        self._cpus = tuple(Cpu(self.memory, paging, code=code) for _ in range(cpus))

    @property
    def cpus(self) -> tuple[Cpu, ...]:
        """All CPUs."""
        return self._cpus

    @property
    def cpu(self) -> Cpu:
        """The first CPU."""
        return self._cpus[0]

    def close(self) -> None:
        """Free the CPUs, then the memory under them. The machine is of no use afterwards."""
        for cpu in self._cpus:
            cpu.close()
        self._cpus = ()
        self.memory.close()

    def __enter__(self) -> "Machine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
