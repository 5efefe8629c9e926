        mov     rax, $root
        mov     cr3, rax
        mov     rdi, $va
        mov     rax, [rdi]
        ret
        .size   main, . - main
