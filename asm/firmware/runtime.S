# A runtime service of the machine's firmware. No part of the kernel: it has an image of its own,
# which lies where the EFI window is.

    .text

# set_variable(data, size): keeps a variable's value in the firmware's own memory.
#
# in:       rcx = where the caller has the data, rdx = how many bytes, at most a page of them
# out:      rax = 0, EFI_SUCCESS
# clobbers: rcx
# accesses: the data, byte by byte, through the table that the caller left: set_variable_read is the
#           load that finds it missing; then the variable store
    .globl  set_variable
    .type   set_variable, @function
set_variable:
    push    rdi                     # callee-saved, in this ABI
    push    rsi
    mov     rsi, rcx
    mov     rcx, rdx
    lea     rdi, [rip + variable_store]
set_variable_read:
    rep movsb
    xor     eax, eax
    pop     rsi
    pop     rdi
    ret
    .size   set_variable, . - set_variable

    .data

    .balign 4096
    .globl  variable_store
    .type   variable_store, @object
variable_store:
    .fill   4096, 1, 0
    .size   variable_store, . - variable_store
