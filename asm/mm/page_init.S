# Initialising the struct pages of device memory: the first accesses to a freshly populated vmemmap.
#
# Calls go   memmap_init_zone_device -> __init_zone_device_page -> __init_single_page.
# Lowest first here, so that each routine can be read knowing the ones that it calls.
#
# From outside, per build: SIZEOF_PAGE (64, 80 or 96) and the offsets PAGE_* in struct page; the
# bits of page->flags NODES_PGSHIFT, ZONES_PGSHIFT, PG_RESERVED, PG_HEAD; ZONE_DEVICE;
# ZONE_PGDAT, PGDAT_NODE_ID, PGMAP_TYPE, PGMAP_VMEMMAP_SHIFT; FOLIO_*, offsets in the first tail
# page; REFCOUNT_RESET_TYPES, the set of pgmap types whose pages start with a refcount of 0;
# COMPOUND_NR_OPTIMIZED, how many struct pages of a deduplicated compound have memory of their own.

    .set    ZONES_MASK, (1 << (NODES_PGSHIFT - ZONES_PGSHIFT)) - 1
    .set    TAIL_MAPPING, 0xdead000000000400    # poison: a tail page has no mapping

    .text

# __init_single_page(page, pfn, zone, nid): gives one struct page its first contents.
#
# in:       rdi = page, rsi = pfn (unused: x86-64's page->flags hold no section), edx = zone,
#           ecx = nid
# out:      nothing
# clobbers: rax, rcx, rdx, r8, flags
# accesses: every word of *page is written, none is read. The first store, to _refcount, is the
#           first instruction: where vmemmap is not mapped in this task, it faults with a
#           not-present write at page + PAGE_REFCOUNT.
#
# The order of the stores is that of a distribution's 6.8 kernel: the two halves of the word with
# _refcount and _mapcount are set first, then the words are cleared roughly from the end.
    .balign 16, 0xcc
    .globl  __init_single_page
    .type   __init_single_page, @function
__init_single_page:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
__init_single_page_store:
    mov     dword ptr [rdi + PAGE_REFCOUNT], 1
    mov     dword ptr [rdi + PAGE_MAPCOUNT], -1     # not mapped by any process: counts from -1
    xor     eax, eax

    .if SIZEOF_PAGE > 80
    mov     qword ptr [rdi + 0x58], rax             # padding
    mov     dword ptr [rdi + 0x54], eax
    mov     dword ptr [rdi + 0x50], -1              # _last_cpupid: nobody yet
    .endif
    .if SIZEOF_PAGE > 64
    mov     qword ptr [rdi + 0x48], rax             # kmsan_origin
    mov     qword ptr [rdi + 0x40], rax             # kmsan_shadow
    .endif

    mov     qword ptr [rdi + PAGE_MEMCG], rax
    mov     qword ptr [rdi + PAGE_PRIVATE], rax
    lea     r8, [rdi + PAGE_LRU]                    # an empty list points to itself
    mov     qword ptr [rdi + PAGE_LRU], r8
    mov     qword ptr [rdi + PAGE_INDEX], rax
    mov     qword ptr [rdi + PAGE_MAPPING], rax

    shl     rcx, NODES_PGSHIFT
    and     edx, ZONES_MASK
    shl     rdx, ZONES_PGSHIFT
    or      rdx, rcx
    mov     qword ptr [rdi + PAGE_FLAGS], rdx
    mov     qword ptr [rdi + PAGE_LRU_PREV], r8
    ret
    .org    __init_single_page + 0x6d, 0xcc
    .size   __init_single_page, . - __init_single_page

# __init_zone_device_page(page, pfn, zone, nid, pgmap): makes one struct page that of device memory.
#
# in:       rdi = page, rsi = pfn, edx = zone, ecx = nid, r8 = pgmap
# out:      nothing
# clobbers: rax, rcx, rdx, r8, flags
# accesses: __init_single_page's; then flags, pgmap, zone_device_data and perhaps _refcount of
#           *page are written, and pgmap->type is read through the direct map.
#
# `pgmap` takes the place of lru.next and `zone_device_data` that of lru.prev: device pages are on
# no list. Not modelled: the pageblock's migrate type, which lies outside struct page.
    .balign 16, 0xcc
    .globl  __init_zone_device_page
    .type   __init_zone_device_page, @function
__init_zone_device_page:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp
    push    rbx
    push    rax                             # a third word keeps the stack 16-byte aligned
    mov     rbp, r8
    mov     rbx, rdi
    .org    __init_zone_device_page + 0x17 - 5, 0x90
    call    __init_single_page              # returns at +0x17

    or      qword ptr [rbx + PAGE_FLAGS], 1 << PG_RESERVED
    mov     qword ptr [rbx + PAGE_PGMAP], rbp
    mov     qword ptr [rbx + PAGE_ZONE_DEVICE_DATA], 0

    # Types whose driver hands pages out one by one start free, the others in use.
    mov     ecx, dword ptr [rbp + PGMAP_TYPE]
    mov     eax, REFCOUNT_RESET_TYPES
    bt      eax, ecx
    jnc     .Lpage_in_use
    mov     dword ptr [rbx + PAGE_REFCOUNT], 0
.Lpage_in_use:
    pop     rax
    pop     rbx
    pop     rbp
    ret
    .org    __init_zone_device_page + 0x5d, 0xcc
    .size   __init_zone_device_page, . - __init_zone_device_page

