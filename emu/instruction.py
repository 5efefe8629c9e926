"""What an instruction touches: the memory accesses it makes, from its bytes and the registers.

Knows addresses, sizes, directions and order. Refuses to know page tables, privilege or anything
that the CPU reports, so that what is said here can be held against the CPU. SDM vocabulary;
source: Intel SDM volume 2, the instructions' own pages. Capstone decodes; of its operands only
the registers and the sizes are believed (and these not always: `_SIZE`). Which operand is read
or written is decided by the tables below, because capstone is wrong for many stores: setcc, ror,
movups, fst, cmpxchg.

What the bytes and the registers do not tell is left out, or taken as the most it can be:

- Descriptors (GDT, LDT) and the TSS, wherever a selector or a port is used: `Instruction.implicit`.
- The frame of the exception or interrupt that an instruction raises, `int` included.
- The outer stack words of a far return to another ring; gathers and scatters, which go where a
  vector register says.
- Masked stores (`maskmovdqu`, `vpmaskmov`) count as storing every byte, an XSAVE area as its
  legacy region and header. ENTER does not probe the page of the final RSP.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

import capstone
from capstone import x86_const as x86

from emu.paging import U64
from emu.registers import Registers

MAX_SIZE: Final = 15
"""The longest instruction, in bytes."""

_U32: Final = (1 << 32) - 1
_access: Final = tuple.__new__  # half as long as calling MemoryAccess, and a fault is budgeted


class MemoryAccess(NamedTuple):
    """One access to a range of bytes. It may cross into the next page, which is checked second."""

    va: int
    size: int
    reads: bool
    writes: bool
    """With `reads`: a read-modify-write, whose page fault has W=1 although its load comes first."""
    stack: bool
    """Goes through SS: pushes, pops, and operands based on RSP or RBP unless FS or GS is named.

    If the address is not canonical, the exception is #SS and not #GP (SDM volume 3, "Interrupt
    12"). The other segment prefixes do nothing in 64-bit mode, and do not change this either.
    """
    implicit: bool
    """A supervisor access to a system structure whatever the CPL. Never set by this module."""

    def __repr__(self) -> str:
        kind = "read" * self.reads + "-" * (self.reads and self.writes) + "write" * self.writes
        return f"<{kind} {self.va:#x}+{self.size}{' ss' * self.stack}{' sys' * self.implicit}>"


class Plan(NamedTuple):
    """One access before the registers are known; register fields are indices into `Registers`.

    It is to the `size` bytes at ((base + (scaled << shift) + displacement + offset) & wrap) +
    segment, what is None left out. A base of RIP is that of the instruction.
    """

    size: int
    reads: bool
    writes: bool
    base: int | None
    scaled: int | None = None
    shift: int = 0
    displacement: int = 0
    offset: Callable[[Registers], int] | None = None
    """A part of the address that is not of the form base + (scaled << shift) + displacement."""
    wrap: int = U64
    segment: int | None = None
    stack: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Instruction:
    """One decoded instruction. Two are equal if their bytes are."""

    code: bytes
    mnemonic: str = field(compare=False)
    """Capstone's, with prefixes such as "rep" and "lock"."""
    operands: str = field(compare=False)
    """Capstone's. A relative branch shows its target as if the instruction stood at address 0."""
    ends_block: bool = field(compare=False)
    """Control may go elsewhere than to the next instruction: branches, calls, traps, hlt."""
    implicit: bool = field(compare=False)
    """May also touch descriptors or the TSS, at addresses that only the CPU knows."""
    plans: tuple[Plan, ...] = field(compare=False)
    """The data accesses, in the order in which the CPU makes them."""
    names: Plan | None = field(compare=False)
    """Of an `invlpg`: the address that it names, and does not access."""
    count: int = field(compare=False)
    """The bits of RCX that count repetitions; 0 without a rep prefix."""

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.code)

    @property
    def text(self) -> str:
        """In Intel syntax: `mov qword ptr [rdi], rax`."""
        return f"{self.mnemonic} {self.operands}".rstrip()

    def __repr__(self) -> str:
        return f"<Instruction {self.code.hex(' ')}: {self.text}>"

    def accesses(self, registers: Registers) -> tuple[MemoryAccess, ...]:
        """List the data accesses, in the order in which the CPU makes them.

        `registers` are those before the instruction, RIP pointing at it. Of a repeated string
        instruction it is the next iteration that is listed: at a fault the registers are those
        of the iteration that faulted. Fetching the instruction is not listed.
        """
        if self.count and not registers.rcx & self.count:
            return ()
        found = []
        for plan in self.plans:
            size, reads, writes, *_, ss = plan
            access = _va(plan, registers), size, reads, writes, ss, False
            found.append(_access(MemoryAccess, access))
        return tuple(found)

    def named(self, registers: Registers) -> int | None:
        """Return the address that an `invlpg` is about; None for any other instruction."""
        return None if self.names is None else _va(self.names, registers)


