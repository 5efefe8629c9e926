# Changing the page tables under the CPU.

    .text

# switch_mm(prev, next): makes `next` the root that the CPU walks.
#
# in:       rdi = CR3 value of the task that leaves (unused), rsi = CR3 value of the one that comes
# out:      nothing
# clobbers: nothing
# accesses: the ret, which is fetched and popped under the new root: text and stack must be mapped
#           in both tables
#
# CR3 is written even if it holds that value already. The TLB invalidation that comes with the
# write is part of what a switch means here; Linux's lazy mode is not modelled.
    .balign 16, 0xcc
    .globl  switch_mm
    .type   switch_mm, @function
switch_mm:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
switch_mm_write_cr3:
    mov     cr3, rsi
    ret
    .org    switch_mm + 0x10, 0xcc
    .size   switch_mm, . - switch_mm
