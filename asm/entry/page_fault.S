# The way of a page fault to its handler and back.

    .equ    SAVED, 9 * 8            # what is pushed below, and above it the CPU's own frame:
    .equ    FRAME_ERROR_CODE, SAVED
    .equ    FRAME_CS, SAVED + 16

    .text

# entry_page_fault: where gate 14 of the IDT points; an interrupt gate.
#
# in:       the CPU's frame: error code, RIP, CS, RFLAGS, RSP, SS
# out:      returns to the instruction that faulted
# clobbers: nothing
# accesses: the stack that the CPU chose; calls do_page_fault(rdi = CR2, rsi = error code), which
#           may clobber what a C function may. GS is the kernel's meanwhile.
    .balign 16, 0xcc
    .globl  entry_page_fault
    .type   entry_page_fault, @function
entry_page_fault:
    push    rax
    push    rcx
    push    rdx
    push    rsi
    push    rdi
    push    r8
    push    r9
    push    r10
    push    r11
    test    byte ptr [rsp + FRAME_CS], 3
    jz      1f
    swapgs
1:
    mov     rdi, cr2
    mov     rsi, qword ptr [rsp + FRAME_ERROR_CODE]
    call    do_page_fault
    test    byte ptr [rsp + FRAME_CS], 3
    jz      2f
    swapgs
2:
    pop     r11
    pop     r10
    pop     r9
    pop     r8
    pop     rdi
    pop     rsi
    pop     rdx
    pop     rcx
    pop     rax
    add     rsp, 8                  # the error code
entry_page_fault_iret:
    iretq
    .size   entry_page_fault, . - entry_page_fault
