"""How each generation of kernels words an oops.

Knows what differs from one to the next, with the commit where it is known, the kernel in which it
was seen, or "from memory". Refuses to know releases, which name a style, and deaths: `oops` puts
the lines together. Linux vocabulary; source: arch/x86/mm/fault.c, arch/x86/kernel/dumpstack.c,
dumpstack_64.c, process_64.c, traps.c, lib/dump_stack.c, lib/bug.c.

A pointer that a kernel hides behind a hash (%p since ad67b74d2469 "printk: hash addresses printed
with %p", 4.15) is printed as it is, as under no_hash_pointers; an id that it draws at random is 0.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

Tokens = Literal["one-line", "a-line-each"]
Where = Literal["first", "last"]
DoubleFault = Literal["halts", "dies", "dies-in-nmi"]

NULL: Final = f"{'(null)':>16}"  # what %p makes of it


class StackGuard(NamedTuple):
    """A double fault just below a task's stack: what is printed, and what the task dies of.

    `last` says how far the end that is printed lies behind the stack's last byte.
    """

    line: str
    last: int
    what: str


@dataclass(frozen=True, slots=True)
class OopsStyle:
    """One generation's wording. A template of a line is empty where there is no such line."""

    # -- what happened
    null_pointer: str
    paging_request: str
    null_address: str  # the address 0 in these
    null_symbol: str  # and as the name of a place
    ip: str
    explains_error_code: bool  # the lines with "#PF:"
    # The line of page-table entries: whether there is a p4d in it; whether a printk() without
    # KERN_CONT begins a line of its own; and what is printed for a table that cannot be read.
    p4d: bool
    entries: Tokens
    bad: str
    bug: str
    gp_hint: bool  # the address that a general protection fault may be about
    # A double fault prints a line, and then
    #   halts        it only shows the registers, and the machine stops (df_debug)
    #   dies         it is an oops like any other
    #   dies-in-nmi  and one that no kernel survives, since it comes in an interrupt
    double_fault: str
    double_fault_ends: DoubleFault
    stack_guard: StackGuard | None

    # -- the die header
    die_prefix: str
    preempt_in_header: bool
    header_end: str

    # -- who
    modules: Where  # before the CPU line, or behind the trace
    uid_in_cpu_line: bool
    preempt_in_cpu_line: bool
    verbose_taint: bool
    taint_flags: str  # all there are, in the order of "Tainted: G        W"
    task: str

    # -- where
    text_addresses: bool  # [<ffffffff810664ae>] before the name of a place
    rip: str
    rsp: str
    pkru: bool
    stack_words: int  # the dump of the stack; 0: none
    task_marker: bool  # <TASK> around the trace
    # The Code line: under RIP or behind the trace; the bytes of its 64 that come before RIP's.
    code: Where
    code_before: int
    code_end: str
    no_code: str

    # -- at the end
    summary: tuple[str, ...]
    counts_oopses: bool  # in the end marker, from a random number on
    first_registers: bool  # those of the first oops, again


STYLE_4_4: Final = OopsStyle(
    null_pointer="BUG: unable to handle kernel NULL pointer dereference at {}",
    paging_request="BUG: unable to handle kernel paging request at {}",
    null_address=NULL,
    null_symbol=NULL,
    ip="IP: {}",
    explains_error_code=False,
    p4d=False,
    entries="one-line",
    bad="BAD",
    bug="Kernel BUG at {rip:016x} [verbose debug info unavailable]",
    gp_hint=False,
    double_fault="PANIC: double fault, error_code: {:#x}",
    double_fault_ends="halts",
    stack_guard=None,
    die_prefix="",
    preempt_in_header=True,
    header_end=" SMP ",
    modules="first",
    uid_in_cpu_line=False,
    preempt_in_cpu_line=False,
    verbose_taint=False,
    taint_flags="GFSRMBUDAWCIOELK",
    task="task: {task:016x} ti: {stack:016x} task.ti: {stack:016x}",
    text_addresses=True,
    rip="RIP: {cs:04x}:[<{rip:016x}>]  {place}",
    rsp="RSP: {ss:04x}:{rsp:016x}  EFLAGS: {rflags:08x}",
    pkru=False,
    stack_words=12,
    task_marker=False,
    code="last",
    code_before=43,
    code_end=" ",
    no_code="Code:  Bad RIP value.",
    summary=("RIP  {place}", " RSP <{rsp:016x}>"),
    counts_oopses=True,
    first_registers=False,
)

# The header is one printk() now, without a blank behind it (as seen in 4.8; from memory for 4.6).
# PKRU is known, but not printed where the debug registers are as at boot: before ba6d018e3d2f
# "x86/mm/pkeys: Do not skip PKRU register if debug registers are not used" (4.9, from memory).
STYLE_4_6: Final = replace(STYLE_4_4, header_end=" SMP")

