# The beginning of vmlinux's text, and what stands under a routine that nobody in the kernel called.
#
# Linked first. An oops prints the 42 bytes before RIP, so text does not begin with a routine:
# _stext gives every routine mapped, harmless bytes in front of it.

    .text

# _stext: 64 bytes of int3. Never called; falling into them traps.
    .globl  _stext
    .type   _stext, @function
_stext:
    .org    _stext + 0x40, 0xcc
    .size   _stext, . - _stext

# call_once: calls one routine, then stops the CPU.
#
# in:       rax = the routine; its own arguments in their registers
# out:      rax as the routine left it
# clobbers: what the routine clobbers
# accesses: the push of the return address, nothing else
#
# A bare run either starts here or puts run_return on the stack itself. The hlt lies inside a
# function, so that the return address (symbolised one byte before it) has a name in a trace.
    .balign 16, 0xcc
    .globl  call_once
    .type   call_once, @function
call_once:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    call    rax
    .globl  run_return
run_return:
    hlt
    .org    call_once + 0x10, 0xcc
    .size   call_once, . - call_once
