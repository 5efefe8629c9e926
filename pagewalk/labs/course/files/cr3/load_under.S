        mov     rax, $a
        mov     cr3, rax                # task A runs
        mov     rdi, $va
        mov     rsi, $b
        call    load_under
        ret
        .size   main, . - main

# load_under: load a word as another task sees it, and go on in this one.
#
# in:       rdi = the va, rsi = the other task's CR3
# out:      rax = the word; CR3 as it was
# clobbers: rcx
        .globl  load_under
        .type   load_under, @function
load_under:
        ### BEGIN SOLUTION
        #: xor     eax, eax                # your code instead of this line
        mov     rcx, cr3
        mov     cr3, rsi
        mov     rax, [rdi]
        mov     cr3, rcx
        ### END SOLUTION
        ret
        .size   load_under, . - load_under
