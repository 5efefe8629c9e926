"""What happened, as values.

Knows what there is to say of each kind of event. Refuses to know how a run is recorded, and how
an event looks. SDM vocabulary.
"""

from dataclasses import replace
from typing import Any, Literal, NamedTuple

from emu.fault import OutsideRam, PageFault, Shutdown, Trap
from emu.interrupts import Delivery
from emu.paging import ENTRY_NAME, Paging, PhysAddr, VirtAddr


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
    """The CPU walked the tables for the 4 KiB page at `va`, since its TLB did not serve: for the
    instruction before it if it is a read or a write, and for the one behind it if it is a fetch.

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
    """Neighbouring entries were written from outside the CPU, by what is called `by`.

    The first lies at `entry_pa`; `entries` are what they hold now.
    """

    entry_pa: PhysAddr
    entries: tuple[int, ...]
    by: str

    def __repr__(self) -> str:
        entries = ", ".join(f"{entry:#x}" for entry in self.entries)
        return f"Edited({self.entry_pa:#x}, [{entries}], {self.by!r})"


class Faulted(NamedTuple):
    """The run ended in a fault. `code` is the instruction, empty if it could not be fetched."""

    stop: PageFault | Trap | OutsideRam | Shutdown
    code: bytes


class Delivered(NamedTuple):
    """The guest's handler was entered. `code` is the instruction that faulted, as in `Faulted`."""

    delivery: Delivery
    code: bytes


Event = Executed | Accessed | Walked | Invalidated | Edited | Cr3Switch | Faulted | Delivered


def controls_after(paging: Paging, event: Event) -> Paging:
    """Return the control registers of an event's CPU after it."""
    changed: dict[str, Any] = {}
    if isinstance(event, Cr3Switch):
        changed["cr3"] = event.new
    elif isinstance(event, Invalidated) and event.what not in ("cr3", "invlpg"):
        changed[event.what] = event.value
    return replace(paging, **changed) if changed else paging