def _va(plan: Plan, registers: Registers) -> int:
    _, _, _, base, scaled, shift, va, offset, wrap, segment, _ = plan
    if base is not None:
        va += registers[base]
    if scaled is not None:
        va += registers[scaled] << shift
    if offset is not None:
        va += offset(registers)
    va &= wrap
    return va if segment is None else (va + registers[segment]) & U64


# ------------------------------------------------------------------ which operand, which way
#
# A memory operand that is not the first is read. A first one is written, unless named here.


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NOTHING: Final = _names(
    """
    lea nop invlpg ud0 ud1
    prefetch prefetchnta prefetcht0 prefetcht1 prefetcht2 prefetchw prefetchwt1
    cldemote
    bndmk bndcl bndcu bndcn bndldx bndstx bndmov
    """
)
"""Have a memory operand and leave the memory alone (MPX, the bnd*: nops unless it is enabled)."""

_READS: Final = _names(
    """
    clflush clflushopt clwb
    bt call cmp cmpsb cmpsw cmpsd cmpsq div idiv imul jmp mul push ptwrite test
    fadd fbld fcom fcomp fdiv fdivr fiadd ficom ficomp fidiv fidivr fild fimul fisub fisubr
    fld fldcw fldenv fmul frstor fsub fsubr fxrstor fxrstor64 ldmxcsr vldmxcsr
    xrstor xrstor64 xrstors xrstors64
    lcall ljmp lgdt lidt lldt lmsw ltr verr verw vmptrld vmxon
    """
)

_READS_AND_WRITES: Final = _names(
    """
    adc add and btc btr bts cmpxchg cmpxchg8b cmpxchg16b dec inc neg not or rcl rcr rol ror
    sal sar sbb shl shld shr shrd sub xadd xchg xor
    xsave xsave64 xsavec xsavec64 xsaveopt xsaveopt64 xsaves xsaves64 clrssbsy rstorssp
    """
)

# ------------------------------------------------------------------ sizes that capstone has wrong


class _Sizes(NamedTuple):
    """Bytes for an operand size of 2, 4 and 8."""

    word: int
    dword: int
    qword: int


_FAR_POINTER: Final = _Sizes(4, 6, 10)
_ENVIRONMENT: Final = _Sizes(14, 28, 28)
_FPU_STATE: Final = _Sizes(94, 108, 108)
_FXSAVE_AREA: Final = _Sizes(512, 512, 512)
_XSAVE_AREA: Final = _Sizes(576, 576, 576)

