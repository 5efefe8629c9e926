# KASAN and the pmem driver: kernel functions that the Python model runs, as stubs.
#
# Purpose:  as in the builds' own sources: a name, a size and a real return address for every frame
#           of a call trace.
# In, out, clobbers: none. Nothing in a stub runs but its calls.
# Accesses: the push of a return address by each call.
#
# No oops is known that names one of these. Every offset, size and frame is made up, the same in
# every build, and nothing may rely on it.

    .text

# The shadow of a device's memory.

    .balign 16, 0xcc
    .globl  kasan_add_zero_shadow
    .type   kasan_add_zero_shadow, @function
kasan_add_zero_shadow:
    push    rbp
    mov     rbp, rsp
    push    r12
    push    rbx
    .org    kasan_add_zero_shadow + 0x4b - 5, 0x90
    call    kasan_populate_early_shadow
    hlt
    .org    kasan_add_zero_shadow + 0x90, 0xcc
    .size   kasan_add_zero_shadow, . - kasan_add_zero_shadow

# zero_p4d_populate and the ones below it are inlined here. Syncs as it populates, in the releases
# that do, and only where it does not allocate.
    .balign 16, 0xcc
    .globl  kasan_populate_early_shadow
    .type   kasan_populate_early_shadow, @function
kasan_populate_early_shadow:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x38
    .org    kasan_populate_early_shadow + 0xd3 - 5, 0x90
    call    arch_sync_kernel_mappings
    hlt
    .org    kasan_populate_early_shadow + 0x118 - 5, 0x90
    call    arch_sync_kernel_pagetables
    hlt
    .org    kasan_populate_early_shadow + 0x5c0, 0xcc
    .size   kasan_populate_early_shadow, . - kasan_populate_early_shadow

# The driver of persistent memory, which is built in.

    .balign 16, 0xcc
    .globl  pmem_attach_disk
    .type   pmem_attach_disk, @function
pmem_attach_disk:
    push    rbp
    mov     rbp, rsp
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    pmem_attach_disk + 0x1ea - 5, 0x90
    call    devm_memremap_pages
    hlt
    .org    pmem_attach_disk + 0x420, 0xcc
    .size   pmem_attach_disk, . - pmem_attach_disk

    .balign 16, 0xcc
    .globl  pmem_submit_bio
    .type   pmem_submit_bio, @function
pmem_submit_bio:
    push    rbp
    mov     rbp, rsp
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x20
    .org    pmem_submit_bio + 0x136 - 5, 0x90
    call    pmem_do_read
    hlt
    .org    pmem_submit_bio + 0x2b0, 0xcc
    .size   pmem_submit_bio, . - pmem_submit_bio

    .balign 16, 0xcc
    .globl  pmem_do_read
    .type   pmem_do_read, @function
pmem_do_read:
    push    rbp
    mov     rbp, rsp
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x8
    .org    pmem_do_read + 0x5d - 5, 0x90
    call    __asan_load8
    hlt
    .org    pmem_do_read + 0xb0, 0xcc
    .size   pmem_do_read, . - pmem_do_read
