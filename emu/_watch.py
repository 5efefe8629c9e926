"""Looking at code before it runs: at each new block, and at single instructions in it.

Knows how the engine tells of a block that it has translated, and how to be asked before one of its
instructions. Refuses to know which instructions those are and what may be wrong with them: two
functions of the caller's say so. The callbacks read, and stop the run; they never steer it.
"""

import ctypes
from collections.abc import Callable, Iterable
from typing import Any, Final
from weakref import WeakMethod

import unicorn
from unicorn.unicorn_py3 import unicorn as binding
from unicorn.x86_const import UC_X86_REG_RIP

from emu._layout import IN_64_BIT_CODE, LIVE_HFLAGS, RFLAGS, live
from emu.fault import EngineError
from emu.registers import Harmless

# What `Engine.event` holds at a block with instructions that are to be watched, at a refusal, and
# after an exception in a callback.
NEW_CODE: Final = -4
REFUSED: Final = -5
BROKEN: Final = -6

Find = Callable[[int, bytes, int, bool], Iterable[tuple[int, Harmless | None, bool]]]
"""Names what to watch in a block: given its address, bytes, number of instructions, and whether it
runs at CPL 3. What `Harmless` says spares the question; True if it may fault all the same."""
Passes = Callable[[], bool]
"""Tells, when the picture has been taken, whether the instruction at RIP may be executed."""

_MOST_BYTES: Final = 0x1_0000  # of a block
_JUMP: Final = b"\xeb\x00\xf4"  # jmp to the hlt behind it

_vmem_read: Final = binding.uclib.uc_vmem_read  # which the binding does not offer
_vmem_read.argtypes = (
    *(binding.uc_engine, ctypes.c_uint64, ctypes.c_uint32),
    *(ctypes.c_void_p, ctypes.c_size_t),
)
_context_save: Final = binding.uclib.uc_context_save
_emu_stop: Final = binding.uclib.uc_emu_stop
_reg_read: Final = binding.uclib.uc_reg_read


class Watch:
    """The callbacks for one engine, and what they found. They hold `passes` weakly."""

    def __init__(
        self,
        uch: Any,
        picture: Any,
        event: list[int],
        flags: dict[int, int],
        find: Find,
        passes: Passes,
    ) -> None:
        self.new: Final[list[int]] = []  # addresses to be watched, then that of their block
        self.known: Final[dict[int, tuple[Harmless | None, bool]]] = {}
        self.broken: Final[list[BaseException]] = []
        new, known, broken = self.new, self.known, self.broken
        rflags = ctypes.c_uint64()
        to_rflags = ctypes.byref(rflags)
        ask = WeakMethod(passes)
        state = live(uch)
        buffer = ctypes.create_string_buffer(_MOST_BYTES)
        code = memoryview(buffer).cast("B")

        def on_block(engine: Any, block: Any, _: Any, __: Any) -> None:
            try:
                hflags = state[LIVE_HFLAGS]
                if not hflags & IN_64_BIT_CODE:
                    return
                rip, count, size = block.contents.pc, block.contents.icount, block.contents.size
                if _vmem_read(engine, rip, unicorn.UC_PROT_EXEC, buffer, size):
                    raise EngineError(f"the code at {rip:#x} was translated, and cannot be read")
                found = find(rip, bytes(code[:size]), count, hflags & 3 == 3)
                for va, harmless, may_fault in found:
                    if va not in known:
                        known[va] = harmless, may_fault
                        new.append(va)
                    elif known[va] != (harmless, may_fault):
                        known[va] = None, True  # several: under other roots, or rewritten
                if not new:
                    return
                new.append(rip)
                event[0] = NEW_CODE
            except BaseException as error:  # noqa: BLE001 (ctypes would print it and go on)
                broken.append(error)
                event[0] = BROKEN
            _emu_stop(engine)

        def on_watched(engine: Any, rip: int, _: int, __: Any) -> None:
            try:
                harmless, may_fault = known[rip]
                if may_fault:  # deviation "hooked-flags"
                    _reg_read(engine, RFLAGS, to_rflags)
                    flags[rip] = rflags.value
                if harmless is not None and harmless(state):
                    return
                _context_save(engine, picture)
                passes = ask()
                if passes is None or passes():
                    return
                event[0] = REFUSED
            except BaseException as error:  # noqa: BLE001 (ctypes would print it and go on)
                broken.append(error)
                event[0] = BROKEN
            _emu_stop(engine)

        self.on_block: Final = binding.HOOK_EDGE_GEN_CFUNC(on_block)
        self.on_watched: Final = binding.HOOK_CODE_CFUNC(on_watched)


def finish_a_block(uc: unicorn.Uc) -> None:
    """Run a block to its end, in RAM that is gone afterwards (deviation "silent-blocks").

    For an engine without RAM and with exits enabled.
    """
    uc.mem_map(0, 0x1000)
    uc.mem_write(0, _JUMP)
    uc.emu_start(0, 0)
    uc.reg_write(UC_X86_REG_RIP, 0)
    uc.mem_unmap(0, 0x1000)
    uc.ctl_flush_tb()
