# Copying memory.

    .section .text.memcpy, "ax"

# memcpy_erms(to, from, size): copies, on a CPU with fast `rep movsb`.
#
# in:       rdi = to, rsi = from, rdx = size; DF clear
# out:      rax = to
# clobbers: rcx, rsi, rdi
# accesses: [from, from + size) is read and [to, to + size) is written, byte by byte, upwards, by the
#           instruction at +0x6. A fault leaves in the registers how far it came.
#
# Its offset and size are those of the oops in "Re: [PATCH] x86/mm/vmfault: Make vmalloc_fault()
# handle large pages" (Toshi Kani, 2016-02-09). No frame: who called it is not on the rbp chain.
    .globl  memcpy_erms
    .type   memcpy_erms, @function
memcpy_erms:
    mov     rax, rdi
    mov     rcx, rdx
memcpy_erms_copy:
    rep movsb
    ret
    .org    memcpy_erms + 0x10, 0xcc
    .size   memcpy_erms, . - memcpy_erms
