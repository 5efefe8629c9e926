"""Cutting a tape: what the hooks have written becomes a Chunk.

Knows which linear addresses the accesses of an instruction had whose registers were kept for that,
and what the columns of a walk say. Refuses to know how the tape was written.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from emu._tape import LED_TO_A_PAGE, USER_MODE, WALK, Tape, Word
from emu._unicorn import unpack_registers
from emu.chunks import ACCESS, Chunk
from emu.events import Event, Executed, Walked, WalkedStep
from emu.operands import Operands
from emu.paging import (
    EFER_NXE,
    ENTRY_SIZE,
    FRAME_SIZE,
    MAXPHYADDR,
    PhysAddr,
    VirtAddr,
    reserved_masks,
)

_KIND: Final[tuple[Literal["read", "write", "fetch"], ...]] = ("read", "write", "fetch")


class Mark(NamedTuple):
    """An event that is on no tape, behind so many instructions, accesses and walks."""

    instructions: int
    accesses: int
    walks: int
    event: Event


class Script(NamedTuple):
    """What it takes to read a tape."""

    executed: Sequence[Executed]
    """Instructions by number."""
    snapshots: Mapping[int, bytes]
    """The registers before those instructions of which the tape does not say where; they are
    number so many minus 1."""
    marks: Sequence[Mark]
    levels: int
    holds: Callable[[int, int], bool]


def cut(tape: Tape, script: Script, *, cpu: int, first: int) -> Chunk:
    """Return what is on the tape. It is left as it is."""
    words = tape.words
    n, m = words[Word.HEAD], words[Word.ACCESSES]
    instructions = np.frombuffer(tape.instructions, np.uint32, n).copy()
    # As bytes: of a structure each field would be copied for itself, which takes 20 times as long.
    accesses = np.frombuffer(tape.accesses, np.uint8, m * ACCESS.itemsize).copy().view(ACCESS)
    if script.snapshots:
        _resolve(instructions, accesses, script)
    registers = None
    if tape.registers is not None:
        registers = np.frombuffer(tape.registers, np.uint64, 16 * n).reshape(n, 16).copy()
    return Chunk(
        cpu=cpu,
        first=first,
        shapes=script.executed,
        instructions=instructions,
        registers=registers,
        accesses=accesses,
        others=_others(tape, script),
    )


def _resolve(instructions: Any, accesses: Any, script: Script) -> None:
    """Give the accesses of the instructions with a snapshot their linear addresses."""
    numbers = np.array(list(script.snapshots), np.uint32)
    begins = np.searchsorted(accesses["at"], numbers)
    ends = np.searchsorted(accesses["at"], numbers + 1)
    for number, begin, end in zip(script.snapshots, begins, ends, strict=True):
        executed = script.executed[instructions[number - 1]]
        operands = Operands(executed, unpack_registers(script.snapshots[number]))
        for access in accesses[begin:end]:
            found = operands.take(bool(access["is_write"]), int(access["pa"]), int(access["size"]))
            access["va"], access["has_va"] = found or 0, found is not None


def _others(tape: Tape, script: Script) -> list[tuple[int, int, Event]]:
    """Merge the walks with the events that are on no tape."""
    found: list[tuple[int, int, Event]] = []
    walks = iter(range(tape.words[Word.WALKS]))
    number = next(walks, None)
    for instructions, accesses, nr_walks, event in script.marks:
        while number is not None and number < nr_walks:
            found.append(_walked(tape, script, number))
            number = next(walks, None)
        found.append((instructions, accesses, event))
    while number is not None:
        found.append(_walked(tape, script, number))
        number = next(walks, None)
    return found


def _walked(tape: Tape, script: Script, number: int) -> tuple[int, int, Walked]:
    at = number * WALK.size
    va, instructions, accesses, kind, mode, levels, done, *words = WALK.unpack_from(tape.walks, at)
    masks = reserved_masks(bool(words[-1] & EFER_NXE), MAXPHYADDR)
    top = script.levels
    steps = []
    for n in range(levels):
        entry_pa, before, after = words[3 * n : 3 * n + 3]
        if not script.holds(entry_pa, ENTRY_SIZE):
            break
        steps.append(_step(top - n, entry_pa, before, after))
        if done != LED_TO_A_PAGE and before & masks[2 * (top - n) + (before >> 7 & 1)]:
            break  # no walk that led to a page came by such an entry
    walked = Walked(VirtAddr(va & -FRAME_SIZE), _KIND[kind], mode == USER_MODE, tuple(steps))
    return instructions, accesses, walked


@lru_cache(maxsize=4096)
def _step(level: int, entry_pa: int, before: int, after: int) -> WalkedStep:
    return WalkedStep(level, PhysAddr(entry_pa), before, after)
