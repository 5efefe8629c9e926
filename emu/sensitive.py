"""The instructions that the engine executes where a CPU may refuse them, and when a CPU does.

Knows how to find them in a block of code, and what each depends on: values in registers, memory
that it touches, or a port. Refuses to know the engine, and repeats no check that it makes itself:
privilege, #UD and #NM. SDM vocabulary; source: Intel SDM volume 2, "Exceptions" on the
instructions' own pages, and volume 3A, "Control Registers".
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from emu.descriptors import SELECTOR_RPL
from emu.instruction import MAX_SIZE, Instruction, decode
from emu.paging import (
    CR0_CD,
    CR0_EM,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR4_LA57,
    CR4_OSFXSR,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
    MAXPHYADDR,
    TOP_LEVEL,
    U64,
    Paging,
    is_canonical,
)
from emu.registers import (
    MSR_CSTAR,
    MSR_EFER,
    MSR_FS_BASE,
    MSR_GS_BASE,
    MSR_KERNEL_GS_BASE,
    MSR_LSTAR,
    MSR_SYSENTER_EIP,
    MSR_SYSENTER_ESP,
    Harmless,
    Registers,
)

# ------------------------------------------------------------------ what a rule may be


class Values(NamedTuple):
    """#GP(0) if `refused`, by the registers. Never if `harmless`, by the general ones and RIP.

    One that `touches` memory may fault all the same.
    """

    refused: Callable[[Registers, Paging], bool]
    harmless: Harmless | None = None
    touches: bool = False


class CacheLine(NamedTuple):
    """What a load of the byte would raise (deviation "cache-line")."""


class UserStack(NamedTuple):
    """What the stack accesses raise at CPL 3, which the engine makes as the supervisor (deviation
    "far-return")."""


class UserPort(NamedTuple):
    """#GP(0) at CPL 3, unless IOPL or the TSS permits `size` ports from `number` on, or from DX
    (deviation "user-io")."""

    number: int | None
    size: int


Rule = Values | CacheLine | UserStack | UserPort


def find(rip: int, code: bytes, count: int, user: bool) -> list[tuple[int, Harmless | None, bool]]:
    """List where in a block of `count` instructions such ones stand, and for each what spares the
    question, and whether it may fault when it is not refused.

    `user` says that the block is executed at CPL 3. Where the engine sees other instructions than
    the decoder does, whatever could be one is listed.
    """
    if not _MAY_HOLD[user](code):
        return []
    line = list(_straight(code))
    if len(line) != count or line[-1][0] + line[-1][1].size != len(code):
        tried = ((at, decode(code[at : at + MAX_SIZE])) for at in range(len(code)))
        line = [(at, instruction) for at, instruction in tried if instruction is not None]
    return [
        (rip + at & U64, *(rule[1:] if isinstance(rule, Values) else (None, True)))
        for at, instruction in line
        if (rule := rule_of(instruction)) is not None
        and (user or not isinstance(rule, UserStack | UserPort))
    ]


def _straight(code: bytes) -> Iterator[tuple[int, Instruction]]:
    at = 0
    while (instruction := decode(code[at : at + MAX_SIZE])) is not None:
        yield at, instruction
        at += instruction.size


@lru_cache(maxsize=4096)
def rule_of(instruction: Instruction) -> Rule | None:
    """Return the rule for an instruction; None if it is not one of them."""
    name = instruction.mnemonic.split()[-1]
    encoding = _encoding(instruction.code)
    if name in _RULE:
        return _RULE[name]
    if name in _PORTS:
        return _port(encoding)
    if name == "mov":
        return _control(instruction.operands)
    if name == "ltr":
        return _null_selector(encoding)
    return _aligned(instruction, encoding) if _must_align(encoding) else None


class _Encoding(NamedTuple):
    """The prefixes, REX or 0 (it counts only as the last of them), and the rest: the opcode."""

    prefixes: bytes
    rex: int
    opcode: bytes


_PREFIXES: Final = b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3"
_REX: Final = bytes(range(0x40, 0x50))


def _encoding(code: bytes) -> _Encoding:
    opcode = code.lstrip(_PREFIXES + _REX)
    prefixes = code[: len(code) - len(opcode)]
    last = prefixes[-1] if prefixes else 0
    return _Encoding(prefixes, last if last in _REX else 0, opcode)


# ------------------------------------------------------------------ values that are refused


class _Bits(NamedTuple):
    """Of a value that is loaded: which bits must be 0, must be 1, must be as they are."""

    zero: int
    one: int = 0
    kept: int = 0

    def refuse(self, new: int, now: int = 0) -> bool:
        """Tell whether `new` cannot replace `now`."""
        return bool(new & self.zero or ~new & self.one or (new ^ now) & self.kept)


_CR4_KNOWN: Final = 0x0075_17FC  # what this model's CPUID offers: no VME, UMIP, VMX, SMX, PCID
_CR0: Final = _Bits(zero=U64 - 0xFFFF_FFFF, one=CR0_PE | CR0_PG)  # deviation "reserved-cr0"
_CR3: Final = _Bits(zero=U64 - ((1 << MAXPHYADDR) - 1))  # deviation "reserved-cr3"
# Deviations "reserved-cr4" and "la57-toggle".
_CR4: Final = _Bits(zero=U64 - _CR4_KNOWN, one=CR4_PAE, kept=CR4_LA57)
_CR8: Final = _Bits(zero=U64 - 0xF)  # deviation "reserved-cr8"
_EFER: Final = _Bits(zero=U64 - (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE), kept=EFER_LME)

_ADDRESS_MSRS: Final = frozenset(  # deviation "msr-canonical"
    (
        *(MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_LSTAR, MSR_CSTAR),
        *(MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE),
    )
)
_JUDGED_MSRS: Final = _ADDRESS_MSRS | {MSR_EFER}
_GENERAL: Final = {name: number for number, name in enumerate(Registers._fields[:16])}


def _control(operands: str) -> Rule | None:
    """MOV to a control register (SDM volume 2, "MOV-Move to/from Control Registers")."""
    target, _, source = operands.partition(", ")
    number = _GENERAL.get(source)
    if number is None:
        return None
    match target:
        case "cr0":
            return Values(lambda r, _: _CR0.refuse(r[number]) or r[number] & _CACHES == CR0_NW)
        case "cr3":
            return _without(_CR3.zero, number)
        case "cr4":
            return Values(lambda r, paging: _CR4.refuse(r[number], paging.cr4))
        case "cr8":
            return _without(_CR8.zero, number)
    return None


_CACHES: Final = CR0_CD | CR0_NW


def _without(zero: int, number: int) -> Values:
    """A value in general register `number`, of which these bits must be 0 and no more."""
    return Values(lambda r, _: r[number] & zero != 0, lambda r: not r[number] & zero)


def _wrmsr(registers: Registers, paging: Paging) -> bool:
    """WRMSR (SDM volume 2, "WRMSR-Write to Model Specific Register").

    An address must be canonical in as many bits as the CPU has, whatever CR4.LA57 says.
    """
    msr = registers.rcx & 0xFFFF_FFFF
    new = registers.rax & 0xFFFF_FFFF | (registers.rdx & 0xFFFF_FFFF) << 32
    if msr == MSR_EFER:  # deviation "efer-lme"
        return _EFER.refuse(new, paging.efer)
    return msr in _ADDRESS_MSRS and not is_canonical(new, TOP_LEVEL)


def _sysret(registers: Registers, paging: Paging) -> bool:
    """Tell whether SYSRET is refused in ring 0, on Intel's, for where it would go."""
    return bool(paging.efer & EFER_SCE) and not paging.is_canonical(registers.rcx)


