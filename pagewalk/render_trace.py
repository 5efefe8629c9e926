"""Text of a trace: instructions, accesses, CR3 switches, faults with their walks.

Knows how an event looks to people; `objects` is for programs. Refuses to know where events come
from. The walk itself looks as it does everywhere (`render`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from asm.engines import disassemble
from emu import Halted, OutsideRam, PageFault, Paging, Returned, Shutdown, StepLimit, Stop, Trap
from emu.events import (
    Accessed,
    Cr3Switch,
    Delivered,
    Edited,
    Event,
    Executed,
    Invalidated,
    Walked,
    WalkedStep,
)
from emu.paging import ENTRY_NAME, FRAME_SIZE, RW, US, XD, A, D
from emu.registers import GENERAL
from pagewalk import render

Symbolise = Callable[[int], str | None]
"""Name an address, if it has a name: "memcpy+0x9/0x12"."""

Faults = PageFault | Trap | OutsideRam | Shutdown

_OUTCOME: Final[dict[type, str]] = {
    Returned: "completed",
    PageFault: "fault",
    Trap: "fault",
    OutsideRam: "outside-ram",
    Halted: "halted",
    StepLimit: "limit",
    Shutdown: "shutdown",
}
_BYTES_WIDTH: Final = 23  # eight bytes; longer instructions push the text to the right
BLAMES: Final = {
    "us": (US, "US", "clear"),
    "rw": (RW, "RW", "clear"),
    "wp": (RW, "RW", "clear"),
    "xd": (XD, "XD", "set"),
}
"""The bit that a rule is about, its name, and how it is in the entries to blame."""
RULES: Final = {
    "us": "a user access",
    "rw": "a user write",
    "wp": "a supervisor write, and CR0.WP is set",
    "xd": "a fetch",
    "smep": "a supervisor fetch from a user page, and CR4.SMEP is set",
    "smap": "a supervisor access to a user page, CR4.SMAP is set and RFLAGS.AC is clear",
    "pk-ad": "PKRU forbids every access with this page's protection key",
    "pk-wd": "PKRU forbids writes with this page's protection key",
    "rsvd-xd": "XD is reserved while EFER.NXE is clear",
    "rsvd-maxphyaddr": "address bits above MAXPHYADDR are reserved",
    "rsvd-ps": "bit 7 is reserved at this level",
    "rsvd-large": "the low address bits of a large page are reserved",
}


class Lines:
    """The text of events, in order. Instructions are formatted once for each address and bytes."""

    def __init__(self, symbolise: Symbolise, paging: Callable[[], Paging]) -> None:
        self._symbolise = symbolise
        self._paging = paging
        self._width = 16
        self._instruction = lru_cache(maxsize=4096)(self._parts)

    def of(self, event: Event) -> Iterator[str]:
        """Yield the lines of one event."""
        if isinstance(event, Executed):
            yield self._line(event.rip, event.code)
            if event.registers is not None:
                yield from _register_lines(event.registers)
        elif isinstance(event, Accessed):
            yield access_line(event)
        elif isinstance(event, Walked):
            yield walked_line(event)
        elif isinstance(event, Invalidated):
            yield f"    TLB: {_invalidated(event)}"
        elif isinstance(event, Edited):
            yield _edited_line(event)
        elif isinstance(event, Cr3Switch):
            yield f"    CR3 {event.old:#x} -> {event.new:#x}"
        elif isinstance(event, Delivered):
            delivery, code = event
            yield from self._faulted(delivery.exceptions, code)
            handler = with_symbol_of(delivery.rip, self._symbolise)
            yield f"    -> handler {handler}, CPL {delivery.cpl}, RSP {delivery.rsp:#x}"
        else:
            yield from self._faulted((event.stop,), event.code)

    def _faulted(self, stops: Sequence[Faults], code: bytes) -> Iterator[str]:
        """The instruction, if it is known, and what it raised, in order."""
        if code:
            yield self._line(stops[0].rip, code) + "   <-- faults"
        for stop in stops:
            yield from self.fault(stop)

    def fault(self, stop: Stop) -> Iterator[str]:
        """Say what the fault was; every entry read, and why the walk or the access stopped."""
        yield "    " + with_symbol(stop, self._symbolise)
        if not isinstance(stop, (PageFault, OutsideRam)) or stop.walk is None:
            return
        for line in render.walk_lines(stop.walk, _under(stop, self._paging())):
            yield "    " + line
        if isinstance(stop, PageFault) and (why := refusal_text(stop)):
            yield "    " + why

    def _line(self, rip: int, code: bytes) -> str:
        """One line for one instruction; the column of the symbols grows with them."""
        name, text = self._instruction(rip, code)
        if len(name) > self._width:
            self._width = len(name)
        return f"{rip:016x} {name:{self._width}} {text}"

    def _parts(self, rip: int, code: bytes) -> tuple[str, str]:
        text = f"{code.hex(' '):{_BYTES_WIDTH}}  {mnemonic(rip, code)}"
        return self._symbolise(rip) or "", text


def _under(stop: PageFault | OutsideRam, paging: Paging) -> Paging:
    """Return the control registers with the CR3 that a stop's walk began at: since then, or on the
    CPU that is asked, there may be another one."""
    if isinstance(stop, PageFault):
        return replace(paging, cr3=stop.cr3)
    first = stop.walk.steps[0].entry_pa if stop.walk and stop.walk.steps else stop.pa
    root = first & -FRAME_SIZE
    return paging if root == paging.root else replace(paging, cr3=root)


def access_line(access: Accessed) -> str:
    """One line for one access."""
    va, pa, size, value, kind = access
    where = "?" * 16 if va is None else f"{va:016x}"
    return f"    {kind:5} {size} at {where} pa {pa:#x}  {value:#0{2 + 2 * size}x}"


def _edited_line(event: Edited) -> str:
    """Name the function and the entries: what the first holds, and that there are more."""
    nr, first = len(event.entries), event.entries[0]
    if nr == 1:
        return f"    {event.by} writes entry @{event.entry_pa:#x} = {first:#x}"
    return f"    {event.by} writes {nr} entries from @{event.entry_pa:#x} = {first:#x}, …"


def walked_line(walked: Walked) -> str:
    """One line for a walk that the CPU made: the entries, and which bits it set in them."""
    who = "user" if walked.user else "supervisor"
    steps = " ".join(map(_walked_step, walked.steps))
    return f"    walk for {walked.va:016x} ({who} {walked.kind}): {steps}"


def _walked_step(step: WalkedStep) -> str:
    newly = step.after & ~step.before
    bits = "".join(name for bit, name in ((A, "+A"), (D, "+D")) if newly & bit)
    return f"{ENTRY_NAME[step.level]} @{step.entry_pa:#x} = {step.before:#x}{bits}"


def _invalidated(event: Invalidated) -> str:
    if event.what == "invlpg":
        return f"invlpg {event.value:#x}"
    return f"{event.what.upper()} = {event.value:#x}"


def _register_lines(registers: Sequence[int]) -> Iterator[str]:
    named = [f"{name}={value:x}" for name, value in zip(GENERAL, registers, strict=True)]
    for row in (named[:8], named[8:]):
        yield "    " + " ".join(row)


def mnemonic(rip: int, code: bytes) -> str:
    """The instruction in Intel syntax, its branch target an address."""
    for _, _, name, operands in disassemble(code, rip):
        return f"{name} {operands}".rstrip()
    return "(bad)"


def with_symbol(stop: Stop, symbolise: Symbolise) -> str:
    """A stop's own line, with the name of its RIP."""
    text = str(stop)
    name = None if isinstance(stop, Returned) else symbolise(stop.rip)
    return f"{text} ({name})" if name else text


