# Kernel variables that the routines read through RIP. Boot pokes the two bases once KASLR has
# chosen them, so that one linked image serves every layout.

    .data
    .balign 8

# Where the direct map and the array of struct page begin (virtual addresses).
    .globl  page_offset_base
    .type   page_offset_base, @object
page_offset_base:
    .quad   0
    .size   page_offset_base, . - page_offset_base

    .globl  vmemmap_base
    .type   vmemmap_base, @object
vmemmap_base:
    .quad   0
    .size   vmemmap_base, . - vmemmap_base

# Where the untouched rest of the last partly used 2 MiB vmemmap block begins; 0: there is none.
# Marking that rest is put off, because the next section usually goes on right there.
    .globl  unused_pmd_start
    .type   unused_pmd_start, @object
unused_pmd_start:
    .quad   0
    .size   unused_pmd_start, . - unused_pmd_start

# The vmalloc area, from its first byte to the one after its last.
    .globl  vmalloc_base
    .type   vmalloc_base, @object
vmalloc_base:
    .quad   0
    .size   vmalloc_base, . - vmalloc_base

    .globl  vmalloc_end
    .type   vmalloc_end, @object
vmalloc_end:
    .quad   0
    .size   vmalloc_end, . - vmalloc_end

# The lowest address bit that selects a top-level entry: 39 or 48.
    .globl  pgdir_shift
    .type   pgdir_shift, @object
pgdir_shift:
    .quad   39
    .size   pgdir_shift, . - pgdir_shift

# init_mm.pgd: where the direct map has the reference table.
    .globl  init_mm_pgd
    .type   init_mm_pgd, @object
init_mm_pgd:
    .quad   0
    .size   init_mm_pgd, . - init_mm_pgd

# How many page faults ended with the access being made again.
    .globl  handled_faults
    .type   handled_faults, @object
handled_faults:
    .quad   0
    .size   handled_faults, . - handled_faults

# KASAN_SHADOW_OFFSET: where the shadow of address 0 would be. 0xdffffc0000000000 at both depths.
    .globl  kasan_shadow_offset
    .type   kasan_shadow_offset, @object
kasan_shadow_offset:
    .quad   0xdffffc0000000000
    .size   kasan_shadow_offset, . - kasan_shadow_offset

# Where an event is counted for each page fault (this CPU's trace buffer); 0: they are not traced.
    .globl  trace_page_fault
    .type   trace_page_fault, @object
trace_page_fault:
    .quad   0
    .size   trace_page_fault, . - trace_page_fault
