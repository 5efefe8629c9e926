"""What Unicorn's API does not offer, and what it does differently from a CPU.

Knows how to start and stop the engine, to take pictures of its CPU (a saved context, which lies as
`_layout` says), and what it caches. Refuses to know paging, and hands over what the engine saw.
Nothing in the project but this, `_watch` and the proofs depends on the engine's insides.

Where the engine differs from the architecture, the difference is called by its name in
`deviations`.
"""

import ctypes
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final, Protocol

import unicorn
from unicorn import x86_const as x86
from unicorn.unicorn_py3 import unicorn as binding
from unicorn.unicorn_py3.arch.intel import HOOK_INSN_SYSCALL_CFUNC

from emu import _flags
from emu._layout import (
    AT_CONTROL,
    AT_COUNTED,
    AT_CS,
    AT_GPRS,
    AT_HFLAGS,
    AT_IDT_LIMIT,
    AT_LAZY_FLAGS,
    AT_NEXT_RIP,
    AT_OLD_EXCEPTION,
    AT_OPERATION,
    AT_PKRU,
    AT_RFLAGS,
    AT_RIP,
    AT_RSP,
    AT_SEGMENTS,
    CONTROL,
    CS_TO_IDTR,
    FLAT_64_BIT,
    IN_64_BIT_CODE,
    LAZY_FLAGS,
    NO_EXCEPTION,
    NO_IDT,
    PACKED,
    RAX_RIP,
    REGISTER,
    SEGMENT,
    SEGMENT_HFLAGS,
    SEGMENT_NAMES,
    SYSTEM,
    U32,
    U64,
    WRITABLE,
    layout_mismatches,
    view,
)
from emu._watch import BROKEN, Find, Passes, Watch, finish_a_block
from emu.fault import EngineError
from emu.memory import PhysMemory
from emu.paging import RFLAGS_RF
from emu.registers import MSR_EFER, Registers

SUPPORTED: Final = ((2, 1, 4),)  # engine versions whose layout and behaviour are known

OK: Final = unicorn.UC_ERR_OK
INVALID_INSTRUCTION: Final = unicorn.UC_ERR_INSN_INVALID
OUTSIDE_RAM: Final = frozenset(
    (unicorn.UC_ERR_READ_UNMAPPED, unicorn.UC_ERR_WRITE_UNMAPPED, unicorn.UC_ERR_FETCH_UNMAPPED)
)
# What `event` holds after a run that no exception ended; after a syscall; after a sysenter.
NO_VECTOR: Final = -1
SYSCALL: Final = -2
SYSENTER: Final = -3

_RFLAGS: Final = Registers._fields.index("rflags")
_uclib: Final = binding.uclib
_emu_start: Final = _uclib.uc_emu_start  # bound once: what a run and its end call
_context_save: Final = _uclib.uc_context_save
_context_restore: Final = _uclib.uc_context_restore
_reg_read: Final = _uclib.uc_reg_read
_ctl: Final = _uclib.uc_ctl
_FLUSH_TLB: Final = unicorn.UC_CTL_IO_WRITE << 30 | unicorn.UC_CTL_TLB_FLUSH
_vmem_translate: Final = _uclib.uc_vmem_translate  # which the binding does not offer
_TRANSLATION_BUFFER: Final = 8 << 20  # virtual; touched as needed
_MOST_WATCHED: Final = 256  # the engine goes through all of them for each instruction it translates


CodeHook = Callable[[Any, int, int, Any], None]
AccessHook = Callable[[Any, int, int, int, int, Any], None]


class Onlooker(Protocol):
    """Is told when the engine is entered, and ends a run after so many instructions, from a hook
    that it has anyway."""

    def begin(self, count: int) -> None:
        """Be told that a run begins; `count` is its limit, 0 for none."""

    def begun(self) -> int:
        """Return how many instructions the run has begun, as `Engine.counted` does."""

    def refused(self) -> bool:
        """Tell whether the run ended where the CPU would have faulted, and forget that."""

    def look_away(self) -> None:
        """Leave the CPU alone, until told to `look_back`: what it does now is no event."""

    def look_back(self) -> None:
        """Look on as before."""


