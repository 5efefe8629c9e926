# Mapping a device, for every build: stubs of functions that run in Python.
#
# Purpose:  a name, a size and real return addresses for every frame of a call trace. The model
#           does a function's work; what it calls is called by executing the call instruction here.
# In, out, clobbers: none. Nothing in a stub runs but its calls.
# Accesses: the push of a return address by each call.
#
# Only memremap's numbers come from anywhere: `memremap+0xb4/0x110` stands in /proc/vmallocinfo as
# quoted in "Re: [PATCH] x86/mm/vmfault: Make vmalloc_fault() handle large pages" (Toshi Kani,
# 2016-02-09). All others are made up, and nothing may rely on them. Every function has a frame
# pointer. Which of its calls a function makes depends on the release.

    .text

    .balign 16, 0xcc
    .globl  memremap
    .type   memremap, @function
memremap:
    push    rbp
    mov     rbp, rsp
    push    r13
    push    r12
    push    rbx
    .org    memremap + 0xb4 - 5, 0x90
    call    ioremap_cache
    hlt
    .org    memremap + 0x110, 0xcc
    .size   memremap, . - memremap

    .balign 16, 0xcc
    .globl  ioremap_cache
    .type   ioremap_cache, @function
ioremap_cache:
    push    rbp
    mov     rbp, rsp
    .org    ioremap_cache + 0x12 - 5, 0x90
    call    __ioremap_caller
    hlt
    .org    ioremap_cache + 0x20, 0xcc
    .size   ioremap_cache, . - ioremap_cache

    .balign 16, 0xcc
    .globl  __ioremap_caller
    .type   __ioremap_caller, @function
__ioremap_caller:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    __ioremap_caller + 0x1a7 - 5, 0x90
    call    ioremap_page_range
    hlt
    .org    __ioremap_caller + 0x330, 0xcc
    .size   __ioremap_caller, . - __ioremap_caller

    .balign 16, 0xcc
    .globl  ioremap_page_range
    .type   ioremap_page_range, @function
ioremap_page_range:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    ioremap_page_range + 0x20e - 5, 0x90
    call    arch_sync_kernel_mappings
    hlt
    .org    ioremap_page_range + 0x2b0, 0xcc
    .size   ioremap_page_range, . - ioremap_page_range
