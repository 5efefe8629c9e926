"""Instructions of every kind that kernel code uses, times the operands that change an encoding.

Text only, one statement each; what they should become is for GNU as to say.
"""

REGISTERS = {
    "64": ["rax", "rcx", "rbx", "rsp", "rbp", "rsi", "r8", "r12", "r13"],
    "32": ["eax", "ecx", "ebx", "esp", "edi", "r9d", "r13d"],
    "16": ["ax", "cx", "bp", "r9w"],
    "8": ["al", "cl", "ah", "bh", "sil", "bpl", "r8b", "r13b"],
}
MEMORY = str.split("""
    [rax] [rsp] [rbp] [r12] [r13] [rdi+8] [rdi-0x80] [rdi+0x80] [rdi-0x81] [rdi+0x12345678]
    [rdi-0x80000000] [rdi+0x7fffffff] [rdi+0xffffffffffffff80] [rsp+0x10] [rax+rcx*4]
    [rcx*8+0x100] [rbp+r12*8+0x80] [r13+rax*2-0x7f] [rax+rsp] [rbp+rax] [rax+rbp] [rax*1] [rax*2]
    [rax+rbx*1] [rip+0x10] [rip-0x100] gs:[rax] fs:[rdi+8] gs:[0x28] [0x1000] [0xffffffff82000000]
    [eax+4] ds:[rbp] ss:[rbp] ds:[rax] cs:[rax] 8[rsp] [rax][rbx]
""")
CONSTANTS = str.split("""
    0 1 -1 5 0x7f -128 0x80 -129 0x12345678 0x7fffffff -0x80000000
""")

