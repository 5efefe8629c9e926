# A kernel thread at work.

    .set    POOL_WORKQUEUE_POOL, 0          # of struct pool_workqueue, which is per-CPU memory

    .text

# process_one_work(pwq): begins to do a work item, by looking which pool it is for.
#
# in:       rdi = the item's struct pool_workqueue
# out:      rax = its pool
# clobbers: nothing
# accesses: reads the first word of pwq. A worker has no address space of its own and runs on the
#           table of whichever task ran before it: where that lacks pwq's slot, the load faults.
    .balign 16, 0xcc
    .globl  process_one_work
    .type   process_one_work, @function
process_one_work:
    push    rbp
    mov     rbp, rsp
process_one_work_load:
    mov     rax, qword ptr [rdi + POOL_WORKQUEUE_POOL]
    pop     rbp
    ret
    .org    process_one_work + 0x40, 0xcc
    .size   process_one_work, . - process_one_work
