# The vmalloc area, for every build: stubs of functions that run in Python.
#
# Purpose:  a name, a size and real return addresses for each frame of a call trace; see builds/6.8.S
#           for what a stub is.
# In, out, clobbers: none. Nothing in a stub runs but its calls.
# Accesses: the push of a return address by each call.
#
# No oops that is reproduced here says anything of these functions: every offset and size, and every
# frame, is made up, and nothing may rely on it. Each begins as a function with a frame pointer does.

    .text

# Mapping fresh frames: for kernel stacks, per-CPU memory, and whoever else asks.

    .balign 16, 0xcc
    .globl  vmalloc
    .type   vmalloc, @function
vmalloc:
    push    rbp
    mov     rbp, rsp
    .org    vmalloc + 0x2e - 5, 0x90
    call    __vmalloc_node_range
    hlt
    .org    vmalloc + 0x40, 0xcc
    .size   vmalloc, . - vmalloc

    .balign 16, 0xcc
    .globl  __vmalloc_node_range
    .type   __vmalloc_node_range, @function
__vmalloc_node_range:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x38
    .org    __vmalloc_node_range + 0xd6 - 5, 0x90
    call    map_kernel_range
    hlt
    .org    __vmalloc_node_range + 0x260, 0xcc
    .size   __vmalloc_node_range, . - __vmalloc_node_range

# Tells the other tables, in the releases that do.
    .balign 16, 0xcc
    .globl  map_kernel_range
    .type   map_kernel_range, @function
map_kernel_range:
    push    rbp
    mov     rbp, rsp
    push    r12
    push    rbx
    .org    map_kernel_range + 0x5c - 5, 0x90
    call    arch_sync_kernel_mappings
    hlt
    .org    map_kernel_range + 0x80, 0xcc
    .size   map_kernel_range, . - map_kernel_range

# Ends in a purge, which synced everything in some releases.
    .balign 16, 0xcc
    .globl  vfree
    .type   vfree, @function
vfree:
    push    rbp
    mov     rbp, rsp
    push    rbx
    sub     rsp, 0x8
    .org    vfree + 0x4a - 5, 0x90
    call    vmalloc_sync_all
    hlt
    .org    vfree + 0x70, 0xcc
    .size   vfree, . - vfree

    .balign 16, 0xcc
    .globl  vmalloc_sync_all
    .type   vmalloc_sync_all, @function
vmalloc_sync_all:
    push    rbp
    mov     rbp, rsp
    .org    vmalloc_sync_all + 0x28 - 5, 0x90
    call    sync_global_pgds
    hlt
    .org    vmalloc_sync_all + 0x40, 0xcc
    .size   vmalloc_sync_all, . - vmalloc_sync_all

# Per-CPU memory.

    .balign 16, 0xcc
    .globl  pcpu_alloc
    .type   pcpu_alloc, @function
pcpu_alloc:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x60
    .org    pcpu_alloc + 0x1d3 - 5, 0x90
    call    pcpu_create_chunk
    hlt
    .org    pcpu_alloc + 0x22e - 5, 0x90
    call    pcpu_populate_chunk
    hlt
    .org    pcpu_alloc + 0x6a0, 0xcc
    .size   pcpu_alloc, . - pcpu_alloc

    .balign 16, 0xcc
    .globl  pcpu_create_chunk
    .type   pcpu_create_chunk, @function
pcpu_create_chunk:
    push    rbp
    mov     rbp, rsp
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x8
    .org    pcpu_create_chunk + 0x1c0, 0xcc
    .size   pcpu_create_chunk, . - pcpu_create_chunk

    .balign 16, 0xcc
    .globl  pcpu_populate_chunk
    .type   pcpu_populate_chunk, @function
pcpu_populate_chunk:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x28
    .org    pcpu_populate_chunk + 0x19b - 5, 0x90
    call    map_kernel_range
    hlt
    .org    pcpu_populate_chunk + 0x2e0, 0xcc
    .size   pcpu_populate_chunk, . - pcpu_populate_chunk

# Mapping a device.
