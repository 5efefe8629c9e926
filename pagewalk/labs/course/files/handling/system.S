# What the CPU asks for when it delivers an exception, and the handler's own words.
        .section .system, "aw"
        .balign 16
idt:
        .zero   14 * 16
gate_14:
        .word   0, 0x10, 0x8e00, 0      # code segment 0x10, interrupt gate, present
        .quad   0
idt_end:
gdt:
        .quad   0, 0
        .quad   0x00af9b000000ffff      # 0x10: 64-bit code
        .quad   0x00cf93000000ffff      # 0x18: data
gdt_end:
gdtr:
        .word   gdt_end - gdt - 1
        .quad   gdt
idtr:
        .word   idt_end - idt - 1
        .quad   idt
