# page_fault: map a fresh page where the task has touched its area for the first time.
#
# in:       CR2 = the address that was touched
$stack
#           The area reaches from the word at `area_start` up to, not including, that at `area_end`.
#           The word at `free_list` is the pa of the first free frame, or 0; the first word of a
#           free frame is the pa of the next one. Its other words are whatever they are.
# out:      back to the instruction that faulted: its page, and the tables on the way, are in frames
#           from the list, which were zeroed first; each new entry is P, RW and US. At bad_fault if
#           the address is not in the area, if it was a right that was missing, or the list is empty
# clobbers: nothing: nobody there knows that this has happened
        .globl  page_fault
        .type   page_fault, @function
page_fault:
        ### BEGIN SOLUTION
        #: jmp     bad_fault               # your code instead of this line; at its end,
        #: add     rsp, 8                  # the error code, which iretq does not expect
        #: iretq
        push    rax
        push    rcx
        push    rdx
        push    rsi
        push    rdi
        push    r8
        push    r9
        test    byte ptr [rsp + 56], 1  # P: the page is there
        jnz     .Lno
        mov     rsi, cr2
        cmp     rsi, [rip + area_start]
        jb      .Lno
        cmp     rsi, [rip + area_end]
        jae     .Lno
        mov     r9, 0xffff888000000000
        mov     rdx, cr3
        mov     ecx, 39
.Llevel:
        and     rdx, -4096              # the pa of this level's table
        mov     r8, rsi
        shr     r8, cl
        and     r8d, 511
        lea     r8, [rdx + 8 * r8]
        add     r8, r9                  # where its entry is
        mov     rdx, [r8]
        test    dl, 1
        jnz     .Ldown
        mov     rdx, [rip + free_list]
        test    rdx, rdx
        jz      .Lno
        lea     rdi, [rdx + r9]
        mov     rax, [rdi]
        mov     [rip + free_list], rax
        push    rcx
        mov     ecx, 512
        xor     eax, eax
        rep stosq
        pop     rcx
        or      rdx, 7                  # P RW US
        mov     [r8], rdx
.Ldown:
        sub     ecx, 9
        cmp     ecx, 12
        jae     .Llevel                 # a page is to its table what a table is to the one above
        pop     r9
        pop     r8
        pop     rdi
        pop     rsi
        pop     rdx
        pop     rcx
        pop     rax
        add     rsp, 8                  # the error code
        iretq
.Lno:
        pop     r9
        pop     r8
        pop     rdi
        pop     rsi
        pop     rdx
        pop     rcx
        pop     rax
        jmp     bad_fault
        ### END SOLUTION
        .size   page_fault, . - page_fault
