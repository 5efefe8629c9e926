        mov     rax, $root
        mov     cr3, rax
        mov     rdi, $first
        mov     rax, [rdi + $one]   # pages are touched,
        mov     rax, [rdi + $two]
        mov     rsi, $ptes
        call    scan                    # seen,
        mov     rdi, $first
        mov     rax, [rdi + $two]   # and one of them is touched again
        mov     rsi, $ptes
        call    scan
        ret
        .size   main, . - main

# scan: tell which of eight pages have been accessed since the last scan.
#
# in:       rdi = the va of the first page, rsi = the va of its PTE; the others follow
# out:      rax = bit n is 1 if page n has been accessed; A = 0 in all eight PTEs
# clobbers: rcx, rdx, rdi
        .globl  scan
        .type   scan, @function
scan:
        ### BEGIN SOLUTION
        #: xor     eax, eax                # your code instead of this line
        xor     eax, eax
        xor     ecx, ecx
1:      btr     qword ptr [rsi + rcx * 8], 5    # CF = A; A = 0
        jnc     2f
        bts     eax, ecx
        invlpg  [rdi]                   # or the next access would find A in the TLB
2:      add     rdi, 0x1000
        inc     ecx
        cmp     ecx, 8
        jb      1b
        ### END SOLUTION
        ret
        .size   scan, . - scan
