# Build "4.4": a system call that loads a driver, down to the read of a device's last sector.
#
# Every line of the Call Trace in "Re: [PATCH] x86/mm/vmfault: Make vmalloc_fault() handle large
# pages" (Toshi Kani, 2016-02-09) comes about here as it did there. All of it runs on the CPU.
# Lines marked `oops` hold an offset of that trace; addresses and sizes of the functions in it are
# its own, too. What the trace leaves out is made up: names are that kernel's, but there are fewer.
#
# This kernel has frame pointers: a trace's plain lines are the return addresses next to the words
# on the chain that begins at rbp. A `?` stands before any other word on the stack that is an address
# of text. There are four ways to that:
#   memcpy_erms+0x6         is where the exception came from, in pt_regs.
#   pmem_rw_bytes+0x6a      was pushed for memcpy_erms, which has no frame.
#   schedule_timeout+0x183, schedule+0x35, put_prev_entity+0x35 and kernel_read+0x50 are old: calls
#                           that had returned before. They show where a later frame has a word that
#                           is never written.
#   __symbol_put+0x60       is the beginning of unknown_module_param_cb, which stands behind
#                           __symbol_put: an argument on the stack.
# So the depth of every frame below matters: R is rsp where btt_log_read calls, a multiple of 16.
#
#   at      the thread that slept            the read, and its page fault
#   R-8     in btt_log_read                  in btt_log_read
#   R-16    schedule_timeout: rbp            pmem_rw_bytes: rbp
#   R-24    r12, rbx, two words              r14, r13, r12, rbx
#   R-56    in schedule_timeout              never written                 <- schedule_timeout+0x183
#   R-64    schedule: rbp                    never written
#   R-72    rbx                              in pmem_rw_bytes
#   R-80    in schedule                      the CPU aligns rsp to 16      <- schedule+0x35
#   R-88    __schedule: rbp                  pt_regs: SS, and from here down to R-248 all the others
#   R-96    r15, r14, r13, r12, rbx, three words
#   R-160   in __schedule
#   R-168   pick_next_task_fair: rbp
#   R-176   r15, r14, r13, r12, rbx, a word
#   R-224   in pick_next_task_fair
#   R-232   put_prev_entity: rbp
#   R-240   r15, r14
#   R-256   r13                              in page_fault
#   R-264   r12                              do_page_fault: rbp
#   R-272   rbx                              address
#   R-280   in put_prev_entity               never written                 <- put_prev_entity+0x35
#   R-288   update_curr: rbp                 in do_page_fault

# The system call.

    .section .text.syscall, "ax"

# entry_SYSCALL_64_fastpath: the kernel's side of finit_module, for a driver that reads a device.
#
# in:       rdi = where to, in the direct map; rsi = where from, in the device's mapping;
#           rdx = how many bytes; DF clear; rsp a multiple of 16, as it is for a system call
# out:      rax = 0
# clobbers: what a C function may
# accesses: the stack; [rsi, rsi + rdx) is read and [rdi, rdi + rdx) is written by memcpy_erms, at
#           +0x6 of it
#
# The three are handed down as the arguments of every function from here on. (The real system call
# takes a file and parameters, and the device is found by the driver.)
    .set    NR_FINIT_MODULE, 313

    .globl  entry_SYSCALL_64_fastpath
    .type   entry_SYSCALL_64_fastpath, @function
entry_SYSCALL_64_fastpath:
    mov     eax, NR_FINIT_MODULE
    .org    entry_SYSCALL_64_fastpath + 0x1a - 5, 0x90
    call    SyS_finit_module                # oops
entry_SYSCALL_64_fastpath_end:              # and back to user mode
    hlt
    .org    entry_SYSCALL_64_fastpath + 0xa4, 0xcc
    .size   entry_SYSCALL_64_fastpath, . - entry_SYSCALL_64_fastpath

# Loading a module.

    .section .text.module, "ax"

    .globl  __symbol_put
    .type   __symbol_put, @function
__symbol_put:
    push    rbp
    mov     rbp, rsp
    pop     rbp
    ret
    .org    __symbol_put + 0x60, 0xcc
    .size   __symbol_put, . - __symbol_put

# What parse_args calls for a parameter that the module does not have.
    .globl  unknown_module_param_cb
    .type   unknown_module_param_cb, @function
unknown_module_param_cb:
    push    rbp
    mov     rbp, rsp
    xor     eax, eax
    pop     rbp
    ret
    .org    unknown_module_param_cb + 0x70, 0xcc
    .size   unknown_module_param_cb, . - unknown_module_param_cb

    .balign 16, 0xcc
    .globl  copy_module_from_fd
    .type   copy_module_from_fd, @function