_SIZE: Final = {
    **dict.fromkeys(("lcall", "ljmp", "lss", "lfs", "lgs"), _FAR_POINTER),
    **dict.fromkeys(("fldenv", "fnstenv"), _ENVIRONMENT),
    **dict.fromkeys(("fnsave", "frstor"), _FPU_STATE),
    **dict.fromkeys(("fxsave", "fxsave64", "fxrstor", "fxrstor64"), _FXSAVE_AREA),
    **{
        name + suffix: _XSAVE_AREA
        for name in ("xsave", "xsavec", "xsaveopt", "xsaves", "xrstor", "xrstors")
        for suffix in ("", "64")
    },
    **dict.fromkeys(("comisd", "ucomisd", "vcomisd", "vucomisd"), _Sizes(8, 8, 8)),
    **dict.fromkeys(("push", "pop"), _Sizes(2, 8, 8)),
    **dict.fromkeys(("bsf", "bsr", "movbe"), _Sizes(2, 4, 8)),
    "movnti": _Sizes(4, 4, 8),
    **dict.fromkeys(("clflush", "clflushopt", "clwb"), _Sizes(1, 1, 1)),
}
"""Push, pop and those below them are here because capstone lets 0x66 outrank REX.W."""

# ------------------------------------------------------------------ the stack


class _Words(NamedTuple):
    """Consecutive stack words of one instruction, counted from RSP, and one word's size."""

    first: int
    nr: int
    writes: bool
    sizes: _Sizes


_STACK_SIZE: Final = _Sizes(2, 8, 8)
"""Pushes and pops are 8 bytes wide, or 2 with an operand-size prefix; never 4."""
_NEAR_SIZE: Final = _Sizes(8, 8, 8)
"""Near branches ignore the prefix (SDM volume 1, "Operand-Size and Address-Size Attributes")."""
_FAR_SIZE: Final = _Sizes(2, 4, 8)

_PUSH: Final = (_Words(-1, 1, True, _STACK_SIZE),)
_POP: Final = (_Words(0, 1, False, _STACK_SIZE),)
_FAR_RETURN: Final = (_Words(0, 2, False, _FAR_SIZE),)
_INTERRUPT_RETURN: Final = (_Words(0, 5, False, _FAR_SIZE),)

_STACK: Final = {
    **dict.fromkeys(("push", "pushf", "pushfq"), _PUSH),
    **dict.fromkeys(("pop", "popf", "popfq"), _POP),
    "call": (_Words(-1, 1, True, _NEAR_SIZE),),
    "ret": (_Words(0, 1, False, _NEAR_SIZE),),
    "lcall": (_Words(-1, 1, True, _FAR_SIZE), _Words(-2, 1, True, _FAR_SIZE)),
    **dict.fromkeys(("retf", "retfq"), _FAR_RETURN),
    **dict.fromkeys(("iret", "iretd", "iretq"), _INTERRUPT_RETURN),
}

# ------------------------------------------------------------------ everything else by name

_IMPLICIT: Final = _names(
    """
    lcall ljmp retf retfq iret iretd iretq lss lfs lgs lldt ltr lar lsl verr verw
    in out insb insw insd outsb outsw outsd
    """
)
_BIT_STRINGS: Final = frozenset(("bt", "btc", "btr", "bts"))
_MASKED_STORES: Final = {"maskmovq": 8, "maskmovdqu": 16, "vmaskmovdqu": 16}

_STRING_OPCODES: Final = frozenset(b"\x6c\x6d\x6e\x6f\xa4\xa5\xa6\xa7\xaa\xab\xac\xad\xae\xaf")
_BLOCK_ENDS: Final = frozenset(
    (
        x86.X86_GRP_JUMP,
        x86.X86_GRP_CALL,
        x86.X86_GRP_RET,
        x86.X86_GRP_INT,
        x86.X86_GRP_IRET,
        x86.X86_GRP_BRANCH_RELATIVE,
    )
)
_BLOCK_ENDS_BY_NAME: Final = frozenset(("hlt", "ud0", "ud1", "ud2", "loop", "loope", "loopne"))

_LEGACY: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_RBX, _RSP, _RBP, _RDI, _RIP, _FS_BASE, _GS_BASE = (
    Registers._fields.index(name)
    for name in ("rbx", "rsp", "rbp", "rdi", "rip", "fs_base", "gs_base")
)

