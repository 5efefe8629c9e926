"""A machine: one physical memory, n CPUs over it, and whose turn it is.

Knows what must be created and freed together, and how CPUs take turns. Refuses to know what runs
on it.

What a CPU sees of what another one did, the one rule:

* A store is in RAM at once, for all, and in program order; so are the A and D bits of a walk.
* A changed table is seen by a CPU whose TLB does not hold what it said before. What was not present
  or not allowed is in no TLB, so more is seen at once; less, only after that CPU's own `invlpg` or
  write of CR3, or `Cpu.invalidate_tlb`. No other CPU is told: shootdown is up to the guest.
* Changed code, by whatever mapping it was changed and by whom, is seen when that CPU has its next
  turn: a turn begins with no instruction cached. A plain `Cpu.run` goes by `cpu`'s rule instead.
* A turn is whole instructions, so no CPU comes between the load and the store of another's
  read-modify-write, with `lock` or without. Only a rep can be left half done, between iterations.

Hardware may remember more than it used, and upper-level entries by themselves; this does not.
"""

from collections.abc import Iterable
from typing import Final

from emu.cpu import Cpu
from emu.fault import StepLimit, Stop
from emu.memory import Frames, PhysMemory
from emu.paging import Paging


class Machine:
    """RAM, free frames and CPUs; paging is on, from a root whose 512 entries are empty.

    `ram` is a size in bytes or (start, end) pieces; `paging` replaces the root and the default
    features; `code` lists the physical ranges that will hold code which the guest may also
    store to. Frames come from `frames`, (floor, ceiling), from the ceiling down; by default that is
    the last piece of RAM. All other RAM is the caller's. Free with close(), with `with`, or by
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
        frames: tuple[int, int] | None = None,
    ) -> None:
        if cpus < 1:
            raise ValueError(f"{cpus} CPUs: expected at least 1")
        self.memory: Final[PhysMemory] = PhysMemory(ram)
        self.frames: Final[Frames] = Frames(self.memory, *(frames or self.memory.pieces[-1]))
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

    def interleave(self, schedule: Iterable[tuple[int, int]]) -> list[Stop]:
        """Give the CPUs turns, and return how each of them ended.

        A turn is (which CPU, how many steps). The CPU goes on from the RIP that it has: behind the
        `hlt` that ended its last turn, and once more with an instruction that faulted. A turn that
        is used up is a StepLimit. The schedule is asked for a turn when that begins, so it may
        change tables and registers in between; ValueError for a turn that cannot be given, when
        it comes to that. `stop` on the CPU whose turn it is ends them all.
        """
        stops: list[Stop] = []
        for turn, (number, steps) in enumerate(schedule):
            if not 0 <= number < len(self._cpus):
                last = len(self._cpus) - 1
                raise ValueError(f"turn {turn}: CPU {number}: expected one of 0 to {last}")
            if steps < 1:
                raise ValueError(f"turn {turn}: {steps} steps: expected at least 1")
            cpu = self._cpus[number]
            cpu.invalidate_code()
            stop = cpu.run(cpu.registers.rip, step_limit=steps)
            stops.append(stop)
            if isinstance(stop, StepLimit) and stop.steps is None:
                break
        return stops

    def close(self) -> None:
        """Free the CPUs, then the memory under them. The machine is of no use afterwards."""
        for cpu in self._cpus:
            cpu.close()
        self._cpus = ()
        self.memory.close()

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