copy_module_from_fd:
    push    rbp
    mov     rbp, rsp
    push    r12
    push    rbx
    .org    copy_module_from_fd + 0x8c - 5, 0x90
    call    kernel_read
    pop     rbx
    pop     r12
    pop     rbp
    ret
    .org    copy_module_from_fd + 0x110, 0xcc
    .size   copy_module_from_fd, . - copy_module_from_fd

# load_module: its frame has the last two of parse_args' eight arguments at its bottom, and above
# them four words, which are never written. They lie where copy_module_from_fd's calls left
# these, lowest first: vfs_read's rbp, kernel_read's return address, and two registers.
    .set    ARGUMENT_7, 0
    .set    ARGUMENT_8, 8

    .balign 16, 0xcc
    .globl  load_module
    .type   load_module, @function
load_module:
    push    rbp
    mov     rbp, rsp
    push    r14                             # how many bytes
    push    r13                             # where from
    push    r12                             # where to
    push    rbx                             # the module
    sub     rsp, 0x30
    mov     r12, rdi
    mov     r13, rsi
    mov     r14, rdx
    xor     ebx, ebx                        # there is none

    lea     rax, [rip + unknown_module_param_cb]
    mov     qword ptr [rsp + ARGUMENT_8], rax
    mov     qword ptr [rsp + ARGUMENT_7], rbx
    .org    load_module + 0x6e - 5, 0x90
    call    parse_args
    mov     rdi, r12
    mov     rsi, r13
    mov     rdx, r14
    .org    load_module + 0xc5 - 5, 0x90
    call    do_init_module
    add     rsp, 0x30
    pop     rbx
    pop     r12
    pop     r13
    pop     r14
    pop     rbp
    ret
    .org    load_module + 0x2120, 0xcc
    .size   load_module, . - load_module

    .org    __symbol_put + 0x4260, 0xcc     # ffffffff811243d0
    .globl  SyS_finit_module
    .type   SyS_finit_module, @function
SyS_finit_module:
    push    rbp
    mov     rbp, rsp
    push    r14
    push    r13
    push    r12
    push    rbx                             # keeps the stack 16-byte aligned
    mov     r12, rdi
    mov     r13, rsi
    mov     r14, rdx
    .org    SyS_finit_module + 0x71 - 5, 0x90
    call    copy_module_from_fd
    mov     rdi, r12
    mov     rsi, r13
    mov     rdx, r14
    .org    SyS_finit_module + 0xb9 - 5, 0x90
    call    load_module                     # oops
    pop     rbx
    pop     r12
    pop     r13
    pop     r14
    pop     rbp
    ret
    .org    SyS_finit_module + 0xf0, 0xcc
    .size   SyS_finit_module, . - SyS_finit_module

    .section .text.exec, "ax"

    .globl  kernel_read
    .type   kernel_read, @function
kernel_read:
    push    rbp
    mov     rbp, rsp
    push    r12
    push    rbx
    .org    kernel_read + 0x50 - 5, 0x90
    call    vfs_read                        # oops
    pop     rbx
    pop     r12
    pop     rbp
    ret
    .org    kernel_read + 0x80, 0xcc
    .size   kernel_read, . - kernel_read

    .text

# There are no files: this reads nothing.
    .balign 16, 0xcc
    .globl  vfs_read
    .type   vfs_read, @function
vfs_read:
    push    rbp
    mov     rbp, rsp
    xor     eax, eax
    pop     rbp
    ret
    .org    vfs_read + 0x150, 0xcc
    .size   vfs_read, . - vfs_read

# There are no parameters: this calls nothing.
    .balign 16, 0xcc
    .globl  parse_args
    .type   parse_args, @function
parse_args:
    push    rbp
    mov     rbp, rsp
    xor     eax, eax
    pop     rbp
    ret
    .org    parse_args + 0x3d0, 0xcc
    .size   parse_args, . - parse_args

# From the module's init function to its driver's probe of the device, all with the arguments of
# entry_SYSCALL_64_fastpath.

    .balign 16, 0xcc
    .globl  do_init_module
    .type   do_init_module, @function
do_init_module:
    push    rbp
    mov     rbp, rsp
    .org    do_init_module + 0x61 - 5, 0x90
    call    do_one_initcall
    pop     rbp
    ret
    .org    do_init_module + 0x1e0, 0xcc
    .size   do_init_module, . - do_init_module

    .balign 16, 0xcc
    .globl  do_one_initcall
    .type   do_one_initcall, @function
do_one_initcall:
    push    rbp
    mov     rbp, rsp
    .org    do_one_initcall + 0xc0 - 5, 0x90
    call    pmem_init
    pop     rbp
    ret
    .org    do_one_initcall + 0x1b0, 0xcc
    .size   do_one_initcall, . - do_one_initcall

    .balign 16, 0xcc
    .globl  driver_register
    .type   driver_register, @function
