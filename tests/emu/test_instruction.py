"""What an instruction touches: facts from the SDM's instruction pages."""

import keystone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.instruction import MemoryAccess, decode
from emu.registers import Registers

RAX, RCX, RDX, RBX = 0x10, 0x2, 0x3000, 0x4000
RSP, RBP = 0xFFFF_C900_0000_8000, 0xFFFF_C900_0000_9000
RSI, RDI = 0xFFFF_8880_0000_1000, 0xFFFF_E700_0000_0000
RIP, FS, GS = 0xFFFF_FFFF_8100_0000, 0x7F00_0000_0000, 0xFFFF_8880_7F00_0000

REGISTERS = Registers(
    RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, *range(8, 16), rip=RIP, rflags=2, fs_base=FS, gs_base=GS
)


def read(va: int, size: int) -> MemoryAccess:
    return MemoryAccess(va, size, reads=True, writes=False, stack=False, implicit=False)


def write(va: int, size: int) -> MemoryAccess:
    return MemoryAccess(va, size, reads=False, writes=True, stack=False, implicit=False)


def update(va: int, size: int) -> MemoryAccess:
    return MemoryAccess(va, size, reads=True, writes=True, stack=False, implicit=False)


def ss(access: MemoryAccess) -> MemoryAccess:
    return access._replace(stack=True)


def assemble(source: str) -> bytes:
    """The bytes of one statement; numbers must be hexadecimal."""
    return bytes(keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(source)[0])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("mov rax, [rdi]", [read(RDI, 8)]),
        ("mov byte ptr [rdi+0x34], 0x1", [write(RDI + 0x34, 1)]),
        ("mov eax, [rsi+rcx*0x4-0x8]", [read(RSI, 4)]),
        ("mov rax, gs:[rcx]", [read(GS + RCX, 8)]),
        ("mov fs:[rcx], al", [write(FS + RCX, 1)]),
        ("mov rax, [rip+0x10]", [read(RIP + 7 + 0x10, 8)]),
        ("mov eax, [edi]", [read(RDI & 0xFFFFFFFF, 4)]),
        ("add [rdi], rax", [update(RDI, 8)]),
        ("add rax, [rdi]", [read(RDI, 8)]),
        ("cmp [rdi], rax", [read(RDI, 8)]),
        ("test dword ptr [rdi], 0x1", [read(RDI, 4)]),
        ("rol word ptr [rdi], 0x1", [update(RDI, 2)]),
        ("setz [rdi]", [write(RDI, 1)]),
        ("seta byte ptr [rdi]", [write(RDI, 1)]),
        ("cmovz rax, [rdi]", [read(RDI, 8)]),
        ("xchg [rdi], rax", [update(RDI, 8)]),
        ("lock cmpxchg16b [rdi]", [update(RDI, 16)]),
        ("movnti [rdi], rax", [write(RDI, 8)]),
        ("movaps [rdi], xmm0", [write(RDI, 16)]),
        ("movhps [rdi], xmm0", [write(RDI, 8)]),
        ("comisd xmm0, [rdi]", [read(RDI, 8)]),
        ("pextrw word ptr [rdi], xmm0, 0x1", [write(RDI, 2)]),
        ("vmovdqu [rdi], ymm0", [write(RDI, 32)]),
        ("vpaddd ymm0, ymm1, [rdi]", [read(RDI, 32)]),
        ("vextracti128 [rdi], ymm0, 0x1", [write(RDI, 16)]),
        ("fstp tbyte ptr [rdi]", [write(RDI, 10)]),
        ("fst dword ptr [rdi]", [write(RDI, 4)]),
        ("fnstcw [rdi]", [write(RDI, 2)]),
        ("fnsave [rdi]", [write(RDI, 108)]),
        ("frstor [rdi]", [read(RDI, 108)]),
        ("fxsave64 [rdi]", [write(RDI, 512)]),
        ("stmxcsr [rdi]", [write(RDI, 4)]),
        ("lgdt [rdi]", [read(RDI, 10)]),
        ("sidt [rdi]", [write(RDI, 10)]),
        ("mov word ptr [rdi], ds", [write(RDI, 2)]),
        ("xlatb", [read(RBX + RAX, 1)]),
        ("clflush [rdi]", [read(RDI, 1)]),
        ("maskmovdqu xmm0, xmm1", [write(RDI, 16)]),
    ],
)
def test_an_operand_in_memory_is_touched_as_its_instruction_says(source, expected):
    instruction = decode(assemble(source))

    assert list(instruction.accesses(REGISTERS)) == expected


