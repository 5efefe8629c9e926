"""Where the engine is known to differ from the architecture: each difference has a name.

Knows the names and what is behind them. Refuses to know how one is corrected: whoever does says so
by the name. Each of DEVIATIONS is corrected, or kept from doing harm, and has a proof; with
UNCORRECTED, what a run reports is the engine's answer and not a CPU's.
"""

from typing import Final

DEVIATIONS: Final = {
    "old-exception": "a second #PF in a row becomes #DF, a third is lost, unless the engine's "
    "memory of the last exception is cleared after each",
    "until": "leaving a run with an end address walks the page of that address and overwrites "
    "CR2 and the error code",
    "rmw-reports-read": "a #PF of a read-modify-write has W=0, since the load faults first",
    "early-fetch": "a block that runs off a page faults for the next page before any of its "
    "instructions has run, and CR2 says so",
    "table-outside-ram": "a page table outside RAM reads as zero: a plain not-present #PF",
    "alias-store": "a guest store through a second mapping of a page of code is not noticed, "
    "unless a write-protection hook covers the frame",
    "warm-count": "a step limit is ignored by code that was translated without one",
    "late-hook": "code that was translated before a hook was added does not call it",
    "stack-gp": "a stack access to an address that is not canonical is a #GP and not a #SS",
    "nxe-pke-tlb": "a change of EFER.NXE or CR4.PKE leaves the TLB as it was",
    "int-6": "int 6 is reported like an invalid opcode, at its own address",
    "syscall-nop": "syscall runs as a no-operation, even with EFER.SCE=0",
    "sysenter-nop": "sysenter runs as a no-operation, even with SYSENTER_CS=0",
    "icebp": "int1 is reported like an invalid opcode: no #DB",
    "resume-flag": "RFLAGS.RF, set by an iretq, stays set behind the instruction that it is for",
    "counted-exit": "leaving a counted run behind, or removing a hook, walks the addresses that "
    "were hooked: what faults there changes CR2 and is remembered as the last exception",
    "silent-blocks": "blocks that are translated are told to no hook until one has run to its end",
    "hooked-flags": "a fault of an instruction that a hook was called for leaves other arithmetic "
    "flags than there were before it",
    "unaligned-vector": "movaps and its like accept an address that is not aligned: no #GP",
    "reserved-cr0": "mov cr0 accepts PG=0, NW without CD, and bits 63:32: no #GP",
    "reserved-cr3": "mov cr3 takes bits from MAXPHYADDR up, bit 63 included: no #GP",
    "reserved-cr4": "mov cr4 accepts bits that are reserved, and keeps some of them: no #GP",
    "reserved-cr8": "mov cr8 accepts more than 4 bits: no #GP",
    "la57-toggle": "mov cr4 changes LA57 while paging is on: no #GP",
    "efer-lme": "wrmsr changes EFER.LME while paging is on, and sets what is reserved: no #GP",
    "msr-canonical": "wrmsr takes a base or entry point that is not canonical: no #GP",
    "null-tr": "ltr accepts the null selector: no #GP",
    "sysret-target": "sysret goes to an address that is not canonical: #GP there, and not before",
    "cache-line": "clflush, clflushopt and clwb of an unmapped page do nothing: no #PF",
    "user-io": "in and out run at CPL 3 whatever IOPL and the TSS say: no #GP",
    "far-return": "a far return and iret read their stack as the supervisor, at CPL 3, too: a page "
    "that is not the user's is no #PF",
}

UNCORRECTED: Final = {
    "branch-target": "a branch, ret or iret to an address that is not canonical is a #GP at the "
    "target, after the branch: not at the branch",
    "refused-gigabyte": "a 1 GiB leaf that refuses the access, or has one of bits 29:13 set, gets "
    "A=1 all the same",
    "refused-update": "a page that a read-modify-write may read but not write gets A=1, since the "
    "load comes first",
    "torn-store": "a store of more than 8 bytes that faults on its second page, and any store "
    "that runs off the end of RAM, has stored its first part",
    "torn-x87": "an x87 store that runs off the end of RAM completes, and the guest runs on, even "
    "through a hlt: no OutsideRam",
    "state-order": "fbld, fbstp, fldenv, frstor, fxrstor, fnstenv, fnsave and fxsave touch their "
    "bytes in an order of their own, and not all: a fault there may be an EngineError",
    "rewritten-block": "an instruction that stores into the block it is part of is begun again: "
    "it is recorded, and counted as a step, twice",
    "written-cr2": "a mov to CR2 is undone if the block that it is in, or a later one, is fetched "
    "too early, before there was a page fault",
    "locked-register": "lock before a bt, bts, btr or btc of a register aborts the process: no #UD",
    "consumed-flags": "a setcc, rcl or rcr that faults on its operand may leave other arithmetic "
    "flags than there were before it",
    "narrow-return": "iretd and far returns with a 32-bit operand take their stack to be at the "
    "low 32 bits of RSP",
    "alignment-check": "what is not aligned is accessed at CPL 3 with CR0.AM and AC set: no #AC",
    "undecodable-bytes": "instructions with a VEX prefix of 128 bits run, and 3DNow! loads, though "
    "CPUID has neither: no #UD; a fault where the decoder knows no instruction is an EngineError",
    "unknown-msr": "rdmsr and wrmsr accept the number of no MSR: no #GP",
    "debug-registers": "mov dr6 and mov dr7 accept bits 63:32: no #GP",
    "ltr-memory": "ltr accepts the null selector from memory: no #GP",
    "code-base": "the base of a code segment that iret, a far return or a far jump loads is used, "
    "in 64-bit mode, too: what runs lies elsewhere, and a fault there may be an EngineError",
    "prefixed-call": "a fault on the way of an int, syscall or sysenter behind a redundant prefix "
    "is reported at the byte behind the prefix",
    "compatibility-mode": "code under a CS without L runs, and is read as 64-bit code: a fault in "
    "it may be an EngineError, and none of it is refused",
}
