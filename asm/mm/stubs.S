# Kernel functions that the Python model runs and that are the same in all builds, as stubs.
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

# Mapping device memory and vmalloc.

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
    .org    __vmalloc_node_range + 0x1c3 - 5, 0x90
    call    map_vm_area
    hlt
    .org    __vmalloc_node_range + 0x1f8 - 5, 0x90
    call    vmap_pages_range
    hlt
    .org    __vmalloc_node_range + 0x2e0, 0xcc
    .size   __vmalloc_node_range, . - __vmalloc_node_range

# Up to 5.7 without the sync; later releases have the other one.
    .balign 16, 0xcc
    .globl  map_vm_area
    .type   map_vm_area, @function
map_vm_area:
    push    rbp
    mov     rbp, rsp
    push    r13
    push    r12
    push    rbx
    .org    map_vm_area + 0x52 - 5, 0x90
    call    arch_sync_kernel_mappings
    hlt
    .org    map_vm_area + 0x70, 0xcc
    .size   map_vm_area, . - map_vm_area

    .balign 16, 0xcc
    .globl  vmap_pages_range
    .type   vmap_pages_range, @function
vmap_pages_range:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    vmap_pages_range + 0x1d4 - 5, 0x90
    call    arch_sync_kernel_mappings
    hlt
    .org    vmap_pages_range + 0x230, 0xcc
    .size   vmap_pages_range, . - vmap_pages_range

# Per-CPU memory, which comes from the top of vmalloc.

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
    .org    pcpu_alloc + 0x2b1 - 5, 0x90
    call    pcpu_create_chunk
    hlt
    .org    pcpu_alloc + 0x37e - 5, 0x90
    call    pcpu_populate_chunk
    hlt
    .org    pcpu_alloc + 0x5d0, 0xcc
    .size   pcpu_alloc, . - pcpu_alloc

# Reserves addresses, maps nothing.
    .balign 16, 0xcc
    .globl  pcpu_create_chunk
    .type   pcpu_create_chunk, @function
pcpu_create_chunk:
    push    rbp
    mov     rbp, rsp
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    pcpu_create_chunk + 0x1f0, 0xcc
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
    .org    pcpu_populate_chunk + 0x166 - 5, 0x90
    call    map_vm_area
    hlt
    .org    pcpu_populate_chunk + 0x1a9 - 5, 0x90
    call    vmap_pages_range
    hlt
    .org    pcpu_populate_chunk + 0x310, 0xcc
    .size   pcpu_populate_chunk, . - pcpu_populate_chunk

# The first chunk, at boot.
    .balign 16, 0xcc
    .globl  pcpu_populate_pte
    .type   pcpu_populate_pte, @function
pcpu_populate_pte:
    push    rbp
    mov     rbp, rsp
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    pcpu_populate_pte + 0x8c - 5, 0x90
    call    arch_sync_kernel_mappings
    hlt
    .org    pcpu_populate_pte + 0xb1 - 5, 0x90
    call    arch_sync_kernel_pagetables
    hlt
    .org    pcpu_populate_pte + 0x130, 0xcc
    .size   pcpu_populate_pte, . - pcpu_populate_pte

# Memory that comes, and memory that goes.

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
    .org    add_memory_resource + 0x13b - 5, 0x90
    call    arch_add_memory
    hlt
    .org    add_memory_resource + 0x2d0, 0xcc
    .size   add_memory_resource, . - add_memory_resource

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
    .org    memunmap_pages + 0x10f - 5, 0x90
    call    arch_remove_memory
    hlt
    .org    memunmap_pages + 0x13c - 5, 0x90
    call    __remove_pages
    hlt
    .org    memunmap_pages + 0x162 - 5, 0x90
    call    kasan_remove_zero_shadow
    hlt
    .org    memunmap_pages + 0x1e0, 0xcc
    .size   memunmap_pages, . - memunmap_pages

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
    .org    try_remove_memory + 0x11e - 5, 0x90
    call    arch_remove_memory
    hlt
    .org    try_remove_memory + 0x1c0, 0xcc
    .size   try_remove_memory, . - try_remove_memory

    .balign 16, 0xcc
    .globl  arch_remove_memory
    .type   arch_remove_memory, @function