@pytest.mark.parametrize(
    "source",
    [
        "lea rax, [rdi]",
        "nop dword ptr [rdi]",
        "prefetchw [rdi]",
        "invlpg [rdi]",
        "mov rax, rdi",
        "mov cr3, rax",
        "vgatherdps ymm0, [rdi+ymm1*0x4], ymm2",
    ],
)
def test_some_operands_are_never_touched(source):
    assert decode(assemble(source)).accesses(REGISTERS) == ()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("push rax", [ss(write(RSP - 8, 8))]),
        ("push ax", [ss(write(RSP - 2, 2))]),
        ("push qword ptr [rdi]", [read(RDI, 8), ss(write(RSP - 8, 8))]),
        ("push qword ptr [rsp]", [ss(read(RSP, 8)), ss(write(RSP - 8, 8))]),
        ("pop rax", [ss(read(RSP, 8))]),
        ("pop qword ptr [rdi]", [ss(read(RSP, 8)), write(RDI, 8)]),
        ("pop qword ptr [rsp]", [ss(read(RSP, 8)), ss(write(RSP + 8, 8))]),
        ("pop word ptr [rsp+0x4]", [ss(read(RSP, 2)), ss(write(RSP + 6, 2))]),
        ("pushfq", [ss(write(RSP - 8, 8))]),
        ("popfq", [ss(read(RSP, 8))]),
        ("call rax", [ss(write(RSP - 8, 8))]),
        ("call [rdi]", [read(RDI, 8), ss(write(RSP - 8, 8))]),
        ("jmp [rdi]", [read(RDI, 8)]),
        ("ret 0x10", [ss(read(RSP, 8))]),
        ("leave", [ss(read(RBP, 8))]),
        ("enter 0x10, 0x0", [ss(write(RSP - 8, 8))]),
        ("iretq", [ss(read(RSP, 40))]),
    ],
)
def test_the_stack_is_touched_as_the_instruction_says(source, expected):
    instruction = decode(assemble(source))

    assert list(instruction.accesses(REGISTERS)) == expected


def test_enter_copies_the_frame_pointers_of_the_enclosing_procedures():
    instruction = decode(assemble("enter 0x10, 0x3"))

    assert [(access.va, access.writes) for access in instruction.accesses(REGISTERS)] == [
        (RSP - 0x08, True),
        (RBP - 0x08, False),
        (RSP - 0x10, True),
        (RBP - 0x10, False),
        (RSP - 0x18, True),
        (RSP - 0x20, True),
    ]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("cb", [ss(read(RSP, 8))]),
        ("48cb", [ss(read(RSP, 16))]),
        ("cf", [ss(read(RSP, 20))]),
        ("48ff2f", [read(RDI, 10)]),
        ("48ff1f", [read(RDI, 10), ss(write(RSP - 8, 8)), ss(write(RSP - 16, 8))]),
        ("ff1f", [read(RDI, 6), ss(write(RSP - 4, 4)), ss(write(RSP - 8, 4))]),
        ("66ff1f", [read(RDI, 4), ss(write(RSP - 2, 2)), ss(write(RSP - 4, 2))]),
        ("480fb237", [read(RDI, 10)]),
        ("66e800000000", [ss(write(RSP - 8, 8))]),
        ("660f38f807", [read(RDI, 64), write(RAX, 64)]),
        ("65d7", [read(GS + RBX + RAX, 1)]),
        ("67660ff7c1", [write(RDI & 0xFFFFFFFF, 16)]),
    ],
)
def test_what_the_assembler_cannot_say_is_touched_too(code, expected):
    instruction = decode(bytes.fromhex(code))

    assert list(instruction.accesses(REGISTERS)) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("movsb", [read(RSI, 1), write(RDI, 1)]),
        ("stosw", [write(RDI, 2)]),
        ("lodsd", [read(RSI, 4)]),
        ("scasq", [read(RDI, 8)]),
        ("cmpsb", [read(RDI, 1), read(RSI, 1)]),
        ("insd", [write(RDI, 4)]),
        ("outsb", [read(RSI, 1)]),
        ("rep movsq", [read(RSI, 8), write(RDI, 8)]),
        ("repne scasb", [read(RDI, 1)]),
    ],
)
def test_a_string_instruction_touches_one_element(source, expected):
    instruction = decode(assemble(source))

    assert list(instruction.accesses(REGISTERS)) == expected


