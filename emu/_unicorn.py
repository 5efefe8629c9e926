"""What Unicorn's API does not offer, and what it does differently from a CPU.

Knows the engine's private layout: the CPU state inside a saved context, by offset, proved with
markers before the first use. Refuses to know paging: it starts, stops, and hands over what the
engine saw. Nothing else in the project depends on the engine's insides.

Where the engine differs from the architecture, the difference is called by its name in
`deviations`.
"""

import ctypes
from collections.abc import Callable, Iterable
from functools import cache
from struct import Struct
from typing import Any, Final

import unicorn
from unicorn import x86_const as x86
from unicorn.unicorn_py3 import unicorn as binding
from unicorn.unicorn_py3.arch.intel import HOOK_INSN_SYSCALL_CFUNC

from emu.fault import EngineError
from emu.memory import PhysMemory
from emu.registers import Registers

MSR_EFER, MSR_STAR, MSR_LSTAR, MSR_FMASK = 0xC000_0080, 0xC000_0081, 0xC000_0082, 0xC000_0084
SUPPORTED: Final = ((2, 1, 4),)  # engine versions whose layout and behaviour are known

# Offsets into a saved context. `layout_mismatches` proves each of them with a marker.
_AT_GPRS: Final = 40  # in encoding order, then RIP, RFLAGS without the arithmetic flags
AT_HFLAGS: Final = 216  # bits 1:0 are the CPL
_AT_SEGMENTS: Final = 224  # ES CS SS DS FS GS, then LDTR TR GDTR IDTR
AT_CONTROL: Final = 464
_AT_RSP: Final = _AT_GPRS + 32
_AT_RIP: Final = _AT_GPRS + 128
_AT_EFER: Final = 632
_AT_PKRU: Final = 5344
_AT_ERROR_CODE: Final = 5424  # then: software raised it
_AT_NEXT_RIP: Final = 5432
AT_OLD_EXCEPTION: Final = 5536
_AT_COUNTED: Final = 1368  # into the engine itself: steps of a counted run

_SEGMENT: Final = Struct("<IIQII")  # selector, padding, base, limit, flags
_AT_BASES: Final = _AT_SEGMENTS + 4 * _SEGMENT.size + 8
_BASES: Final = Struct(f"<Q{_SEGMENT.size - 8}xQ")  # FS, GS
_SYSTEM: Final = {
    name: _AT_SEGMENTS + _SEGMENT.size * n
    for n, name in enumerate(("ldtr", "tr", "gdtr", "idtr"), 6)
}
_AT_CS: Final = _AT_SEGMENTS + _SEGMENT.size
_CS_TO_IDTR: Final = Struct("<I20xI92x" + "I4xQI4x" * 2 + "8xQI4x" * 2)
_AT_IDT_LIMIT: Final = _SYSTEM["idtr"] + 16
NO_IDT: Final = 0xFFFF_FFFF  # as IDTR's limit: no `lidt` can load more than 16 bits
_GENERAL: Final = Struct("<17Q")
_PACKED: Final = Struct(f"<18Q{_AT_BASES - _AT_GPRS - 18 * 8}xQ{_SEGMENT.size - 8}xQ")
_RAX_RIP: Final = Struct("<Q120xQ")
CONTROL: Final = Struct(  # CR0..4, EFER, PKRU, error code, software
    f"<5Q{_AT_EFER - AT_CONTROL - 5 * 8}xQ{_AT_PKRU - _AT_EFER - 8}xI"
    f"{_AT_ERROR_CODE - _AT_PKRU - 4}xII"
)
_SEGMENT_HFLAGS: Final = 0x8073  # CPL, CS and SS 32-bit, bases in use, CS 64-bit
_FLAT_64_BIT: Final = 0x8030
_U32: Final = Struct("<I")
_I32: Final = Struct("<i")
_U64: Final = Struct("<Q")
NO_EXCEPTION: Final = -1  # what the engine's memory of the last exception holds when it is cleared
SEGMENT_NAMES: Final = ("es", "cs", "ss", "ds", "fs", "gs")

OK: Final = unicorn.UC_ERR_OK
INVALID_INSTRUCTION: Final = unicorn.UC_ERR_INSN_INVALID
OUTSIDE_RAM: Final = frozenset(
    (unicorn.UC_ERR_READ_UNMAPPED, unicorn.UC_ERR_WRITE_UNMAPPED, unicorn.UC_ERR_FETCH_UNMAPPED)
)
NO_VECTOR: Final = -1
SYSCALL: Final = -2  # what `vector` holds after a syscall instruction

