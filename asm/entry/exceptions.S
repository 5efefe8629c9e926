# Where the IDT's gates point, for exceptions that kernel code can raise: interrupt gates, all of them.
#
# Each entry makes the stack a struct pt_regs (below), which is what the handler gets. One that there
# is no handler for ends in __die. page_fault's offset and size are those of the oops in "Re:
# [PATCH] x86/mm/vmfault: Make vmalloc_fault() handle large pages" (Toshi Kani, 2016-02-09).

# struct pt_regs. From the error code on, the CPU has pushed it; an entry whose exception has none
# pushes NO_SYSCALL in its place, as is left there in the end by all.
    .set    PT_R15, 0x00
    .set    PT_R14, 0x08
    .set    PT_R13, 0x10
    .set    PT_R12, 0x18
    .set    PT_RBP, 0x20
    .set    PT_RBX, 0x28
    .set    PT_R11, 0x30
    .set    PT_R10, 0x38
    .set    PT_R9, 0x40
    .set    PT_R8, 0x48
    .set    PT_RAX, 0x50
    .set    PT_RCX, 0x58
    .set    PT_RDX, 0x60
    .set    PT_RSI, 0x68
    .set    PT_RDI, 0x70
    .set    PT_ORIG_RAX, 0x78               # the error code comes here
    .set    PT_CS, 0x88                     # behind RIP; then RFLAGS, RSP, SS
    .set    NO_SYSCALL, -1                  # orig_rax of what is no system call
    .set    RETURN, 8                       # error_entry has a return address below pt_regs

# page_fault: gate 14.
#
# in:       the CPU's frame: error code, RIP, CS, RFLAGS, RSP, SS
# out:      returns to the instruction that faulted
# clobbers: nothing
# accesses: the stack that the CPU chose; calls do_page_fault(rdi = pt_regs, rsi = error code). GS
#           is the kernel's meanwhile.
    .section .text.page_fault, "ax"

    .globl  page_fault
    .type   page_fault, @function
page_fault:
    .byte   0x0f, 0x1f, 0x00                        # nop: clac, where there is SMAP
    .byte   0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00      # nop: a hypervisor's adjustment of the frame
    sub     rsp, PT_ORIG_RAX
    call    error_entry
    mov     rdi, rsp
    mov     rsi, qword ptr [rsp + PT_ORIG_RAX]
    mov     qword ptr [rsp + PT_ORIG_RAX], NO_SYSCALL
    .org    page_fault + 0x28 - 5, 0x90
    call    do_page_fault                           # returns at +0x28
    jmp     error_exit
    .org    page_fault + 0x30, 0xcc
    .size   page_fault, . - page_fault

    .text

# error_entry: saves what an exception interrupted.
#
# in:       pt_regs from PT_ORIG_RAX on, and room for the rest below it
# out:      pt_regs is complete, DF is clear, GS is the kernel's
# clobbers: flags
# accesses: the stack
    .balign 16, 0xcc
    .globl  error_entry
    .type   error_entry, @function
error_entry:
    cld
    mov     qword ptr [rsp + PT_RDI + RETURN], rdi
    mov     qword ptr [rsp + PT_RSI + RETURN], rsi
    mov     qword ptr [rsp + PT_RDX + RETURN], rdx
    mov     qword ptr [rsp + PT_RCX + RETURN], rcx
    mov     qword ptr [rsp + PT_RAX + RETURN], rax
    mov     qword ptr [rsp + PT_R8 + RETURN], r8
    mov     qword ptr [rsp + PT_R9 + RETURN], r9
    mov     qword ptr [rsp + PT_R10 + RETURN], r10
    mov     qword ptr [rsp + PT_R11 + RETURN], r11
    mov     qword ptr [rsp + PT_RBX + RETURN], rbx
    mov     qword ptr [rsp + PT_RBP + RETURN], rbp
    mov     qword ptr [rsp + PT_R12 + RETURN], r12
    mov     qword ptr [rsp + PT_R13 + RETURN], r13
    mov     qword ptr [rsp + PT_R14 + RETURN], r14
    mov     qword ptr [rsp + PT_R15 + RETURN], r15
    test    byte ptr [rsp + PT_CS + RETURN], 3
    jz      .Lentry_from_kernel
    swapgs
.Lentry_from_kernel:
    ret
    .size   error_entry, . - error_entry

# error_exit: goes back to what was interrupted. It is jumped to, never called.
#
# in:       rsp = pt_regs
# out:      every register is as pt_regs says
# clobbers: nothing
# accesses: the stack
    .balign 16, 0xcc
    .globl  error_exit
    .type   error_exit, @function