@pytest.mark.parametrize("source", ["rep movsq", "rep stosb", "repe cmpsb", "rep outsb"])
def test_a_repetition_with_a_count_of_0_touches_nothing(source):
    assert decode(assemble(source)).accesses(REGISTERS._replace(rcx=0)) == ()


def test_a_count_of_0_does_not_stop_an_instruction_that_is_not_repeated():
    assert decode(assemble("stosb")).accesses(REGISTERS._replace(rcx=0)) == (write(RDI, 1),)
    assert decode(assemble("movsd xmm0, [rdi]")).accesses(REGISTERS._replace(rcx=0)) == (
        read(RDI, 8),
    )


def test_the_direction_flag_does_not_move_the_next_element():
    instruction = decode(assemble("rep movsq"))

    backwards = instruction.accesses(REGISTERS._replace(rflags=0x402))

    assert backwards == instruction.accesses(REGISTERS)


def test_with_32_bit_addresses_ecx_counts_and_edi_points():
    instruction = decode(bytes.fromhex("67f3aa"))

    assert instruction.accesses(REGISTERS._replace(rcx=1 << 32)) == ()
    assert instruction.accesses(REGISTERS) == (write(RDI & 0xFFFFFFFF, 1),)


def test_a_string_is_loaded_through_fs_or_gs_and_stored_without():
    instruction = decode(bytes.fromhex("65a4"))

    accesses = instruction.accesses(REGISTERS._replace(rsi=0x10, rdi=0x20))

    assert accesses == (read(GS + 0x10, 1), write(0x20, 1))


@pytest.mark.parametrize(
    ("source", "rax", "va", "size"),
    [
        ("bts [rdi], rax", 0, RDI, 8),
        ("bts [rdi], rax", 63, RDI, 8),
        ("bts [rdi], rax", 64, RDI + 8, 8),
        ("bts [rdi], rax", -1, RDI - 8, 8),
        ("bts [rdi], rax", -(1 << 63), RDI - (1 << 60), 8),
        ("bts [rdi], eax", 0x1_0000_0020, RDI + 4, 4),
        ("bts [rdi], eax", 0xFFFF_FFFF, RDI - 4, 4),
        ("bts [rdi], ax", 0x1_8000, RDI - 0x1000, 2),
        ("bts qword ptr [rdi], 0x45", 0, RDI, 8),
    ],
)
def test_a_bit_number_in_a_register_is_signed_and_reaches_beyond_the_operand(source, rax, va, size):
    instruction = decode(assemble(source))

    accesses = instruction.accesses(REGISTERS._replace(rax=rax & (1 << 64) - 1))

    assert accesses == (update(va, size),)