_REGISTER: Final = {
    getattr(x86, f"X86_REG_{name.upper()}"): number
    for number, names in (
        *((n, (f"r{name}", f"e{name}", name)) for n, name in enumerate(_LEGACY)),
        *((n, (f"r{n}", f"r{n}d", f"r{n}w")) for n in range(8, 16)),
        (_RIP, ("rip", "eip")),
    )
    for name in names
}
"""Capstone's numbers to indices into `Registers`. The pseudo registers RIZ and EIZ have none."""

_SEGMENT: Final = {x86.X86_REG_FS: _FS_BASE, x86.X86_REG_GS: _GS_BASE}
_SEGMENT_PREFIX: Final = {0x64: _FS_BASE, 0x65: _GS_BASE}
_SELECTORS: Final = frozenset(
    getattr(x86, f"X86_REG_{name}") for name in ("CS", "DS", "ES", "FS", "GS", "SS")
)
_VECTORS: Final = frozenset(
    getattr(x86, f"X86_REG_{kind}MM{n}") for kind in "XYZ" for n in range(32)
)


@lru_cache(maxsize=4096)
def decode(code: bytes) -> Instruction | None:
    """Decode the instruction at the start of `code`, or answer None if no whole valid one is there.

    Give up to 15 bytes, fewer where the page ends. The same bytes are decoded once.
    """
    decoded = next(_capstone.disasm(code[:MAX_SIZE], 0, 1), None)
    if decoded is None:
        return None
    name = _name(decoded)
    repeats = decoded.prefix[0] in (0xF2, 0xF3) and decoded.opcode[0] in _STRING_OPCODES
    return Instruction(
        code=bytes(decoded.bytes),
        mnemonic=decoded.mnemonic,
        operands=decoded.op_str,
        ends_block=not _BLOCK_ENDS.isdisjoint(decoded.groups) or name in _BLOCK_ENDS_BY_NAME,
        implicit=name in _IMPLICIT or _loads_a_selector(name, decoded),
        plans=tuple(_plans(name, decoded)),
        names=_named(name, decoded),
        count=_wrap(decoded) if repeats else 0,
    )


_capstone: Final = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
_capstone.detail = True


def _name(decoded: Any) -> str:
    """The mnemonic without prefixes, and with far branches told from near ones.

    Capstone says "lcall" or "call" for the same far call, depending on the operand size.
    """
    name: str = decoded.mnemonic.split()[-1]
    if decoded.opcode[0] == 0xFF and name in ("call", "jmp") and decoded.modrm >> 3 & 7 in (3, 5):
        return f"l{name}"
    return name


def _plans(name: str, decoded: Any) -> Iterator[Plan]:
    """All accesses of the instruction, in order."""
    if name == "pop":
        yield from _stack_plans(name, decoded)
        yield from _operand_plans(name, decoded)
        return
    yield from _operand_plans(name, decoded)
    yield from _stack_plans(name, decoded)

    if name == "enter":
        yield from _enter_plans(decoded)
    elif name == "leave":
        size = _pick(_STACK_SIZE, decoded)
        yield Plan(size, reads=True, writes=False, base=_RBP, stack=True)
    elif name == "xlatb":
        yield _implied(decoded, 1, reads=True, base=_RBX, offset=_al)
    elif name in _MASKED_STORES:
        yield _implied(decoded, _MASKED_STORES[name], reads=False, base=_RDI)
    elif name == "movdir64b":
        destination = _REGISTER[decoded.operands[0].reg]
        yield Plan(64, reads=False, writes=True, base=destination, wrap=_wrap(decoded))


def _operand_plans(name: str, decoded: Any) -> Iterator[Plan]:
    """The operands in memory, the last first.

    Two there are only in movs, which loads from its second operand before it stores, and in cmps,
    for which the SDM gives no order: the engine loads the second first.
    """
    if name in _NOTHING:
        return
    for position, operand in reversed(list(enumerate(decoded.operands))):
        if operand.type == x86.X86_OP_MEM and operand.mem.index not in _VECTORS:
            yield _operand_plan(name, decoded, position, operand)


