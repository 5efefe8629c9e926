"""An oops, in the kernel's own wording.

Knows the lines that a release prints of a death. Refuses to know why the task died, and to read
the machine: what was there to be read is in the picture (`death`). Linux vocabulary; source:
arch/x86/mm/fault.c, arch/x86/kernel/traps.c, dumpstack.c, process_64.c, lib/dump_stack.c (v6.8 to
v6.17).
"""

from collections.abc import Iterator
from typing import Final

from asm import Image
from emu import PageFault, Registers, Trap
from emu.fault import BP, DE, DF, GP, NP, PF_I, PF_P, PF_PK, PF_RSVD, PF_U, PF_W, SS, UD
from emu.instruction import decode
from emu.paging import CR4_PKE, U64, XD
from emu.walk import Walk
from kernel_model.builds import Build, is_text
from kernel_model.callstack import symbolise
from kernel_model.death import CODE_BEFORE, Death, Entries
from kernel_model.layout import PAGE_SIZE
from kernel_model.pgtable import named
from kernel_model.releases import Release

_RF: Final = 1 << 16  # a fault pushes RFLAGS with RF set
_TAINT_NAMES: Final = {"D": "DIE", "W": "WARN"}
_TRAP_TEXT: Final = {
    DE: "divide error",
    BP: "int3",
    UD: "invalid opcode",
    DF: "double fault",
    NP: "segment not present",
    SS: "stack segment",
    GP: "general protection fault",
}


def compose(death: Death, first: Death, release: Release, build: Build, image: Image) -> str:
    """Return the whole text, without timestamps, ending in a newline.

    `first` is the first death since boot: its registers are shown again at the end of every oops
    (exec_summary_regs).
    """
    lines = list(_lines(death, first, release, build, image))
    return "\n".join(lines) + "\n"


def _lines(
    death: Death, first: Death, release: Release, build: Build, image: Image
) -> Iterator[str]:
    stop = death.stop
    if isinstance(stop, PageFault):
        assert stop.walk is not None
        yield from _page_fault_lines(stop, death.entries or named(stop.walk))
        what = "Oops"
    else:
        if stop.vector == UD:
            where = image.describe(stop.rip) or f"{stop.rip:#x}"
            yield "------------[ cut here ]------------"
            yield f"kernel BUG at {where} [verbose debug info unavailable]"
        what = _trap_text(stop, death)
    code = (stop.error_code or 0) & 0xFFFF
    preempt = " PREEMPT" if release.preempt_in_header and build.preempt == "full" else ""
    yield f"{release.die_prefix}{what}: {code:04x} [#{death.number}]{preempt} SMP NOPTI"
    yield _cpu_line(death, release, build)
    taint = _taint(death, release)
    if taint and release.verbose_taint:
        yield f"Tainted: {', '.join(f'[{flag}]={_TAINT_NAMES[flag]}' for flag in taint)}"
    yield from _register_lines(death, death, image)
    yield "Call Trace:"
    yield " <TASK>"
    yield from call_trace(death.registers, death.stack, image)
    yield " </TASK>"
    yield f"Modules linked in: {' '.join(build.modules)}"
    if isinstance(stop, PageFault):
        yield f"CR2: {stop.address:016x}"
    yield "---[ end trace 0000000000000000 ]---"
    yield from _register_lines(first, death, image)


def _trap_text(trap: Trap, death: Death) -> str:
    """Name an exception, and for a #GP the address that it may be about (get_kernel_gp_address)."""
    text = _TRAP_TEXT.get(trap.vector, f"exception {trap.vector}")
    if trap.vector != GP:
        return text
    if trap.error_code:
        return f"segment-related {text}"
    hint = _gp_hint(death)
    return f"{text}, {hint}" if hint else text


def _gp_hint(death: Death) -> str:
    """Say which address the instruction's operand has: the one that is not canonical, if any."""
    instruction = decode(death.code[CODE_BEFORE:])
    accesses = instruction.accesses(death.registers) if instruction else ()
    canonical = death.paging.is_canonical
    for access in accesses:
        if not (canonical(access.va) and canonical(access.va + access.size - 1 & U64)):
            return f"probably for non-canonical address {access.va:#x}"
    return f"maybe for address {accesses[0].va:#x}" if accesses else ""


def _page_fault_lines(fault: PageFault, entries: Entries) -> Iterator[str]:
    code = fault.error_code
    user = "user" if code & PF_U else "supervisor"
    access = (
        "instruction fetch" if code & PF_I else ("write" if code & PF_W else "read") + " access"
    )
    mode = "user" if fault.cpl == 3 else "kernel"
    assert fault.walk is not None
    if code & PF_I:
        yield from _fetch_lines(fault, fault.walk)
    if fault.address < PAGE_SIZE and fault.cpl == 0:
        yield f"BUG: kernel NULL pointer dereference, address: {fault.address:016x}"
    else:
        yield f"BUG: unable to handle page fault for address: {fault.address:016x}"
    yield f"#PF: {user} {access} in {mode} mode"
    yield f"#PF: error_code(0x{code:04x}) - {_error_text(code)}"
    yield dump_pagetable(entries)


