"""A table's entries, as somebody has left them in RAM: where they lie, and whether they are right.

Knows that A and D are the CPU's to set. Refuses to know what the entries lead to.
"""

from collections.abc import Iterable, Sequence

from emu.memory import PhysMemory
from emu.paging import ADDRESS, ENTRIES, ENTRY_SIZE, A, D, P
from pagewalk.labs.lab import Lost


def entry_pa(table: int, slot: int) -> int:
    """Return where an entry of a table lies; `table` may be a CR3."""
    return (table & ADDRESS) + ENTRY_SIZE * slot


def flags_given(entry: int) -> int:
    """Return an entry's flags but for A and D, which are the CPU's to set."""
    return entry & ~ADDRESS & ~(A | D)


def read_table(memory: PhysMemory, table: int) -> list[int]:
    """Return all entries of the table at `table`, which is in RAM."""
    at = table // ENTRY_SIZE
    return memory.words[at : at + ENTRIES].tolist()


def filled(before: Sequence[int], reference: Sequence[int], slots: Iterable[int]) -> list[int]:
    """Return a table after what it lacked in these slots was copied from another one."""
    wanted = set(slots)
    return [
        reference[slot] if slot in wanted and not entry & P else entry
        for slot, entry in enumerate(before)
    ]


def require_equal(whose: str, found: Sequence[int], wanted: Sequence[int]) -> None:
    """Raise Lost, naming the slot, unless the tables are the same but for A."""
    for slot, (entry, right) in enumerate(zip(found, wanted, strict=True)):
        if (entry ^ right) & ~A:
            raise Lost(f"slot {slot} of {whose} holds {entry:#x} then: expected {right:#x}")
