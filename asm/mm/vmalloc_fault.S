# Page faults on kernel addresses, while vmalloc was synchronised lazily (up to 5.7): a fault in the
# vmalloc area copies the missing top-level entry from init_mm's table, and the access is made again.
#
# Calls go   page_fault (entry/exceptions.S) -> do_page_fault -> __do_page_fault -> vmalloc_fault.
# Lowest first here, so that each routine can be read knowing the ones that it calls.
#
# Offsets and sizes are those of the oops in "Re: [PATCH] x86/mm/vmfault: Make vmalloc_fault() handle
# large pages" (Toshi Kani, 2016-02-09): they hold in every variant. That kernel has frame pointers.
#
# From outside, per release (0, 0, 1 in 4.4):
#   VMALLOC_FAULT_LEAVES  0: no entry is taken for a large page. 1: pud_huge and pmd_huge are asked
#                         (f4eafd8bcd52 "x86/mm: Fix vmalloc_fault() to handle large pages properly").
#                         2: pud_large and pmd_large are (18a955219bf7 "x86/mm: Fix vmalloc_fault to
#                         use pXd_large").
#   VMALLOC_FAULT_CHECKS  by what two entries are compared below the top. 0: virtual address of the
#                         table, struct page of the table. 1: frame number. 2: not at all, only
#                         the task's entries are looked at, and for presence.
#   VMALLOC_FAULT         1 in releases that handle such a fault, 0 in those that do not (5.8 on).
#   HUGETLBFS             1 with CONFIG_HUGETLBFS; without it pud_huge and pmd_huge are always false.
# And SIZEOF_PAGE.

    .set    PRESENT, 1
    .set    PSE, 0x80
    .set    NOT_NONE, ~0x60                 # A and D alone do not make an entry (a CPU's erratum)
    .set    TABLE_ADDRESS, 0x000ffffffffff000
    .set    FAULT_PROT, 1                   # of the error code
    .set    FAULT_USER, 4
    .set    FAULT_RSVD, 8
    .set    PAGE_FAULT_VECTOR, 14

    .section .text.fault, "ax"

# vmalloc_fault(address): makes the running task's tables agree with init_mm's at `address`.
#
# in:       rdi = address
# out:      eax = 0: the access can be made again; -1: that would not help
# clobbers: rcx, rdx, rsi, r8, r9, r10, r11, flags
# accesses: the entries for `address` under CR3 and under init_mm, through the direct map; the task's
#           top entry is written if there is none. The entry of the pmd level is read at +0x1be:
#           where the pud entry is a 1 GiB page taken for a table, that reads the page, and faults
#           if the direct map does not reach it.
#
# Registers: r8 = page_offset_base, r9 = TABLE_ADDRESS, r10 = the task's entry, r11 = init_mm's; from
# level to level r10 and r11 become what the entries point to.
    .globl  vmalloc_fault
    .type   vmalloc_fault, @function
vmalloc_fault:
    push    rbp
    mov     rbp, rsp
    cmp     rdi, qword ptr [rip + vmalloc_base]
    jb      .Lfault_no
    cmp     rdi, qword ptr [rip + vmalloc_end]
    jae     .Lfault_no
    mov     r8, qword ptr [rip + page_offset_base]
    movabs  r9, TABLE_ADDRESS

    # The top level: the one place where something is repaired.
    mov     rcx, qword ptr [rip + pgdir_shift]
    mov     rax, rdi
    shr     rax, cl
    and     eax, 511
    mov     rsi, qword ptr [rip + init_mm_pgd]
    mov     r11, qword ptr [rsi + 8*rax]
    test    r11, NOT_NONE
    jz      .Lfault_no
    mov     rdx, cr3
    and     rdx, r9
    add     rdx, r8
    mov     r10, qword ptr [rdx + 8*rax]
    test    r10, NOT_NONE
    jnz     .Lfault_compare_top
vmalloc_fault_copy:
    mov     qword ptr [rdx + 8*rax], r11
    mov     r10, r11
