        mov     rax, $root
        mov     cr3, rax
        mov     rdi, $two_mib
        mov     rdx, [rdi]
        mov     rdi, $gib
        mov     rax, [rdi]
        ret
        .size   main, . - main