_REGISTER: Final = {
    name: getattr(x86, f"UC_X86_REG_{name.upper()}")
    for name in (*Registers._fields, "cr0", "cr2", "cr3", "cr4")
}
_WRITABLE: Final = {name: _REGISTER[name] for name in (*Registers._fields, "cr2", "cr3")}
_RFLAGS: Final = _REGISTER["rflags"]
_RFLAGS_RF: Final = 1 << 16
_uclib: Final = binding.uclib
_emu_start: Final = _uclib.uc_emu_start  # bound once: these four make up a fault
_context_save: Final = _uclib.uc_context_save
_context_restore: Final = _uclib.uc_context_restore
_reg_read: Final = _uclib.uc_reg_read
_ctl: Final = _uclib.uc_ctl
_FLUSH_TLB: Final = unicorn.UC_CTL_IO_WRITE << 30 | unicorn.UC_CTL_TLB_FLUSH
_vmem_translate: Final = _uclib.uc_vmem_translate  # which the binding does not offer
_TRANSLATION_BUFFER: Final = 32 << 20  # virtual; touched as needed


class Engine:
    """One Unicorn: entered, left, and looked at; never steered from inside.

    A run ends at `hlt`, at an exception, at a bad access, after `count` steps, or by `stop`.
    """

    def __init__(self, memory: PhysMemory, code: Iterable[tuple[int, int]]) -> None:
        _refuse_unknown_build()
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64, x86.UC_CPU_X86_ICELAKE_SERVER)
        self._uc = uc
        self._memory = memory  # outlives the engine, which reads it
        uc.ctl_set_tcg_buffer_size(_TRANSLATION_BUFFER)
        for piece in memory.pieces:
            at = memory.host_address + piece.start
            uc.mem_map_ptr(piece.start, piece.end - piece.start, unicorn.UC_PROT_ALL, at)
        uc.ctl_exits_enabled(True)  # deviation "until": no end address, ever
        uc.ctl_set_exits([])

        self._uch: Final = uc._uch
        self._context = uc.context_save()
        self._blob_handle: Final = self._context.context
        self._blob: Final = view(self._context)
        self._packed: Final = self._blob[_AT_GPRS : _AT_GPRS + _PACKED.size]
        self._old_exception: Final = ctypes.c_int32.from_address(
            self._blob_handle.value + AT_OLD_EXCEPTION
        )
        self._idt_limit: Final = ctypes.c_uint32.from_address(
            self._blob_handle.value + _AT_IDT_LIMIT
        )
        self._counted: Final = ctypes.c_uint64.from_address(uc._uch.value + _AT_COUNTED)
        self._u64: Final = ctypes.c_uint64()
        self._u64_ref: Final = ctypes.byref(self._u64)
        self._numbers: Final = (ctypes.c_int32 * len(_REGISTER))()
        self._values: Final = (ctypes.c_uint64 * len(_REGISTER))()
        first = ctypes.addressof(self._values)
        self._pointers: Final = (ctypes.c_void_p * len(_REGISTER))(
            *range(first, first + 8 * len(_REGISTER), 8)
        )

        self.write_system("idtr", 0, 0, NO_IDT)
        self.event: Final = [NO_VECTOR]  # the exception that ended the last run, or SYSCALL
        self._hooks: dict[int, Any] = {}  # the engine keeps only their addresses
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
        error: int = _emu_start(self._uch, rip, 0, 0, count)
        _context_save(self._uch, self._blob_handle)
        return error

    def fetch(self, va: int) -> int:
        """Translate `va` as `translate_fetch` does, and take a picture; return an error number."""
        error = translate_fetch(self._uch, va)
        _context_save(self._uch, self._blob_handle)
        return error

    def close(self) -> None:
        """Never run again: the memory is about to go."""
        self.start = _closed  # type: ignore[method-assign]

    def counted(self) -> int:
        """How many instructions the last run began, if it was counted.

        One more than it was allowed if that is what ended it: the last one was not executed.
        """
        return self._counted.value

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
        return _RAX_RIP.unpack_from(self._blob, _AT_GPRS)

    def rip(self) -> int:
        """RIP: of the faulting instruction, or of the next one."""
        return int(_U64.unpack_from(self._blob, _AT_RIP)[0])

    def registers(self) -> Registers:
        """All of them; the flags come from the CPU itself, not from the picture."""
        _reg_read(self._uch, _RFLAGS, self._u64_ref)
        rflags = self._u64.value & ~_RFLAGS_RF  # deviation "resume-flag"
        general = _GENERAL.unpack_from(self._blob, _AT_GPRS)
        bases = _BASES.unpack_from(self._blob, _AT_BASES)
        return tuple.__new__(Registers, (*general, rflags, *bases))

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
        return int(_U64.unpack_from(self._blob, _AT_NEXT_RIP)[0])

    def old_exception(self) -> int:
        """The engine's memory of the last exception, NO_EXCEPTION for none."""
        return self._old_exception.value

    def cpl(self) -> int:
        """The current privilege level. Not the CS selector's RPL: the engine keeps it apart."""
        return self._blob[AT_HFLAGS] & 3

    def selectors(self) -> dict[str, int]:
        """The segment selectors by name."""
        return {
            name: _SEGMENT.unpack_from(self._blob, _AT_SEGMENTS + _SEGMENT.size * i)[0]
            for i, name in enumerate(SEGMENT_NAMES)
        }

    def has_idt(self) -> bool:
        """Tell whether IDTR has been loaded, by the guest or from outside."""
        return self._idt_limit.value != NO_IDT

    def system(self) -> tuple[int, ...]:
        """CS and SS; selector, base and limit of LDTR and TR; base and limit of GDTR and IDTR."""
        return _CS_TO_IDTR.unpack_from(self._blob, _AT_CS)

    def read_system(self, name: str) -> tuple[int, int, int]:
        """Return the selector, base and limit of ldtr, tr, gdtr or idtr, now."""
        self.save()
        selector, _, base, limit, _ = _SEGMENT.unpack_from(self._blob, _SYSTEM[name])
        return selector, base, limit

    def write_system(self, name: str, selector: int, base: int, limit: int) -> None:
        """Load ldtr, tr, gdtr or idtr."""
        self.save()
        _SEGMENT.pack_into(self._blob, _SYSTEM[name], selector, 0, base, limit, 0)
        self.restore()

    def set_privilege(self, cpl: int, cs: int, ss: int) -> None:
        """Set CPL and flat 64-bit CS and SS; writing the selectors alone would not do it."""
        self.save()
        self._set_segments(cpl, cs, ss)
        self.restore()

    def enter(self, cpl: int, cs: int, ss: int, rip: int, rsp: int, rflags: int) -> None:
        """Go on elsewhere: make this of the picture, and the picture the CPU's state."""
        self._set_segments(cpl, cs, ss)
        _U64.pack_into(self._blob, _AT_RSP, rsp)
        _U64.pack_into(self._blob, _AT_RIP, rip)
        self.restore()
        self.write("rflags", rflags)

    def _set_segments(self, cpl: int, cs: int, ss: int) -> None:
        for i, selector, flags in ((1, cs, 0x00AF_9B00), (2, ss, 0x00CF_9300)):
            _SEGMENT.pack_into(
                self._blob,
                _AT_SEGMENTS + _SEGMENT.size * i,
                *(selector, 0, 0, 0xFFFF_FFFF, flags | cpl << 13),
            )
        (hflags,) = _U32.unpack_from(self._blob, AT_HFLAGS)
        _U32.pack_into(self._blob, AT_HFLAGS, hflags & ~_SEGMENT_HFLAGS | _FLAT_64_BIT | cpl)

    # -- single registers

    def read(self, name: str) -> int:
        """Return one register by its SDM name."""
        _reg_read(self._uch, _REGISTER[name], self._u64_ref)
        return self._u64.value

    def write(self, name: str, value: int) -> None:
        """Set one register by its SDM name; KeyError for a name that is none."""
        register = _REGISTER[name]
        self._u64.value = value
        _uclib.uc_reg_write(self._uch, register, self._u64_ref)

    def write_all(self, registers: dict[str, int]) -> None:
        """Set registers by their SDM names, in one call; KeyError for CR0, CR4 and no register."""
        numbers, values = self._numbers, self._values
        count = 0
        for name, value in registers.items():
            numbers[count] = _WRITABLE[name]
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
        _U32.pack_into(self._blob, _AT_PKRU, value)
        self.restore()

    # -- what the engine has cached

    def invalidate_tlb(self) -> None:
        """Forget every cached translation."""
        _ctl(self._uch, _FLUSH_TLB)

    def invalidate_code(self) -> None:
        """Forget every translated block of code."""
        self._uc.ctl_flush_tb()

    def set_exits(self, addresses: list[int]) -> None:
        """Also end a run when it reaches one of these addresses."""
        self._uc.ctl_set_exits(addresses)
        self._uc.ctl_flush_tb()

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

    # -- hooks

    def hook_code(self, callback: Callable[[Any, int, int, Any], None]) -> int:
        """Call back before each instruction: (engine, rip, size, None)."""
        self.invalidate_code()  # deviation "late-hook"
        return self._hook(unicorn.UC_HOOK_CODE, binding.HOOK_CODE_CFUNC(callback))

    def hook_accesses(self, callback: Callable[[Any, int, int, int, int, Any], None]) -> int:
        """Call back at each access to RAM: (engine, kind, pa, size, value, None).

        A load calls back when it is done, a store as it is made; see `is_store`.
        """
        self.invalidate_code()  # deviation "late-hook"
        kinds = unicorn.UC_HOOK_MEM_READ_AFTER | unicorn.UC_HOOK_MEM_WRITE
        return self._hook(kinds, binding.HOOK_MEM_ACCESS_CFUNC(callback))

    def unhook(self, handle: int) -> None:
        """Remove a hook, and the code that was translated for it."""
        self.save()
        _uclib.uc_hook_del(self._uch, handle)
        self.restore()  # deviation "counted-exit"
        self.invalidate_code()
        del self._hooks[handle]

    def _hook(
        self, kind: int, function: Any, first: int = 1, last: int = 0, *instruction: int
    ) -> int:
        handle = binding.uc_hook_h()
        status = _uclib.uc_hook_add(
            self._uch,
            ctypes.byref(handle),
            kind,
            function,
            None,
            first,
            last,
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

        self._hook(unicorn.UC_HOOK_INTR, binding.HOOK_INTR_CFUNC(on_interrupt))
        for instruction in (x86.UC_X86_INS_SYSCALL, x86.UC_X86_INS_SYSENTER):
            # deviation "syscall-nop"
            self._hook(unicorn.UC_HOOK_INSN, HOOK_INSN_SYSCALL_CFUNC(on_syscall), 1, 0, instruction)


def unpack_registers(packed: bytes) -> Registers:
    """Return the registers that `Engine.packed` packed; RFLAGS is without the arithmetic flags."""
    return Registers._make(_PACKED.unpack(packed))


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


def view(context: Any) -> memoryview:
    """Return the bytes of a saved context, in place."""
    return memoryview(_array(context.size).from_address(context.context.value)).cast("B")


@cache
def _array(size: int) -> Any:
    return ctypes.c_char * size  # a type: creating one for each engine would need the gc


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


def layout_mismatches() -> list[str]:
    """Return which parts of the CPU state do not lie where we read them; none is the proof.

    Three runs leave their marks: one loads selectors and PKRU, one faults in a counted run, and
    one goes to CPL 3 and raises `int 0x20`.
    """
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64, x86.UC_CPU_X86_ICELAKE_SERVER)
    uc.ctl_set_tcg_buffer_size(1 << 20)
    uc.mem_map(0, 0x6000)
    for entry, value in ((0x5000, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007), (0x4008, 0x1007)):
        uc.mem_write(entry, value.to_bytes(8, "little"))
    uc.mem_write(0x1000, _LOAD_SELECTORS + _WRPKRU + _HLT)
    uc.mem_write(0x1040, _FAULT)
    uc.mem_write(0x1080, _SYSRET)
    uc.mem_write(0x10C0, _INT_20)
    for selector in range(0x20, 0x40, 8):
        uc.mem_write(0x1100 + selector, _DATA_SEGMENT)
    uc.reg_write(x86.UC_X86_REG_GDTR, (0, 0x1000 + 0x100, 0xFFF, 0))
    uc.reg_write(x86.UC_X86_REG_IDTR, (0, 0x2222, 0xFF2, 0))
    uc.reg_write(x86.UC_X86_REG_LDTR, (0x48, 0x4848, 0xFF4, 0))
    uc.reg_write(x86.UC_X86_REG_TR, (0x58, 0x5858, 0xFF5, 0))
    uc.reg_write(_REGISTER["cr3"], 0x5000)
    uc.reg_write(_REGISTER["cr4"], 0x40_0020)  # PKE, PAE
    uc.msr_write(MSR_EFER, 0xD01)
    uc.msr_write(MSR_STAR, 0x50 << 48)
    uc.reg_write(_REGISTER["cr0"], 0x8000_0033)
    uc.ctl_exits_enabled(True)
    uc.ctl_set_exits([])
    uc.hook_add(unicorn.UC_HOOK_INTR, lambda uc, *_: uc.emu_stop())

    uc.reg_write(_REGISTER["rax"], _PKRU_MARK)
    uc.emu_start(0x1000, 0)
    marks = {name: 0x1111_0000_0000_0000 + i for i, name in enumerate(Registers._fields[:16])}
    for name, mark in (*marks.items(), ("fs_base", 0x3333), ("gs_base", 0x4444)):
        uc.reg_write(_REGISTER[name], mark)
    uc.reg_write(_RFLAGS, 0x4_0002)
    uc.emu_start(0x1040, 0, count=9)
    counted = ctypes.c_uint64.from_address(uc._uch.value + _AT_COUNTED).value
    faulted = uc.context_save()
    if faulted.size < AT_OLD_EXCEPTION + 4:
        return ["everything"]
    uc.reg_write(_REGISTER["rcx"], 0x10C0)
    uc.reg_write(_REGISTER["r11"], 2)
    uc.emu_start(0x1080, 0)
    blob, after = view(faulted), view(uc.context_save())

    *registers, rflags, fs_base, gs_base = _PACKED.unpack_from(blob, _AT_GPRS)
    expected = {
        "the general registers and RIP": (registers, [*marks.values(), 0x1040]),
        "RFLAGS": (rflags & 0x4_0000, 0x4_0000),
        "the bases": (
            (fs_base, gs_base, *_BASES.unpack_from(blob, _AT_BASES)),
            (0x3333, 0x4444, 0x3333, 0x4444),
        ),
        "the control registers, PKRU and the error code": (
            CONTROL.unpack_from(blob, AT_CONTROL),
            (0x8000_0033, 0, 0x40_0000, 0x5000, 0x40_0020, 0xD01, _PKRU_MARK, 2, 0),
        ),
        "PKRU": (_U32.unpack_from(blob, _AT_PKRU)[0], _PKRU_MARK),
        "the count of instructions": (counted, 1),
        "the last exception": (_I32.unpack_from(blob, AT_OLD_EXCEPTION)[0], 14),
        "CPL": ((blob[AT_HFLAGS] & 3, after[AT_HFLAGS] & 3), (0, 3)),
        "the selectors": (
            [_SEGMENT.unpack_from(after, _AT_SEGMENTS + _SEGMENT.size * i)[0] for i in range(6)],
            [0x20, 0x63, 0x5B, 0x28, 0x30, 0x38],
        ),
        "the system registers": (
            _CS_TO_IDTR.unpack_from(blob, _AT_CS)[2:],
            (*(0x48, 0x4848, 0xFF4), *(0x58, 0x5858, 0xFF5), *(0x1100, 0xFFF), *(0x2222, 0xFF2)),
        ),
        "what software raised": (CONTROL.unpack_from(after, AT_CONTROL)[8], 1),
        "the RIP behind an int": (_U64.unpack_from(after, _AT_NEXT_RIP)[0], 0x10C0 + 2),
    }
    return [what for what, (found, wanted) in expected.items() if found != wanted]


# What `layout_mismatches` runs.
_LOAD_SELECTORS: Final = bytes.fromhex(
    "b9 20000000 8ec1"  # mov ecx, 0x20; mov es, ecx; likewise 0x28 to ds, 0x30 to fs, 0x38 to gs
    "b9 28000000 8ed9"
    "b9 30000000 8ee1"
    "b9 38000000 8ee9"
)
_WRPKRU: Final = bytes.fromhex("31c9 31d2 0f01ef")  # xor ecx, ecx; xor edx, edx; wrpkru
_HLT: Final = b"\xf4"
_FAULT: Final = bytes.fromhex("c6042500004000 01")  # mov byte ptr [0x400000], 1: not mapped
_SYSRET: Final = bytes.fromhex("480f07")  # to RCX, CPL 3
_INT_20: Final = bytes.fromhex("cd20")
_DATA_SEGMENT: Final = (0x00CF_9300_0000_FFFF).to_bytes(8, "little")
_PKRU_MARK: Final = 0x5555_5550  # all keys but 0 and 1 are denied
