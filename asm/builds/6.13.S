# Build "6.13-drm-tip": the kernel functions that the Python model runs, as stubs.
#
# Purpose:  a name, a size and real return addresses for every frame of a call trace. The model
#           does a function's work; what it calls is called by executing the call instruction here.
# In, out, clobbers: none. Nothing in a stub runs but its calls and its BUG.
# Accesses: the push of a return address by each call.
#
# A stub is the function's symbol, its stack frame (whose depth an unwinder needs), its calls and
# its size. A 5-byte call behind `.org f + 0x17 - 5` returns to f+0x17, where a hlt stops the CPU
# and Python goes on. Lines marked `oops` hold what the oops in vmemmap_set_pmd says, as
# quoted in "[RFC V1 PATCH mm-hotfixes 2/3] x86/mm: define p*d_populate_kernel() and top level page
# table sync" (2025-07-09). Every other offset and size, and every frame, is made up, and nothing
# may rely on it.
#
# pagemap_range is inlined into memremap_pages in this build: there is no such symbol.

# Drivers: where a call trace begins.

    .text

# The driver's probe is called through a pointer in Linux; dev_dax is the only driver here.
    .balign 16, 0xcc
    .globl  dax_bus_probe
    .type   dax_bus_probe, @function
dax_bus_probe:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    r14
    push    r13
    push    rbp
    push    rbx
    .org    dax_bus_probe + 0x73 - 5, 0x90
    call    dev_dax_probe
    hlt
    .org    dax_bus_probe + 0xd0, 0xcc
    .size   dax_bus_probe, . - dax_bus_probe

    .section .module.device_dax, "ax"

    .balign 16, 0xcc
    .globl  dev_dax_probe
    .type   dev_dax_probe, @function
dev_dax_probe:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x10
    .org    dev_dax_probe + 0xd7 - 5, 0x90
    call    devm_memremap_pages
    hlt
    .org    dev_dax_probe + 0x310, 0xcc
    .size   dev_dax_probe, . - dev_dax_probe

    .section .module.xe, "ax"

    .balign 16, 0xcc
    .globl  xe_device_probe
    .type   xe_device_probe, @function
xe_device_probe:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x18
    .org    xe_device_probe + 0x48c - 5, 0x90
    call    xe_tile_init_noalloc                        # oops
    hlt
    .org    xe_device_probe + 0x740, 0xcc               # oops
    .size   xe_device_probe, . - xe_device_probe

    .balign 16, 0xcc
    .globl  xe_tile_init_noalloc
    .type   xe_tile_init_noalloc, @function
xe_tile_init_noalloc:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    r12
    push    rbp
    push    rbx
    .org    xe_tile_init_noalloc + 0x6a - 5, 0x90
    call    xe_devm_add                                 # oops
    hlt
    .org    xe_tile_init_noalloc + 0x70, 0xcc           # oops
    .size   xe_tile_init_noalloc, . - xe_tile_init_noalloc

    .balign 16, 0xcc
    .globl  xe_devm_add
    .type   xe_devm_add, @function
xe_devm_add:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    r14
    push    r13
    push    rbp
    push    rbx
    sub     rsp, 0x18
    .org    xe_devm_add + 0x8b - 5, 0x90
    call    devm_memremap_pages                         # oops
    hlt
    .org    xe_devm_add + 0x100, 0xcc                   # oops
    .size   xe_devm_add, . - xe_devm_add

# Device memory: from the request to the struct pages.

    .text

    .balign 16, 0xcc
    .globl  devm_memremap_pages
    .type   devm_memremap_pages, @function
devm_memremap_pages:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    r12
    push    rbp
    push    rbx
    .org    devm_memremap_pages + 0x1c - 5, 0x90
    call    memremap_pages                              # oops
    hlt
    .org    devm_memremap_pages + 0x60, 0xcc            # oops
    .size   devm_memremap_pages, . - devm_memremap_pages

    .balign 16, 0xcc
    .globl  memremap_pages
    .type   memremap_pages, @function