def _other_msr(general: Sequence[int]) -> bool:
    return general[1] & 0xFFFF_FFFF not in _JUDGED_MSRS


def _null_selector(encoding: _Encoding) -> Rule | None:
    """LTR of a register (deviation "null-tr"; from memory it is not corrected)."""
    modrm = encoding.opcode[2]
    number = modrm & 7 | (encoding.rex & 1) << 3
    if modrm < 0xC0:
        return None
    # It touches its descriptor.
    return Values(lambda r, _: not r[number] & 0xFFFF & ~SELECTOR_RPL, touches=True)


# ------------------------------------------------------------------ operands that must be aligned

# Opcodes of which a memory operand of 16 bytes must be: by the bytes before, and the prefix.
_ALIGNED: Final = {
    (escape, prefix): frozenset(bytes.fromhex(opcodes))
    for escape, prefix, opcodes in (
        (b"\x0f", 0, "14 15 28 29 2b 51 52 53 54 55 56 57 58 59 5b 5c 5d 5e 5f c2 c6"),
        (
            *(b"\x0f", 0x66),
            "14 15 28 29 2b 2c 2d 51 54 55 56 57 58 59 5a 5b 5c 5d 5e 5f"
            "60 61 62 63 64 65 66 67 68 69 6a 6b 6c 6d 6f 70 74 75 76 7c 7d 7f"
            "c2 c6 d0 d1 d2 d3 d4 d5 d8 d9 da db dc dd de df"
            "e0 e1 e2 e3 e4 e5 e6 e7 e8 e9 ea eb ec ed ee ef"
            "f1 f2 f3 f4 f5 f6 f8 f9 fa fb fc fd fe",
        ),
        (b"\x0f", 0xF3, "12 16 5b 70"),
        (b"\x0f", 0xF2, "70 7c 7d d0 e6"),
        (
            *(b"\x0f\x38", 0x66),
            "00 01 02 03 04 05 06 07 08 09 0a 0b 10 14 15 17 1c 1d 1e"
            "28 29 2a 2b 37 38 39 3a 3b 3c 3d 3e 3f 40 41 db dc dd de df",
        ),
        (b"\x0f\x3a", 0x66, "08 09 0c 0d 0e 0f 40 41 42 44 df"),
    )
}
_NO_BASE: Final = frozenset(b"\x64\x65")  # FS and GS have one


