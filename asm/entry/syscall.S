# The kernel's side of a system call.

    .equ    PER_CPU_USER_RSP, 0     # offsets into the area that GS reaches after swapgs
    .equ    PER_CPU_KERNEL_RSP, 8

    .text

# entry_syscall: where LSTAR points, with IF in FMASK.
#
# in:       rcx = the user's RIP, r11 = its RFLAGS (both from syscall); the arguments of do_syscall
# out:      rax as do_syscall left it
# clobbers: what do_syscall clobbers
# accesses: the per-CPU area through GS, where the user's RSP is kept, and the kernel's stack
    .balign 16, 0xcc
    .globl  entry_syscall
    .type   entry_syscall, @function
entry_syscall:
    swapgs
entry_syscall_save_rsp:
    mov     qword ptr gs:[PER_CPU_USER_RSP], rsp
    mov     rsp, qword ptr gs:[PER_CPU_KERNEL_RSP]
    push    rcx
    push    r11
    call    do_syscall
    pop     r11
    pop     rcx
    mov     rsp, qword ptr gs:[PER_CPU_USER_RSP]
    swapgs
entry_syscall_sysret:
    sysretq
    .size   entry_syscall, . - entry_syscall