error_exit:
    test    byte ptr [rsp + PT_CS], 3
    jz      .Lexit_to_kernel
    swapgs
.Lexit_to_kernel:
    mov     r15, qword ptr [rsp + PT_R15]
    mov     r14, qword ptr [rsp + PT_R14]
    mov     r13, qword ptr [rsp + PT_R13]
    mov     r12, qword ptr [rsp + PT_R12]
    mov     rbp, qword ptr [rsp + PT_RBP]
    mov     rbx, qword ptr [rsp + PT_RBX]
    mov     r11, qword ptr [rsp + PT_R11]
    mov     r10, qword ptr [rsp + PT_R10]
    mov     r9, qword ptr [rsp + PT_R9]
    mov     r8, qword ptr [rsp + PT_R8]
    mov     rax, qword ptr [rsp + PT_RAX]
    mov     rcx, qword ptr [rsp + PT_RCX]
    mov     rdx, qword ptr [rsp + PT_RDX]
    mov     rsi, qword ptr [rsp + PT_RSI]
    mov     rdi, qword ptr [rsp + PT_RDI]
    add     rsp, PT_ORIG_RAX + 8
error_exit_iret:
    iretq
    .size   error_exit, . - error_exit

# The exceptions that nothing here handles.
#
# in:       the CPU's frame, with an error code or without
# out:      does not return
# accesses: the stack that the CPU chose (double_fault's is to be one of the TSS's); calls
#           __die(rdi = pt_regs, esi = vector, rdx = error code, 0 if there is none)
    .balign 16, 0xcc
    .globl  divide_error
    .type   divide_error, @function
divide_error:
    push    NO_SYSCALL
    sub     rsp, PT_ORIG_RAX
    call    error_entry
    mov     rdi, rsp
    mov     esi, 0
    xor     edx, edx
    call    __die
    ud2
    .size   divide_error, . - divide_error

    .balign 16, 0xcc
    .globl  invalid_op
    .type   invalid_op, @function
invalid_op:
    push    NO_SYSCALL
    sub     rsp, PT_ORIG_RAX
    call    error_entry
    mov     rdi, rsp
    mov     esi, 6
    xor     edx, edx
    call    __die
    ud2
    .size   invalid_op, . - invalid_op

    .balign 16, 0xcc
    .globl  double_fault
    .type   double_fault, @function
double_fault:
    sub     rsp, PT_ORIG_RAX
    call    error_entry
    mov     rdi, rsp
    mov     esi, 8
    mov     rdx, qword ptr [rsp + PT_ORIG_RAX]
    mov     qword ptr [rsp + PT_ORIG_RAX], NO_SYSCALL
    call    __die
    ud2
    .size   double_fault, . - double_fault

    .balign 16, 0xcc
    .globl  segment_not_present
    .type   segment_not_present, @function
segment_not_present:
    sub     rsp, PT_ORIG_RAX
    call    error_entry
    mov     rdi, rsp
    mov     esi, 11
    mov     rdx, qword ptr [rsp + PT_ORIG_RAX]
    mov     qword ptr [rsp + PT_ORIG_RAX], NO_SYSCALL
    call    __die
    ud2
    .size   segment_not_present, . - segment_not_present

    .balign 16, 0xcc
    .globl  stack_segment
    .type   stack_segment, @function
stack_segment:
    sub     rsp, PT_ORIG_RAX
    call    error_entry
    mov     rdi, rsp
    mov     esi, 12
    mov     rdx, qword ptr [rsp + PT_ORIG_RAX]
    mov     qword ptr [rsp + PT_ORIG_RAX], NO_SYSCALL
    call    __die
    ud2
    .size   stack_segment, . - stack_segment

    .balign 16, 0xcc
    .globl  general_protection
    .type   general_protection, @function
general_protection:
    sub     rsp, PT_ORIG_RAX
    call    error_entry
    mov     rdi, rsp
    mov     esi, 13
    mov     rdx, qword ptr [rsp + PT_ORIG_RAX]
    mov     qword ptr [rsp + PT_ORIG_RAX], NO_SYSCALL
    call    __die
    ud2
    .size   general_protection, . - general_protection

# __die(regs, vector, error_code): where the kernel's last words would be printed.
#
# in:       rdi = pt_regs, esi = vector, rdx = error code
# out:      does not return
# accesses: none
#
# The CPU stops at oops_stop, and whoever runs it reads the rest from pt_regs and the stack.
    .balign 16, 0xcc
    .globl  __die
    .type   __die, @function
__die:
    .globl  oops_stop
oops_stop:
    hlt
    .size   __die, . - __die
