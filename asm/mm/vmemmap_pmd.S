# vmemmap in 2 MiB blocks: the PMD entry that maps one, and the marks on the parts in use.
#
# A section's memmap fills whole blocks only if struct page has 64 bytes. Otherwise neighbouring
# sections share a block, and it may be freed when the last of them goes. No counter says when: the
# bytes of the block do. A part that no section uses is filled with PAGE_UNUSED; a part in use
# begins with something else, for which the first struct page is zeroed as soon as the part is
# handed out. Those marks are the first accesses to the block, and are made through vmemmap itself.
#
# unused_pmd_start (data.S) puts off marking the rest of the last block, because the next section
# usually continues there.
#
# From outside: SIZEOF_PAGE (64, 80 or 96), PAGE_UNUSED (the byte 0xfd), SUB_PMD (0 in releases that
# do not mark parts: before 8d400913c231 "x86/vmemmap: handle unpopulated sub-pmd ranges").

    .set    PMD_SIZE, 1 << 21
    .set    PMD_OFFSET, PMD_SIZE - 1        # the bits of an address inside its 2 MiB block
    .set    PMD_PSE, 0x80                   # the entry maps a 2 MiB page
    .set    PAGE_KERNEL_LARGE, 0x80000000000001e3   # XD G PS D A RW P
    .set    UNUSED_WORD, PAGE_UNUSED * 0x0101010101010101

    .text

# vmemmap_set_pmd(pmd, p, node, addr, next): maps the block `p` at vmemmap address `addr`, and marks
# it if only [addr, next) of it comes into use.
#
# in:       rdi = direct-map address of the PMD entry, rsi = direct-map address of the 2 MiB block,
#           edx = node (unused: Linux only reports it), rcx = addr, r8 = next; addr < next, both in
#           one 2 MiB block of vmemmap; DF clear
# out:      nothing
# clobbers: rax, rcx, rsi, rdi, flags
# accesses: the entry is written through the direct map. If addr or next is not 2 MiB aligned, the
#           first struct page at addr is then zeroed through vmemmap: where that address is not
#           mapped in this task, the store at +0xff faults with a not-present write at addr.
#
# What a fault leaves in the registers is what the oops of 6.13 shows: r8 = r12 = next,
# rsi = the entry's flags, r15 = the entry.
    .balign 16, 0xcc
    .globl  vmemmap_set_pmd
    .type   vmemmap_set_pmd, @function
vmemmap_set_pmd:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    r15                             # the entry
    push    r12                             # next
    push    rbp                             # &unused_pmd_start
    push    rbx                             # addr
    sub     rsp, 8
    mov     rbx, rcx
    mov     r12, r8
    lea     rbp, [rip + unused_pmd_start]

    mov     r15, rsi
    sub     r15, qword ptr [rip + page_offset_base]
    movabs  rsi, PAGE_KERNEL_LARGE
    or      r15, rsi
vmemmap_set_pmd_write_entry:
    mov     qword ptr [rdi], r15

    mov     rax, rbx
    or      rax, r12
    test    eax, PMD_OFFSET
    .if SUB_PMD
    jnz     .Lset_partly
    .endif
.Lset_done:
    add     rsp, 8
    pop     rbx
    pop     rbp
    pop     r12
    pop     r15
    ret

    # A new block: the old one gets no more neighbours, so its rest is marked now. (Placed so that
    # the code runs on, without a gap, into the store that has to be at +0xff.)
    .org    vmemmap_set_pmd + 0xd8, 0xcc
.Lset_partly:
    mov     rdi, qword ptr [rbp]
    test    rdi, rdi
    jz      .Lset_mark
    mov     ecx, edi
    neg     ecx
    and     ecx, PMD_OFFSET                 # bytes up to the next 2 MiB boundary
    mov     eax, PAGE_UNUSED
    rep stosb
    mov     qword ptr [rbp], 0
.Lset_mark:
    .org    vmemmap_set_pmd + 0xff, 0x90
vmemmap_set_pmd_store:
    mov     qword ptr [rbx], 0
    mov     qword ptr [rbx + SIZEOF_PAGE - 8], 0
    lea     rdi, [rbx + 8]
    mov     ecx, SIZEOF_PAGE / 8 - 2
    xor     eax, eax
    rep stosq

    mov     ecx, ebx
    and     ecx, PMD_OFFSET                 # bytes of the block before addr
    jz      .Lset_end
    mov     rdi, rbx
    sub     rdi, rcx
    mov     eax, PAGE_UNUSED
    rep stosb
.Lset_end:
    test    r12d, PMD_OFFSET
    jz      .Lset_done
    mov     qword ptr [rbp], r12            # marked when it is known who comes next
    jmp     .Lset_done
    .org    vmemmap_set_pmd + 0x230, 0xcc
    .size   vmemmap_set_pmd, . - vmemmap_set_pmd

