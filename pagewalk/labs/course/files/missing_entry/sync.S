        mov     rdi, $reference_va
        mov     rsi, $list_va
        mov     edx, $nr_tasks
        mov     rcx, $first
        mov     r8, $last
        call    sync
        mov     rax, $root
        mov     cr3, rax                # a task runs
        mov     rdi, $va
        mov     rax, [rdi]
        ret
        .size   main, . - main

# sync: copy the top-level entries of a range to the roots that lack them, and change nothing else.
#
# in:       rdi = where the reference root lies (a va; all of RAM is mapped from $direct on)
#           rsi = where a list of the tasks' roots lies, 8 bytes each: where each root lies
#           rdx = how many they are
#           rcx = an address in the first slot that may have to be copied, r8 = one in the last
# out:      nothing
# clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11
        .globl  sync
        .type   sync, @function
sync:
        ### BEGIN SOLUTION
        #: # your code goes here
        shr     rcx, 39
        and     ecx, 511
        shr     r8, 39
        and     r8d, 511
.Lslot:
        mov     rax, [rdi + 8 * rcx]
        test    al, 1
        jz      .Lnext_slot             # the reference has none
        xor     r9d, r9d
.Ltask:
        cmp     r9, rdx
        jae     .Lnext_slot
        mov     r10, [rsi + 8 * r9]
        inc     r9
        test    byte ptr [r10 + 8 * rcx], 1
        jnz     .Ltask                  # it has one
        mov     [r10 + 8 * rcx], rax
        jmp     .Ltask
.Lnext_slot:
        inc     ecx
        cmp     ecx, r8d
        jbe     .Lslot
        ### END SOLUTION
        ret
        .size   sync, . - sync
