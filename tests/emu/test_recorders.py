"""Both recorders, the one in machine code and Python's, see the same events.

Programs are made of pieces that are chosen to be awkward: accesses of every kind, loads and stores
across pages, repetitions, stores into code and tables, large pages, pages that fault, and what
invalidates. The stream is compared event by event: walks, bits that the CPU set, and all.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.guest import CODE_PA, DATA
from support.system import STACK, System

from emu import PhysAddr
from emu._tape import Word
from emu.chunks import Chunk
from emu.events import Event
from emu.fault import BP, PF
from emu.paging import RW, US, D
from emu.trace import Recorder

# Far from each other, and in places of the engine's TLB that differ: what is dropped from it in
# the middle of a block is the one thing that Python's recorder may not see walked for (`_fills`).
READ_ONLY, ALIAS, TABLE, DIRTY = (DATA + n * 0x4000_8000 for n in range(1, 5))
LARGE = DATA + 5 * 0x4000_0000
IN_LARGE = LARGE + 0x5_0000
PIECES = [
    "mov rax, [rdi]",
    "mov [rdi+0x10], rbx",
    "mov al, [rdi+0xfff]; mov [rdi+0x1fff], al",
    "mov rax, [rdi+0xffb]",
    "mov [rdi+0xffd], rcx",
    "mov [rdi+0x1ffd], ecx",
    "add [rdi+rbx*8+8], rax",
    "xchg [rdi], rdx",
    "lock cmpxchg16b [rdi+0x20]",
    "push rax; push [rdi]; pop rdx; pop [rdi+0x18]",
    "call 1f; 1: pop r8",
    "movsb; stosq; lodsd; cmpsb; scasw",
    "push rdi; push rsi; mov ecx, 5; rep movsq; pop rsi; pop rdi; xor ecx, ecx; rep stosb",
    "push rdi; mov ecx, 9; mov rsi, rdi; repe cmpsb; mov ecx, 3; pop rdi",
    "push rdi; lea rdi, [rdi+0xff0]; mov ecx, 4; rep stosq; pop rdi",
    "movdqu xmm0, [rdi+0xff8]; movdqu [rdi+0x40], xmm0",
    "xlatb",
    "fxsave [rdi+0x200]; fxrstor [rdi+0x200]",
    "bts [rdi], rcx; enter 16, 3; leave",
    "mov rax, gs:[rbx*8+8]; mov eax, fs:[0x10]",
    "mov rax, [rip]",
    "mov rax, cr3; mov cr3, rax",
    "invlpg [rdi]",
    "mov rax, cr4; mov cr4, rax",
    "mov rax, cr0; mov cr0, rax",
    "xor ecx, ecx; xor edx, edx; mov eax, 4; wrpkru; jmp 1f; 1:",
    "mov ecx, 0xc0000080; rdmsr; wrmsr",
    "mov [r9], al; mov [r9+0x200000], al",
    "mov rax, [r10]; mov [r10], rax",
    "mov rax, [r12]; mov [r12], rax",
    "mov byte ptr [r11+2f-code], 0xf8; jmp 1f; 1: .balign 16; 2: nop",
    "mov rax, [r13]; and rax, -0x21; mov [r13], rax",
    "mov rax, [r14]",
    "mov ecx, 700; 1: mov al, [r15]; add r15, 0x1000; loop 1b; sub r15, 700*0x1000",
    "mov ecx, 3; 1: mov [rdi+rcx], cl; loop 1b",
    "int3",
    "cpuid; pause; cli; sti; cld",
    "ud2",
    ".rept 200; mov rax, [rip+0xff0]; .endr",
]  # fmt: skip


class Bench(System):
    """A machine with something of everything, and a handler that steps over what faults."""

    def __init__(self, levels: int) -> None:
        super().__init__(levels=levels, pke=True)
        for page in range(DATA, DATA + 0x3000, 0x1000):
            self.page(page)
        self.page(LARGE, level=2)
        self.map(LARGE + 0x20_0000, 0x200_0000, RW, level=2)
        self.page(READ_ONLY, 0)
        self.page(DIRTY, RW | D)
        self.map(ALIAS, CODE_PA, RW)
        self.map(ALIAS + 0x1000, CODE_PA + 0x1000, RW)
        entry_pa = self.entry_pa(DATA, 1)
        self.map(TABLE, entry_pa & -0x1000, RW)
        far = PhysAddr(self.frames.allocate())
        for n in range(700):
            self.map(self.far + n * 0x1000, far, US)
        self.entry = TABLE + entry_pa % 0x1000
        skip = self.put("add rsp, 8; mov r14, rdi; mov r10, rdi; pop rax; push rax; iretq")
        self.handle({PF: skip.rip, BP: self.put("iretq").rip})

    far = DATA + 0x10_0000_0000


def recorded(pieces: list[str], *, native: bool, levels: int, **options: object) -> list[Event]:
    """Run the pieces on a machine of their own."""
    bench = Bench(levels)
    routine = bench.put("code: " + "; ".join(map(_operand_sizes, pieces)))
    chunks: list[Chunk] = []
    with Recorder(bench.cpu, native=native, sink=chunks.append, **options) as recorder:  # type: ignore[arg-type]
        bench.call(
            routine, rdi=DATA, rsi=DATA + 0x800, rbx=1, rcx=2, rbp=STACK - 0x100, rsp=STACK,
            r9=IN_LARGE, r10=READ_ONLY, r11=ALIAS + routine.rip % 0x1000, r12=DIRTY,
            r13=bench.entry, r14=0x123_4567_8000, r15=bench.far,
            gs_base=DATA, fs_base=DATA + 0x1000, step_limit=5_000,
        )  # fmt: skip
    assert recorder._words[Word.LOST] == 0  # nothing was lost
    return [event for chunk in chunks for event in chunk.events()]


def _operand_sizes(piece: str) -> str:
    return piece.replace("push [", "push qword ptr [").replace("pop [", "pop qword ptr [")


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("piece", PIECES)
def test_both_see_the_same(piece: str, levels: int) -> None:
    found = recorded([piece], native=True, levels=levels)

    assert found == recorded([piece], native=False, levels=levels)


@pytest.mark.parametrize("piece", PIECES)
def test_both_see_the_same_registers(piece: str) -> None:
    found = recorded([piece], native=True, levels=4, registers=True)

    assert found == recorded([piece], native=False, levels=4, registers=True)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=9))
def test_both_see_the_same_of_any_program(pieces: list[str]) -> None:
    found = recorded(pieces, native=True, levels=4)

    assert found == recorded(pieces, native=False, levels=4)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [4, 5])
@settings(max_examples=1000, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=14))
def test_both_see_the_same_of_a_thousand_programs(pieces: list[str], levels: int) -> None:
    found = recorded(pieces, native=True, levels=levels)

    assert found == recorded(pieces, native=False, levels=levels)
