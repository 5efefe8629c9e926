"""A stretch of a run as columns: what a recorder hands on, before anybody asks for single events.

Knows how the columns fit together, and the order of the events in them. Refuses to know how they
were recorded and where they go. SDM vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from emu.events import Accessed, Event, Executed
from emu.paging import PhysAddr, VirtAddr

ACCESS: Final = np.dtype(
    [
        ("va", "<u8"),
        ("pa", "<u8"),
        ("value", "<u8"),
        ("at", "<u4"),  # of the chunk's instructions, how many had begun: it is number at - 1
        ("size", "u1"),  # bytes
        ("is_write", "?"),
        ("has_va", "?"),  # False for an access that the instruction's operands do not show
    ],
    align=True,
)
"""One access, in the parts that the CPU made of it. `value` has no bits above its size."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Consecutive events of one CPU, as columns."""

    cpu: int
    first: int
    """How many instructions of the run came before."""
    shapes: Sequence[Executed]
    """Instructions by number: the same address and bytes have the same number in all chunks."""
    instructions: NDArray[np.uint32]
    """(n,) numbers into `shapes`."""
    registers: NDArray[np.uint64] | None
    """(n, 16): the general registers before each instruction, RAX first, if they were asked for."""
    accesses: NDArray[Any]
    """(m,) of ACCESS, in order."""
    others: Sequence[tuple[int, int, Event]]
    """All other events in order, each behind so many instructions and so many accesses."""

    def __len__(self) -> int:
        return len(self.instructions) + len(self.accesses) + len(self.others)

    def events(self) -> Iterator[Event]:
        """Yield the events, in order."""
        shapes = self.shapes
        registers = None if self.registers is None else self.registers.tolist()
        accesses = self.accesses.tolist()
        others = iter([*self.others, (len(self.instructions) + 1, len(accesses), None)])
        instructions, behind, event = next(others)
        done = 0
        for number, shape in enumerate([None, *self.instructions.tolist()]):
            if shape is not None:
                executed = shapes[shape]
                if registers is not None:
                    executed = executed._replace(registers=tuple(registers[number - 1]))
                yield executed
            while True:
                if instructions == number and behind <= done:
                    yield cast(Event, event)
                    instructions, behind, event = next(others)
                elif done < len(accesses) and accesses[done][3] <= number:
                    va, pa, value, _, size, is_write, has_va = accesses[done]
                    where = VirtAddr(va) if has_va else None
                    kind = "write" if is_write else "read"
                    yield Accessed(where, PhysAddr(pa), size, value, kind)  # type: ignore[arg-type]
                    done += 1
                else:
                    break


def chunk_of(events: Iterable[Event], *, cpu: int = 0, first: int = 0) -> Chunk:
    """Return the columns of events that are at hand: the inverse of `Chunk.events`."""
    numbers: dict[Executed, int] = {}
    instructions: list[int] = []
    registers: list[tuple[int, ...]] = []
    accesses: list[tuple[int, int, int, int, int, bool, bool]] = []
    others: list[tuple[int, int, Event]] = []
    for event in events:
        if isinstance(event, Executed):
            if event.registers is not None:
                registers.append(event.registers)
            shape = Executed(event.rip, event.code)
            instructions.append(numbers.setdefault(shape, len(numbers)))
        elif isinstance(event, Accessed):
            va, pa, size, value, kind = event
            at = len(instructions)
            accesses.append((va or 0, pa, value, at, size, kind == "write", va is not None))
        else:
            others.append((len(instructions), len(accesses), event))
    return Chunk(
        cpu=cpu,
        first=first,
        shapes=list(numbers),
        instructions=np.array(instructions, np.uint32),
        registers=np.array(registers, np.uint64) if registers else None,
        accesses=np.array(accesses, ACCESS),
        others=others,
    )