driver_register:
    push    rbp
    mov     rbp, rsp
    .org    driver_register + 0x60 - 5, 0x90
    call    bus_add_driver
    pop     rbp
    ret
    .org    driver_register + 0xe0, 0xcc
    .size   driver_register, . - driver_register

    .balign 16, 0xcc
    .globl  bus_add_driver
    .type   bus_add_driver, @function
bus_add_driver:
    push    rbp
    mov     rbp, rsp
    .org    bus_add_driver + 0x1b6 - 5, 0x90
    call    driver_attach
    pop     rbp
    ret
    .org    bus_add_driver + 0x260, 0xcc
    .size   bus_add_driver, . - bus_add_driver

    .balign 16, 0xcc
    .globl  driver_attach
    .type   driver_attach, @function
driver_attach:
    push    rbp
    mov     rbp, rsp
    .org    driver_attach + 0x1e - 5, 0x90
    call    bus_for_each_dev
    pop     rbp
    ret
    .org    driver_attach + 0x20, 0xcc
    .size   driver_attach, . - driver_attach

    .balign 16, 0xcc
    .globl  bus_for_each_dev
    .type   bus_for_each_dev, @function
bus_for_each_dev:
    push    rbp
    mov     rbp, rsp
    .org    bus_for_each_dev + 0x6c - 5, 0x90
    call    __driver_attach
    pop     rbp
    ret
    .org    bus_for_each_dev + 0xb0, 0xcc
    .size   bus_for_each_dev, . - bus_for_each_dev

    .balign 16, 0xcc
    .globl  __driver_attach
    .type   __driver_attach, @function
__driver_attach:
    push    rbp
    mov     rbp, rsp
    .org    __driver_attach + 0x9b - 5, 0x90
    call    driver_probe_device
    pop     rbp
    ret
    .org    __driver_attach + 0xb0, 0xcc
    .size   __driver_attach, . - __driver_attach

    .balign 16, 0xcc
    .globl  driver_probe_device
    .type   driver_probe_device, @function
driver_probe_device:
    push    rbp
    mov     rbp, rsp
    .org    driver_probe_device + 0x224 - 5, 0x90
    call    nd_pmem_probe
    pop     rbp
    ret
    .org    driver_probe_device + 0x4a0, 0xcc
    .size   driver_probe_device, . - driver_probe_device

# The driver of persistent memory: a module whose text begins at ffffffffa0063000.

    .section .module.nd_pmem, "ax"

    .balign 16, 0xcc
    .globl  pmem_init
    .type   pmem_init, @function
pmem_init:
    push    rbp
    mov     rbp, rsp
    .org    pmem_init + 0x4c - 5, 0x90
    call    driver_register
    pop     rbp
    ret
    .org    pmem_init + 0x60, 0xcc
    .size   pmem_init, . - pmem_init

    .balign 16, 0xcc
    .globl  nd_pmem_probe
    .type   nd_pmem_probe, @function
nd_pmem_probe:
    push    rbp
    mov     rbp, rsp
    .org    nd_pmem_probe + 0x1a5 - 5, 0x90
    call    nvdimm_namespace_attach_btt
    pop     rbp
    ret
    .org    nd_pmem_probe + 0x2e0, 0xcc
    .size   nd_pmem_probe, . - nd_pmem_probe

# pmem_rw_bytes(to, from, size): reads the device. Two words of its frame are never written.
    .org    pmem_init + 0x4a0, 0xcc         # ffffffffa00634a0
    .globl  pmem_rw_bytes
    .type   pmem_rw_bytes, @function
pmem_rw_bytes:
    push    rbp
    mov     rbp, rsp
    push    r14
    push    r13
    push    r12
    push    rbx                             # the result
    sub     rsp, 0x10
    mov     r12, rdi
    mov     r13, rsi
    mov     r14, rdx
    xor     ebx, ebx
    mov     rdi, r12
    mov     rsi, r13
    mov     rdx, r14
    .org    pmem_rw_bytes + 0x6a - 5, 0x90
    call    memcpy_erms                     # oops
    mov     eax, ebx
    add     rsp, 0x10
    pop     rbx
    pop     r12
    pop     r13
    pop     r14
    pop     rbp
    ret
    .org    pmem_rw_bytes + 0x190, 0xcc
    .size   pmem_rw_bytes, . - pmem_rw_bytes

# Sectors written whole or not at all, on top of it: a module whose text begins at ffffffffa028d000.

    .section .module.nd_btt, "ax"

    .balign 16, 0xcc
    .globl  nvdimm_namespace_attach_btt
    .type   nvdimm_namespace_attach_btt, @function
