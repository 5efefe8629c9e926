        mov     rax, [rdi]              # load from p: the TLB has it from now on
        mov     rdx, $new
        mov     [rsi], rdx              # p is in another frame now
        mov     rbx, [rdi]              # without an invlpg
        invlpg  [rdi]
        mov     rcx, [rdi]              # with one
        ret
        .size   main, . - main