def with_symbol_of(address: int, symbolise: Symbolise) -> str:
    """An address, with its name if it has one."""
    name = symbolise(address)
    return f"{address:#x} ({name})" if name else f"{address:#x}"


def refusal_text(fault: PageFault) -> str | None:
    """Say which rule refused a fault's access, and which entries are to blame."""
    rule = RULES.get(fault.reason)
    if rule is None or fault.walk is None:
        return None
    if fault.reason in BLAMES:
        bit, name, state = BLAMES[fault.reason]
        blamed = [
            ENTRY_NAME[e[0]] for e in fault.walk.steps if bool(e[2] & bit) == (state == "set")
        ]
        rule += f": {name} is {state} in the {', '.join(blamed)}"
    return f"refused by {fault.reason}: {rule}"


def outcome(stop: Stop) -> str:
    """Return the one word for how a run ended."""
    return _OUTCOME[type(stop)]


def end_line(
    word: str, stop: Stop | None, instructions: int, failure: str | None, symbolise: Symbolise
) -> str:
    """Say how a run ended, and after how many instructions."""
    count = f"{instructions} instruction{'' if instructions == 1 else 's'}"
    if stop is None:
        return f"error: {failure}, after {count}"
    text = with_symbol(stop, symbolise)
    if isinstance(stop, StepLimit) and stop.steps is not None:
        text += ": it had not returned; --max-steps allows more"
    elif isinstance(stop, Returned):
        text += f" after {count}"
    else:
        text += f", after {count}"
    return f"{word}: {text}"
