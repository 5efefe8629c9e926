# Removing memory, and adding it as RAM: stubs that are the same in every build.
#
# Purpose:  a name, a size and real return addresses for every frame of a call trace. The model
#           does a function's work; what it calls is called by executing the call instruction here.
# In, out, clobbers: none. Nothing in a stub runs but its calls.
# Accesses: the push of a return address by each call.
#
# A 5-byte call behind `.org f + 0x17 - 5` returns to f+0x17, where a hlt stops the CPU and Python
# goes on. No oops is known with these functions in it: every offset, size and frame is made up,
# and nothing may rely on it. Each has a frame pointer, as a build may want one.

# A device goes: what the driver was given is taken back.

    .text

# The resources' release functions are called through pointers in Linux.
    .balign 16, 0xcc
    .globl  devres_release_all
    .type   devres_release_all, @function
devres_release_all:
    push    rbp
    mov     rbp, rsp
    push    r13
    push    r12
    push    rbx
    .org    devres_release_all + 0x5c - 5, 0x90
    call    devm_memremap_pages_release
    hlt
    .org    devres_release_all + 0xa0, 0xcc
    .size   devres_release_all, . - devres_release_all

    .balign 16, 0xcc
    .globl  devm_memremap_pages_release
    .type   devm_memremap_pages_release, @function
devm_memremap_pages_release:
    push    rbp
    mov     rbp, rsp
    .org    devm_memremap_pages_release + 0x11 - 5, 0x90
    call    memunmap_pages
    hlt
    .org    devm_memremap_pages_release + 0x20, 0xcc
    .size   devm_memremap_pages_release, . - devm_memremap_pages_release

    .balign 16, 0xcc
    .globl  memunmap_pages
    .type   memunmap_pages, @function
memunmap_pages:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    memunmap_pages + 0xb4 - 5, 0x90
    call    pageunmap_range
    hlt
    .org    memunmap_pages + 0x160, 0xcc
    .size   memunmap_pages, . - memunmap_pages

# Device-private memory is not in the direct map: only its pages go.
    .balign 16, 0xcc
    .globl  pageunmap_range
    .type   pageunmap_range, @function
pageunmap_range:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    pageunmap_range + 0x8a - 5, 0x90
    call    arch_remove_memory
    hlt
    .org    pageunmap_range + 0xaf - 5, 0x90
    call    __remove_pages
    hlt
    .org    pageunmap_range + 0x120, 0xcc
    .size   pageunmap_range, . - pageunmap_range

# RAM that is added and removed by its address.

    .balign 16, 0xcc
    .globl  add_memory
    .type   add_memory, @function
add_memory:
    push    rbp
    mov     rbp, rsp
    push    r12
    push    rbx
    .org    add_memory + 0x33 - 5, 0x90
    call    add_memory_resource
    hlt
    .org    add_memory + 0x70, 0xcc
    .size   add_memory, . - add_memory

    .balign 16, 0xcc
    .globl  add_memory_resource
    .type   add_memory_resource, @function
add_memory_resource:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    add_memory_resource + 0xf1 - 5, 0x90
    call    arch_add_memory
    hlt
    .org    add_memory_resource + 0x2b0, 0xcc
    .size   add_memory_resource, . - add_memory_resource

    .balign 16, 0xcc
    .globl  remove_memory
    .type   remove_memory, @function
remove_memory:
    push    rbp
    mov     rbp, rsp
    push    r12
    push    rbx
    .org    remove_memory + 0x2c - 5, 0x90
    call    try_remove_memory
    hlt
    .org    remove_memory + 0x60, 0xcc
    .size   remove_memory, . - remove_memory

    .balign 16, 0xcc
    .globl  try_remove_memory
    .type   try_remove_memory, @function
try_remove_memory:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    try_remove_memory + 0xcd - 5, 0x90
    call    arch_remove_memory
    hlt
    .org    try_remove_memory + 0x1c0, 0xcc
    .size   try_remove_memory, . - try_remove_memory

# The pages first, then the direct map.

    .balign 16, 0xcc
    .globl  arch_remove_memory
    .type   arch_remove_memory, @function
arch_remove_memory:
    push    rbp
    mov     rbp, rsp
    push    r13
    push    r12
    push    rbx
    .org    arch_remove_memory + 0x2e - 5, 0x90
    call    __remove_pages
    hlt
    .org    arch_remove_memory + 0x47 - 5, 0x90
    call    kernel_physical_mapping_remove
    hlt
    .org    arch_remove_memory + 0x60, 0xcc
    .size   arch_remove_memory, . - arch_remove_memory

    .balign 16, 0xcc
    .globl  kernel_physical_mapping_remove
    .type   kernel_physical_mapping_remove, @function
kernel_physical_mapping_remove:
    push    rbp
    mov     rbp, rsp
    push    r12
    push    rbx
    .org    kernel_physical_mapping_remove + 0x3a - 5, 0x90
    call    remove_pagetable
    hlt
    .org    kernel_physical_mapping_remove + 0x60, 0xcc
    .size   kernel_physical_mapping_remove, . - kernel_physical_mapping_remove

    .balign 16, 0xcc
    .globl  __remove_pages
    .type   __remove_pages, @function
__remove_pages:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    __remove_pages + 0x96 - 5, 0x90
    call    sparse_remove_section
    hlt
    .org    __remove_pages + 0x100, 0xcc
    .size   __remove_pages, . - __remove_pages

    .balign 16, 0xcc
    .globl  sparse_remove_section
    .type   sparse_remove_section, @function
sparse_remove_section:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    sparse_remove_section + 0x12d - 5, 0x90
    call    vmemmap_free
    hlt
    .org    sparse_remove_section + 0x200, 0xcc
    .size   sparse_remove_section, . - sparse_remove_section

    .balign 16, 0xcc
    .globl  vmemmap_free
    .type   vmemmap_free, @function
vmemmap_free:
    push    rbp
    mov     rbp, rsp
    push    r12
    push    rbx
    .org    vmemmap_free + 0x38 - 5, 0x90
    call    remove_pagetable
    hlt
    .org    vmemmap_free + 0x60, 0xcc
    .size   vmemmap_free, . - vmemmap_free

# The functions for the levels below are part of it. Only releases that clear an entry in all
# tables have them synced.
    .balign 16, 0xcc
    .globl  remove_pagetable
    .type   remove_pagetable, @function
remove_pagetable:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    remove_pagetable + 0x2f4 - 5, 0x90
    call    vmemmap_pmd_is_unused
    hlt
    .org    remove_pagetable + 0x48d - 5, 0x90
    call    sync_global_pgds
    hlt
    .org    remove_pagetable + 0x520, 0xcc
    .size   remove_pagetable, . - remove_pagetable
