# A driver that reads its device, in builds other than 4.4 (whose own is in builds/4.4-finit.S).
#
# Calls go   btt_log_read -> pmem_rw_bytes -> memcpy_erms (lib/memcpy.S).
# Offsets and sizes are those of 4.4's oops, which is the only one that tells any. Frame pointers.

    .text

# pmem_rw_bytes(to, from, size): reads the device.
#
# in:       rdi = where to, in the direct map; rsi = where from, in the device's mapping;
#           rdx = how many bytes; DF clear
# out:      rax = 0
# clobbers: rcx, rsi, rdi
# accesses: memcpy_erms's
    .balign 16, 0xcc
    .globl  pmem_rw_bytes
    .type   pmem_rw_bytes, @function
pmem_rw_bytes:
    push    rbp
    mov     rbp, rsp
    .org    pmem_rw_bytes + 0x6a - 5, 0x90
    call    memcpy_erms
    xor     eax, eax
    pop     rbp
    ret
    .org    pmem_rw_bytes + 0x190, 0xcc
    .size   pmem_rw_bytes, . - pmem_rw_bytes

# btt_log_read(to, from, size): reads a sector of the log.
#
# in, out, clobbers, accesses: pmem_rw_bytes's
    .balign 16, 0xcc
    .globl  btt_log_read
    .type   btt_log_read, @function
btt_log_read:
    push    rbp
    mov     rbp, rsp
    .org    btt_log_read + 0x63 - 5, 0x90
    call    pmem_rw_bytes
    pop     rbp
    ret
    .org    btt_log_read + 0x140, 0xcc
    .size   btt_log_read, . - btt_log_read