class Engine:
    """One Unicorn: entered, left, and looked at; never steered from inside.

    A run ends at `hlt`, at an exception, at a bad access, after `count` steps, or by `stop`.
    """

    def __init__(self, memory: PhysMemory, code: Iterable[tuple[int, int]]) -> None:
        _refuse_unknown_build()
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64, x86.UC_CPU_X86_ICELAKE_SERVER)
        self._uc = uc
        self.memory: Final = memory  # outlives the engine, which reads it
        uc.ctl_set_tcg_buffer_size(_TRANSLATION_BUFFER)
        uc.ctl_exits_enabled(True)  # deviation "until": no end address, ever
        uc.ctl_set_exits([])
        finish_a_block(uc)
        for piece in memory.pieces:
            at = memory.host_address + piece.start
            uc.mem_map_ptr(piece.start, piece.end - piece.start, unicorn.UC_PROT_ALL, at)

        self._uch: Final = uc._uch
        self.onlooker: Onlooker | None = None
        self.flushes = 0  # how often translated code was dropped
        self._context = uc.context_save()
        self._blob_handle: Final = self._context.context
        self._blob: Final = view(self._context)
        self._packed: Final = self._blob[AT_GPRS : AT_GPRS + PACKED.size]
        self._old_exception: Final = ctypes.c_int32.from_address(
            self._blob_handle.value + AT_OLD_EXCEPTION
        )
        self._idt_limit: Final = ctypes.c_uint32.from_address(
            self._blob_handle.value + AT_IDT_LIMIT
        )
        self._counted: Final = ctypes.c_uint64.from_address(uc._uch.value + AT_COUNTED)
        self._u64: Final = ctypes.c_uint64()
        self._u64_ref: Final = ctypes.byref(self._u64)
        self._numbers: Final = (ctypes.c_int32 * len(REGISTER))()
        self._values: Final = (ctypes.c_uint64 * len(REGISTER))()
        first = ctypes.addressof(self._values)
        self._pointers: Final = (ctypes.c_void_p * len(REGISTER))(
            *range(first, first + 8 * len(REGISTER), 8)
        )

        self.write_system("idtr", 0, 0, NO_IDT)
        self.event: Final = [NO_VECTOR]  # a vector, or one of those above and in `_watch`
        self._hooks: dict[int, Any] = {}  # the engine keeps only their addresses
        self._watched: Final[dict[int, int]] = {}
        # By RIP, RFLAGS before an instruction that was watched and may fault.
        self.watched_flags: Final[dict[int, int]] = {}
        self.hooked = False  # whether every instruction calls a hook
        self._counting = False
        self._code_hooks: Final[set[int]] = set()
        self._hook_interrupts()
        for start, end in code:  # deviation "alias-store"
            if not 0 <= start < end:
                raise ValueError(f"code {start:#x}-{end:#x}: expected (start, end) in RAM")
            self._hook(
                unicorn.UC_HOOK_MEM_WRITE_PROT,
                binding.HOOK_MEM_INVALID_CFUNC(_never),
                start,
                end - 1,
            )

    # -- running

    def start(self, rip: int, count: int = 0) -> int:
        """Run from `rip`, take a picture, and return the engine's error number."""
        self.event[0] = NO_VECTOR
        if self.onlooker is not None:
            return self._looked_on(self.onlooker, rip, count)
        error: int = _emu_start(self._uch, rip, 0, 0, count)
        _context_save(self._uch, self._blob_handle)
        return error

    def _looked_on(self, onlooker: Onlooker, rip: int, count: int) -> int:
        """Run, while somebody looks on who counts the steps, too."""
        onlooker.begin(count)
        error: int = _emu_start(self._uch, rip, 0, 0, 0)
        _context_save(self._uch, self._blob_handle)
        if onlooker.refused():  # the CPU itself is to say so
            self.mend_flags()
            onlooker.look_away()
            error = _emu_start(self._uch, self.rip(), 0, 0, 0)
            _context_save(self._uch, self._blob_handle)
            onlooker.look_back()
        return error

    def fetch(self, va: int) -> int:
        """Translate `va` as `translate_fetch` does, and take a picture; return an error number."""
        if self.onlooker is not None:
            self.onlooker.look_away()
        error = translate_fetch(self._uch, va)
        _context_save(self._uch, self._blob_handle)
        if self.onlooker is not None:
            self.onlooker.look_back()
        return error

    @property
    def handle(self) -> Any:
        """The engine's own handle, for `_recording`."""
        return self._uch

    def translate(self, va: int, *, writes: bool) -> int | None:
        """Return where the CPU has `va` now, its TLB first; None if nowhere.

        In a hook only where the CPU would not fault.
        """
        permission = unicorn.UC_PROT_WRITE if writes else unicorn.UC_PROT_READ
        pa = ctypes.c_uint64()
        place = ctypes.c_uint64(va), permission, ctypes.byref(pa)
        return None if _vmem_translate(self._uch, *place) else pa.value

    def close(self) -> None:
        """Never run again: the memory is about to go."""
        self.start = _closed  # type: ignore[method-assign]

    def counted(self) -> int:
        """How many instructions the last run began, if it was counted.

        One more than it was allowed if that is what ended it: the last one was not executed.
        """
        return self._counted.value if self.onlooker is None else self.onlooker.begun()

    def stop(self) -> None:
        """End the current run, from any thread."""
        _uclib.uc_emu_stop(self._uch)

    def save(self) -> None:
        """Take a picture of the CPU; what follows reads it."""
        _context_save(self._uch, self._blob_handle)

    def restore(self) -> None:
        """Make the picture the CPU's state. Keeps the TLB: invalidate it if CR3 differs."""
        _context_restore(self._uch, self._blob_handle)

    def forget_exception(self) -> None:
        """Clear the engine's memory of the last exception (deviation "old-exception")."""
        self._old_exception.value = NO_EXCEPTION
        _context_restore(self._uch, self._blob_handle)

    # -- the picture

    def rax_rip(self) -> tuple[int, ...]:
        """RAX, and RIP: of the faulting instruction, or of the next one."""
        return RAX_RIP.unpack_from(self._blob, AT_GPRS)

    def rip(self) -> int:
        """RIP: of the faulting instruction, or of the next one."""
        return int(U64.unpack_from(self._blob, AT_RIP)[0])

    def registers(self) -> Registers:
        """All of them; in a hook, RFLAGS is without the arithmetic flags."""
        values = PACKED.unpack_from(self._blob, AT_GPRS)
        if values[_RFLAGS] & RFLAGS_RF:  # deviation "resume-flag"
            general, rflags, bases = values[:_RFLAGS], values[_RFLAGS], values[_RFLAGS + 1 :]
            values = *general, rflags & ~RFLAGS_RF, *bases
        return tuple.__new__(Registers, values)

    def packed(self) -> bytes:
        """Take a picture, and return its registers packed: for `unpack_registers`, later."""
        _context_save(self._uch, self._blob_handle)
        return self._packed.tobytes()

    def control(self) -> tuple[int, ...]:
        """CR0, CR1 (unused), CR2, CR3, CR4, EFER, PKRU; of the last exception its error code, and
        1 if software raised it (`int n`)."""
        return CONTROL.unpack_from(self._blob, AT_CONTROL)

    def next_rip(self) -> int:
        """Where the `int n` that raised the last exception ends."""
        return int(U64.unpack_from(self._blob, AT_NEXT_RIP)[0])

    def cpl(self) -> int:
        """The current privilege level. Not the CS selector's RPL: the engine keeps it apart."""
        return self._blob[AT_HFLAGS] & 3

    def in_64_bit_code(self) -> bool:
        """Tell whether CS has its L bit; without, the CPU is in compatibility mode."""
        return bool(U32.unpack_from(self._blob, AT_HFLAGS)[0] & IN_64_BIT_CODE)

    def selectors(self) -> dict[str, int]:
        """The segment selectors by name."""
        return {
            name: SEGMENT.unpack_from(self._blob, AT_SEGMENTS + SEGMENT.size * i)[0]
            for i, name in enumerate(SEGMENT_NAMES)
        }

    def has_idt(self) -> bool:
        """Tell whether IDTR has been loaded, by the guest or from outside."""
        return self._idt_limit.value != NO_IDT

    def system(self) -> tuple[int, ...]:
        """CS and SS; selector, base and limit of LDTR and TR; base and limit of GDTR and IDTR."""
        return CS_TO_IDTR.unpack_from(self._blob, AT_CS)

    def read_system(self, name: str) -> tuple[int, int, int]:
        """Return the selector, base and limit of ldtr, tr, gdtr or idtr, now."""
        self.save()
        selector, _, base, limit, _ = SEGMENT.unpack_from(self._blob, SYSTEM[name])
        return selector, base, limit

    def write_system(self, name: str, selector: int, base: int, limit: int) -> None:
        """Load ldtr, tr, gdtr or idtr."""
        self.save()
        SEGMENT.pack_into(self._blob, SYSTEM[name], selector, 0, base, limit, 0)
        self.restore()

    def set_privilege(self, cpl: int, cs: int, ss: int) -> None:
        """Set CPL and flat 64-bit CS and SS; writing the selectors alone would not do it."""
        self.save()
        self._set_segments(cpl, cs, ss)
        self.restore()

    def enter(self, cpl: int, cs: int, ss: int, rip: int, rsp: int, rflags: int) -> None:
        """Go on elsewhere: make this of the picture, and the picture the CPU's state."""
        self._set_segments(cpl, cs, ss)
        U64.pack_into(self._blob, AT_RSP, rsp)
        U64.pack_into(self._blob, AT_RIP, rip)
        self.restore()
        self.write("rflags", rflags)

    def _set_segments(self, cpl: int, cs: int, ss: int) -> None:
        for i, selector, flags in ((1, cs, 0x00AF_9B00), (2, ss, 0x00CF_9300)):
            SEGMENT.pack_into(
                self._blob,
                AT_SEGMENTS + SEGMENT.size * i,
                *(selector, 0, 0, 0xFFFF_FFFF, flags | cpl << 13),
            )
        (hflags,) = U32.unpack_from(self._blob, AT_HFLAGS)
        U32.pack_into(self._blob, AT_HFLAGS, hflags & ~SEGMENT_HFLAGS | FLAT_64_BIT | cpl)

    # -- single registers

    def read(self, name: str) -> int:
        """Return one register by its SDM name."""
        _reg_read(self._uch, REGISTER[name], self._u64_ref)
        return self._u64.value

    def write(self, name: str, value: int) -> None:
        """Set one register by its SDM name; KeyError for a name that is none."""
        register = REGISTER[name]
        self._u64.value = value
        _uclib.uc_reg_write(self._uch, register, self._u64_ref)

    def mend_flags(self) -> None:
        """Undo what a hook did to the flags of the instruction that has faulted, in the picture
        and in the CPU (deviation "hooked-flags")."""
        flags = _flags.before(*LAZY_FLAGS.unpack_from(self._blob, AT_LAZY_FLAGS))
        if flags is not None:
            (rflags,) = U64.unpack_from(self._blob, AT_RFLAGS)
            U64.pack_into(self._blob, AT_RFLAGS, rflags & ~_flags.ARITHMETIC | flags)
            U32.pack_into(self._blob, AT_OPERATION, _flags.WORKED_OUT)
            self.restore()

    def write_all(self, registers: dict[str, int]) -> None:
        """Set registers by their SDM names, in one call; KeyError for CR0, CR4 and no register."""
        numbers, values = self._numbers, self._values
        count = 0
        for name, value in registers.items():
            numbers[count] = WRITABLE[name]
            values[count] = value
            count += 1
        _uclib.uc_reg_write_batch(self._uch, numbers, self._pointers, count)

    def read_msr(self, number: int) -> int:
        """Return a model-specific register."""
        return int(self._uc.msr_read(number))

    def write_msr(self, number: int, value: int) -> None:
        """Set a model-specific register."""
        self._uc.msr_write(number, value)

    def write_efer(self, value: int) -> None:
        """Set EFER. Invalidates the TLB (deviation "nxe-pke-tlb")."""
        self.write_msr(MSR_EFER, value)
        self.invalidate_tlb()

    def write_pkru(self, value: int) -> None:
        """Set PKRU, which the binding cannot: through the picture."""
        self.save()
        U32.pack_into(self._blob, AT_PKRU, value)
        self.restore()

    # -- what the engine has cached

    def invalidate_tlb(self) -> None:
        """Forget every cached translation."""
        _ctl(self._uch, _FLUSH_TLB)

    def invalidate_code(self) -> None:
        """Forget every translated block of code."""
        self.flushes += 1
        self._uc.ctl_flush_tb()

    def set_exits(self, addresses: list[int]) -> None:
        """Also end a run when it reaches one of these addresses."""
        self._uc.ctl_set_exits(addresses)
        self.invalidate_code()

    def start_counting(self) -> None:
        """Have every instruction counted, those that are translated already, too."""
        self.invalidate_code()  # deviation "warm-count"
        self._counting = self.hooked = True

    def stop_counting(self) -> None:
        """Let the engine remove the hook of a counted run now, and keep the CPU as it is.

        It would do so at the next start without a count (deviation "counted-exit"). The start
        here ends before its first instruction.
        """
        self.save()
        here = self.rip()
        self.set_exits([here])
        _emu_start(self._uch, here, 0, 0, 0)
        self.set_exits([])
        self.restore()
        self._counting, self.hooked = False, bool(self._code_hooks)

    # -- hooks

    def hook_code(self, callback: CodeHook | int, data: int | None = None) -> int:
        """Call back before each instruction: (engine, rip, size, data).

        A callback may also be the host address of a function.
        """
        self._unwatch()  # what is refused is told first, and then known not to be executed
        self.invalidate_code()  # deviation "late-hook"
        function = callback if isinstance(callback, int) else binding.HOOK_CODE_CFUNC(callback)
        handle = self._hook(unicorn.UC_HOOK_CODE, function, data=data)
        self._code_hooks.add(handle)
        self.hooked = True
        return handle

    def hook_accesses(self, callback: AccessHook | int, data: int | None = None) -> int:
        """Call back at each access to RAM: (engine, kind, pa, size, value, data).

        A load calls back when it is done, a store as it is made; see `is_store`. A callback may
        also be the host address of a function.
        """
        self.invalidate_code()  # deviation "late-hook"
        kinds = unicorn.UC_HOOK_MEM_READ_AFTER | unicorn.UC_HOOK_MEM_WRITE
        is_address = isinstance(callback, int)
        function = callback if is_address else binding.HOOK_MEM_ACCESS_CFUNC(callback)
        return self._hook(kinds, function, data=data)

    def hook_fills(self, callback: Callable[[Any, int, int, Any, Any], bool]) -> int:
        """Have each translation that the TLB lacks asked for: (engine, va, kind, entry, None)."""
        return self._hook(unicorn.UC_HOOK_TLB_FILL, binding.HOOK_TLB_FILL_CFUNC(callback))

    def ask_for_translations(self, whether: bool) -> None:
        """Have the CPU's own walk done by the callback of `hook_fills`, or by the CPU again."""
        self._uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL if whether else unicorn.UC_TLB_CPU)

    def watch(self, find: Find, passes: Passes) -> None:
        """Ask `passes` before each instruction that `find` names; if it says no, stop there.

        A block in which `find` names new ones ends the run before it, with NEW_CODE: `watch_new`,
        and go on. A no ends it with REFUSED, before the instruction, and an exception in one of
        the two with BROKEN. `passes`, a method, is held weakly.
        """
        told = self.event, self.watched_flags
        self._watch = Watch(self._uch, self._blob_handle, *told, find, passes)
        self._hook(unicorn.UC_HOOK_EDGE_GENERATED, self._watch.on_block)

    def watch_new(self) -> None:
        """Watch what was found at NEW_CODE, and forget the block that it is in.

        Where that would be too much in all, watch nothing: the block will be found again.
        """
        *new, block = self._watch.new
        self._watch.new.clear()
        if self._watched and len(self._watched) + len(new) > _MOST_WATCHED:
            self._unwatch()
            return
        for va in new:
            self._watched[va] = self._hook(unicorn.UC_HOOK_CODE, self._watch.on_watched, va, va)
        self.flushes += 1
        self._uc.ctl_remove_cache(block, block + 1)

    def break_off(self, error: BaseException) -> None:
        """End the run, from a hook, with BROKEN."""
        self._watch.broken.append(error)
        self.event[0] = BROKEN
        self.stop()

    def broken(self) -> BaseException:
        """Return the exception that ended the run with BROKEN."""
        return self._watch.broken.pop()

    def _unwatch(self) -> None:
        """Watch nothing; what is still executed will be found again."""
        if self._watched:
            self._delete(*self._watched.values())
        self._watched.clear()
        self._watch.known.clear()
        self.watched_flags.clear()

    def unhook(self, *handles: int) -> None:
        """Remove hooks, and the code that was translated for them."""
        self._delete(*handles)
        self._code_hooks.difference_update(handles)
        self.hooked = self._counting or bool(self._code_hooks)

    def _delete(self, *handles: int) -> None:
        self.save()
        for handle in handles:
            _uclib.uc_hook_del(self._uch, handle)
            del self._hooks[handle]
        self.restore()  # deviation "counted-exit"
        self.invalidate_code()

    def _hook(
        self,
        kind: int,
        function: Any,
        first: int = 1,
        last: int = 0,
        *instruction: int,
        data: int | None = None,
    ) -> int:
        handle = binding.uc_hook_h()
        status = _uclib.uc_hook_add(
            self._uch,
            ctypes.byref(handle),
            kind,
            function,
            data,
            ctypes.c_uint64(first),
            ctypes.c_uint64(last),
            *map(ctypes.c_int, instruction),
        )
        if status != OK:
            raise EngineError(f"uc_hook_add({kind:#x}) failed: {unicorn.UcError(status)}")
        self._hooks[int(handle.value)] = function
        return int(handle.value)

    def _hook_interrupts(self) -> None:
        event, stop = self.event, _uclib.uc_emu_stop  # no `self`: it would be a cycle

        def on_interrupt(engine: Any, vector: int, _: Any) -> None:
            event[0] = vector
            stop(engine)

        def on_syscall(engine: Any, _: Any) -> None:
            event[0] = SYSCALL
            stop(engine)

        def on_sysenter(engine: Any, _: Any) -> None:
            event[0] = SYSENTER
            stop(engine)

        self._hook(unicorn.UC_HOOK_INTR, binding.HOOK_INTR_CFUNC(on_interrupt))
        for instruction, callback in (  # deviations "syscall-nop" and "sysenter-nop"
            (x86.UC_X86_INS_SYSCALL, on_syscall),
            (x86.UC_X86_INS_SYSENTER, on_sysenter),
        ):
            self._hook(unicorn.UC_HOOK_INSN, HOOK_INSN_SYSCALL_CFUNC(callback), 1, 0, instruction)


