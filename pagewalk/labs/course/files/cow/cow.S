# page_fault: give the task a copy of its own of the page that it writes to.
#
# in:       CR2 = the address that was touched
$stack
#           A PTE whose page is to be copied has bit 9 set, and RW clear. The word at `free_list` is
#           the pa of the first free frame, or 0; the first word of one is the pa of the next.
# out:      back to the instruction that faulted: its PTE is P, RW and US, and leads to a frame from
#           the list with the same 4096 bytes. At bad_fault if it was no write, the page is not
#           there or has no bit 9, or the list is empty
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
        mov     rax, [rsp + 56]
        and     eax, 3
        cmp     eax, 3                  # P and W: the page is there, and was written to
        jne     .Lno
        mov     rdi, cr2
        mov     r9, 0xffff888000000000
        mov     rdx, cr3
        mov     ecx, 39
.Llevel:
        and     rdx, -4096              # the pa of this level's table
        mov     r8, rdi
        shr     r8, cl
        and     r8d, 511
        lea     r8, [rdx + 8 * r8]
        add     r8, r9                  # where its entry is
        mov     rdx, [r8]
        sub     ecx, 9
        cmp     ecx, 12
        jae     .Llevel
        test    edx, 1 << 9
        jz      .Lno
        mov     rax, [rip + free_list]
        test    rax, rax
        jz      .Lno
        lea     rdi, [rax + r9]         # the copy
        mov     rcx, [rdi]
        mov     [rip + free_list], rcx
        and     rdx, -4096
        lea     rsi, [rdx + r9]         # the page
        mov     ecx, 512
        rep movsq
        or      rax, 7                  # P RW US
        mov     [r8], rax
        mov     rax, cr2
        invlpg  [rax]
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
