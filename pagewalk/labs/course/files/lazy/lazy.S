# page_fault: copy the top-level entry that the task lacks, and go on where it was.
#
# in:       CR2 = the address that was touched
$stack
#           The word at `reference` is the pa of the root that has all entries.
# out:      back to the instruction that faulted, which is executed again; or, if there is nothing
#           to repair, at bad_fault
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
        test    byte ptr [rsp + 24], 1  # P: the entries are there, a right is missing
        jnz     .Lno
        mov     rax, cr2
        test    rax, rax
        jns     .Lno                    # the user half is the task's own
        shr     rax, 39
        and     eax, 511
        mov     rcx, 0xffff888000000000
        lea     rdx, [rcx + 8 * rax]
        add     rdx, [rip + reference]
        mov     rdx, [rdx]
        test    dl, 1
        jz      .Lno                    # nobody has it
        lea     rax, [rcx + 8 * rax]
        mov     rcx, cr3
        and     rcx, -4096              # PWT and PCD are no part of the address
        add     rax, rcx
        test    byte ptr [rax], 1
        jnz     .Lno                    # it is there: what is missing lies below it
        mov     [rax], rdx
        pop     rdx
        pop     rcx
        pop     rax
        add     rsp, 8                  # the error code
        iretq
.Lno:
        pop     rdx
        pop     rcx
        pop     rax
        jmp     bad_fault
        ### END SOLUTION
        .size   page_fault, . - page_fault