# memmap_init_zone_device(zone, start_pfn, nr_pages, pgmap, optimized): initialises the struct
# pages of [start_pfn, start_pfn + nr_pages), compound by compound.
#
# in:       rdi = zone, rsi = start_pfn, rdx = nr_pages, rcx = pgmap,
#           r8d = 1 if this memmap was deduplicated, else 0
# out:      nothing
# clobbers: rax, rcx, rdx, rsi, rdi, r8, flags
# accesses: zone, its node and pgmap are read through the direct map; the struct pages are written
#           through vmemmap, the head of each compound first.
#
# A compound is 1 << pgmap->vmemmap_shift pages; with a shift of 0 every page stands alone. The
# step is always a whole compound, so a range that ends inside one is completed. nr_pages 0 does
# nothing. In a deduplicated memmap all struct pages past the first COMPOUND_NR_OPTIMIZED share
# frames with those and must not be written again. Linux works out `optimized` here, from the
# pgmap and altmap that it was populated with; this routine is told.
    .set    FRAME_STEP, 0x00                # pages in a compound
    .set    FRAME_END_PFN, 0x08             # exclusive
    .set    FRAME_NR_INIT, 0x10             # struct pages to initialise in a compound
    .set    FRAME_ORDER, 0x18               # pgmap->vmemmap_shift
    .set    FRAME_SIZE, 0x28                # with six saved registers: 16-byte aligned

    .balign 16, 0xcc
    .globl  memmap_init_zone_device
    .type   memmap_init_zone_device, @function
memmap_init_zone_device:
    endbr64
    .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # fentry: nop
    push    rbp                             # head's struct page
    push    r15                             # tail's pfn
    push    r14                             # pgmap
    push    r13                             # tail's struct page
    push    r12                             # head's pfn
    push    rbx                             # nid
    sub     rsp, FRAME_SIZE

    mov     r12, rsi
    mov     r14, rcx
    add     rdx, rsi
    mov     qword ptr [rsp + FRAME_END_PFN], rdx
    mov     rax, qword ptr [rdi + ZONE_PGDAT]
    mov     ebx, dword ptr [rax + PGDAT_NODE_ID]

    mov     ecx, dword ptr [r14 + PGMAP_VMEMMAP_SHIFT]
    mov     dword ptr [rsp + FRAME_ORDER], ecx
    mov     eax, 1
    shl     rax, cl
    mov     qword ptr [rsp + FRAME_STEP], rax
    test    r8d, r8d
    jz      .Lnr_init
    mov     eax, COMPOUND_NR_OPTIMIZED
.Lnr_init:
    mov     qword ptr [rsp + FRAME_NR_INIT], rax
    jmp     .Lwhile_pfn

    # The head is initialised (below): now the tails.
.Lcompound:
    or      qword ptr [rbp + PAGE_FLAGS], 1 << PG_HEAD
    lea     r13, [rbp + SIZEOF_PAGE]
    lea     r15, [r12 + 1]
.Ltail:
    mov     rdi, r13
    mov     rsi, r15
    mov     edx, ZONE_DEVICE
    mov     ecx, ebx
    mov     r8, r14
    call    __init_zone_device_page

    lea     rax, [rbp + 1]                  # bit 0 says "tail"
    mov     qword ptr [r13 + PAGE_COMPOUND_HEAD], rax
    movabs  rax, TAIL_MAPPING
    mov     qword ptr [r13 + PAGE_MAPPING], rax
    mov     qword ptr [r13 + PAGE_PRIVATE], 0
    mov     dword ptr [r13 + PAGE_REFCOUNT], 0      # a tail is counted at its head

    # The compound's own fields lie in its first tail page, over the tail's mapping and index.
    mov     rax, r15
    sub     rax, r12
    cmp     rax, 1
    jne     .Lnext_tail
    mov     eax, dword ptr [rsp + FRAME_ORDER]
    mov     byte ptr [r13 + FOLIO_ORDER], al
    mov     dword ptr [r13 + FOLIO_ENTIRE_MAPCOUNT], -1
    mov     dword ptr [r13 + FOLIO_NR_PAGES_MAPPED], 0
    mov     dword ptr [r13 + FOLIO_PINCOUNT], 0
    mov     rax, qword ptr [rsp + FRAME_STEP]
    mov     dword ptr [r13 + FOLIO_NR_PAGES], eax
.Lnext_tail:
    add     r13, SIZEOF_PAGE
    inc     r15
    mov     rax, r15
    sub     rax, r12
    cmp     rax, qword ptr [rsp + FRAME_NR_INIT]
    jb      .Ltail
    jmp     .Lnext_compound

    .org    memmap_init_zone_device + 0x130, 0xcc
.Lhead:
    mov     rbp, qword ptr [rip + vmemmap_base]
    imul    rax, r12, SIZEOF_PAGE
    add     rbp, rax
    mov     rdi, rbp
    mov     rsi, r12
    mov     edx, ZONE_DEVICE
    mov     ecx, ebx
    mov     r8, r14
    .org    memmap_init_zone_device + 0x154 - 5, 0x90
    call    __init_zone_device_page         # returns at +0x154
    cmp     dword ptr [rsp + FRAME_ORDER], 0
    jne     .Lcompound
.Lnext_compound:
    add     r12, qword ptr [rsp + FRAME_STEP]
.Lwhile_pfn:
    cmp     r12, qword ptr [rsp + FRAME_END_PFN]
    jb      .Lhead

    add     rsp, FRAME_SIZE
    pop     rbx
    pop     r12
    pop     r13
    pop     r14
    pop     r15
    pop     rbp
    ret
    .org    memmap_init_zone_device + 0x1bb, 0xcc
    .size   memmap_init_zone_device, . - memmap_init_zone_device
