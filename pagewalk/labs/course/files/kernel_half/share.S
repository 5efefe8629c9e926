        lea     rdi, [rip + $label_child]
        lea     rsi, [rip + $label_b]
        call    share_kernel_half
        mov     rax, $child
        mov     cr3, rax                # the new task runs
        mov     rdi, $kernel
        mov     rax, [rdi]
        ret
        .size   main, . - main

# share_kernel_half: make a root for a new task, as fork does.
#
# in:       rdi = where the new root lies (a va), rsi = where an old root does
# out:      the new root: the old one's entries in its kernel half, slots 256 to 511; in its user
#           half nothing, whatever the frame held before
# clobbers: rax, rcx, rdi, rsi
        .globl  share_kernel_half
        .type   share_kernel_half, @function
share_kernel_half:
        ### BEGIN SOLUTION
        #: # your code goes here
        xor     eax, eax
        mov     ecx, 256
        rep stosq                       # the user half
        add     rsi, 8 * 256
        mov     ecx, 256
        rep movsq                       # the kernel half
        ### END SOLUTION
        ret
        .size   share_kernel_half, . - share_kernel_half
