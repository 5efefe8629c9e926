# Stores a counter to each word of a page, then reads one word too far.
#
# pagewalk: --map 0x10000000=0x200000:rw --reg rdi=0x10000000
#
# in:       rdi = the page
# clobbers: rax, rcx
# accesses: 512 stores to the page, then a load from the page behind it, which nothing maps

    .globl  fill
    .type   fill, @function
fill:
    xor     eax, eax
1:  mov     [rdi + rax * 8], rax
    inc     eax
    cmp     eax, 512
    jb      1b
fill_beyond:
    mov     rcx, [rdi + rax * 8]
    ret
    .size   fill, . - fill
