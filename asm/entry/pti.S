# The way to user mode and back with page-table isolation: two tables, eight KiB together, of which
# the upper one is user mode's.

    .set    PTI_USER_PGTABLE, 0x1000        # the bit of CR3 in which the two differ
    .set    RFLAGS_IF, 0x202

    .text

# return_to_user(rip, cr3, rsp): goes on at CPL 3, on the user's table.
#
# in:       rdi = the user's RIP, rsi = CR3 value of its table, rdx = its RSP; what else is in
#           registers is handed on
# out:      does not return: what comes back is a system call, and entry_SYSCALL_64 returns to the
#           caller of this
# clobbers: rcx, r11
# accesses: kernel_rsp, and behind the write of CR3 this text
    .balign 16, 0xcc
    .globl  return_to_user
    .type   return_to_user, @function
return_to_user:
    mov     qword ptr [rip + kernel_rsp], rsp
    mov     rcx, rdi
    mov     r11d, RFLAGS_IF
    mov     rsp, rdx
return_to_user_write_cr3:
    mov     cr3, rsi
    sysretq
    .size   return_to_user, . - return_to_user

# entry_SYSCALL_64: where LSTAR points.
#
# in:       r8 = what is read before the switch of tables, r9 = what is read after it
# out:      rax = what was read last
# clobbers: nothing else
# accesses: the first, on the user's table and the user's RSP; the second, on the kernel's. Linux
#           reads nothing of the kernel's there, since all but a few pages are missing
    .balign 16, 0xcc
    .globl  entry_SYSCALL_64
    .type   entry_SYSCALL_64, @function
entry_SYSCALL_64:
entry_SYSCALL_64_before:
    mov     rax, qword ptr [r8]
    mov     rax, cr3
    and     rax, ~PTI_USER_PGTABLE
entry_SYSCALL_64_write_cr3:
    mov     cr3, rax
    mov     rsp, qword ptr [rip + kernel_rsp]
entry_SYSCALL_64_after:
    mov     rax, qword ptr [r9]
    ret
    .size   entry_SYSCALL_64, . - entry_SYSCALL_64

# Where the kernel's stack was left, for the way back.
    .data
    .balign 8
    .globl  kernel_rsp
    .type   kernel_rsp, @object
kernel_rsp:
    .quad   0
    .size   kernel_rsp, . - kernel_rsp
