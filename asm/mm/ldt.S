# The local descriptor table, as the CPU reads it when a segment register is loaded.

    .set    SELECTOR_FLAGS, 7       # table indicator and RPL: what is no index of a selector

    .text

# read_ldt(base, selector): loads the descriptor that a selector names.
#
# in:       rdi = where the table lies (LDTR's base), esi = the selector
# out:      rax = the descriptor
# clobbers: rsi, flags
# accesses: 8 bytes of the table, under whose task's table it may be
    .balign 16, 0xcc
    .globl  read_ldt
    .type   read_ldt, @function
read_ldt:
    mov     esi, esi
    and     rsi, ~SELECTOR_FLAGS
read_ldt_load:
    mov     rax, qword ptr [rdi + rsi]
    ret
    .size   read_ldt, . - read_ldt
