        mov     rdi, $va
        mov     rax, $a
        mov     cr3, rax                # task A runs
        mov     rdx, [rdi]
        mov     rax, $b
        mov     cr3, rax                # task B runs
        mov     rax, [rdi]
        ret
        .size   main, . - main