def _operand_plan(name: str, decoded: Any, position: int, operand: Any) -> Plan:
    updates = position == 0 and name in _READS_AND_WRITES
    reads = position > 0 or updates or name in _READS
    segment = _SEGMENT.get(operand.mem.segment)
    base = _REGISTER.get(operand.mem.base)
    displacement = operand.mem.disp
    if base == _RIP:
        displacement += decoded.size
    if base == _RSP and name == "pop":
        displacement += _pick(_STACK_SIZE, decoded)
    return Plan(
        size=_pick(_SIZE[name], decoded) if name in _SIZE else operand.size,
        reads=reads,
        writes=updates or not reads,
        base=base,
        scaled=_REGISTER.get(operand.mem.index),
        shift=operand.mem.scale.bit_length() - 1,
        displacement=displacement,
        offset=_bit_offset(decoded) if name in _BIT_STRINGS else None,
        wrap=_wrap(decoded),
        segment=segment,
        stack=base in (_RSP, _RBP) and segment is None,
    )


def _named(name: str, decoded: Any) -> Plan | None:
    """The address that an `invlpg` is about."""
    return _operand_plan(name, decoded, 0, decoded.operands[0]) if name == "invlpg" else None


def _stack_plans(name: str, decoded: Any) -> Iterator[Plan]:
    for first, nr, writes, sizes in _STACK.get(name, ()):
        word = _pick(sizes, decoded)
        yield Plan(nr * word, not writes, writes, _RSP, displacement=first * word, stack=True)


def _enter_plans(decoded: Any) -> Iterator[Plan]:
    """Push RBP, copy level - 1 frame pointers from the enclosing frame, push the new one."""
    word = _pick(_STACK_SIZE, decoded)
    level = decoded.operands[1].imm % 32
    yield Plan(word, False, True, _RSP, displacement=-word, stack=True)
    for n in range(1, level):
        yield Plan(word, True, False, _RBP, displacement=-n * word, stack=True)
        yield Plan(word, False, True, _RSP, displacement=-(n + 1) * word, stack=True)
    if level:
        yield Plan(word, False, True, _RSP, displacement=-(level + 1) * word, stack=True)


def _implied(
    decoded: Any,
    size: int,
    *,
    reads: bool,
    base: int,
    offset: Callable[[Registers], int] | None = None,
) -> Plan:
    """An operand in memory that capstone does not list, because the encoding does not spell it."""
    segment = _SEGMENT_PREFIX.get(decoded.prefix[1])
    wrap = _wrap(decoded)
    return Plan(size, reads, not reads, base, offset=offset, wrap=wrap, segment=segment)


def _al(registers: Registers) -> int:
    return registers.rax & 0xFF


def _bit_offset(decoded: Any) -> Callable[[Registers], int] | None:
    """How far from the operand the selected bit's unit lies, or None if the bit is an immediate.

    A bit number in a register is signed, and selects from a string of 2**64 bits (SDM volume 2,
    "BT-Bit Test"). The CPU accesses the unit of the operand size in which the bit lies.
    """
    bit = decoded.operands[1]
    if bit.type != x86.X86_OP_REG:
        return None
    register = _REGISTER[bit.reg]
    unit: int = bit.size
    sign = 1 << (unit * 8 - 1)

    def offset(registers: Registers) -> int:
        number = registers[register] & (2 * sign - 1)
        return ((number ^ sign) - sign) // (unit * 8) * unit

    return offset


def _loads_a_selector(name: str, decoded: Any) -> bool:
    if name not in ("mov", "pop"):
        return False
    target = decoded.operands[0]
    return bool(target.type == x86.X86_OP_REG and target.reg in _SELECTORS)


def _pick(sizes: _Sizes, decoded: Any) -> int:
    """The size that the prefixes choose: REX.W before the operand-size prefix, as in hardware."""
    if decoded.rex & 8:
        return sizes.qword
    return sizes.word if decoded.prefix[2] == 0x66 else sizes.dword


def _wrap(decoded: Any) -> int:
    """The mask of an address: an address-size prefix makes addresses and counts wrap at 4 GiB."""
    return U64 if decoded.addr_size == 8 else _U32
