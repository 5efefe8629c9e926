        mov     rax, $a
        mov     cr3, rax                # task A runs
        mov     rdi, $kernel
        mov     rsi, $user
        mov     rdx, $kernel_word
        mov     [rdi], rdx
        mov     rdx, $user_word
        mov     [rsi], rdx
        mov     rdx, $new_entry
        mov     [rip + $label_new_table + 8 * $new_index], rdx
        mov     rdx, $top_entry
        mov     [rip + $label_a + 8 * $top_slot], rdx
        mov     r8, $new
        mov     r9, $top
        mov     rax, [r9]
        mov     rax, $b
        mov     cr3, rax                # task B runs
        mov     rax, [rdi]
        mov     rax, [rsi]
        mov     rax, [r8]
        mov     [r9], rax
        ret
        .size   main, . - main
