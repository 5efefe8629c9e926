"""What an instruction touches, held against what the engine touches."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.instruction_corpus import MEMORY, REGISTERS, SETUP, corpus
from support.instruction_engine import NAMES, InstructionEngine, Outcome

from emu.instruction import MemoryAccess, decode
from emu.registers import Registers

PA_BITS = 52  # the engine reports physical addresses, and cuts them

READS_TOO_MUCH = {
    "cvtdq2pd": "16 bytes instead of 8",
    "cvtps2pd": "16 bytes instead of 8",
    "cvtps2pi": "16 bytes instead of 8",
    "cvttps2pi": "16 bytes instead of 8",
    "roundsd": "16 bytes instead of 8",
    "roundss": "16 bytes instead of 4",
    "punpcklbw": "8 bytes instead of 4",
    "punpcklwd": "8 bytes instead of 4",
    "punpckldq": "8 bytes instead of 4",
    "frstor": "28 bytes further with REX.W",
}
"""The engine's deviations from the SDM: operands larger than they should be."""

TOUCHES_A_PART = {
    "fldenv": "control, status and tag word only",
    "frstor": "not the pointers",
    **dict.fromkeys(("fxsave", "fxsave64", "fxrstor", "fxrstor64"), "not the reserved bytes"),
    **dict.fromkeys(("xsave", "xsave64", "xsaveopt", "xsaveopt64"), "what XCR0 and RAX select"),
    **dict.fromkeys(("xrstor", "xrstor64"), "what XCR0 and RAX select"),
    **dict.fromkeys(("lss", "lfs", "lgs"), "m16:32 even with REX.W, as on AMD's CPUs"),
    **dict.fromkeys(("maskmovq", "maskmovdqu"), "the bytes that the mask selects"),
    **dict.fromkeys(("clflush", "clflushopt", "clwb"), "nothing: see `sensitive`"),
}
"""Areas of which the engine touches less than the whole."""


@pytest.fixture(scope="module")
def engine() -> InstructionEngine:
    return InstructionEngine()


def registers_at(rip: int, values: dict[str, int]) -> Registers:
    general = {name: values.get(name, 0) for name in NAMES}
    bases = {name: values.get(name, 0) for name in ("fs_base", "gs_base")}
    return Registers(**general, rip=rip, rflags=2, **bases)


def touched(accesses: tuple[MemoryAccess, ...], *, writes: bool) -> set[int]:
    return {
        (access.va + n) & (1 << PA_BITS) - 1
        for access in accesses
        if (access.writes if writes else access.reads)
        for n in range(access.size)
    }


def differences(
    name: str, accesses: tuple[MemoryAccess, ...], outcome: Outcome
) -> dict[str, tuple[list[str], list[str]]]:
    """Bytes (read, written) that are touched only by us, or only by the engine, unexplained."""
    ours = [touched(accesses, writes=writes) for writes in (False, True)]
    engines = [outcome.touched(writes=writes) for writes in (False, True)]
    only_ours = [sorted(map(hex, a - b)) for a, b in zip(ours, engines, strict=True)]
    only_engine = [sorted(map(hex, b - a)) for a, b in zip(ours, engines, strict=True)]
    found = {}
    if any(only_ours) and name not in TOUCHES_A_PART:
        found["only ours"] = (only_ours[0], only_ours[1])
    if any(only_engine) and name not in READS_TOO_MUCH:
        found["only the engine's"] = (only_engine[0], only_engine[1])
    return found


def order(accesses: tuple[MemoryAccess, ...], outcome: Outcome) -> list[int]:
    """For each record, the position of the access that it belongs to; the first touch of each."""
    positions = []
    for record in outcome.records:
        for position, access in enumerate(accesses):
            kind = access.writes if record.writes else access.reads
            if kind and access.va <= record.va < access.va + access.size:
                positions.append(position)
                break
    return list(dict.fromkeys(positions))


@pytest.mark.parametrize("shape", corpus())
def test_an_instruction_touches_what_the_engine_touches(shape, engine):
    changed_registers, changed_memory = SETUP.get(shape, ({}, {}))
    values = REGISTERS | changed_registers
    instruction = decode(corpus()[shape])
    assert instruction is not None

    outcome = engine.run(corpus()[shape], values, MEMORY | changed_memory)
    accesses = instruction.accesses(registers_at(outcome.rip, values))

    assert not outcome.invalid
    assert differences(instruction.mnemonic.split()[-1], accesses, outcome) == {}
    assert order(accesses, outcome) == sorted(order(accesses, outcome))
    assert instruction.implicit or not any(record.implicit for record in outcome.records)


