"""What happened, as values; and how the values follow from what the hooks of `trace` leave.

Knows an instruction's operands, and so which linear address an access had: the engine reports
physical ones. Refuses to know how a run is recorded. SDM vocabulary.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import dropwhile
from typing import Any, Final, Literal, NamedTuple

from emu._unicorn import is_store, unpack_registers
from emu.fault import OutsideRam, PageFault, Shutdown, Trap
from emu.instruction import MemoryAccess, decode
from emu.interrupts import Delivery
from emu.paging import ENTRY_NAME, FRAME_SIZE, U64, PhysAddr, VirtAddr
from emu.registers import Registers

_OFFSET: Final = FRAME_SIZE - 1
_ANY: Final = Registers._make([1] * len(Registers._fields))


class Executed(NamedTuple):
    """An instruction completed; of a repeated string instruction, one iteration.

    `registers`, if they were asked for, are the 16 general ones before it, RAX first.
    """

    rip: VirtAddr
    code: bytes
    registers: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return f"Executed({self.rip:#x}, {self.code.hex(' ')})"


class Accessed(NamedTuple):
    """The instruction before it touched memory, in the parts that the CPU made of it.

    `va` is None for an access that the instruction's operands do not show: a descriptor's.
    """

    va: VirtAddr | None
    pa: PhysAddr
    size: int
    value: int
    kind: Literal["read", "write"]

    def __repr__(self) -> str:
        va = "None" if self.va is None else f"{self.va:#x}"
        return f"Accessed({va}, {self.pa:#x}, {self.size}, {self.value:#x}, {self.kind!r})"


class Cr3Switch(NamedTuple):
    """CR3 got another value: by the instruction before it, or between two runs."""

    old: int
    new: int

    def __repr__(self) -> str:
        return f"Cr3Switch({self.old:#x}, {self.new:#x})"


class WalkedStep(NamedTuple):
    """One entry that the CPU read on a walk, and what it left there: A and D may have been set."""

    level: int
    entry_pa: PhysAddr
    before: int
    after: int

    def __repr__(self) -> str:
        wrote = "" if self.before == self.after else f" -> {self.after:#x}"
        return f"{ENTRY_NAME[self.level]} @{self.entry_pa:#x} = {self.before:#x}{wrote}"


class Walked(NamedTuple):
    """The CPU walked the tables for `va`, since no TLB entry served: for the instruction before
    it if it is a read or a write, and for the instruction behind it if it is a fetch.

    `steps` are root first. The walk ended at the last of them, or at a table outside RAM.
    """

    va: VirtAddr
    kind: Literal["read", "write", "fetch"]
    user: bool
    steps: tuple[WalkedStep, ...]

    def __repr__(self) -> str:
        return f"Walked({self.va:#x}, {self.kind!r}, {', '.join(map(repr, self.steps))})"


class Invalidated(NamedTuple):
    """The instruction before it may have dropped translations from the TLB.

    `what` is "invlpg" with the address, or the register that was written with its new value.
    """

    what: Literal["invlpg", "cr0", "cr3", "cr4", "efer", "pkru"]
    value: int

    def __repr__(self) -> str:
        return f"Invalidated({self.what!r}, {self.value:#x})"


class Edited(NamedTuple):
    """Entries were written from outside the CPU, by what is called `by`: the nr of them from
    `entry_pa` on. `entry` is what the first holds now."""

    entry_pa: PhysAddr
    nr: int
    entry: int
    by: str

    def __repr__(self) -> str:
        return f"Edited({self.entry_pa:#x}, {self.nr}, {self.entry:#x}, {self.by!r})"


class Faulted(NamedTuple):
    """The run ended in a fault. `code` is the instruction, empty if it could not be fetched."""

    stop: PageFault | Trap | OutsideRam | Shutdown
    code: bytes


class Delivered(NamedTuple):
    """The guest's handler was entered. `code` is the instruction that faulted, as in `Faulted`."""

    delivery: Delivery
    code: bytes


Event = Executed | Accessed | Walked | Invalidated | Edited | Cr3Switch | Faulted | Delivered

Record = Any
"""What the hooks leave: an event, or (Executed, packed registers) of an instruction that touches
memory, or (kind, pa, size, value) of an access, as the engine reports it."""


class Operands:
    """The memory operands of one instruction, used up by the accesses that the CPU reports."""

    def __init__(self, executed: Executed, packed: bytes) -> None:
        # va, size, bytes that may still be read, bytes that may still be written
        self._left = [
            [access.va, access.size, access.size * access.reads, access.size * access.writes]
            for access in accesses(executed, packed)
        ]

    def take(self, is_write: bool, pa: int, size: int) -> VirtAddr | None:
        """Return the linear address of an access at `pa`: the operands come in their order."""
        which = 3 if is_write else 2
        for operand in self._left:
            offset = (pa - operand[0]) & _OFFSET
            if operand[which] > 0 and offset < operand[1]:
                operand[which] -= size
                return VirtAddr((operand[0] + offset) & U64)
        return None


def accesses(executed: Executed, packed: bytes) -> tuple[MemoryAccess, ...]:
    """List what the instruction touches, with these registers."""
    instruction = decode(executed.code)
    if instruction is None:
        return ()
    return instruction.accesses(unpack_registers(packed))


@lru_cache(maxsize=4096)
def kind_of(code: bytes) -> Literal["quiet", "touches memory", "repeats", "writes cr3"]:
    """Tell how an instruction must be recorded."""
    instruction = decode(code)
    if instruction is None:
        return "touches memory"  # perhaps: the engine knows it, capstone does not
    if instruction.mnemonic.startswith("rep"):
        return "repeats"
    if instruction.operands.startswith("cr3, "):
        return "writes cr3"
    return "touches memory" if instruction.accesses(_ANY) or instruction.implicit else "quiet"


def first_instruction(code: bytes, otherwise: bytes) -> bytes:
    """Return the one instruction at the start of `code`, or `otherwise` if there is none."""
    instruction = decode(code)
    return instruction.code if instruction else otherwise


def is_access(record: Record) -> bool:
    """Tell an access from an instruction or an event."""
    return type(record) is tuple and len(record) == 4


def to_events(records: Iterable[Record]) -> Iterator[Event]:
    """Give every access its linear address. What has lost its instruction is left out."""
    operands: Operands | None = None
    for record in dropwhile(is_access, records):
        if type(record) is not tuple:
            operands = None
            yield record
        elif len(record) == 2:
            operands = Operands(*record)
            yield record[0]
        else:
            kind, pa, size, value = record
            store = is_store(kind)
            va = operands.take(store, pa, size) if operands else None
            value &= (1 << 8 * size) - 1
            yield Accessed(va, PhysAddr(pa), size, value, "write" if store else "read")
