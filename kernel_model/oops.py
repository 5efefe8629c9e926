"""An oops, in the kernel's own wording.

Knows what a dying task leaves behind and the lines that a release prints of it. Refuses to know
why it died. The text is read from the machine: the walk under the faulting CR3, the code at RIP,
the task's own stack. Linux vocabulary; source: arch/x86/mm/fault.c, arch/x86/kernel/dumpstack.c,
process_64.c, lib/dump_stack.c (v6.8 to v6.17).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asm import Image
from emu import NotMapped, PageFault, Registers, Trap, VirtAddr, read_virtual
from emu.fault import PF_I, PF_P, PF_PK, PF_RSVD, PF_U, PF_W
from emu.paging import CR4_PKE, PS, XD, P, Paging
from emu.walk import Walk
from kernel_model.builds import Build, module_of
from kernel_model.layout import PAGE_SIZE
from kernel_model.releases import Release

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_RF: Final = 1 << 16  # a fault pushes RFLAGS with RF set
_CODE_BEFORE: Final = 42
_CODE_AFTER: Final = 21
_TAINT_FLAGS: Final = "GFSRMBUDAWCIOELKXTN"
_TAINT_NAMES: Final = {"D": "DIE", "W": "WARN"}
_TRAP_TEXT: Final = {
    0: "divide error",
    3: "int3",
    6: "invalid opcode",
    8: "double fault",
    11: "segment not present",
    12: "stack segment",
    13: "general protection fault",
}
_INVALID_OPCODE: Final = 6
_KERNEL_HALF: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Crash:
    """What a dying task leaves behind: enough for its oops, whatever runs afterwards."""

    stop: PageFault | Trap
    number: int
    comm: str
    pid: int
    registers: Registers
    paging: Paging
    selectors: dict[str, int]
    stack: bytes  # from RSP up
    code: bytes  # around RIP; empty if it cannot be read

    @classmethod
    def of(cls, kernel: "Kernel", stop: PageFault | Trap, number: int) -> "Crash":
        """Take the picture now, while the stack is as the fault left it."""
        registers = stop.registers
        assert registers is not None
        task, paging = kernel.current, kernel.cpu.paging
        stack = kernel.stack_of(task)
        rsp = registers.rsp
        data = b""
        if stack.base <= rsp < stack.top:
            data = kernel.memory.read(stack.pa_of(rsp), stack.top - rsp)
        return cls(
            stop=stop,
            number=number,
            comm=task.comm,
            pid=task.pid,
            registers=registers,
            paging=paging,
            selectors=kernel.cpu.selectors,
            stack=data,
            code=_code(kernel, paging, registers.rip),
        )


def compose(crash: Crash, release: Release, build: Build, image: Image) -> str:
    """Return the whole text, without timestamps, ending in a newline."""
    lines = list(_lines(crash, release, build, image))
    return "\n".join(lines) + "\n"


def _lines(crash: Crash, release: Release, build: Build, image: Image) -> Iterator[str]:
    stop = crash.stop
    if isinstance(stop, PageFault):
        yield from _page_fault_lines(stop)
        what = "Oops"
    else:
        if stop.vector == _INVALID_OPCODE:
            where = image.describe(stop.rip) or f"{stop.rip:#x}"
            yield "------------[ cut here ]------------"
            yield f"kernel BUG at {where} [verbose debug info unavailable]"
        what = _TRAP_TEXT.get(stop.vector, f"exception {stop.vector}")
    code = (stop.error_code or 0) & 0xFFFF
    preempt = " PREEMPT" if release.preempt_in_header and build.preempt == "full" else ""
    yield f"{release.die_prefix}{what}: {code:04x} [#{crash.number}]{preempt} SMP NOPTI"
    yield _cpu_line(crash, release, build)
    taint = _taint(crash, build)
    if taint and release.verbose_taint:
        yield f"Tainted: {', '.join(f'[{flag}]={_TAINT_NAMES[flag]}' for flag in taint)}"
    yield from _register_lines(crash, image)
    yield "Call Trace:"
    yield " <TASK>"
    yield from call_trace(crash.registers, crash.stack, image)
    yield " </TASK>"
    yield f"Modules linked in: {' '.join(build.modules)}"
    if isinstance(stop, PageFault):
        yield f"CR2: {stop.address:016x}"
    yield "---[ end trace 0000000000000000 ]---"
    yield from _register_lines(crash, image)


def _page_fault_lines(fault: PageFault) -> Iterator[str]:
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
    yield dump_pagetable(fault.walk)


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


def dump_pagetable(walk: Walk) -> str:
    """Return the line of entries that the kernel prints: "PGD 0 P4D 0 ".

    A folded p4d repeats the pgd's value, and is printed even if that is not present: with 4
    levels pgd_present() always holds.
    """
    text = ""
    folded = bool(walk.steps) and walk.steps[0].level == 4
    for level, _, entry in walk.steps:
        if level == 4 and folded:
            text += f"PGD {entry:x} P4D {entry:x} "
        elif level == 1:
            text += f"PTE {entry:x}"
        else:
            text += f"{ {5: 'PGD', 4: 'P4D', 3: 'PUD', 2: 'PMD'}[level] } {entry:x} "
        if not entry & P or (entry & PS and level > 1):
            return text
    return f"{text}\nBAD" if walk.verdict == "outside-ram" else text


def _cpu_line(crash: Crash, release: Release, build: Build) -> str:
    uid = " UID: 0" if release.uid_in_cpu_line else ""
    line = (
        f"CPU: 0{uid} PID: {crash.pid} Comm: {crash.comm:.20s} {_tainted(crash, build)} "
        f"{release.uname} #1"
    )
    if not release.uid_in_cpu_line:
        return line
    model = "" if release.preempt_in_header else f"PREEMPT({build.preempt}) "
    return f"{line} {model}"


def _taint(crash: Crash, build: Build) -> str:
    """Return the letters of what taints the kernel, in order: an oops before this one does."""
    letters = build.taint + ("D" if crash.number > 1 else "")
    return "".join(flag for flag in _TAINT_FLAGS if flag in letters)


def _tainted(crash: Crash, build: Build) -> str:
    letters = _taint(crash, build)
    if not letters:
        return "Not tainted"
    others = (flag if flag in letters else " " for flag in _TAINT_FLAGS[1:])
    return f"Tainted: G{''.join(others)}"


def _register_lines(crash: Crash, image: Image) -> Iterator[str]:
    r, selectors = crash.registers, crash.selectors
    yield f"RIP: {selectors['cs']:04x}:{symbolise(image, r.rip)}"
    if crash.code:
        before = " ".join(f"{byte:02x}" for byte in crash.code[:_CODE_BEFORE])
        after = " ".join(f"{byte:02x}" for byte in crash.code[_CODE_BEFORE + 1 :])
        yield f"Code: {before} <{crash.code[_CODE_BEFORE]:02x}> {after}"
    else:
        at = r.rip - _CODE_BEFORE & (1 << 64) - 1
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
    yield (
        f"FS:  {r.fs_base:016x}({selectors['fs']:04x}) "
        f"GS:{r.gs_base:016x}({selectors['gs']:04x}) knlGS:{0:016x}"
    )
    paging = crash.paging
    yield (
        f"CS:  {selectors['cs']:04x} DS: {selectors['ds']:04x} ES: {selectors['es']:04x} "
        f"CR0: {paging.cr0:016x}"
    )
    cr2 = crash.stop.address if isinstance(crash.stop, PageFault) else 0
    yield f"CR2: {cr2:016x} CR3: {paging.cr3:016x} CR4: {paging.cr4:016x}"
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
    return found is not None and (found.section == ".text" or module_of(found.section) is not None)


def _return_slot(image: Image, address: int, rsp: int) -> int | None:
    """Return where the running function's return address lies, relative to the first RSP."""
    depth = image.stack_depth(address)
    return None if depth is None else rsp + depth


def symbolise(image: Image, address: int, *, returned_to: bool = False) -> str:
    """Return "symbol+0x9/0x6d [module]" (%pS); a return address is looked up one byte before."""
    at = address - 1 if returned_to else address
    found = image.lookup(at)
    if found is None:
        at, found = address, image.lookup(address)
    if found is None:
        return f"0x{address:x}"
    module = module_of(found.section)
    offset = found.offset + address - at
    return f"{found.symbol}+{offset:#x}/{found.size:#x}" + (f" [{module}]" if module else "")


def _code(kernel: "Kernel", paging: Paging, rip: int) -> bytes:
    start, size = VirtAddr(rip - _CODE_BEFORE), _CODE_BEFORE + 1 + _CODE_AFTER
    if start < _KERNEL_HALF:
        return b""  # copy_from_kernel_nofault() reads no user memory
    try:
        return read_virtual(kernel.memory, paging, start, size)
    except NotMapped:
        return b""