.Lfault_compare_top:
    and     r10, r9
    and     r11, r9
    cmp     r10, r11
    jne     vmalloc_fault_bug
    cmp     ecx, 39
    je      .Lfault_pud                     # the p4d level is folded into this one

    mov     rax, rdi
    shr     rax, 39
    and     eax, 511
    lea     rax, [r8 + 8*rax]
    mov     r11, qword ptr [r11 + rax]
    test    r11, NOT_NONE
    jz      .Lfault_no
    mov     r10, qword ptr [r10 + rax]
    and     r10, r9
    and     r11, r9
    cmp     r10, r11
    jne     vmalloc_fault_bug
    jmp     .Lfault_pud

.Lfault_no:
    mov     eax, -1
    pop     rbp
    ret
.Lfault_yes:
    xor     eax, eax
    pop     rbp
    ret
vmalloc_fault_bug:
    ud2

    # Below the top every table is shared, so the rest only checks. (Placed so that the code runs on,
    # over a few nops, into the load that has to be at +0x1be.)
    .org    vmalloc_fault + 0x150, 0xcc
.Lfault_pud:
    mov     rax, rdi
    shr     rax, 30
    and     eax, 511
    lea     rax, [r8 + 8*rax]
    .if VMALLOC_FAULT_CHECKS < 2
    mov     r11, qword ptr [r11 + rax]
    test    r11, NOT_NONE
    jz      .Lfault_no
    mov     r10, qword ptr [r10 + rax]
    test    r10, NOT_NONE
    jz      vmalloc_fault_bug
    mov     edx, r10d
    and     r10, r9
    and     r11, r9
    .if VMALLOC_FAULT_CHECKS == 0
    lea     rcx, [r8 + r10]                 # pud_page_vaddr
    lea     rsi, [r8 + r11]
    cmp     rcx, rsi
    .else
    cmp     r10, r11                        # pud_pfn, not shifted
    .endif
    jne     vmalloc_fault_bug
    .else
    mov     r10, qword ptr [r10 + rax]
    test    r10, NOT_NONE
    jz      .Lfault_no
    mov     edx, r10d
    and     r10, r9
    .endif
    .if (VMALLOC_FAULT_LEAVES == 1) & HUGETLBFS
    test    dl, PSE                         # pud_huge
    jnz     .Lfault_yes
    .endif
    .if VMALLOC_FAULT_LEAVES == 2
    not     edx
    test    dl, PSE | PRESENT               # pud_large
    jz      .Lfault_yes
    .endif

    mov     eax, edi
    shr     eax, 21
    and     eax, 511
    lea     rax, [r8 + 8*rax]
    .org    vmalloc_fault + 0x1be, 0x90
vmalloc_fault_read_pmd:
    .if VMALLOC_FAULT_CHECKS < 2
    mov     r11, qword ptr [r11 + rax]
    test    r11, NOT_NONE
    jz      .Lfault_no
    mov     r10, qword ptr [r10 + rax]
    test    r10, NOT_NONE
    jz      vmalloc_fault_bug
    mov     edx, r10d
    and     r10, r9
    and     r11, r9
    .if VMALLOC_FAULT_CHECKS == 0
    mov     rcx, r10                        # pmd_page: struct pages are compared
    shr     rcx, 12
    imul    rcx, rcx, SIZEOF_PAGE
    add     rcx, qword ptr [rip + vmemmap_base]
    mov     rsi, r11
    shr     rsi, 12
    imul    rsi, rsi, SIZEOF_PAGE
    add     rsi, qword ptr [rip + vmemmap_base]
    cmp     rcx, rsi
    .else
    cmp     r10, r11                        # pmd_pfn
    .endif
    jne     vmalloc_fault_bug
    .else
    mov     r10, qword ptr [r10 + rax]
    test    r10, NOT_NONE
    jz      .Lfault_no
    mov     edx, r10d
    and     r10, r9
    .endif
    .if (VMALLOC_FAULT_LEAVES == 1) & HUGETLBFS
    and     dl, PSE | PRESENT               # pmd_huge: anything but a present table
    cmp     dl, PRESENT
    jne     .Lfault_yes
    .endif
    .if VMALLOC_FAULT_LEAVES == 2
    not     edx
    test    dl, PSE | PRESENT               # pmd_large
    jz      .Lfault_yes
    .endif

    mov     eax, edi
    shr     eax, 12
    and     eax, 511
    lea     rax, [r8 + 8*rax]
