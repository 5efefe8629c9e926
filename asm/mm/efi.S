# From the kernel into the firmware.

    .set    SHADOW_SPACE, 0x20      # what a caller leaves on the stack for a callee, in the MS ABI

    .text

# __efi_call(service, first, second): calls a runtime service of EFI, which has Microsoft's ABI.
#
# in:       rdi = the service, in the EFI window; rsi, rdx = its arguments
# out:      rax = its status, 0 for success
# clobbers: what a function of either ABI may
# accesses: the stack; the service's own. The table must be EFI's: no other maps the service
    .balign 16, 0xcc
    .globl  __efi_call
    .type   __efi_call, @function
__efi_call:
    push    rbp
    mov     rbp, rsp
    sub     rsp, SHADOW_SPACE
    mov     rcx, rsi
    call    rdi
    add     rsp, SHADOW_SPACE
    pop     rbp
    ret
    .size   __efi_call, . - __efi_call
