# read_qword(address): reads eight bytes, for scenarios that ask what an address gives in this task.
#
# in:       rdi = address
# out:      rax = what is there
# clobbers: nothing else
# accesses: the 8 bytes at rdi are read
    .text

    .balign 16, 0xcc
    .globl  read_qword
    .type   read_qword, @function
read_qword:
read_qword_load:
    mov     rax, qword ptr [rdi]
    ret
    .org    read_qword + 0x10, 0xcc
    .size   read_qword, . - read_qword
