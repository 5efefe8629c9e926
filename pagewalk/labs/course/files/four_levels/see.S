        mov     rax, $root
        mov     cr3, rax
        mov     rdi, $one
        mov     rdx, [rdi]
        mov     rdi, $two
        mov     rax, [rdi]
        ret
        .size   main, . - main