# vmemmap_check_pmd(pmd, node, addr, next): takes [addr, next) of a block that is mapped already.
#
# in:       rdi = direct-map address of the PMD entry, esi = node (unused: Linux only checks its
#           distance), rdx = addr, rcx = next; as for vmemmap_set_pmd; DF clear
# out:      eax = 1 if the entry maps a 2 MiB page, else 0: it points to a table, nothing was done
# clobbers: rcx, rdx, rdi, flags
# accesses: the entry is read through the direct map. If addr continues the unmarked rest of the
#           block, no struct page is touched; otherwise that rest is marked, and the first struct
#           page at addr is zeroed.
    .balign 16, 0xcc
    .globl  vmemmap_check_pmd
    .type   vmemmap_check_pmd, @function
vmemmap_check_pmd:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
vmemmap_check_pmd_read_entry:
    test    byte ptr [rdi], PMD_PSE
    jnz     .Lcheck_leaf
    xor     eax, eax
    ret

.Lcheck_leaf:
    .if SUB_PMD == 0
    mov     eax, 1
    ret
    .endif
    push    rbx                             # addr
    mov     rbx, rdx
    lea     rdi, [rip + unused_pmd_start]
    cmp     rbx, qword ptr [rdi]
    jne     .Lcheck_mark

    # Nothing lies between: the rest now begins at next, or the block is full.
    test    ecx, PMD_OFFSET
    jnz     .Lcheck_rest
    xor     ecx, ecx
.Lcheck_rest:
    mov     qword ptr [rdi], rcx
    jmp     .Lcheck_done

.Lcheck_mark:
    call    vmemmap_flush_unused_pmd
vmemmap_check_pmd_store:
    mov     qword ptr [rbx], 0
    mov     qword ptr [rbx + SIZEOF_PAGE - 8], 0
    lea     rdi, [rbx + 8]
    mov     ecx, SIZEOF_PAGE / 8 - 2
    xor     eax, eax
    rep stosq
.Lcheck_done:
    mov     eax, 1
    pop     rbx
    ret
    .org    vmemmap_check_pmd + 0x70, 0xcc
    .size   vmemmap_check_pmd, . - vmemmap_check_pmd

# vmemmap_flush_unused_pmd(): marks the rest of the last block, if that is still to be done.
#
# in:       DF clear
# out:      nothing
# clobbers: rax, rcx, rdx, rdi, flags
# accesses: [unused_pmd_start, next 2 MiB boundary) is filled with PAGE_UNUSED through vmemmap. The
#           block before it is present and in use, so the top-level entry is there too.
    .balign 16, 0xcc
    .globl  vmemmap_flush_unused_pmd
    .type   vmemmap_flush_unused_pmd, @function
vmemmap_flush_unused_pmd:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    lea     rdx, [rip + unused_pmd_start]
    mov     rdi, qword ptr [rdx]
    test    rdi, rdi
    jz      .Lflush_done
    mov     ecx, edi
    neg     ecx
    and     ecx, PMD_OFFSET                 # bytes up to the next 2 MiB boundary
    mov     eax, PAGE_UNUSED
vmemmap_flush_unused_pmd_store:
    rep stosb
    mov     qword ptr [rdx], 0
.Lflush_done:
    ret
    .org    vmemmap_flush_unused_pmd + 0x40, 0xcc
    .size   vmemmap_flush_unused_pmd, . - vmemmap_flush_unused_pmd

# vmemmap_pmd_is_unused(addr, end): gives [addr, end) of a block back, and says whether that was
# the last part in use.
#
# in:       rdi = addr, rsi = end; addr <= end, both in one 2 MiB block of vmemmap; DF clear
# out:      eax = 1 if every byte of the block is PAGE_UNUSED now, else 0
# clobbers: rcx, rdx, rdi, flags
# accesses: [addr, end) is filled with PAGE_UNUSED, then the block is read, both through vmemmap
    .balign 16, 0xcc
    .globl  vmemmap_pmd_is_unused
    .type   vmemmap_pmd_is_unused, @function
vmemmap_pmd_is_unused:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbx                             # addr
    mov     rbx, rdi
    call    vmemmap_flush_unused_pmd
    mov     rdi, rbx
    mov     rcx, rsi
    sub     rcx, rdi
    mov     eax, PAGE_UNUSED
vmemmap_pmd_is_unused_store:
    rep stosb

    mov     rdi, rbx
    and     rdi, -PMD_SIZE
    movabs  rax, UNUSED_WORD
    mov     ecx, PMD_SIZE / 8
    repe scasq                              # stops behind the first word that differs
    sete    al
    movzx   eax, al
    pop     rbx
    ret
    .org    vmemmap_pmd_is_unused + 0x60, 0xcc
    .size   vmemmap_pmd_is_unused, . - vmemmap_pmd_is_unused
