# What the compiler puts in front of a load, in a kernel with KASAN.

    .set    KASAN_SHADOW_OFFSET, 0xdffffc0000000000
    .set    KASAN_SHADOW_SCALE_SHIFT, 3     # a byte of shadow tells of 8 bytes

    .text

# __asan_load8(addr): looks up whether 8 bytes may be read (outline instrumentation).
#
# in:       rdi = addr, any address
# out:      eax = the byte of shadow: 0 if all 8 bytes at an aligned addr may be read
# clobbers: rdx, flags
# accesses: the byte of shadow is read. addr itself is not: where the shadow is not mapped in this
#           task, the check faults with a not-present read before the access that it guards.
#
# Linux reports a byte that is not 0, and has a second look where 8 bytes straddle two bytes of
# shadow. The caller is told instead.
    .balign 16, 0xcc
    .globl  __asan_load8
    .type   __asan_load8, @function
__asan_load8:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    movabs  rdx, KASAN_SHADOW_OFFSET
    mov     rax, rdi
    shr     rax, KASAN_SHADOW_SCALE_SHIFT
__asan_load8_shadow:
    movzx   eax, byte ptr [rax + rdx]
    ret
    .org    __asan_load8 + 0x30, 0xcc
    .size   __asan_load8, . - __asan_load8