arch_remove_memory:
    push    rbp
    mov     rbp, rsp
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    arch_remove_memory + 0x36 - 5, 0x90
    call    __remove_pages
    hlt
    .org    arch_remove_memory + 0x5b - 5, 0x90
    call    remove_pagetable
    hlt
    .org    arch_remove_memory + 0x80, 0xcc
    .size   arch_remove_memory, . - arch_remove_memory

# Section by section; what is between is not modelled as frames.
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
    .org    __remove_pages + 0x8d - 5, 0x90
    call    vmemmap_free
    hlt
    .org    __remove_pages + 0xf0, 0xcc
    .size   __remove_pages, . - __remove_pages

    .balign 16, 0xcc
    .globl  vmemmap_free
    .type   vmemmap_free, @function
vmemmap_free:
    push    rbp
    mov     rbp, rsp
    .org    vmemmap_free + 0x27 - 5, 0x90
    call    remove_pagetable
    hlt
    .org    vmemmap_free + 0x40, 0xcc
    .size   vmemmap_free, . - vmemmap_free

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
    .org    remove_pagetable + 0x2d8 - 5, 0x90
    call    vmemmap_pmd_is_unused
    hlt
    .org    remove_pagetable + 0x4f0, 0xcc
    .size   remove_pagetable, . - remove_pagetable

# KASAN's shadow of memory that has come.

    .balign 16, 0xcc
    .globl  kasan_add_zero_shadow
    .type   kasan_add_zero_shadow, @function
kasan_add_zero_shadow:
    push    rbp
    mov     rbp, rsp
    push    r13
    push    r12
    push    rbx
    .org    kasan_add_zero_shadow + 0x71 - 5, 0x90
    call    kasan_populate_early_shadow
    hlt
    .org    kasan_add_zero_shadow + 0xd0, 0xcc
    .size   kasan_add_zero_shadow, . - kasan_add_zero_shadow

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
    .org    kasan_populate_early_shadow + 0xe2 - 5, 0x90
    call    arch_sync_kernel_mappings
    hlt
    .org    kasan_populate_early_shadow + 0x10a - 5, 0x90
    call    arch_sync_kernel_pagetables
    hlt
    .org    kasan_populate_early_shadow + 0x153 - 5, 0x90
    call    zero_p4d_populate
    hlt
    .org    kasan_populate_early_shadow + 0x1b0, 0xcc
    .size   kasan_populate_early_shadow, . - kasan_populate_early_shadow

    .balign 16, 0xcc
    .globl  zero_p4d_populate
    .type   zero_p4d_populate, @function
zero_p4d_populate:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    zero_p4d_populate + 0xc4 - 5, 0x90
    call    arch_sync_kernel_mappings
    hlt
    .org    zero_p4d_populate + 0xed - 5, 0x90
    call    arch_sync_kernel_pagetables
    hlt
    .org    zero_p4d_populate + 0x190, 0xcc
    .size   zero_p4d_populate, . - zero_p4d_populate

    .balign 16, 0xcc
    .globl  kasan_remove_zero_shadow
    .type   kasan_remove_zero_shadow, @function
kasan_remove_zero_shadow:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    kasan_remove_zero_shadow + 0x160, 0xcc
    .size   kasan_remove_zero_shadow, . - kasan_remove_zero_shadow

# Tables outside pgd_list, and threads on borrowed ones.

    .balign 16, 0xcc
    .globl  efi_sync_low_kernel_mappings
    .type   efi_sync_low_kernel_mappings, @function
efi_sync_low_kernel_mappings:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    efi_sync_low_kernel_mappings + 0x180, 0xcc
    .size   efi_sync_low_kernel_mappings, . - efi_sync_low_kernel_mappings

# The work is one access, to per-CPU memory say.
    .balign 16, 0xcc
    .globl  process_one_work
    .type   process_one_work, @function
process_one_work:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    process_one_work + 0x1c4 - 5, 0x90
    call    read_byte
    hlt
    .org    process_one_work + 0x1f9 - 5, 0x90
    call    write_qword
    hlt
    .org    process_one_work + 0x3c0, 0xcc
    .size   process_one_work, . - process_one_work
