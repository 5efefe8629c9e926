"""The text of the callbacks, in Intel syntax, and what the words in braces stand for.

Knows what is recorded of an instruction that is known by heart, of an access, and of a walk.
Refuses to know how the text becomes code (`_native`). RAX, RCX, RDX, RSI, RDI, R8 to R11 and XMM0
are free; what is called like a word of the tape is its offset.
"""

from struct import Struct
from typing import Final

import unicorn

from emu._layout import AT_CONTROL, AT_EFER, AT_GPRS
from emu._tape import REGISTERS_SIZE, SHAPE_SIZE, SHAPES, WALK, Word
from emu.paging import CR4_LA57

SHAPE: Final = Struct("<QIIIHHQ" + 2 * "QQQQQQ")
"""What is known by heart of the instruction at an address: the address, its number, the generation
that this holds for, its `operands.Kind`, how many bytes it may read and write, the bits of RCX that
count; and two forms of an address: where the scaled register lies, its scale, where the base lies,
the displacement, the mask, where the segment's base lies."""
assert SHAPE.size == SHAPE_SIZE

_CR3: Final = AT_CONTROL - AT_GPRS + 3 * 8
_CR4: Final = _CR3 + 8
_EFER: Final = AT_EFER - AT_GPRS
_RCX: Final = 8
_ENTRIES: Final = 32  # into a walk
_LEVELS: Final = 24
_DONE: Final = 28
_EFER_AT: Final = 152
_FETCH: Final = 2


def _form(at: int) -> str:
    """Return the text that works out a form of an address, which lies there in a shape: in RAX."""
    scaled, scale, base, displacement, mask, segment = range(at, at + 6 * 8, 8)
    return f"""
    mov r10, [r8 + {scaled:#x}]
    mov rax, [r10]
    imul rax, [r8 + {scale:#x}]
    mov r10, [r8 + {base:#x}]
    add rax, [r10]
    add rax, [r8 + {displacement:#x}]
    and rax, [r8 + {mask:#x}]
    mov r10, [r8 + {segment:#x}]
    add rax, [r10]
    """


TAPE: Final = 0x7A7A_7A7A_7A7A_7A7A  # stands for the tape's address, which no argument gives
NAMES: Final = {
    name: f"{value:#x}"
    for name, value in {
        "shapes_mask": SHAPES - 1,
        "shapes_bits": SHAPES.bit_length() - 1,
        "shape_bits": SHAPE_SIZE.bit_length() - 1,
        "registers_bits": REGISTERS_SIZE.bit_length() - 1,
        "one_form": 1,  # of `operands.Kind`
        "repeats": 3,
        "write": unicorn.UC_MEM_WRITE,
        "walk_size": WALK.size,
        **{word.name: 8 * word for word in Word},
        "tape": TAPE,
        "cr3": _CR3,
        "cr4": _CR4,
        "efer": _EFER,
        "efer_at": _EFER_AT,
        "fetch": _FETCH,
        "la57": CR4_LA57,
        "rcx": _RCX,
        "levels": _LEVELS,
        "done": _DONE,
        "entries": _ENTRIES,
    }.items()
}

# Before each instruction: (RDI engine, RSI its address, EDX its size, RCX tape).
CODE: Final = """
    mov rax, [rcx + {HEAD}]
    cmp rax, [rcx + {LIMIT}]
    jae slow
    mov r8, rsi
    shr r8, {shapes_bits}
    xor r8, rsi
    and r8d, {shapes_mask}
    shl r8, {shape_bits}
    add r8, [rcx + {SHAPES_AT}]
    cmp [r8], rsi
    jne slow
    mov r9d, [r8 + 0xc]
    cmp r9d, [rcx + {GENERATION}]
    jne slow
    mov r9d, [r8 + 0x10]
    cmp r9d, {repeats}
    je repeats
record:
    mov r10d, [r8 + 0x8]
    mov r11, [rcx + {INSTRUCTIONS_AT}]
    mov [r11 + rax*4], r10d
    mov [rcx + {LAST}], r10
    {copy}
    inc rax
    mov [rcx + {HEAD}], rax
    movzx r10d, word ptr [r8 + 0x14]
    mov [rcx + {READ_SIZE}], r10
    movzx r10d, word ptr [r8 + 0x16]
    mov [rcx + {WRITE_SIZE}], r10
    test r9d, r9d
    jz done

    {first_form}
    mov [rcx + {READ_VA}], rax
    mov [rcx + {WRITE_VA}], rax
    cmp r9d, {one_form}
    je done

    {second_form}
    mov [rcx + {WRITE_VA}], rax
done:
    ret

repeats:
    mov r10, [rcx + {STATE_AT}]
    mov r10, [r10 + {rcx}]
    test r10, [r8 + 0x18]
    jnz record
    mov r10d, [r8 + 0x8]
    cmp r10, [rcx + {LAST}]
    jne record
    ret

slow:
    jmp qword ptr [rcx + {ON_CODE}]
""".replace("{first_form}", _form(0x20)).replace("{second_form}", _form(0x50))