memremap_pages:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x78
    .org    memremap_pages + 0x322 - 5, 0x90
    call    kasan_add_zero_shadow
    hlt
    .org    memremap_pages + 0x37b - 5, 0x90
    call    arch_add_memory
    hlt
    .org    memremap_pages + 0x3dc - 5, 0x90
    call    add_pages                                   # oops
    hlt
    .org    memremap_pages + 0x5a6 - 5, 0x90
    call    memmap_init_zone_device
    hlt
    .org    memremap_pages + 0x810, 0xcc                # oops
    .size   memremap_pages, . - memremap_pages

# Memory hot-add.

# The direct map first (init_memory_mapping is not modelled as a frame), then the memmap.
    .balign 16, 0xcc
    .globl  arch_add_memory
    .type   arch_add_memory, @function
arch_add_memory:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    r14
    push    r13
    push    rbp
    push    rbx
    .org    arch_add_memory + 0x44 - 5, 0x90
    call    __kernel_physical_mapping_init
    hlt
    .org    arch_add_memory + 0x66 - 5, 0x90
    call    add_pages
    hlt
    .org    arch_add_memory + 0x90, 0xcc
    .size   arch_add_memory, . - arch_add_memory

# Syncs once, at its end; RFC V1 as it populates.
    .balign 16, 0xcc
    .globl  __kernel_physical_mapping_init
    .type   __kernel_physical_mapping_init, @function
__kernel_physical_mapping_init:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x38
    .org    __kernel_physical_mapping_init + 0x1e9 - 5, 0x90
    call    arch_sync_kernel_pagetables
    hlt
    .org    __kernel_physical_mapping_init + 0x371 - 5, 0x90
    call    sync_global_pgds
    hlt
    .org    __kernel_physical_mapping_init + 0x3f0, 0xcc
    .size   __kernel_physical_mapping_init, . - __kernel_physical_mapping_init

    .balign 16, 0xcc
    .globl  add_pages
    .type   add_pages, @function
add_pages:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    r12
    push    rbp
    push    rbx
    .org    add_pages + 0x1d - 5, 0x90
    call    __add_pages                                 # oops
    hlt
    .org    add_pages + 0x70, 0xcc                      # oops
    .size   add_pages, . - add_pages

    .balign 16, 0xcc
    .globl  __add_pages
    .type   __add_pages, @function
__add_pages:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x10
    .org    __add_pages + 0xba - 5, 0x90
    call    sparse_add_section                          # oops
    hlt
    .org    __add_pages + 0x150, 0xcc                   # oops
    .size   __add_pages, . - __add_pages

    .balign 16, 0xcc
    .globl  sparse_add_section
    .type   sparse_add_section, @function
sparse_add_section:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x30
    .org    sparse_add_section + 0x121 - 5, 0x90
    call    __populate_section_memmap                   # oops
    hlt
    .org    sparse_add_section + 0x3e0, 0xcc            # oops
    .size   sparse_add_section, . - sparse_add_section

# Populating vmemmap.

    .balign 16, 0xcc
    .globl  __populate_section_memmap
    .type   __populate_section_memmap, @function
__populate_section_memmap:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    r14
    push    r13
    push    rbp
    push    rbx
    .org    __populate_section_memmap + 0x41 - 5, 0x90
    call    vmemmap_populate                            # oops
    hlt
    .org    __populate_section_memmap + 0x6f - 5, 0x90
    call    vmemmap_populate_compound_pages
    hlt
    .org    __populate_section_memmap + 0x90, 0xcc      # oops
    .size   __populate_section_memmap, . - __populate_section_memmap

# Syncs as it populates, in the releases that do.
    .balign 16, 0xcc
    .globl  vmemmap_populate_compound_pages
    .type   vmemmap_populate_compound_pages, @function
vmemmap_populate_compound_pages:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x28
    .org    vmemmap_populate_compound_pages + 0x127 - 5, 0x90
    call    arch_sync_kernel_mappings
    hlt
    .org    vmemmap_populate_compound_pages + 0x14f - 5, 0x90
    call    arch_sync_kernel_pagetables
    hlt
    .org    vmemmap_populate_compound_pages + 0x2d0, 0xcc
    .size   vmemmap_populate_compound_pages, . - vmemmap_populate_compound_pages

