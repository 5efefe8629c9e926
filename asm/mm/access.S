# One access each, for scenarios that ask whether an address can be used in this task.

    .text

# read_byte(address): reads one byte.
#
# in:       rdi = address
# out:      rax = the byte
# clobbers: nothing else
# accesses: the byte at rdi is read
    .balign 16, 0xcc
    .globl  read_byte
    .type   read_byte, @function
read_byte:
read_byte_load:
    movzx   eax, byte ptr [rdi]
    ret
    .org    read_byte + 0x10, 0xcc
    .size   read_byte, . - read_byte

# write_qword(address, value): writes eight bytes.
#
# in:       rdi = address, rsi = value
# out:      nothing
# clobbers: nothing
# accesses: the 8 bytes at rdi are written
    .balign 16, 0xcc
    .globl  write_qword
    .type   write_qword, @function
write_qword:
write_qword_store:
    mov     qword ptr [rdi], rsi
    ret
    .org    write_qword + 0x10, 0xcc
    .size   write_qword, . - write_qword

# __asan_load8(address): what a compiler puts before each load of 8 bytes in a kernel with KASAN.
#
# in:       rdi = address, a multiple of 8
# out:      rax = the shadow byte: 0 if all 8 bytes may be accessed; else there would be a report
# clobbers: flags
# accesses: the shadow byte of the address is read, not the address itself: where no shadow is
#           mapped in this task, that faults
    .balign 16, 0xcc
    .globl  __asan_load8
    .type   __asan_load8, @function
__asan_load8:
    mov     rax, rdi
    shr     rax, 3                          # a shadow byte for 8 bytes
    add     rax, qword ptr [rip + kasan_shadow_offset]
__asan_load8_shadow:
    movzx   eax, byte ptr [rax]
    ret
    .org    __asan_load8 + 0x20, 0xcc
    .size   __asan_load8, . - __asan_load8

# prepare_switch_to(next_stack): touches the next task's stack while there is still one to take a
# page fault on.
#
# in:       rdi = the next task's stack pointer
# out:      nothing
# clobbers: rax
# accesses: the byte at rdi is read
    .balign 16, 0xcc
    .globl  prepare_switch_to
    .type   prepare_switch_to, @function
prepare_switch_to:
prepare_switch_to_probe:
    movzx   eax, byte ptr [rdi]
    ret
    .org    prepare_switch_to + 0x10, 0xcc
    .size   prepare_switch_to, . - prepare_switch_to
