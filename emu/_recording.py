"""Having an engine write a tape: its hooks, in machine code where the host can run that.

Knows how the callbacks get into the engine and out again. Refuses to know what is on the tape.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Final, Protocol

from unicorn.unicorn_py3 import unicorn as binding

from emu import _native
from emu._fills import Fills
from emu._layout import live, state_address, tlb_fill
from emu._tape import Tape, Word
from emu._unicorn import AccessHook, CodeHook
from emu.cpu import Cpu
from emu.events import Invalidated
from emu.paging import ADDRESS


class Hooks(Protocol):
    """What is called for what machine code does not do; everything, where there is none."""

    on_invalidation: Callable[[Invalidated], None]
    """To be told of what an instruction is about to drop from the TLB."""

    def on_code(self, engine: Any, rip: int, size: int, data: Any) -> None:
        """Called before an instruction."""

    def on_access(self, engine: Any, kind: int, pa: int, size: int, value: int, data: Any) -> None:
        """Called at an access to RAM."""


class Recording:
    """The hooks of one CPU's engine, from the start until `end`."""

    def __init__(self, cpu: Cpu, tape: Tape, hooks: Hooks, *, native: bool) -> None:
        engine = cpu.engine
        self._engine: Final = engine
        self._hooks: Final = hooks
        self._tape: Final = tape
        words = tape.words
        words[Word.STATE_AT] = state_address(engine.handle)
        words[Word.RAM_AT], words[Word.RAM_SIZE] = cpu.memory.host_address, cpu.memory.size
        words[Word.ADDRESS] = ADDRESS
        self._kept: list[Any] = []  # the engine has only their addresses
        self._fill: ctypes.c_uint64 | None = None
        self._fills: Fills | None = None
        self._walks = 0
        on_code: CodeHook | int = hooks.on_code
        on_access: AccessHook | int = hooks.on_access
        handles = []
        if native:
            asked = binding.HOOK_CODE_CFUNC(on_code), binding.HOOK_MEM_ACCESS_CFUNC(on_access)
            words[Word.ON_CODE], words[Word.ON_ACCESS] = map(_address, asked)
            self._fill = tlb_fill(engine.handle)
            words[Word.FILL] = self._fill.value
            callbacks = _native.callbacks(tape)
            self._kept += *asked, callbacks
            on_code, on_access, self._fill.value = callbacks[:3]
        else:
            self._fills = Fills(cpu, tape, live(engine.handle), engine.break_off)
            hooks.on_invalidation = self._fills.invalidated
            handles.append(engine.hook_fills(self._fills.on_fill))
            engine.ask_for_translations(True)
        handles.append(engine.hook_code(on_code, tape.address))
        handles.append(engine.hook_accesses(on_access, tape.address))
        self._handles: Final = handles

    def end(self) -> None:
        """Take the hooks out."""
        if self._fill is not None:
            self._fill.value = self._tape.words[Word.FILL]
        if self._fills is not None:
            self._engine.ask_for_translations(False)
            self._hooks.on_invalidation = ignore
        self._engine.unhook(*self._handles)
        self._kept.clear()

    def refused(self) -> str | None:
        """Return what kind of access was refused a translation, and forget it."""
        if self._fills is None or self._fills.refused is None:
            return None
        refused, self._fills.refused = self._fills.refused, None
        return refused

    def look_away(self) -> None:
        """Record no walks for now."""
        self._walks = self._tape.words[Word.WALKS]
        if self._fills is not None:
            self._engine.ask_for_translations(False)

    def look_back(self) -> None:
        """Record walks again."""
        words = self._tape.words
        words[Word.WALKS] = min(words[Word.WALKS], self._walks)  # the tape may have been cut
        if self._fills is not None:
            self._engine.ask_for_translations(True)


def ignore(_: Invalidated) -> None:
    """Be told of an invalidation, where there is nothing to do."""


def _address(callback: Any) -> int:
    return ctypes.c_uint64.from_buffer(callback).value  # `ctypes.cast` would leave a cycle
