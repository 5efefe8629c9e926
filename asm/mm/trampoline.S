# Leaving for real mode.

    .text

# machine_real_restart(table, variable): goes to the trampoline's table, and does what the kernel
# still does there before it leaves long mode.
#
# in:       rdi = CR3 value of the trampoline's table, rsi = a variable of the kernel's
# out:      rax = the variable
# clobbers: rcx
# accesses: the variable; then the stack, by a call. Both under the trampoline's table, which has to
#           map them, as it has this text. Linux jumps to real mode in the end; this returns
    .balign 16, 0xcc
    .globl  machine_real_restart
    .type   machine_real_restart, @function
machine_real_restart:
    push    rbp
    mov     rbp, rsp
    mov     cr3, rdi
machine_real_restart_read:
    mov     rax, qword ptr [rsi]
machine_real_restart_call:
    call    native_flush_tlb_local
    pop     rbp
    ret
    .size   machine_real_restart, . - machine_real_restart

# native_flush_tlb_local: forgets translations. Linux has the global ones forgotten there too; this
# machine's CPUs keep none over a write of CR3, and do not know all of Linux's CR4.
#
# in:       nothing
# out:      nothing
# clobbers: rcx
# accesses: the stack
    .balign 16, 0xcc
    .globl  native_flush_tlb_local
    .type   native_flush_tlb_local, @function
native_flush_tlb_local:
    mov     rcx, cr3
    mov     cr3, rcx
    ret
    .size   native_flush_tlb_local, . - native_flush_tlb_local