# Stacks are mapped, with a guard: e37e43a497d5 (4.9); as seen in 4.10. No text addresses, no dump
# of the stack: bb5e5ce545f2 "x86/dumpstack: Remove kernel text addresses from stack dump",
# 0ee1dd9f5e7e "x86/dumpstack: Remove raw stack dump" (4.10). The p4d: f2a6a7050109 (4.12). Each
# entry on its own line, as seen in 4.12-rc1.
STYLE_4_12: Final = replace(
    STYLE_4_6,
    stack_guard=StackGuard(
        "BUG: stack guard page was hit at {at:016x} (stack is {first:016x}..{last:016x})",
        0,
        "kernel stack overflow (double-fault)",
    ),
    p4d=True,
    entries="a-line-each",
    task="task: {task:016x} task.stack: {stack:016x}",
    text_addresses=False,
    rip="RIP: {cs:04x}:{place}",
    rsp="RSP: {ss:04x}:{rsp:016x} EFLAGS: {rflags:08x}",
    pkru=True,
    stack_words=0,
    summary=("RIP: {place} RSP: {rsp:016x}",),
)

# "x86/mm: Use pr_cont() in dump_pagetable()" (4.13, from memory); BAD begins a line.
STYLE_4_14: Final = replace(STYLE_4_12, entries="one-line", bad="\nBAD")

# Addresses by %px, PTI in the header, no line for the task: 4.15, as seen there. No IP line (from
# memory; 4.15 has one). %pB in a BUG: 4.16, from memory.
STYLE_4_17: Final = replace(
    STYLE_4_14,
    null_address=f"{0:016x}",
    ip="",
    bug="Kernel BUG at {place} [verbose debug info unavailable]",
    header_end=" SMP NOPTI",
    taint_flags="GFSRMBUDAWCIOELKXT",
    task="",
)

# The Code line below RIP, the registers of the first oops at the end: 4.18, as seen after 4.17.
# Modules behind the trace: as seen in 4.19. The fault in other words, with its error code: as seen
# in 5.4; 5.1 has one line, "#PF error: [normal kernel read fault]".
STYLE_5_4: Final = replace(
    STYLE_4_17,
    null_pointer="BUG: kernel NULL pointer dereference, address: {}",
    paging_request="BUG: unable to handle page fault for address: {}",
    null_symbol="0x0",
    explains_error_code=True,
    modules="last",
    code="first",
    code_before=42,
    code_end="",
    no_code="Code: Bad RIP value.",
    summary=(),
    first_registers=True,
)

# A double fault dies: 7d8d8cfdee9a "x86/doublefault/32: Rewrite the x86_32 #DF handler and unify
# with 64-bit" (5.5). 59c1dcbed5b5 "x86/traps: Print address on #GP" (5.6). Both from memory.
STYLE_5_6: Final = replace(
    STYLE_5_4,
    gp_hint=True,
    double_fault="traps: PANIC: double fault, error_code: {:#x}",
    double_fault_ends="dies",
)

# A double fault counts as an interrupt, like an NMI: 5.8, from memory; as seen in 7.0.
STYLE_5_8: Final = replace(STYLE_5_6, double_fault_ends="dies-in-nmi")

# d181d2da0141 "x86/dumpstack: Do not try to access user space code of other tasks" (5.10, from
# memory)
STYLE_5_10: Final = replace(
    STYLE_5_8, no_code="Code: Unable to access opcode bytes at RIP {at:#x}."
)

# <TASK>: 5.15. 44b979fa302c "x86/mm/64: Improve stack overflow warnings" (5.16). The rest is as
# seen in 6.8, whatever came between.
STYLE_6_8: Final = replace(
    STYLE_5_10,
    bug="kernel BUG at {place} [verbose debug info unavailable]",
    stack_guard=StackGuard(
        "BUG: TASK stack guard page was hit at {at:016x} (stack is {first:016x}..{last:016x})",
        1,
        "stack guard page",
    ),
    taint_flags="GFSRMBUDAWCIOELKXTN",
    task_marker=True,
    no_code="Code: Unable to access opcode bytes at {at:#x}.",
    counts_oopses=False,
)

# "Oops: " before the header: 6.10; "UID:" and the verbose taint: 6.11. As seen.
STYLE_6_13: Final = replace(
    STYLE_6_8, die_prefix="Oops: ", uid_in_cpu_line=True, verbose_taint=True
)

# The preemption model in the CPU line, and no longer in the header; a 20th taint, J (fwctl): 6.15,
# as seen.
STYLE_6_16: Final = replace(
    STYLE_6_13,
    preempt_in_header=False,
    preempt_in_cpu_line=True,
    taint_flags="GFSRMBUDAWCIOELKXTNJ",
)
