"""Where the engine keeps what we read of it, and the proof that it does.

Knows the private layout of Unicorn's x86 CPU state, by offset: inside a saved context, and inside
the engine itself. Refuses to know what is done with it (`_unicorn`). Nothing in the project but
these two depends on the engine's insides. SDM names.
"""

import ctypes
import os
from functools import cache
from struct import Struct
from typing import Any, Final

import unicorn
from unicorn import x86_const as x86

from emu._flags import before
from emu.registers import MSR_EFER, MSR_STAR, Registers

# Offsets into a saved context, if nothing else is named. `layout_mismatches` proves each of them
# with a marker.
AT_GPRS: Final = 40  # in encoding order, then RIP, RFLAGS: in a hook without the arithmetic flags
AT_LAZY_FLAGS: Final = 184  # the result, an operand, another; the operation that they are of
AT_OPERATION: Final = AT_LAZY_FLAGS + 24
AT_HFLAGS: Final = 216  # bits 1:0 are the CPL
AT_SEGMENTS: Final = 224  # ES CS SS DS FS GS, then LDTR TR GDTR IDTR
AT_CONTROL: Final = 464
AT_RSP: Final = AT_GPRS + 32
AT_RIP: Final = AT_GPRS + 128
AT_RFLAGS: Final = AT_GPRS + 136
AT_EFER: Final = 632
AT_PKRU: Final = 5344
AT_ERROR_CODE: Final = 5424  # then: software raised it
AT_NEXT_RIP: Final = 5432
AT_OLD_EXCEPTION: Final = 5536
AT_COUNTED: Final = 1368  # into the engine itself: steps of a counted run
AT_CPU: Final = 440  # into the engine itself: a pointer to the CPU
AT_TLB_FILL: Final = 0xA758  # into the CPU: a pointer to the function that walks the tables
AT_STATE: Final = 0x8A50  # into the CPU: the state that a context is a copy of, from the GPRs on