nvdimm_namespace_attach_btt:
    push    rbp
    mov     rbp, rsp
    .org    nvdimm_namespace_attach_btt + 0x142 - 5, 0x90
    call    btt_freelist_init
    pop     rbp
    ret
    .org    nvdimm_namespace_attach_btt + 0x160, 0xcc
    .size   nvdimm_namespace_attach_btt, . - nvdimm_namespace_attach_btt

    .balign 16, 0xcc
    .globl  btt_freelist_init
    .type   btt_freelist_init, @function
btt_freelist_init:
    push    rbp
    mov     rbp, rsp
    .org    btt_freelist_init + 0x58 - 5, 0x90
    call    btt_log_read
    pop     rbp
    ret
    .org    btt_freelist_init + 0xe0, 0xcc
    .size   btt_freelist_init, . - btt_freelist_init

# btt_log_read(to, from, size): reads a sector of the log, once the thread has slept. (Who slept
# before the oops, its trace does not say.)
    .org    nvdimm_namespace_attach_btt + 0x250, 0xcc   # ffffffffa028d250
    .globl  btt_log_read
    .type   btt_log_read, @function
btt_log_read:
    push    rbp
    mov     rbp, rsp
    push    r14
    push    r13
    push    r12
    push    rbx                             # keeps the stack 16-byte aligned
    mov     r12, rdi
    mov     r13, rsi
    mov     r14, rdx
    mov     edi, 1
    call    schedule_timeout
    mov     rdi, r12
    mov     rsi, r13
    mov     rdx, r14
    .org    btt_log_read + 0x63 - 5, 0x90
    call    pmem_rw_bytes                   # oops
    pop     rbx
    pop     r12
    pop     r13
    pop     r14
    pop     rbp
    ret
    .org    btt_log_read + 0x140, 0xcc
    .size   btt_log_read, . - btt_log_read

# Sleeping. Nobody else wants the CPU, so it comes back to the thread at once.

    .section .text.schedule, "ax"

    .globl  schedule
    .type   schedule, @function
schedule:
    push    rbp
    mov     rbp, rsp
    push    rbx
    .org    schedule + 0x35 - 5, 0x90
    call    __schedule                      # oops
    pop     rbx
    pop     rbp
    ret
    .org    schedule + 0x80, 0xcc
    .size   schedule, . - schedule

# schedule_timeout(jiffies): returns how many are left, which is none.
    .org    schedule + 0x2d80, 0xcc         # ffffffff817a3590
    .globl  schedule_timeout
    .type   schedule_timeout, @function
schedule_timeout:
    push    rbp
    mov     rbp, rsp
    push    r12
    push    rbx
    sub     rsp, 0x10
    .org    schedule_timeout + 0x183 - 5, 0x90
    call    schedule                        # oops
    xor     eax, eax
    add     rsp, 0x10
    pop     rbx
    pop     r12
    pop     rbp
    ret
    .org    schedule_timeout + 0x240, 0xcc
    .size   schedule_timeout, . - schedule_timeout

    .section .text.sched_fair, "ax"

    .globl  put_prev_entity
    .type   put_prev_entity, @function
put_prev_entity:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    .org    put_prev_entity + 0x35 - 5, 0x90
    call    update_curr                     # oops
    pop     rbx
    pop     r12
    pop     r13
    pop     r14
    pop     r15
    pop     rbp
    ret
    .org    put_prev_entity + 0x7a0, 0xcc
    .size   put_prev_entity, . - put_prev_entity

    .text

    .balign 16, 0xcc
    .globl  __schedule
    .type   __schedule, @function
__schedule:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 0x18
    .org    __schedule + 0x131 - 5, 0x90
    call    pick_next_task_fair
    add     rsp, 0x18
    pop     rbx
    pop     r12
    pop     r13
    pop     r14
    pop     r15
    pop     rbp
    ret
    .org    __schedule + 0x8f0, 0xcc
    .size   __schedule, . - __schedule

    .balign 16, 0xcc
    .globl  pick_next_task_fair
    .type   pick_next_task_fair, @function
pick_next_task_fair:
    push    rbp
    mov     rbp, rsp
    push    r15
    push    r14
    push    r13
    push    r12
    push    rbx
    sub     rsp, 8
    .org    pick_next_task_fair + 0xe6 - 5, 0x90
    call    put_prev_entity
    add     rsp, 8
    pop     rbx
    pop     r12
    pop     r13
    pop     r14
    pop     r15
    pop     rbp
    ret
    .org    pick_next_task_fair + 0x4c0, 0xcc
    .size   pick_next_task_fair, . - pick_next_task_fair

    .balign 16, 0xcc
    .globl  update_curr
    .type   update_curr, @function
update_curr:
    push    rbp
    mov     rbp, rsp
    pop     rbp
    ret
    .org    update_curr + 0x1a0, 0xcc
    .size   update_curr, . - update_curr
