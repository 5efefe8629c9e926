# Functions of every build that lead to a table outside pgd_list, as stubs: see the builds.
#
# Purpose:  a name, a size and real return addresses for the frames of a call trace.
# In, out, clobbers: none. Nothing in a stub runs but its call.
# Accesses: the push of a return address by each call.
#
# No oops states anything of them: every offset, size and frame is made up, and nothing may rely on
# it. They begin with a frame pointer, which a build that has none does not mind.

    .text

    .balign 16, 0xcc
    .globl  virt_efi_set_variable_nonblocking
    .type   virt_efi_set_variable_nonblocking, @function
virt_efi_set_variable_nonblocking:
    push    rbp
    mov     rbp, rsp
    push    r12
    push    rbx
    .org    virt_efi_set_variable_nonblocking + 0x8f - 5, 0x90
    call    __efi_call
    hlt
    .org    virt_efi_set_variable_nonblocking + 0xf0, 0xcc
    .size   virt_efi_set_variable_nonblocking, . - virt_efi_set_variable_nonblocking

    .balign 16, 0xcc
    .globl  native_machine_emergency_restart
    .type   native_machine_emergency_restart, @function
native_machine_emergency_restart:
    push    rbp
    mov     rbp, rsp
    push    rbx
    .org    native_machine_emergency_restart + 0x11b - 5, 0x90
    call    machine_real_restart
    hlt
    .org    native_machine_emergency_restart + 0x170, 0xcc
    .size   native_machine_emergency_restart, . - native_machine_emergency_restart