@pytest.mark.parametrize(
    ("code", "stack"),
    [
        ("488b0424", True),  # [rsp]
        ("488b4500", True),  # [rbp]
        ("418b0424", False),  # [r12]
        ("488b0428", False),  # [rax+rbp]
        ("3e488b0424", True),  # ds:[rsp]: the prefix does nothing
        ("36488b00", False),  # ss:[rax]: nor here
        ("65488b0424", False),  # gs:[rsp]
        ("488b07", False),  # [rdi]
    ],
)
def test_rsp_and_rbp_address_the_stack_segment(code, stack):
    (access,) = decode(bytes.fromhex(code)).accesses(REGISTERS)

    assert access.stack is stack


@pytest.mark.parametrize(
    ("source", "rdi", "va"),
    [
        ("mov al, [rdi+0x10]", 0xFFFF_FFFF_FFFF_FFF8, 0x8),
        ("mov al, [rdi-0x10]", 0x8, 0xFFFF_FFFF_FFFF_FFF8),
        ("mov al, [edi+0x10]", 0xFFFF_FFF8, 0x8),
        ("mov al, [rdi+rdi*0x8]", 0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFF7),
    ],
)
def test_addresses_wrap(source, rdi, va):
    (access,) = decode(assemble(source)).accesses(REGISTERS._replace(rdi=rdi))

    assert access.va == va


@pytest.mark.parametrize(
    "source", ["mov ds, word ptr [rdi]", "mov es, eax", "pop fs", "iretq", "lar eax, [rdi]", "insb"]
)
def test_selectors_and_ports_may_touch_system_structures(source):
    assert decode(assemble(source)).implicit


@pytest.mark.parametrize(
    "source", ["mov word ptr [rdi], ds", "push fs", "mov eax, [rdi]", "ret", "sgdt [rdi]"]
)
def test_other_instructions_touch_no_system_structure(source):
    assert not decode(assemble(source)).implicit


@pytest.mark.parametrize(
    "source",
    [
        *("jmp 0x10", "jmp [rdi]", "jz 0x10", "loop 0x10", "jrcxz 0x10", "call rax", "ret"),
        *("syscall", "sysenter", "sysret", "int3", "int 0x80", "iretq", "hlt", "ud2"),
    ],
)
def test_control_may_leave(source):
    assert decode(assemble(source)).ends_block


@pytest.mark.parametrize("source", ["mov rax, [rdi]", "rep movsb", "cli", "mov cr3, rax", "nop"])
def test_control_stays(source):
    assert not decode(assemble(source)).ends_block


def test_an_instruction_knows_its_bytes_and_its_text():
    instruction = decode(bytes.fromhex("488907") + bytes(12))

    assert instruction.code == bytes.fromhex("488907")
    assert instruction.size == 3
    assert (instruction.mnemonic, instruction.operands) == ("mov", "qword ptr [rdi], rax")
    assert instruction.text == "mov qword ptr [rdi], rax"
    assert decode(b"\xc3").text == "ret"


def test_instructions_of_the_same_bytes_are_equal():
    assert decode(b"\x90" + bytes(14)) == decode(b"\x90")
    assert decode(b"\x90") != decode(b"\xf4")


def test_an_instruction_cannot_be_changed():
    with pytest.raises(AttributeError):
        decode(b"\x90").mnemonic = "hlt"


@pytest.mark.parametrize("code", ["", "48", "4889", "488947", "66", "f0", "f3", "06", "62"])
def test_what_is_not_a_whole_valid_instruction_is_none(code):
    assert decode(bytes.fromhex(code)) is None


def test_an_instruction_of_16_bytes_is_none():
    assert decode(b"\x66" * 14 + b"\x90") is not None
    assert decode(b"\x66" * 15 + b"\x90") is None


@given(code=st.binary(max_size=16), values=st.lists(st.integers(0, (1 << 64) - 1), min_size=20))
def test_any_bytes_decode_to_something_or_nothing(code, values):
    registers = Registers(*values[:20])

    instruction = decode(code)
    accesses = instruction.accesses(registers) if instruction else ()

    assert all(0 <= access.va < 1 << 64 and 0 < access.size <= 576 for access in accesses)
    assert all(access.reads or access.writes for access in accesses)
