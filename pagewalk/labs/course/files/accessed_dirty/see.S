        mov     rax, $root
        mov     cr3, rax
$accesses
        ret
        .size   main, . - main