SEGMENT: Final = Struct("<IIQII")  # selector, padding, base, limit, flags
AT_BASES: Final = AT_SEGMENTS + 4 * SEGMENT.size + 8
BASES: Final = Struct(f"<Q{SEGMENT.size - 8}xQ")  # FS, GS
SYSTEM: Final = {
    name: AT_SEGMENTS + SEGMENT.size * n for n, name in enumerate(("ldtr", "tr", "gdtr", "idtr"), 6)
}
AT_CS: Final = AT_SEGMENTS + SEGMENT.size
CS_TO_IDTR: Final = Struct("<I20xI92x" + "I4xQI4x" * 2 + "8xQI4x" * 2)
AT_IDT_LIMIT: Final = SYSTEM["idtr"] + 16
NO_IDT: Final = 0xFFFF_FFFF  # as IDTR's limit: no `lidt` can load more than 16 bits
PACKED: Final = Struct(f"<18Q{AT_BASES - AT_GPRS - 18 * 8}xQ{SEGMENT.size - 8}xQ")
RAX_RIP: Final = Struct("<Q120xQ")
LAZY_FLAGS: Final = Struct("<QQ8xI")
CONTROL: Final = Struct(  # CR0..4, EFER, PKRU, error code, software
    f"<5Q{AT_EFER - AT_CONTROL - 5 * 8}xQ{AT_PKRU - AT_EFER - 8}xI{AT_ERROR_CODE - AT_PKRU - 4}xII"
)
SEGMENT_HFLAGS: Final = 0x8073  # CPL, CS and SS 32-bit, bases in use, CS 64-bit
FLAT_64_BIT: Final = 0x8030
IN_64_BIT_CODE: Final = 0x8000
LIVE_HFLAGS: Final = (
    AT_HFLAGS - AT_GPRS
) // 8  # into `live`; the upper half of the word is others'
LIVE_RFLAGS: Final = (AT_RFLAGS - AT_GPRS) // 8  # without the arithmetic flags
LIVE_BASES: Final = tuple((at - AT_GPRS) // 8 for at in (AT_BASES, AT_BASES + SEGMENT.size))
U32: Final = Struct("<I")
I32: Final = Struct("<i")
U64: Final = Struct("<Q")
NO_EXCEPTION: Final = -1  # what the engine's memory of the last exception holds when it is cleared
SEGMENT_NAMES: Final = ("es", "cs", "ss", "ds", "fs", "gs")

REGISTER: Final = {
    name: getattr(x86, f"UC_X86_REG_{name.upper()}")
    for name in (*Registers._fields, "cr0", "cr2", "cr3", "cr4")
}
WRITABLE: Final = {name: REGISTER[name] for name in (*Registers._fields, "cr2", "cr3")}
RFLAGS: Final = REGISTER["rflags"]


def view(context: Any) -> memoryview:
    """Return the bytes of a saved context, in place; they keep the context."""
    array = _array(context.size).from_address(context.context.value)
    array.context = context
    return memoryview(array).cast("B")


@cache
def _array(size: int) -> Any:
    return ctypes.c_char * size  # a type: creating one for each engine would need the gc


def live(engine: Any) -> memoryview:
    """Return the words of the CPU's state, in place: from RAX to RIP, LIVE_HFLAGS, LIVE_BASES."""
    words = _words.from_address(state_address(engine))
    return memoryview(words).cast("B").cast("Q")


def state_address(engine: Any) -> int:
    """Return where the CPU's state begins: RAX."""
    return _cpu(engine) + AT_STATE


def tlb_fill(engine: Any) -> ctypes.c_uint64:
    """Return, in place, the pointer to what fills the TLB: it walks the tables, or faults."""
    return ctypes.c_uint64.from_address(_cpu(engine) + AT_TLB_FILL)


def _cpu(engine: Any) -> int:
    return ctypes.c_uint64.from_address(engine.value + AT_CPU).value


_words: Final = ctypes.c_uint64 * (LIVE_BASES[-1] + 1)


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
    uc.mem_write(0x1040 - len(_COMPARE), _COMPARE + _FAULT)
    uc.mem_write(0x1080, _SYSRET)
    uc.mem_write(0x10C0, _INT_20)
    for selector in range(0x20, 0x40, 8):
        uc.mem_write(0x1100 + selector, _DATA_SEGMENT)
    uc.reg_write(x86.UC_X86_REG_GDTR, (0, 0x1000 + 0x100, 0xFFF, 0))
    uc.reg_write(x86.UC_X86_REG_IDTR, (0, 0x2222, 0xFF2, 0))
    uc.reg_write(x86.UC_X86_REG_LDTR, (0x48, 0x4848, 0xFF4, 0))
    uc.reg_write(x86.UC_X86_REG_TR, (0x58, 0x5858, 0xFF5, 0))
    uc.reg_write(REGISTER["cr3"], 0x5000)
    uc.reg_write(REGISTER["cr4"], 0x40_0020)  # PKE, PAE
    uc.msr_write(MSR_EFER, 0xD01)
    uc.msr_write(MSR_STAR, 0x50 << 48)
    uc.reg_write(REGISTER["cr0"], 0x8000_0033)
    uc.ctl_exits_enabled(True)
    uc.ctl_set_exits([])
    uc.hook_add(unicorn.UC_HOOK_INTR, lambda uc, *_: uc.emu_stop())

    uc.reg_write(REGISTER["rax"], _PKRU_MARK)
    uc.emu_start(0x1000, 0)
    marks = {name: 0x1111_0000_0000_0000 + i for i, name in enumerate(Registers._fields[:16])}
    for name, mark in (*marks.items(), ("fs_base", 0x3333), ("gs_base", 0x4444)):
        uc.reg_write(REGISTER[name], mark)
    uc.reg_write(RFLAGS, 0x4_0002)
    uc.emu_start(0x1040 - len(_COMPARE), 0, count=9)
    counted = ctypes.c_uint64.from_address(uc._uch.value + AT_COUNTED).value
    faulted = uc.context_save()
    if faulted.size < AT_OLD_EXCEPTION + 4:
        return ["everything"]
    uc.reg_write(REGISTER["rcx"], 0x10C0)
    uc.reg_write(REGISTER["r11"], _RFLAGS_MARK)
    uc.emu_start(0x1080, 0)
    blob, after = view(faulted), view(uc.context_save())
    state = _read(state_address(uc._uch), ctypes.sizeof(_words))
    fills = []
    for mode in (unicorn.UC_TLB_CPU, unicorn.UC_TLB_VIRTUAL, unicorn.UC_TLB_CPU):
        uc.ctl_set_tlb_mode(mode)
        fills.append(_read(_cpu(uc._uch) + AT_TLB_FILL, 8))

    *registers, rflags, fs_base, gs_base = PACKED.unpack_from(blob, AT_GPRS)
    expected = {
        "the general registers and RIP": (registers, [*marks.values(), 0x1040]),
        "RFLAGS": (
            (rflags & 0x4_0000, U64.unpack_from(after, AT_RFLAGS)[0]),
            (0x4_0000, _RFLAGS_MARK),
        ),
        "the flags that nobody has asked for": (
            before(*LAZY_FLAGS.unpack_from(blob, AT_LAZY_FLAGS)),
            _FLAGS_OF_COMPARE,
        ),
        "the bases": (
            (fs_base, gs_base, *BASES.unpack_from(blob, AT_BASES)),
            (0x3333, 0x4444, 0x3333, 0x4444),
        ),
        "the control registers, PKRU and the error code": (
            CONTROL.unpack_from(blob, AT_CONTROL),
            (0x8000_0033, 0, 0x40_0000, 0x5000, 0x40_0020, 0xD01, _PKRU_MARK, 2, 0),
        ),
        "PKRU": (U32.unpack_from(blob, AT_PKRU)[0], _PKRU_MARK),
        "the count of instructions": (counted, 2),
        "the last exception": (I32.unpack_from(blob, AT_OLD_EXCEPTION)[0], 14),
        "CPL": ((blob[AT_HFLAGS] & 3, after[AT_HFLAGS] & 3), (0, 3)),
        "the selectors": (
            [SEGMENT.unpack_from(after, AT_SEGMENTS + SEGMENT.size * i)[0] for i in range(6)],
            [0x20, 0x63, 0x5B, 0x28, 0x30, 0x38],
        ),
        "the system registers": (
            CS_TO_IDTR.unpack_from(blob, AT_CS)[2:],
            (*(0x48, 0x4848, 0xFF4), *(0x58, 0x5858, 0xFF5), *(0x1100, 0xFFF), *(0x2222, 0xFF2)),
        ),
        "the state that a context is a copy of": (
            state,
            after[AT_GPRS : AT_GPRS + ctypes.sizeof(_words)],
        ),
        "what fills the TLB": (fills[0] == fills[2] != fills[1] != b"", True),
        "what software raised": (CONTROL.unpack_from(after, AT_CONTROL)[8], 1),
        "the RIP behind an int": (U64.unpack_from(after, AT_NEXT_RIP)[0], 0x10C0 + 2),
    }
    return [what for what, (found, wanted) in expected.items() if found != wanted]


def _read(address: int, size: int) -> bytes:
    """Read memory of this process; nothing if there is none, where reading it would be the end.

    The kernel knows, if asked to write it into a pipe.
    """
    reader, writer = os.pipe()
    try:
        done = ctypes.CDLL(None).write(writer, ctypes.c_void_p(address), ctypes.c_size_t(size))
        return os.read(reader, size) if done == size else b""
    finally:
        os.close(reader)
        os.close(writer)


# What `layout_mismatches` runs.
_LOAD_SELECTORS: Final = bytes.fromhex(
    "b9 20000000 8ec1"  # mov ecx, 0x20; mov es, ecx; likewise 0x28 to ds, 0x30 to fs, 0x38 to gs
    "b9 28000000 8ed9"
    "b9 30000000 8ee1"
    "b9 38000000 8ee9"
)
_WRPKRU: Final = bytes.fromhex("31c9 31d2 0f01ef")  # xor ecx, ecx; xor edx, edx; wrpkru
_HLT: Final = b"\xf4"
_COMPARE: Final = bytes.fromhex("3c07")  # cmp al, 7: with 0 in AL
_FLAGS_OF_COMPARE: Final = 0x95  # SF AF PF CF
_FAULT: Final = bytes.fromhex("c6042500004000 01")  # mov byte ptr [0x400000], 1: not mapped
_SYSRET: Final = bytes.fromhex("480f07")  # to RCX, CPL 3
_INT_20: Final = bytes.fromhex("cd20")
_DATA_SEGMENT: Final = (0x00CF_9300_0000_FFFF).to_bytes(8, "little")
_RFLAGS_MARK: Final = 0x4_08D7  # AC, and all that are arithmetic
_PKRU_MARK: Final = 0x5555_5550  # all keys but 0 and 1 are denied