COPY: Final = """
    mov r11, rax
    shl r11, {registers_bits}
    add r11, [rcx + {REGISTERS_AT}]
    mov r10, [rcx + {STATE_AT}]
""" + "".join(
    f"""
    movups xmm0, [r10 + {16 * n:#x}]
    movups [r11 + {16 * n:#x}], xmm0
"""
    for n in range(REGISTERS_SIZE // 16)
)

# At each access: (RDI engine, ESI kind, RDX physical address, ECX size, R8 value, R9 tape).
ACCESS: Final = """
    cmp ecx, 0x8
    ja slow
    mov eax, edx
    and eax, 0xfff
    add eax, ecx
    cmp eax, 0x1000
    ja slow
    and r8, [r9 + rcx*8 + {MASKS}]
    mov r11, [r9 + {READ_VA}]
    mov rdi, [r9 + {READ_SIZE}]
    xor eax, eax
    cmp esi, {write}
    jne record
    mov r11, rdx
    shr r11, 0xc
    and r11d, 0xffff
    mov r10, [r9 + {FRAMES_AT}]
    mov r10d, [r10 + r11*4]
    cmp r10d, [r9 + {GENERATION}]
    je slow
    mov r11, [r9 + {WRITE_VA}]
    mov rdi, [r9 + {WRITE_SIZE}]
    mov eax, 0x1
record:
    mov rsi, rdx
    sub rsi, r11
    and esi, 0xfff
    add r11, rsi
    cmp rsi, rdi
    setb dil
    jb known
    xor r11d, r11d
known:
    mov r10, [r9 + {ACCESSES}]
    cmp r10, [r9 + {ACCESSES_END}]
    jae lost
    mov rsi, r10
    shl rsi, 0x5
    add rsi, [r9 + {ACCESSES_AT}]
    mov [rsi], r11
    mov [rsi + 0x8], rdx
    mov [rsi + 0x10], r8
    mov r11, [r9 + {HEAD}]
    mov [rsi + 0x18], r11d
    mov [rsi + 0x1c], cl
    mov [rsi + 0x1d], al
    mov [rsi + 0x1e], dil
    inc r10
    mov [r9 + {ACCESSES}], r10
    cmp r10, [r9 + {ACCESSES_FULL}]
    jae full
    ret
full:
    mov qword ptr [r9 + {LIMIT}], 0x0
    ret
lost:
    inc qword ptr [r9 + {LOST}]
    ret
slow:
    jmp qword ptr [r9 + {ON_ACCESS}]
"""

# Where the engine fills its TLB: (RDI CPU, RSI address, EDX size, ECX access, R8D mode, R9B probe,
# a return address on the stack). What it calls returns if the walk led to a page, and otherwise
# goes elsewhere and never comes back. Behind a walk for a fetch no code is known by heart.
FILL: Final = """
    push rbx
    push rbp
    movabs r11, {tape}
    mov rax, [r11 + {WALKS}]
    cmp rax, [r11 + {WALKS_END}]
    jae lost
    imul r10, rax, {walk_size}
    add r10, [r11 + {WALKS_AT}]
    inc rax
    mov [r11 + {WALKS}], rax
    cmp rax, [r11 + {WALKS_FULL}]
    jb room
    mov qword ptr [r11 + {LIMIT}], 0x0
room:
    mov [r10], rsi
    mov rax, [r11 + {HEAD}]
    mov [r10 + 0x8], eax
    mov rax, [r11 + {ACCESSES}]
    mov [r10 + 0xc], eax
    mov [r10 + 0x10], ecx
    mov [r10 + 0x14], r8d
    mov qword ptr [r10 + {levels}], 0x0

    push rdx
    push rcx
    mov rbx, [r11 + {STATE_AT}]
    mov rax, [rbx + {cr3}]
    mov rdx, [rbx + {efer}]
    mov [r10 + {efer_at}], rdx
    cmp ecx, {fetch}
    jne data
    inc dword ptr [r11 + {GENERATION}]
data:
    mov rcx, [rbx + {cr4}]
    mov rbp, rsi
    shl rbp, 0x7
    mov ebx, 0x5
    test ecx, {la57}
    jnz start
    shl rbp, 0x9
    dec ebx
start:
    lea rcx, [r10 + {entries}]
descend:
    and rax, [r11 + {ADDRESS}]
    mov rdx, rbp
    shr rdx, 0x37
    lea rax, [rax + rdx*8]
    shl rbp, 0x9
    cmp rax, [r11 + {RAM_SIZE}]
    jae walked
    mov [rcx], rax
    mov rdx, [r11 + {RAM_AT}]
    mov rax, [rdx + rax]
    mov [rcx + 0x8], rax
    add rcx, 0x18
    inc dword ptr [r10 + {levels}]
    test al, 0x1
    jz walked
    test al, 0x80
    jnz walked
    dec ebx
    jnz descend
walked:
    mov ebx, [r10 + {levels}]
    pop rcx
    pop rdx

    push r10
    push r11
    push qword ptr [rsp + 0x28]
    call qword ptr [r11 + {FILL}]
    add rsp, 0x8
    pop r11
    pop r10
    mov dword ptr [r10 + {done}], 0x1
    mov rdx, [r11 + {RAM_AT}]
    lea rcx, [r10 + {entries}]
    test ebx, ebx
    jz out
again:
    mov r8, [rcx]
    mov r8, [rdx + r8]
    mov [rcx + 0x10], r8
    add rcx, 0x18
    dec ebx
    jnz again
out:
    pop rbp
    pop rbx
    ret
lost:
    inc qword ptr [r11 + {LOST}]
    pop rbp
    pop rbx
    jmp qword ptr [r11 + {FILL}]
"""
