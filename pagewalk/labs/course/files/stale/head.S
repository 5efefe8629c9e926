        mov     rax, $root
        mov     cr3, rax
        mov     rdi, $p          # page p,
        mov     rsi, $pte      # and its PTE, in the direct map
        mov     rbp, $q          # page q