ON_REGISTERS = str.split("""
    push pop inc dec neg not mul div idiv imul bswap call jmp
""")
ON_MEMORY = str.split("""
    push|qword pop|qword inc|qword dec|byte neg|dword not|word mul|qword div|dword call|qword
    jmp|qword setz|byte invlpg| clflush| clflushopt| clwb| prefetcht0| prefetchnta| prefetchw|
    cmpxchg16b| xsave| xsave64| xrstor| xsaveopt64| xsavec| xsaves| fxsave64| fxrstor64| lgdt|
    lidt| sgdt| sidt| ldmxcsr| stmxcsr| ltr|word lldt|word verw|word nop|dword nop|word
""")
WITH_MEMORY = str.split("""
    mov+rax,{} mov+{},r15 mov+eax,{} mov+{},bl mov+dword~{},0x12345678 mov+byte~{},0x12
    mov+word~{},0x1234 mov+qword~{},-1 lea+rbx,{} add+rax,{} or+{},rcx and+qword~{},0x7f
    and+dword~{},0x80 sub+byte~{},5 xor+qword~{},-0x80000000 cmp+qword~{},0x12345678 cmp+byte~{},0
    test+byte~{},1 test+{},rax shl+qword~{},1 sar+dword~{},cl rol+byte~{},7 imul+rax,{}
    imul+rax,{},100 xchg+{},rax xadd+{},rax cmpxchg+{},rbx bt+qword~{},5 btr+{},eax
    movzx+eax,word~{} movzx+eax,byte~{} movsx+rax,byte~{} movsxd+rax,dword~{} cmovz+rax,{}
    mov+word~{},ds mov+{},ds mov+fs,word~{} movups+{},xmm9 movdqa+xmm3,{} movq+xmm1,qword~{}
    movnti+{},rax invpcid+rax,{} vmovdqu+ymm0,{} bsf+rax,{} popcnt+rax,{} crc32+rax,qword~{}
""")
ALONE = """
    nop; hlt; cli; sti; cld; std; clc; stc; cmc; pushfq; popfq; pushf; popf; ret; ret 8; retfq
    lretq; iretq; iretd; int3; int 3; int 0x80; syscall; sysretq; sysexitq; sysenter; swapgs
    wbinvd; invd; rdmsr; wrmsr; rdtsc; rdtscp; cpuid; xgetbv; xsetbv; stac; clac; rdpkru; wrpkru
    monitor; mwait; pause; lfence; mfence; sfence; ud2; endbr64; endbr32; serialize; wbnoinvd
    vmcall; cdq; cqo; cwde; cdqe; leave; enter 16, 0; lahf; sahf; xlatb; fninit; finit; emms
    movsb; movsw; movsd; movsq; stosb; stosd; stosq; lodsb; lodsq; scasb; cmpsb; cmpsd; cmpsq
    rep movsb; rep movsq; rep stosb; rep stosq; repe cmpsb; repe cmpsd; repne scasb; rep ret
    in al, dx; in eax, dx; in al, 0x60; out dx, al; out 0x60, al; out 0x80, eax
    xchg ax, ax; xchg eax, eax; xchg rax, rax; xchg rax, rbx; xchg rbx, rax; nop eax
    push 5; push -1; push 0x80; push 0x7fffffff; push -0x80000000; push 0xffffffffffffffff
    push fs; pop gs; mov ds, ax; mov es, eax; mov fs, rax; mov ds, r12w; mov ax, ds; mov eax, cs
    mov rax, ss; mov r8, fs; str ax; str eax; str rax; sldt rax; smsw rax; smsw eax; lmsw ax
    mov rax, cr0; mov rax, cr2; mov rdi, cr3; mov rax, cr8; mov cr0, rax; mov cr3, rdi
    mov cr4, r12; mov rax, dr7; mov dr6, rbx; rdfsbase rax; wrgsbase r12; rdgsbase eax
    mov rax, 0x1122334455667788; mov rax, -1; mov rax, 0xffffffff; mov rax, 0x80000000
    mov rax, 0xffffffff80000000; mov r15, 0xffffffffffffffff; movabs rax, 5; mov al, 0xff
    mov ax, 0xffff; mov eax, 0xffffffff; movabs rbx, 0x1122334455667788; add ax, 0xff80
    add eax, 0xffffff80; and rax, 0xfffffffffffff000; xor rax, 0xffffffff80000000; test al, 0xff
    test eax, 0x80000000; test rax, 0x10; test rbx, 0x10; test rax, rbx; test rbx, rax
    imul rax, rbx, 5; imul rax, rbx, 0x1234; imul rax, rbx, 0xffffffffffffff80; imul eax, ebx
    shl rax; shl rax, 1; shl rax, 5; shl rax, cl; sar rbx, 63; shld rax, rbx, 4; shrd rax, rbx, cl
    bt rax, 63; bt eax, ecx; bts rax, rbx; setc al; cmovae r8, r9; movsx rax, ax; movsxd rax, eax
    movzx eax, al; movzx rax, bl; bsr rax, rbx; lzcnt rax, rbx; tzcnt eax, ebx; crc32 rax, bl
    movsx rax, dword ptr [rdi]; sub rsp, 128; sub rsp, -128; lea eax, [rdi]; lea rsp, [rsp-8]
    lock inc qword ptr gs:[rax]; lock cmpxchg16b [rdi]; lock bts qword ptr [rdi], 5
    lock xadd [rdi], rax; lock cmpxchg [rdi], rbx; xacquire lock add [rdi], eax; notrack jmp rax
    xrelease mov [rdi], eax; data16 nop; cs nop; nop word ptr cs:[rax+rax*1+0]
    nop dword ptr [rax+rax+0]; mov rax, ds:0x1000; mov rax, gs:0x28; mov [0x1000], eax
    mov rax, [0x1122334455667788]; mov rax, [0x80000000]; movabs rax, [0x10]
    movabs [0x1122334455667788], al; mov eax, [ebp]; mov eax, gs:[eax]; mov eax, [eax+ebx*4]
    addr32 mov eax, [eax]; rdrand rax; rdseed ebx; wrfsbase eax; andn rax, rbx, rcx
    fld st(1); fxch st(3); fadd st(0), st(1); fnstsw ax; movd xmm0, eax; movq rax, xmm0
    pxor xmm0, xmm0; vzeroupper; shufps xmm0, xmm1, 0xe4; pinsrd xmm0, eax, 2; aesenc xmm0, xmm1
"""


def _alone() -> list[str]:
    return [part.strip() for line in ALONE.splitlines() for part in line.split(";") if part.strip()]


def _sized(text: str) -> str:
    return text.replace("+", " ", 1).replace("~", " ptr ")


STATEMENTS = tuple(
    dict.fromkeys(
        [
            *_alone(),
            *(f"{op} {r}" for op in ON_REGISTERS for r in REGISTERS["64"]),
            *(f"{op} {r}" for op in ("inc", "neg", "mul") for r in REGISTERS["32"]),
            *(f"{op} {r}" for op in ("setz", "not", "inc") for r in REGISTERS["8"]),
            *(f"{op} {r}" for op in ("push", "pop", "inc") for r in REGISTERS["16"]),
            *(
                f"{op} {r}, {constant}"
                for op in ("add", "and", "cmp", "sub", "mov")
                for r in ("rax", "rbx", "r12", "eax", "r9d")
                for constant in CONSTANTS
            ),
            *(
                f"{op} {r}, {other}"
                for op in ("mov", "add", "xor", "cmp", "test", "xchg")
                for bits in REGISTERS
                for r, other in zip(REGISTERS[bits], REGISTERS[bits][1:], strict=False)
            ),
            *(
                f"{op} {size + ' ptr ' if size else ''}{memory}"
                for op, size in (entry.split("|") for entry in ON_MEMORY)
                for memory in MEMORY
            ),
            *(_sized(entry).format(memory) for entry in WITH_MEMORY for memory in MEMORY),
        ]
    )
)