def unpack_registers(packed: bytes) -> Registers:
    """Return the registers that `Engine.packed` packed; RFLAGS is without the arithmetic flags."""
    return Registers._make(PACKED.unpack(packed))


def translate_fetch(engine: Any, va: int) -> int:
    """Walk for `va` as a fetch does, A bits included, and execute nothing; return an error number.

    Where the fetch is refused, the CPU's state has CR2 and the error code of the #PF.
    """
    pa = ctypes.c_uint64()
    return int(_vmem_translate(engine, ctypes.c_uint64(va), unicorn.UC_PROT_EXEC, ctypes.byref(pa)))


def is_store(kind: int) -> bool:
    """Tell whether an access that `hook_accesses` reported was a store."""
    return bool(kind == unicorn.UC_MEM_WRITE)


def version() -> tuple[int, int, int]:
    """Return the version of the engine that is loaded."""
    combined = unicorn.uc_version()[2]  # one byte each, a build tag in the lowest
    return combined >> 24 & 255, combined >> 16 & 255, combined >> 8 & 255


def _never(*_: Any) -> bool:
    return False


def _closed(rip: int, count: int = 0) -> int:
    raise EngineError(f"cannot run from {rip:#x}: the machine is closed")


@cache
def _refuse_unknown_build() -> None:
    """Raise EngineError unless this build is known and its layout is what we read it as."""
    found = version()
    if found not in SUPPORTED:
        known = ", ".join(".".join(map(str, v)) for v in SUPPORTED)
        raise EngineError(f"unicorn {'.'.join(map(str, found))} is not known: expected {known}")
    wrong = layout_mismatches()
    if wrong:
        raise EngineError(f"this build of unicorn keeps {', '.join(wrong)} elsewhere")