def _fetch_lines(fault: PageFault, walk: Walk) -> Iterator[str]:
    """Say so first, where code was fetched from a page that is mapped but not to be executed."""
    if walk.verdict != "mapped":
        return
    if any(step.entry & XD for step in walk.steps):
        yield "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)"
    elif fault.reason == "smep":
        yield "unable to execute userspace code (SMEP?) (uid: 0)"


def _error_text(code: int) -> str:
    if not code & PF_P:
        return "not-present page"
    if code & PF_RSVD:
        return "reserved bit violation"
    if code & PF_PK:
        return "protection keys violation"
    return "permissions violation"


def dump_pagetable(entries: Entries) -> str:
    """Return the line of entries that the kernel prints: "PGD 0 P4D 0 "."""
    text = ""
    for name, entry in entries:
        if entry is None:
            return f"{text}\nBAD"
        text += f"{name.upper()} {entry:x}" + ("" if name == "pte" else " ")
    return text


def _cpu_line(death: Death, release: Release, build: Build) -> str:
    uid = " UID: 0" if release.uid_in_cpu_line else ""
    line = (
        f"CPU: 0{uid} PID: {death.pid} Comm: {death.comm:.20s} {_tainted(death, release)} "
        f"{release.uname} #1"
    )
    if not release.uid_in_cpu_line:
        return line
    model = "" if release.preempt_in_header else f"PREEMPT({build.preempt}) "
    return f"{line} {model}"


def _taint(death: Death, release: Release) -> str:
    """Return the letters of what taints the kernel, in order: an oops before this one does."""
    letters = release.taint + ("D" if death.number > 1 else "")
    return "".join(flag for flag in release.taint_flags if flag in letters)


def _tainted(death: Death, release: Release) -> str:
    letters = _taint(death, release)
    if not letters:
        return "Not tainted"
    others = (flag if flag in letters else " " for flag in release.taint_flags[1:])
    return f"Tainted: G{''.join(others)}"


def _register_lines(whose: Death, now: Death, image: Image) -> Iterator[str]:
    """Show a task's registers (__show_regs); the segment bases and control registers are those
    that the CPU has `now`.
    """
    r, selectors = whose.registers, whose.selectors
    yield f"RIP: {selectors['cs']:04x}:{symbolise(image, r.rip)}"
    if whose.code:
        before = " ".join(f"{byte:02x}" for byte in whose.code[:CODE_BEFORE])
        after = " ".join(f"{byte:02x}" for byte in whose.code[CODE_BEFORE + 1 :])
        yield f"Code: {before} <{whose.code[CODE_BEFORE]:02x}> {after}"
    else:
        at = r.rip - CODE_BEFORE & (1 << 64) - 1
        yield f"Code: Unable to access opcode bytes at {at:#x}."
    flags = r.rflags | _RF
    yield f"RSP: {selectors['ss']:04x}:{r.rsp:016x} EFLAGS: {flags:08x}"
    for names in (
        ("rax", "rbx", "rcx"),
        ("rdx", "rsi", "rdi"),
        ("rbp", "r8", "r9"),
        ("r10", "r11", "r12"),
        ("r13", "r14", "r15"),
    ):
        yield " ".join(
            f"{name.upper() if len(name) == 3 else 'R0' + name[1]}: {getattr(r, name):016x}"
            for name in names
        )
    live = now.registers
    yield (
        f"FS:  {live.fs_base:016x}({now.selectors['fs']:04x}) "
        f"GS:{live.gs_base:016x}({now.selectors['gs']:04x}) knlGS:{0:016x}"
    )
    paging = now.paging
    yield (
        f"CS:  {selectors['cs']:04x} DS: {now.selectors['ds']:04x} ES: {now.selectors['es']:04x} "
        f"CR0: {paging.cr0:016x}"
    )
    yield f"CR2: {now.cr2:016x} CR3: {now.cr3:016x} CR4: {paging.cr4:016x}"
    if paging.cr4 & CR4_PKE:
        yield f"PKRU: {paging.pkru:08x}"


def call_trace(registers: Registers, stack: bytes, image: Image) -> Iterator[str]:
    """Read the stack upwards: the words where the unwinder finds return addresses, in order.

    Any other word that is an address of text gets a "? ". A return address is named by the call
    before it; so is any other, unless it begins a function.
    """
    expected = _return_slot(image, registers.rip, 0)
    for at in range(0, len(stack) - 7, 8):
        word = int.from_bytes(stack[at : at + 8], "little")
        if at == expected:
            if not _is_text(image, word - 1):
                expected = None
                continue
            yield f" {symbolise(image, word, returned_to=True)}"
            expected = _return_slot(image, word, at + 8)
        elif _is_text(image, word - 1) or _is_text(image, word):
            yield f" ? {symbolise(image, word, returned_to=True)}"


def _is_text(image: Image, address: int) -> bool:
    """__kernel_text_address(): does `address` lie in a function of vmlinux or a module?"""
    found = image.lookup(address)
    return found is not None and is_text(found.section)


def _return_slot(image: Image, address: int, rsp: int) -> int | None:
    """Return where the running function's return address lies, relative to the first RSP."""
    depth = image.stack_depth(address)
    return None if depth is None else rsp + depth
