"""Instruction shapes to hold against the engine, the registers they start from, and their bytes.

Numbers are hexadecimal throughout: keystone changes its default radix on a whim. What keystone
cannot assemble, or encodes otherwise than meant, is given as bytes.
"""

import struct
from functools import cache

import keystone
from support.instruction_engine import LANDING

SOURCE, TARGET, STACK, FRAME = 0x300000, 0x200000, 0x8000, 0x9000
REGISTERS = {
    "rax": 0x1040,
    "rcx": 0x3,
    "rdx": 0x1,
    "rbx": 0x100000,
    "rsp": STACK,
    "rbp": FRAME,
    "rsi": SOURCE,
    "rdi": TARGET,
    **{f"r{n}": 0x400000 + n * 0x1000 for n in range(8, 16)},
    "fs_base": 0x580000,
    "gs_base": 0x680000,
}
MEMORY = {
    STACK: struct.pack("<5Q", LANDING, 0x8, 0x2, STACK, 0x10),
    FRAME: bytes(0x40),
    SOURCE: bytes(0x200),
    TARGET: struct.pack("<QH", LANDING, 0x8),
}

ASSEMBLY = """
mov rax, [rdi]; mov eax, [rdi+0x10]; mov ax, [rdi]; mov al, [rdi]; mov [rdi], rax;
mov [rdi], eax; mov [rdi], ax; mov [rdi], al; mov dword ptr [rdi+0x34], 0x1;
mov qword ptr [rdi-0x8], 0x1; mov byte ptr [rdi], 0x1; mov word ptr [rdi], 0x1;
mov rax, [rsi+rdi*0x1]; mov [rsi+rcx*0x8+0x10], r9; mov rax, [r8+r9*0x1]; mov [r12], rax;
mov [r13], rax; mov [rsp+0x8], rax; mov rax, [rbp-0x8]; mov rax, [rip+0x10];
mov [rip+0x1000], eax; mov rax, gs:[rax]; mov rax, fs:[rax]; mov gs:[rax+0x10], ecx;
mov eax, [edi]; mov [esi+ecx*0x4], eax; add [rdi], rax; add rax, [rdi]; add qword ptr [rdi], 0x5;
add byte ptr [rdi], 0x5; adc [rdi], eax; sbb [rdi], eax; and [rdi], ax; or [rdi], al;
sub [rdi], rax; xor dword ptr [rdi], 0x1; cmp [rdi], rax; cmp rax, [rdi];
cmp byte ptr [rdi], 0x5; test [rdi], rax; test dword ptr [rdi], 0x1; inc qword ptr [rdi];
dec dword ptr [rdi]; not word ptr [rdi]; neg byte ptr [rdi]; shl qword ptr [rdi], 0x1;
shr dword ptr [rdi], cl; sar byte ptr [rdi], 0x3; rol qword ptr [rdi], 0x1;
ror dword ptr [rdi], 0x2; rcl qword ptr [rdi], 0x1; rcr qword ptr [rdi], cl;
shld [rdi], rax, 0x4; shrd [rdi], eax, cl; mul qword ptr [rdi]; mul byte ptr [rdi];
imul dword ptr [rdi]; imul rax, [rdi]; imul eax, [rdi], 0x10; div qword ptr [rdi];
idiv dword ptr [rdi]; lock add qword ptr [rdi], 0x5; lock inc dword ptr [rdi];
lock xadd [rdi], rax; xadd [rdi], al; xchg [rdi], rax; xchg [rdi], cl; lock cmpxchg [rdi], rbx;
cmpxchg [rdi], cl; lock cmpxchg8b [rdi]; lock cmpxchg16b [rdi]; bt [rdi], rax; bts [rdi], rax;
btr [rdi], eax; btc [rdi], ax; bt qword ptr [rdi], 0x5; bts qword ptr [rdi], 0x5;
lock bts qword ptr [rdi], 0x45; btr dword ptr [rdi], 0x25; btc word ptr [rdi], 0x15;
bsf rax, [rdi]; bsr eax, [rdi]; tzcnt rax, [rdi]; lzcnt rax, [rdi]; popcnt eax, [rdi];
crc32 eax, dword ptr [rdi]; crc32 rax, byte ptr [rdi]; movbe rax, [rdi]; movbe [rdi], eax;
adcx rax, [rdi]; adox eax, [rdi]; andn rax, rbx, [rdi]; bextr rax, [rdi], rbx;
mulx rax, rbx, [rdi]; rorx rax, [rdi], 0x5; shlx rax, [rdi], rcx; pdep eax, ebx, [rdi];
blsr rax, [rdi]; movzx eax, byte ptr [rdi]; movzx rax, word ptr [rdi]; movsx eax, word ptr [rdi];
movsxd rax, dword ptr [rdi]; cmovz rax, [rdi]; cmovnz eax, [rdi]; setz [rdi];
setnz byte ptr [rdi]; seta byte ptr [rdi]; lea rax, [rdi+0x8]; nop dword ptr [rdi];
prefetcht0 [rdi]; prefetchw [rdi]; clflush [rdi]; clflushopt [rdi]; clwb [rdi]; invlpg [rdi];
movnti [rdi], rax; movnti [rdi], eax; xlatb; push rax; push 0x5; push qword ptr [rdi];
push qword ptr [rsp+0x8]; push word ptr [rdi]; push ax; push fs; pop rax; pop ax;
pop qword ptr [rdi]; pop word ptr [rdi]; pop qword ptr [rsp]; pop qword ptr [rsp+0x10]; pop rsp;
push rsp; pushfq; popfq; call rbx; call [rdi]; call 0x1000; jmp rbx; jmp [rdi]; ret; ret 0x10;
leave; enter 0x10, 0x0; enter 0x10, 0x1; enter 0x20, 0x3; iretq; jz 0x1000; syscall; hlt; movsb;
movsw; movsq; stosb; stosw; stosd; stosq; lodsb; lodsw; lodsd; lodsq; scasb; scasw; scasd; scasq;
cmpsb; cmpsw; cmpsq; rep movsb; rep movsq; rep stosb; rep stosq; rep lodsb; repe cmpsb;
repne scasb; repne cmpsq; insb; insd; outsb; outsd; rep insb; rep outsb; movaps xmm0, [rdi];
movaps [rdi], xmm0; movups xmm0, [rdi]; movups [rdi], xmm0; movapd [rdi], xmm1;
movdqa xmm0, [rdi]; movdqa [rdi], xmm0; movdqu xmm0, [rdi]; movdqu [rdi], xmm0; movq xmm0, [rdi];
movq [rdi], xmm0; movd xmm0, dword ptr [rdi]; movd dword ptr [rdi], xmm0; movss xmm0, [rdi];
movss [rdi], xmm0; movsd xmm0, qword ptr [rdi]; movsd qword ptr [rdi], xmm0; movhps xmm0, [rdi];
movhps [rdi], xmm0; movlps [rdi], xmm0; movhpd [rdi], xmm0; movlpd xmm0, [rdi];
movntdq [rdi], xmm0; movntps [rdi], xmm0; movntdqa xmm0, [rdi]; lddqu xmm0, [rdi];
movddup xmm0, [rdi]; movshdup xmm0, [rdi]; paddd xmm0, [rdi]; pxor xmm0, [rdi];
addps xmm0, [rdi]; addss xmm0, [rdi]; addsd xmm0, [rdi]; comisd xmm0, [rdi]; ucomiss xmm0, [rdi];
cvtsi2sd xmm0, qword ptr [rdi]; cvtsi2ss xmm0, dword ptr [rdi]; cvttsd2si rax, qword ptr [rdi];
cvtss2sd xmm0, dword ptr [rdi]; cvtpd2ps xmm0, [rdi]; cvtdq2ps xmm0, [rdi]; cvtdq2pd xmm0, [rdi];
cvtps2pd xmm0, [rdi]; roundsd xmm0, [rdi], 0x0; roundss xmm0, [rdi], 0x0;
pextrb byte ptr [rdi], xmm0, 0x1; pextrw word ptr [rdi], xmm0, 0x1;
pextrd dword ptr [rdi], xmm0, 0x1; pextrq qword ptr [rdi], xmm0, 0x1;
pinsrb xmm0, byte ptr [rdi], 0x1; pinsrw xmm0, word ptr [rdi], 0x1;
pinsrd xmm0, dword ptr [rdi], 0x1; pinsrq xmm0, qword ptr [rdi], 0x1;
extractps dword ptr [rdi], xmm0, 0x1; insertps xmm0, dword ptr [rdi], 0x1;
pmovzxbw xmm0, qword ptr [rdi]; pmovsxbd xmm0, dword ptr [rdi]; pshufd xmm0, [rdi], 0x1;
pshufb xmm0, [rdi]; palignr xmm0, [rdi], 0x4; ptest xmm0, [rdi]; aesenc xmm0, [rdi];
pclmulqdq xmm0, [rdi], 0x0; movq mm0, [rdi]; movq [rdi], mm0; movntq [rdi], mm0;
punpckldq mm0, [rdi]; fld dword ptr [rdi]; fld qword ptr [rdi]; fld tbyte ptr [rdi];
fst dword ptr [rdi]; fst qword ptr [rdi]; fstp dword ptr [rdi]; fstp qword ptr [rdi];
fstp tbyte ptr [rdi]; fild word ptr [rdi]; fild dword ptr [rdi]; fild qword ptr [rdi];
fist word ptr [rdi]; fistp dword ptr [rdi]; fistp qword ptr [rdi]; fisttp word ptr [rdi];
fadd qword ptr [rdi]; fiadd dword ptr [rdi]; fcomp dword ptr [rdi]; fbld [rdi]; fbstp [rdi];
fldcw [rdi]; fnstcw [rdi]; fnstsw [rdi]; fldenv [rdi]; fnstenv [rdi]; fnsave [rdi]; frstor [rdi];
fxsave [rdi]; fxsave64 [rdi]; fxrstor [rdi]; fxrstor64 [rdi]; ldmxcsr [rdi]; stmxcsr [rdi];
sgdt [rdi]; sidt [rdi]; lidt [rdi]; sldt word ptr [rdi]; str word ptr [rdi]; smsw word ptr [rdi];
verr word ptr [rdi]; verw word ptr [rdi]; lar eax, [rdi]; mov ds, word ptr [rsi];
mov word ptr [rdi], ds; mov es, ecx; lss eax, [rsi]; xsave [rdi]; xsaveopt [rdi]; xrstor [rdi];
"""

