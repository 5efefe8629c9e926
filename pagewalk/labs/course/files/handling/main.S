        lea     rax, [rip + page_fault]
        lea     rdi, [rip + gate_14]
        mov     word ptr [rdi], ax      # bits 15:0 of the handler's address
        shr     rax, 16
        mov     word ptr [rdi + 6], ax  # 31:16
        shr     rax, 16
        mov     dword ptr [rdi + 8], eax # 63:32
        lgdt    [rip + gdtr]
        lidt    [rip + idtr]            # from here on, page faults go to page_fault
$touches
        ret
        .size   main, . - main

$handler
# bad_fault: where a fault ends that is not to be repaired. An Oops, in a kernel.
bad_fault:
        hlt