vmalloc_fault_read_pte:
    .if VMALLOC_FAULT_CHECKS < 2
    mov     r11, qword ptr [r11 + rax]
    test    r11d, PRESENT
    jz      .Lfault_no
    mov     r10, qword ptr [r10 + rax]
    test    r10d, PRESENT
    jz      vmalloc_fault_bug
    and     r10, r9
    and     r11, r9
    cmp     r10, r11                        # pte_pfn, in every release that compares
    jne     vmalloc_fault_bug
    .else
    mov     r10, qword ptr [r10 + rax]
    test    r10d, PRESENT
    jz      .Lfault_no
    .endif
    jmp     .Lfault_yes
    .org    vmalloc_fault + 0x300, 0xcc
    .size   vmalloc_fault, . - vmalloc_fault

# __do_page_fault(regs, error_code, address): handles a fault that vmalloc_fault can, else dies.
#
# in:       rdi = the interrupted registers (struct pt_regs), rsi = error code, rdx = address
# out:      nothing
# clobbers: what vmalloc_fault does, and rdi, rdx, rsi
# accesses: this CPU's trace buffer, if page faults are traced: before anything is repaired. Then
#           vmalloc_fault's; handled_faults is counted up. Does not return from __die.
#
# A kernel routine's page fault on a user address is not modelled otherwise than as an oops.
    .org    vmalloc_fault + 0xdc0, 0xcc     # ffffffff810670b0
    .globl  __do_page_fault
    .type   __do_page_fault, @function
__do_page_fault:
    push    rbp
    mov     rbp, rsp
    push    r13                             # address
    push    r12                             # error code
    push    rbx                             # regs
    mov     rbx, rdi
    mov     r12, rsi
    mov     r13, rdx
    mov     rax, qword ptr [rip + trace_page_fault]
    test    rax, rax
    jz      .Lfault_traced
trace_page_fault_event:
    inc     qword ptr [rax]
.Lfault_traced:
    test    rdx, rdx
    jns     .Lfault_bad_area
    test    esi, FAULT_PROT | FAULT_USER | FAULT_RSVD
    .if VMALLOC_FAULT
    jz      .Lfault_kernel
    .endif
.Lfault_bad_area:
    mov     rdi, rbx
    mov     esi, PAGE_FAULT_VECTOR
    mov     rdx, r12
    call    __die
    ud2

    .org    __do_page_fault + 0x270, 0xcc
.Lfault_kernel:
    mov     rdi, r13
    .org    __do_page_fault + 0x285 - 5, 0x90
    call    vmalloc_fault                   # returns at +0x285
    test    eax, eax
    jnz     .Lfault_bad_area
    inc     qword ptr [rip + handled_faults]
    pop     rbx
    pop     r12
    pop     r13
    pop     rbp
    ret
    .org    __do_page_fault + 0x3e0, 0xcc
    .size   __do_page_fault, . - __do_page_fault

# do_page_fault(regs, error_code): reads where, before another fault can change CR2.
#
# in:       rdi = the interrupted registers, rsi = error code
# out:      nothing
# clobbers: what a C function may
# accesses: the stack
#
# The frame has a word for the state of context tracking, which is off: nobody writes that word, and
# what the thread left there shows in a call trace.
    .set    LOCAL_ADDRESS, 8                # below rbp; the state is at 0x10
    .globl  do_page_fault
    .type   do_page_fault, @function
do_page_fault:
    push    rbp
    mov     rbp, rsp
    sub     rsp, 0x10
    mov     rdx, cr2
    mov     qword ptr [rbp - LOCAL_ADDRESS], rdx
    .org    do_page_fault + 0x2f - 5, 0x90
    call    __do_page_fault                 # returns at +0x2f
    add     rsp, 0x10
    pop     rbp
    ret
    .org    do_page_fault + 0x80, 0xcc
    .size   do_page_fault, . - do_page_fault
