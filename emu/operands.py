"""Which linear address an access had: the engine reports physical ones.

Knows an instruction's operands: which of them a simple rule tells, so that a recorder can work it
out as the instruction is executed, and which have to be gone through. Refuses to know how a run is
recorded. SDM vocabulary.
"""

from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from emu.events import Executed, Invalidated
from emu.instruction import Plan, decode
from emu.paging import FRAME_SIZE, U64, VirtAddr
from emu.registers import MSR_EFER, Registers

_OFFSET: Final = FRAME_SIZE - 1
_U32: Final = (1 << 32) - 1


class Kind(IntEnum):
    """How an instruction has to be recorded."""

    QUIET = 0  # it accesses no memory
    ONE_FORM = 1  # every access is in the range that one form of an address names
    TWO_FORMS = 2  # what it reads is in the range of one, and what it writes in that of another
    REPEATS = 3  # the same, as often as RCX says
    OPAQUE = 4  # which accesses it makes is to be found out, from its registers
    SYSTEM = 5  # it may change what translations there are


class Shape(NamedTuple):
    """What there is to know of an instruction's bytes.

    The plans are those of the loads and of the stores; both are set, or neither.
    """

    kind: Kind
    counts: int = 0
    """The bits of RCX that count."""
    read: Plan | None = None
    write: Plan | None = None


_TRANSLATION_REGISTERS: Final = ("cr0, ", "cr3, ", "cr4, ")
_BY_NAME: Final = frozenset(("invlpg", "wrmsr", "wrpkru"))


@lru_cache(maxsize=4096)
def shape_of(code: bytes) -> Shape:
    """Tell how an instruction must be recorded."""
    instruction = decode(code)
    if instruction is None:
        return Shape(Kind.OPAQUE)  # the engine knows it, capstone does not
    if instruction.mnemonic in _BY_NAME or instruction.operands.startswith(_TRANSLATION_REGISTERS):
        return Shape(Kind.SYSTEM)
    plans = instruction.plans
    reads = [plan for plan in plans if plan.reads]
    writes = [plan for plan in plans if plan.writes]
    if instruction.implicit or len(reads) > 1 or len(writes) > 1 or any(p.offset for p in plans):
        return Shape(Kind.OPAQUE, instruction.count)
    if not plans:
        return Shape(Kind.REPEATS if instruction.count else Kind.QUIET, instruction.count)
    read, write = (reads or writes)[0], (writes or reads)[0]
    if instruction.count:
        return Shape(Kind.REPEATS, instruction.count, read, write)
    return Shape(Kind.ONE_FORM if read is write else Kind.TWO_FORMS, 0, read, write)


def sizes(shape: Shape) -> tuple[int, int]:
    """Return how many bytes may be read, and written, of the plans' ranges."""
    if shape.read is None or shape.write is None:
        return 0, 0
    return shape.read.size * shape.read.reads, shape.write.size * shape.write.writes


class Operands:
    """The memory operands of one instruction, used up by the accesses that the CPU reports."""

    def __init__(self, executed: Executed, registers: Registers) -> None:
        instruction = decode(executed.code)
        accesses = () if instruction is None else instruction.accesses(registers)
        # va, size, bytes that may still be read, bytes that may still be written
        self._left = [
            [access.va, access.size, access.size * access.reads, access.size * access.writes]
            for access in accesses
        ]

    def take(self, is_write: bool, pa: int, size: int) -> VirtAddr | None:
        """Return the linear address of an access at `pa`: the operands come in their order."""
        which = 3 if is_write else 2
        for operand in self._left:
            offset = (pa - operand[0]) & _OFFSET
            if operand[which] > 0 and offset < operand[1]:
                operand[which] -= size
                return VirtAddr((operand[0] + offset) & U64)
        return None


def invalidation(executed: Executed, registers: Registers) -> Invalidated | None:
    """Return what a SYSTEM instruction is about to do to the TLB, with these registers."""
    instruction = decode(executed.code)
    assert instruction is not None
    match instruction.mnemonic:
        case "invlpg":
            return Invalidated("invlpg", instruction.named(registers) or 0)
        case "wrpkru":
            return Invalidated("pkru", registers.rax & _U32)
        case "wrmsr":
            if registers.rcx & _U32 != MSR_EFER:
                return None
            value = (registers.rdx & _U32) << 32 | registers.rax & _U32
            return Invalidated("efer", value)
    register, source = instruction.operands.split(", ")
    value = getattr(registers, source)
    return Invalidated(register, value)  # type: ignore[arg-type]


def first_instruction(code: bytes, otherwise: bytes) -> bytes:
    """Return the one instruction at the start of `code`, or `otherwise` if there is none."""
    instruction = decode(code)
    return instruction.code if instruction else otherwise
