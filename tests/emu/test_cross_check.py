"""Whatever an instruction touches, and wherever, the CPU and the tables tell the same story.

`Cpu.run` raises EngineError where they do not. Each instruction meets each awkward address: both
sides of a page that is missing, read-only, not the user's, outside RAM, and not canonical.
"""

from collections.abc import Iterator

import pytest
from support.guest import CODE, DATA, HOLE, USER_DATA, Guest

from emu import EngineError, OutsideRam, PageFault, Returned, StepLimit, Trap
from emu.paging import RW, US

INSTRUCTIONS = """
    mov al, [rdi]
    mov [rdi], al
    mov rax, [rdi + 4*rcx + 8]
    mov qword ptr [rdi - 8], 5
    movzx eax, byte ptr [rdi]
    movsx rax, word ptr [rdi]
    add [rdi], rax
    adc rax, [rdi]
    cmp dword ptr [rdi], 3
    test [rdi], ax
    inc word ptr [rdi]
    not qword ptr [rdi]
    imul rax, [rdi]
    mul dword ptr [rdi]
    xchg [rdi], rax
    lock xadd [rdi], eax
    lock cmpxchg [rdi], ebx
    cmpxchg8b [rdi]
    bt [rdi], rcx
    bts [rdi], rcx
    lock btr [rdi], ecx
    bt dword ptr [rdi], 7
    sete [rdi]
    cmovne rax, [rdi]
    shl qword ptr [rdi], cl
    shrd [rdi], eax, 3
    movsb
    movsq
    rep movsb
    rep movsq
    std; rep movsw
    stosd
    rep stosb
    rep stosq
    lodsq
    scasb
    repne scasb
    cmpsd
    repe cmpsb
    push [rdi]
    pop qword ptr [rdi]
    push rax
    pop rax
    pushfq
    popfq
    call [rdi]
    jmp [rdi]
    ret
    ret 8
    enter 0x20, 0
    enter 0x20, 3
    leave
    movups xmm0, [rdi]
    movups [rdi], xmm0
    movdqu [rdi], xmm1
    movss xmm0, [rdi]
    movsd [rdi], xmm0
    movnti [rdi], rax
    addps xmm0, [rdi]
    cvtsi2sd xmm0, qword ptr [rdi]
    fld qword ptr [rdi]
    fstp qword ptr [rdi]
    fld tbyte ptr [rdi]
    fild dword ptr [rdi]
    fnstcw [rdi]
    fldcw [rdi]
    ldmxcsr [rdi]
    stmxcsr [rdi]
    lea rax, [rdi]
    prefetcht0 [rdi]
    invlpg [rdi]
    sidt [rdi]
    xlatb
    movbe rax, [rdi]
    movbe [rdi], eax
    crc32 rax, qword ptr [rdi]
""".strip().splitlines()

PLACES = [
    DATA + 0x10,  # all is well
    DATA + 0xFF9,  # the next page is read-only
    DATA + 0x1FFD,  # read-only, the next is missing
    DATA + 0x2FFC,  # missing, the next is writable
    DATA + 0x3FFE,  # writable, the next outside RAM
    DATA + 0x4008,  # outside RAM
    USER_DATA + 0xFFB,  # the user's, the next is too, read-only
    (1 << 47) - 3,  # the last canonical bytes of the lower half
    (1 << 64) - 5,  # the last bytes of all
    1 << 60,
    0,
]


@pytest.fixture(scope="module")
def awkward() -> Iterator[Guest]:
    """A guest with pages of every kind side by side."""
    built = Guest()
    built.page(DATA)
    built.page(DATA + 0x1000, 0)
    built.page(DATA + 0x3000)
    built.map(DATA + 0x4000, HOLE)
    built.page(USER_DATA, RW | US)
    built.page(USER_DATA + 0x1000, US)
    with built.machine:
        yield built


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize("source", [line.strip() for line in INSTRUCTIONS])
def test_no_instruction_makes_cpu_and_tables_disagree(
    awkward: Guest, source: str, cpl: int
) -> None:
    routine = awkward.put(source) if cpl == 0 else awkward.put_user(source)
    awkward.cpu.cpl = cpl

    stops = [
        awkward.call(
            routine,
            step_limit=400,
            **dict.fromkeys(("rdi", "rsi", "rbx", "rsp", "rbp"), place),
            rax=1,
            rcx=40,
            rdx=0,
            rflags=2,
        )
        for place in PLACES
    ]

    assert {type(stop) for stop in stops} <= {PageFault, OutsideRam, Trap, Returned, StepLimit}
    assert all(stop.walk.va == stop.address for stop in stops if isinstance(stop, PageFault))


@pytest.mark.xfail(reason="the engine runs on behind an x87 store that a hole tears")
def test_an_x87_store_across_the_end_of_ram_leaves_ram(awkward: Guest) -> None:
    awkward.cpu.cpl = 0

    stop = awkward.run("fstp tbyte ptr [rdi]", rdi=DATA + 0x3FFE)

    assert stop == OutsideRam(HOLE, CODE, "leaf")


@pytest.mark.xfail(raises=EngineError, reason="the engine touches the high bytes of a BCD first")
def test_a_bcd_load_from_a_missing_page_faults_at_its_first_byte(awkward: Guest) -> None:
    routine = awkward.put("fbld tbyte ptr [rdi]")
    awkward.cpu.cpl = 0

    assert awkward.call(routine, rdi=DATA + 0x2100) == PageFault(DATA + 0x2100, 0, routine.rip)