def _must_align(encoding: _Encoding) -> bool:
    """Tell whether it is a legacy SSE instruction with such an operand (SDM volume 2, "MOVAPS")."""
    prefixes, _, opcode = encoding
    escape = opcode[:2] if opcode[1:2] in (b"\x38", b"\x3a") else opcode[:1]
    mandatory = [each for each in prefixes if each in b"\xf2\xf3"] or [0x66] * (0x66 in prefixes)
    opcodes = _ALIGNED.get((escape, mandatory[-1] if mandatory else 0), ())
    number, modrm = opcode[len(escape) :][:1], opcode[len(escape) + 1 :][:1]
    return number != b"" and number[0] in opcodes and modrm < b"\xc0"


def _aligned(instruction: Instruction, encoding: _Encoding) -> Rule:
    accesses = instruction.accesses

    def refused(registers: Registers, paging: Paging) -> bool:
        """#UD and #NM come before, and another #GP or #SS for an address that is none."""
        va = accesses(registers)[0].va
        usable = not paging.cr0 & (CR0_EM | CR0_TS) and paging.cr4 & CR4_OSFXSR
        return bool(va & 15 and usable) and paging.is_canonical(va)

    if not _NO_BASE.isdisjoint(encoding.prefixes):
        return Values(refused, None, touches=True)
    return Values(refused, lambda general: not accesses(general)[0].va & 15, touches=True)  # type: ignore[arg-type]


# ------------------------------------------------------------------ ports


def _port(encoding: _Encoding) -> Rule:
    """IN, OUT, INS, OUTS: an immediate is the port's number, bit 0 of the opcode says the size."""
    opcode = encoding.opcode
    wide = 2 if b"\x66" in encoding.prefixes and not encoding.rex & 8 else 4
    return UserPort(opcode[1] if len(opcode) > 1 else None, wide if opcode[0] & 1 else 1)


# ------------------------------------------------------------------ by name, and by a first glance

_PORTS: Final = frozenset("in out insb insw insd outsb outsw outsd".split())
_RULE: Final[dict[str, Rule]] = {
    "wrmsr": Values(_wrmsr, _other_msr),
    "sysretq": Values(_sysret),
    **dict.fromkeys(("clflush", "clflushopt", "clwb"), CacheLine()),
    **dict.fromkeys(("retf", "retfq", "iret", "iretd", "iretq"), UserStack()),
}


def _one_of(opcodes: frozenset[int]) -> bytes:
    return b"[" + b"".join(b"\\x%02x" % opcode for opcode in sorted(opcodes)) + b"]"


_SSE: Final = _one_of(frozenset().union(*(_ALIGNED[key] for key in _ALIGNED if key[0] == b"\x0f")))
_AT_ANY_CPL: Final = (
    rb"\x0f(?:[\x07\x22\x30]|\x00[\x18-\x1f\x58-\x5f\x98-\x9f\xd8-\xdf]"  # sysret, mov, wrmsr, ltr
    rb"|\xae[\x30-\x3f\x70-\x7f\xb0-\xbf]"  # clwb, clflush
    rb"|(?:" + _SSE + rb"|[\x38\x3a].)[\x00-\xbf])"
)
_AT_CPL_3: Final = rb"[\x6c-\x6f\xe4-\xe7\xec-\xef\xca\xcb\xcf]"  # ports, far returns
_MAY_HOLD: Final = {
    user: re.compile(pattern, re.DOTALL).search
    for user, pattern in ((False, _AT_ANY_CPL), (True, _AT_ANY_CPL + b"|" + _AT_CPL_3))
}
