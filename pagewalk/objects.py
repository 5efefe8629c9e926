"""JSON of a trace: an object for each event, as text; hot, so written by hand where that is safe.

Knows how an event looks to programs, and is the one place that does; `traces.parsing` reads it.
Refuses to know where events come from. numpy is for those who bring chunks.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from emu import OutsideRam, PageFault, Returned, Shutdown, StepLimit, Stop, Trap
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
)
from emu.registers import GENERAL
from emu.walk import Walk
from kernel_model.scenarios.outcome import walk_json
from pagewalk.render_trace import Symbolise, mnemonic, outcome

if TYPE_CHECKING:
    from emu.chunks import Chunk

_ACCESS: Final = '{"event": "%s", "va": "%#x", "pa": "%#x", "size": %d, "value": "%#x"}'
_HIDDEN: Final = '{"event": "%s", "va": null, "pa": "%#x", "size": %d, "value": "%#x"}'


class Objects:
    """The JSON of events. `task_of` names the task whose table a CR3 switch goes to."""

    def __init__(
        self,
        symbolise: Symbolise,
        levels: int,
        task_of: Callable[[int], str | None] | None = None,
    ) -> None:
        self._symbolise = symbolise
        self._levels = levels
        self._task_of = task_of
        self._instruction = lru_cache(maxsize=4096)(self._format)

    def of(self, event: Event) -> str:
        """Return one event as a JSON object."""
        if isinstance(event, Executed):
            line = self.instruction(event)
            if event.registers is None:
                return line
            return with_registers(line, register_text(GENERAL, event.registers))
        if isinstance(event, Accessed):
            va, pa, size, value, kind = event
            if va is None:
                return _HIDDEN % (kind, pa, size, value)
            return _ACCESS % (kind, va, pa, size, value)
        return json.dumps(self._other(event))

    def instruction(self, executed: Executed) -> str:
        """Return an instruction's object, without registers."""
        return self._instruction(executed.rip, executed.code)

    def stop(self, stop: Stop) -> dict[str, Any]:
        """Return how the run ended."""
        if isinstance(stop, Returned):
            return {"kind": "returned", "value": f"{stop.value:#x}"}
        where = {"rip": f"{stop.rip:#x}", "symbol": self._symbolise(stop.rip)}
        match stop:
            case PageFault():
                return {
                    "kind": "page-fault",
                    "vector": stop.vector,
                    "address": f"{stop.address:#x}",
                    "error_code": stop.error_code,
                    "access": stop.access,
                    "cpl": stop.cpl,
                    **where,
                    "cr3": f"{stop.cr3:#x}",
                    "reason": stop.reason,
                    "walk": self._walk(stop.walk),
                }
            case Trap(vector, error_code):
                return {"kind": "trap", "vector": vector, "error_code": error_code, **where}
            case OutsideRam(pa, _, what, walk):
                return {
                    "kind": "outside-ram",
                    "va": None if walk is None else f"{walk.va:#x}",
                    "pa": f"{pa:#x}",
                    "what": what,
                    **where,
                    "walk": self._walk(walk),
                }
            case StepLimit():
                return {"kind": "limit", "steps": stop.steps, **where}
            case Shutdown():
                exceptions = [self.stop(exc) for exc in stop.exceptions]
                return {"kind": "shutdown", "exceptions": exceptions, **where}
        return {"kind": outcome(stop), **where}

    def _other(self, event: Event) -> dict[str, Any]:
        match event:
            case Cr3Switch(old, new):
                task = self._task_of(new) if self._task_of else None
                named = {"task": task} if task else {}
                return {"event": "cr3", "old": f"{old:#x}", "new": f"{new:#x}", **named}
            case Walked():
                return _walked(event)
            case Invalidated(what, value):
                return {"event": "invalidate", "what": what, "value": f"{value:#x}"}
            case Edited(entry_pa, entries, by):
                return {
                    "event": "edit",
                    "entry_pa": f"{entry_pa:#x}",
                    "entries": [f"{entry:#x}" for entry in entries],
                    "by": by,
                }
            case Delivered():
                return self._delivered(event)
            case Faulted(stop, code):
                return {"event": "fault", **self.stop(stop), **_instruction(stop.rip, code)}
        raise TypeError(f"{event!r} is no event")

    def _delivered(self, event: Delivered) -> dict[str, Any]:
        delivery, code = event
        return {
            "event": "exception",
            "exceptions": [self.stop(exc) for exc in delivery.exceptions],
            **_instruction(delivery.exceptions[0].rip, code),
            "handler": f"{delivery.rip:#x}",
            "handler_symbol": self._symbolise(delivery.rip),
            "cpl": delivery.cpl,
            "cs": f"{delivery.cs:#x}",
            "ss": f"{delivery.ss:#x}",
            "rsp": f"{delivery.rsp:#x}",
            "rflags": f"{delivery.rflags:#x}",
            "cr2": None if delivery.cr2 is None else f"{delivery.cr2:#x}",
            "stores": {f"{pa:#x}": f"{value:#x}" for pa, value in delivery.stores.items()},
        }

    def _walk(self, walk: Walk | None) -> list[dict[str, Any]]:
        return [] if walk is None else walk_json(walk, self._levels)

    def _format(self, rip: int, code: bytes) -> str:
        return json.dumps(
            {
                "event": "instruction",
                "rip": f"{rip:#x}",
                "symbol": self._symbolise(rip),
                "bytes": code.hex(" "),
                "text": mnemonic(rip, code),
            }
        )


def access_objects(chunk: "Chunk") -> list[str]:
    """Return what `Objects.of` does for each access of a chunk, sooner."""
    columns = chunk.accesses
    kinds = ["write" if is_write else "read" for is_write in columns["is_write"].tolist()]
    parts = [columns[name].tolist() for name in ("va", "pa", "size", "value")]
    texts = [_ACCESS % part for part in zip(kinds, *parts, strict=True)]
    for hidden in (~columns["has_va"]).nonzero()[0].tolist():
        kind, _, *rest = (part[hidden] for part in (kinds, *parts))
        texts[hidden] = _HIDDEN % (kind, *rest)
    return texts


def with_registers(instruction: str, registers: str) -> str:
    """Return an instruction's object with its registers, which `register_text` has formatted."""
    return f'{instruction[:-1]}, "registers": {{{registers}}}}}'


def register_text(names: Sequence[str], values: Iterable[int]) -> str:
    """Return these registers' part of an instruction's object."""
    return _register_format(tuple(names)) % tuple(values)


@lru_cache
def _register_format(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}": "%#x"' for name in names)


def _walked(event: Walked) -> dict[str, Any]:
    return {
        "event": "walk",
        "va": f"{event.va:#x}",
        "access": event.kind,
        "user": event.user,
        "entries": [
            {
                "level": step.level,
                "entry_pa": f"{step.entry_pa:#x}",
                "entry": f"{step.before:#x}",
                "after": f"{step.after:#x}",
            }
            for step in event.steps
        ],
    }


def _instruction(rip: int, code: bytes) -> dict[str, str]:
    return {"bytes": code.hex(" "), "text": mnemonic(rip, code)} if code else {}
