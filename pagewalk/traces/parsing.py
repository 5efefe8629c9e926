"""From objects back to events: the reverse of `pagewalk.objects`.

Knows the form of an object, and raises ValueError, LookupError or TypeError for anything else.
Refuses to know which file the object is from. What the objects leave out stays out: a fault's
registers, CPL, CR3 and CR2 of a trap (none of which two stops differ by).
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, get_args

from emu import Halted, OutsideRam, PageFault, PhysAddr, Returned, Shutdown, StepLimit, Stop, Trap
from emu import VirtAddr as Va
from emu.events import (
    Accessed,
    Cr3Switch,
    Delivered,
    Edited,
    Event,
    Executed,
    Faulted,
    Invalidated,
    Walked,
    WalkedStep,
)
from emu.interrupts import Delivery
from emu.paging import ENTRY_NAME, FRAME_SIZE
from emu.registers import GENERAL
from emu.walk import Step, Verdict, Walk

Object = dict[str, Any]

_ACCESS: Final = re.compile(
    rb'\{"event": "(read|write)", "va": (?:null|"0x([0-9a-f]+)"), "pa": "0x([0-9a-f]+)", '
    rb'"size": ([0-9]+), "value": "0x([0-9a-f]+)"\}'
)


def read_event(found: Object) -> Event:
    """Return the event that an object tells of."""
    return _READ[found["event"]](found)


def read_access(line: bytes) -> Accessed | None:
    """Return the access that a line tells of, if it looks exactly as ours do; else None."""
    match = _ACCESS.fullmatch(line)
    if match is None:
        return None
    kind, va, pa, size, value = match.groups()
    where = None if va is None else Va(int(va, 16))
    is_write: Literal["read", "write"] = "write" if kind == b"write" else "read"
    return Accessed(where, PhysAddr(int(pa, 16)), int(size), int(value, 16), is_write)


def read_stop(found: Object) -> Stop | None:
    """Return how a run ended; None where the engine failed."""
    rip = Va(_int(found.get("rip", "0x0")))
    match found["kind"]:
        case "returned":
            return Returned(_int(found["value"]))
        case "page-fault":
            return _page_fault(found, rip)
        case "trap":
            return Trap(found["vector"], found["error_code"], rip)
        case "outside-ram":
            return _outside_ram(found, rip)
        case "halted":
            return Halted(rip)
        case "limit":
            return StepLimit(rip, found["steps"])
        case "shutdown":
            return Shutdown(rip, tuple(map(_exception, found["exceptions"])))
        case "error":
            return None
    raise ValueError(f"{found['kind']!r} is no way to stop")


def symbols(found: Object) -> dict[int, str]:
    """Return the names that an object gives to addresses."""
    named = {}
    pairs = [(found.get("rip"), found.get("symbol"))]
    pairs.append((found.get("handler"), found.get("handler_symbol")))
    pairs += [(exc.get("rip"), exc.get("symbol")) for exc in found.get("exceptions", ())]
    for address, name in pairs:
        if address and name:
            named[_int(address)] = name
    return named


def walked_step(level: int, entry_pa: int, before: int, after: int) -> WalkedStep:
    """Return a step of a walk; ValueError if there is no such level."""
    return WalkedStep(_level(level), PhysAddr(entry_pa), before, after)


def invalidated(what: str, value: int) -> Invalidated:
    """Return what may have been dropped from the TLB; ValueError if `what` is unknown."""
    if what not in get_args(Invalidated.__annotations__["what"]):
        raise ValueError(f"{what!r} is nothing that invalidates")
    return Invalidated(what, value)  # type: ignore[arg-type]


def edited(entry_pa: int, entries: Iterable[int], by: str) -> Edited:
    """Return what was written from outside; ValueError if that is nothing."""
    found = tuple(entries)
    if not found:
        raise ValueError("an edit of no entries")
    return Edited(PhysAddr(entry_pa), found, by)


def _level(level: int) -> int:
    if level not in ENTRY_NAME:
        raise ValueError(f"{level!r} is no level")
    return level


def _int(text: str) -> int:
    return int(text, 16)


def _executed(found: Object) -> Executed:
    registers = found.get("registers")
    values = None if registers is None else tuple(_int(registers[name]) for name in GENERAL)
    return Executed(Va(_int(found["rip"])), bytes.fromhex(found["bytes"]), values)


def _accessed(found: Object) -> Accessed:
    va = found["va"]
    where = None if va is None else Va(_int(va))
    pa = PhysAddr(_int(found["pa"]))
    return Accessed(where, pa, found["size"], _int(found["value"]), found["event"])


def _walked(found: Object) -> Walked:
    steps = tuple(
        walked_step(one["level"], *(_int(one[name]) for name in ("entry_pa", "entry", "after")))
        for one in found["entries"]
    )
    return Walked(Va(_int(found["va"])), found["access"], found["user"], steps)


def _edited(found: Object) -> Edited:
    return edited(_int(found["entry_pa"]), map(_int, found["entries"]), found["by"])


def _faulted(found: Object) -> Faulted:
    stop = read_stop(found)
    if not isinstance(stop, (PageFault, Trap, OutsideRam, Shutdown)):
        raise ValueError(f"{found['kind']!r} is no fault")
    return Faulted(stop, bytes.fromhex(found.get("bytes", "")))


def _delivered(found: Object) -> Delivered:
    cr2 = found["cr2"]
    delivery = Delivery(
        exceptions=tuple(map(_exception, found["exceptions"])),
        cpl=found["cpl"],
        cs=_int(found["cs"]),
        ss=_int(found["ss"]),
        rip=Va(_int(found["handler"])),
        rsp=_int(found["rsp"]),
        rflags=_int(found["rflags"]),
        cr2=None if cr2 is None else _int(cr2),
        stores={PhysAddr(_int(pa)): _int(value) for pa, value in found["stores"].items()},
    )
    return Delivered(delivery, bytes.fromhex(found.get("bytes", "")))


def _exception(found: Object) -> PageFault | Trap:
    stop = read_stop(found)
    if not isinstance(stop, (PageFault, Trap)):
        raise ValueError(f"{found['kind']!r} is no exception")
    return stop


def _page_fault(found: Object, rip: Va) -> PageFault:
    va, reason, walk = Va(_int(found["address"])), found["reason"], None
    if found["walk"]:
        verdict: Verdict = "mapped"
        if reason == "not-present":
            verdict = "not-present"
        elif reason.startswith("rsvd"):
            verdict = "reserved-bit"
        walk = _walk(found["walk"], va, verdict, None)
    code, cr3 = found["error_code"], _int(found["cr3"])
    return PageFault(va, code, rip, walk, found["cpl"], cr3, reason)


def _outside_ram(found: Object, rip: Va) -> OutsideRam:
    pa, what, va, walk = PhysAddr(_int(found["pa"])), found["what"], found["va"], None
    if va is not None:
        verdict: Verdict = "mapped" if what == "leaf" else "outside-ram"
        table = None if what == "leaf" else PhysAddr(pa & -FRAME_SIZE)
        walk = _walk(found["walk"], Va(_int(va)), verdict, table)
    return OutsideRam(pa, rip, what, walk)


def _walk(found: list[Object], va: Va, verdict: Verdict, table: PhysAddr | None) -> Walk:
    """Return a walk; the table that it ended in is the last entry's, or `table`."""
    steps = tuple(
        Step(_level(one["level"]), PhysAddr(_int(one["entry_pa"])), _int(one["entry"]))
        for one in found
    )
    if table is None:
        table = PhysAddr(steps[-1].entry_pa & -FRAME_SIZE)
    return Walk(va, steps, verdict, table)


_READ: Final[dict[str, Callable[[Object], Event]]] = {
    "instruction": _executed,
    "read": _accessed,
    "write": _accessed,
    "walk": _walked,
    "invalidate": lambda found: invalidated(found["what"], _int(found["value"])),
    "edit": _edited,
    "cr3": lambda found: Cr3Switch(_int(found["old"]), _int(found["new"])),
    "fault": _faulted,
    "exception": _delivered,
}
