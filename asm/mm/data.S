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
