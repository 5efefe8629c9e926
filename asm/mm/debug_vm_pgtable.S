# What debug_vm_pgtable() has the CPU do: single accesses to user memory, and its own end.
#
# Linux's list never touches the memory that it maps. These two make the CPU a judge of each entry.
# They go through SMAP as get_user() and put_user() do, but no fix-up stands behind them: a fault
# ends the run and is the answer.

    .text

# read_user_word(addr): reads 8 bytes of user memory.
#
# in:       rdi = an address
# out:      rax = what is there
# clobbers: flags (AC stays set where the access faults)
# accesses: the load, and nothing else
    .balign 16, 0xcc
    .globl  read_user_word
    .type   read_user_word, @function
read_user_word:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    stac
read_user_word_load:
    mov     rax, qword ptr [rdi]
    clac
    ret
    .org    read_user_word + 0x20, 0xcc
    .size   read_user_word, . - read_user_word

# write_user_word(addr, value): writes 8 bytes of user memory.
#
# in:       rdi = an address, rsi = the value
# out:      nothing
# clobbers: flags (AC stays set where the access faults)
# accesses: the store, and nothing else
    .balign 16, 0xcc
    .globl  write_user_word
    .type   write_user_word, @function
write_user_word:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    stac
write_user_word_store:
    mov     qword ptr [rdi], rsi
    clac
    ret
    .org    write_user_word + 0x20, 0xcc
    .size   write_user_word, . - write_user_word

# debug_vm_pgtable(): where the list ends if an entry of it did not hold.
#
# in, out:  nothing
# clobbers: nothing
# accesses: none: the ud2 is the WARN_ON() of a check. Linux warns at each and goes on; here all are
#           gone through, and then the kernel stops once, as with panic_on_warn.
    .balign 16, 0xcc
    .globl  debug_vm_pgtable
    .type   debug_vm_pgtable, @function
debug_vm_pgtable:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
debug_vm_pgtable_warn:
    ud2
    .org    debug_vm_pgtable + 0x10, 0xcc
    .size   debug_vm_pgtable, . - debug_vm_pgtable
