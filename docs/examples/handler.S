# Takes a page fault through an IDT of its own, and goes on where it was.
#
# The handler cannot map a page, since it does not know the tables; it sends the load elsewhere
# instead: RDI is made to point at a word that is there.

    .text

# main: load descriptor tables, then read an address that nothing maps.
#
# in:       nothing
# out:      rax = the word at `found`
# clobbers: rax, rdi, rsi
# accesses: the gate that it fills, the two tables' pointers, and the load that faults once
    .globl  main
    .type   main, @function
main:
    lea     rax, [rip + page_fault]
    lea     rdi, [rip + gate_14]
    mov     word ptr [rdi], ax          # offset 15:0
    shr     rax, 16
    mov     word ptr [rdi + 6], ax      # offset 31:16
    shr     rax, 16
    mov     dword ptr [rdi + 8], eax    # offset 63:32
    lgdt    [rip + gdtr]
    lidt    [rip + idtr]                # from here on, exceptions are delivered
    mov     rdi, 0xdead000
load:
    mov     rax, qword ptr [rdi]
    ret
    .size   main, . - main

# page_fault: where gate 14 leads.
    .type   page_fault, @function
page_fault:
    mov     rsi, cr2                    # to be seen in the trace
    lea     rdi, [rip + found]
    add     rsp, 8                      # the error code
    iretq
    .size   page_fault, . - page_fault

    .data

found:
    .quad   0x600df00d

    .balign 16
idt:
    .zero   14 * 16
gate_14:
    .word   0, 0x10, 0x8e00, 0          # code segment 0x10, interrupt gate, present
    .quad   0
idt_end:

gdt:
    .quad   0, 0
    .quad   0x00af9b000000ffff          # 0x10: 64-bit code
    .quad   0x00cf93000000ffff          # 0x18: data
gdt_end:

gdtr:
    .word   gdt_end - gdt - 1
    .quad   gdt
idtr:
    .word   idt_end - idt - 1
    .quad   idt