# Syncs once, at its end.
    .balign 16, 0xcc
    .globl  vmemmap_populate
    .type   vmemmap_populate, @function
vmemmap_populate:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    r14
    push    r13
    push    rbp
    push    rbx
    .org    vmemmap_populate + 0x34 - 5, 0x90
    call    vmemmap_populate_hugepages                  # oops
    hlt
    .org    vmemmap_populate + 0x4e - 5, 0x90
    call    vmemmap_populate_basepages
    hlt
    .org    vmemmap_populate + 0x68 - 5, 0x90
    call    sync_global_pgds
    hlt
    .org    vmemmap_populate + 0x80, 0xcc               # oops
    .size   vmemmap_populate, . - vmemmap_populate

    .balign 16, 0xcc
    .globl  vmemmap_populate_basepages
    .type   vmemmap_populate_basepages, @function
vmemmap_populate_basepages:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x8
    .org    vmemmap_populate_basepages + 0x7d - 5, 0x90
    call    arch_sync_kernel_mappings
    hlt
    .org    vmemmap_populate_basepages + 0x99 - 5, 0x90
    call    arch_sync_kernel_pagetables
    hlt
    .org    vmemmap_populate_basepages + 0x100, 0xcc
    .size   vmemmap_populate_basepages, . - vmemmap_populate_basepages

    .balign 16, 0xcc
    .globl  vmemmap_populate_hugepages
    .type   vmemmap_populate_hugepages, @function
vmemmap_populate_hugepages:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x20
    .org    vmemmap_populate_hugepages + 0x72 - 5, 0x90
    call    arch_sync_kernel_mappings
    hlt
    .org    vmemmap_populate_hugepages + 0x8e - 5, 0x90
    call    arch_sync_kernel_pagetables
    hlt
    .org    vmemmap_populate_hugepages + 0xe5 - 5, 0x90
    call    vmemmap_check_pmd
    hlt
    .org    vmemmap_populate_hugepages + 0x120 - 5, 0x90
    call    vmemmap_populate_basepages
    hlt
    .org    vmemmap_populate_hugepages + 0x176 - 5, 0x90
    call    vmemmap_set_pmd                             # oops
    hlt
    .org    vmemmap_populate_hugepages + 0x180, 0xcc    # oops
    .size   vmemmap_populate_hugepages, . - vmemmap_populate_hugepages

# Making all top-level tables agree. Where a task's entry points to another table than init_mm's,
# Linux BUGs: the ud2 is that BUG.

# The merged hook: the whole of it is this call.
    .balign 16, 0xcc
    .globl  arch_sync_kernel_mappings
    .type   arch_sync_kernel_mappings, @function
arch_sync_kernel_mappings:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    .org    arch_sync_kernel_mappings + 0x12 - 5, 0x90
    call    sync_global_pgds
    hlt
    .org    arch_sync_kernel_mappings + 0x20, 0xcc
    .size   arch_sync_kernel_mappings, . - arch_sync_kernel_mappings

    .balign 16, 0xcc
    .globl  sync_global_pgds
    .type   sync_global_pgds, @function
sync_global_pgds:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x18
    .org    sync_global_pgds + 0x159, 0x90
sync_global_pgds_bug:
    ud2
    .org    sync_global_pgds + 0x1c0, 0xcc
    .size   sync_global_pgds, . - sync_global_pgds

# RFC V1's hook, for one address.
    .balign 16, 0xcc
    .globl  arch_sync_kernel_pagetables
    .type   arch_sync_kernel_pagetables, @function
arch_sync_kernel_pagetables:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x10
    .org    arch_sync_kernel_pagetables + 0x137, 0x90
arch_sync_kernel_pagetables_bug:
    ud2
    .org    arch_sync_kernel_pagetables + 0x1a0, 0xcc
    .size   arch_sync_kernel_pagetables, . - arch_sync_kernel_pagetables