@pytest.mark.parametrize("shape", corpus())
def test_no_instruction_is_the_beginning_of_another(shape):
    code = corpus()[shape]

    assert decode(code).code == code
    assert [decode(code[:size]) for size in range(len(code))] == [None] * len(code)


# ------------------------------------------------------------------ every opcode

PREFIXES = ("", "66", "f2", "f3", "48", "6648", "f248", "f348", "65", "67", "f0")
MAPS = ("", "0f", "0f38", "0f3a")
NO_OPCODES = frozenset(range(0x40, 0x50)) | frozenset(bytes.fromhex("0f262e363e64656667f0f2f3"))

SKIPPED = {
    "iret": "needs its own frame",
    "iretd": "needs its own frame",
    "retf": "needs its own frame",
    "lcall": "needs a far pointer",
    "call": "a far call needs a far pointer; a near one has 16 bits with 66, as on AMD's CPUs",
    "ret": "has 16 bits with 66, as on AMD's CPUs",
    "fnsave": "is confused by REX.W",
    "insw": "lets REX.W outrank 66",
    "outsw": "lets REX.W outrank 66",
    "vmread": "is SSE4a's extrq with 66 or F2",
    "vmwrite": "is SSE4a's extrq with 66 or F2",
}


def disagreements(engine: InstructionEngine, head: bytes) -> list[str]:
    """Run the opcode `head` on [rdi+0x10] with every /reg field; describe what disagrees."""
    found = []
    for reg in range(8):
        instruction = decode((head + bytes((0x47 | reg << 3, 0x10)) + bytes(12))[:15])
        if instruction is None:
            continue
        name = instruction.mnemonic.split()[-1]
        outcome = engine.run(instruction.code, REGISTERS, MEMORY)
        accesses = instruction.accesses(registers_at(outcome.rip, REGISTERS))
        unexplained = differences(name, accesses, outcome)
        if unexplained and not outcome.invalid and name not in SKIPPED:
            found.append(f"{instruction!r}: {unexplained}")
    return found


@pytest.mark.parametrize("opcodes", MAPS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_opcode_touches_what_the_engine_touches(prefix, opcodes, engine):
    heads = [
        bytes.fromhex(f"{prefix}{opcodes}{opcode:02x}")
        for opcode in range(0x100)
        if opcodes or opcode not in NO_OPCODES
    ]

    assert [line for head in heads for line in disagreements(engine, head)] == []


# ------------------------------------------------------------------ every ModRM and SIB form

OPCODES = {0x8B: (True, False), 0x89: (False, True), 0x03: (True, False), 0x01: (True, True)}


@st.composite
def memory_forms(draw):
    """REX prefix, ModRM, SIB and displacement of a memory operand, and whether 0x67 precedes."""
    modrm = draw(st.integers(0, 0xBF))
    rest = draw(st.binary(min_size=5, max_size=5))
    rex = draw(st.sampled_from([b"", *(bytes((r,)) for r in range(0x40, 0x50))]))
    prefixes = draw(st.sampled_from([b"", b"\x67", b"\x64", b"\x65", b"\x67\x65"]))
    return prefixes, rex, bytes((modrm,)) + rest


u64 = st.integers(0, (1 << 64) - 1)
values = st.fixed_dictionaries(dict.fromkeys((*NAMES, "fs_base", "gs_base"), u64))


@given(form=memory_forms(), opcode=st.sampled_from(sorted(OPCODES)), values=values)
@settings(max_examples=500, deadline=None)
def test_every_memory_operand_lies_where_the_engine_finds_it(form, opcode, values, engine):
    prefixes, rex, operand = form
    instruction = decode(prefixes + rex + bytes((opcode,)) + operand)

    outcome = engine.run(instruction.code, values)
    access, *others = instruction.accesses(registers_at(outcome.rip, values))

    assert others == []
    assert (access.reads, access.writes) == OPCODES[opcode]
    assert outcome.records[0].va == access.va & (1 << PA_BITS) - 1
    assert outcome.records[0].size == access.size


@given(form=memory_forms(), values=values)
@settings(max_examples=500, deadline=None)
def test_every_memory_operand_has_the_address_that_lea_computes(form, values, engine):
    prefixes, _, operand = form
    prefixes = prefixes.replace(b"\x64", b"").replace(b"\x65", b"")  # lea knows no segments
    operand = bytes((operand[0] & 0xC7,)) + operand[1:]  # into rax
    load = decode(prefixes + b"\x48\x8b" + operand)
    lea = decode(prefixes + b"\x48\x8d" + operand)

    outcome = engine.run(lea.code, values)
    (access,) = load.accesses(registers_at(outcome.rip, values))

    assert access.va == outcome.rax
    assert lea.accesses(registers_at(outcome.rip, values)) == ()
