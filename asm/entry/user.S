# From the kernel to CPL 3.

    .equ    USER_CODE, 0x33         # selectors of emu's flat GDT, with RPL 3
    .equ    USER_DATA, 0x2b
    .equ    RFLAGS_FIXED, 0x2       # interrupts stay off

    .text

# enter_user: go on at CPL 3.
#
# in:       rdi = the user's RIP, rsi = its RSP
# out:      does not return: what comes back is an exception or a system call
# clobbers: nothing
# accesses: five pushes to the kernel's stack, which iretq pops, and two descriptors of the GDT
    .balign 16, 0xcc
    .globl  enter_user
    .type   enter_user, @function
enter_user:
    push    USER_DATA
    push    rsi
    push    RFLAGS_FIXED
    push    USER_CODE
    push    rdi
    swapgs
enter_user_iret:
    iretq
    .size   enter_user, . - enter_user