RAW = {
    "movsd (string)": "a5",
    "cmpsd (string)": "a7",
    "rep movsd (string)": "f3a5",
    "rep stosd, 32-bit addresses": "67f3ab",
    "movsb from gs": "65a4",
    "lodsq from fs": "6448ad",
    "xlatb from gs": "65d7",
    "bts gs:[rdi], rax": "65480fab07",
    "mov al, moffs64": "a00010200000000000",
    "mov moffs64, rax": "48a30010200000000000",
    "mov eax, [disp32]": "8b042500102000",
    "mov eax, gs:[disp32]": "658b042500000000",
    "mov eax, [r8*8]": "428b04c500000000",
    "mov eax, [eip+0x10]": "678b0510000000",
    "push 16 bits, immediate": "66683412",
    "push qword, 66 and REX.W": "6648ff37",
    "pushf": "669c",
    "popf": "669d",
    "leave, 16 bits": "66c9",
    "enter 0x10, 2, 16 bits": "66c8100002",
    "enter 0x10, 0x21": "c8100021",
    "pop gs": "0fa9",
    "rep ret": "f3c3",
    "retfq": "48cb",
    "retf 0x10, 64 bits": "48ca1000",
    "lcall m16:64": "48ff1f",
    "ljmp m16:64": "48ff2f",
    "lgdt": "0f01542420",
    "endbr64": "f30f1efa",
    "5-byte nop": "0f1f440000",
    "fnstenv, 14 bytes": "66d937",
    "bsf rax, 66 and REX.W": "66480fbc07",
    "retf": "cb",
    "iretd": "cf",
    "lcall m16:32": "ff1f",
    "bt [rdi], rcx of a negative bit": "480fa30f",
}

FRAME_32 = {STACK: struct.pack("<5I", LANDING, 0x8, 0x2, STACK, 0x10)}
FAR_32 = {TARGET: struct.pack("<IH", LANDING, 0x8)}
SETUP: dict[str, tuple[dict[str, int], dict[int, bytes]]] = {
    "retf": ({}, FRAME_32),
    "iretd": ({}, FRAME_32),
    "lcall m16:32": ({}, FAR_32),
    "bt [rdi], rcx of a negative bit": ({"rcx": -0x41 & (1 << 64) - 1}, {}),
    "lgdt": ({}, {STACK + 0x20: struct.pack("<HQ", 0xFF, 0x800000)}),
    "mov es, ecx": ({"rcx": 0x10}, {}),
}
"""Registers and memory that differ from the above."""


@cache
def corpus() -> dict[str, bytes]:
    """The bytes of every shape, by name."""
    assembler = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    sources = [source.strip() for source in ASSEMBLY.split(";")]
    return {
        **{source: bytes(assembler.asm(source, as_bytes=True)[0]) for source in sources if source},
        **{name: bytes.fromhex(code) for name, code in RAW.items()},
    }
