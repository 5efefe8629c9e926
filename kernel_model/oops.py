"""An oops, in the kernel's own wording.

Knows which lines a death has, and their order. Refuses to know how a release words them
(`oops_style`), why the task died, and to read the machine: what was there to be read is in the
picture (`death`). Linux vocabulary; source: arch/x86/mm/fault.c, arch/x86/kernel/traps.c,
dumpstack.c, process_64.c, lib/dump_stack.c (v4.4 to v6.17).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from asm import Image
from emu import PageFault, Trap
from emu.fault import BP, DE, DF, GP, NP, PF_I, PF_P, PF_PK, PF_RSVD, PF_U, PF_W, SS, UD
from emu.instruction import decode
from emu.paging import CR4_PKE, U64, XD
from emu.walk import Walk
from kernel_model.builds import Build
from kernel_model.callstack import symbolise
from kernel_model.death import Death, Entries
from kernel_model.layout import PAGE_SIZE
from kernel_model.oops_style import NULL, OopsStyle
from kernel_model.pgtable import named
from kernel_model.releases import Release
from kernel_model.stacktrace import call_trace

_RF: Final = 1 << 16  # a fault pushes RFLAGS with RF set
_WORDS_PER_LINE: Final = 4
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
    lines = list(_Oops(death, first, release, build, image).lines())
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Oops:
    """The parts of one text, each an iterator of lines."""

    death: Death
    first: Death
    release: Release
    build: Build
    image: Image

    @property
    def style(self) -> OopsStyle:
        return self.release.oops

    def lines(self) -> Iterator[str]:
        death, style, stop = self.death, self.style, self.death.stop
        if isinstance(stop, PageFault):
            read = named(stop.walk) if stop.walk else ()
            yield from self._page_fault(stop, death.entries or read)
            yield from self._die("Oops")
        elif stop.vector != DF:
            if stop.vector == UD:
                yield "------------[ cut here ]------------"
                yield style.bug.format(rip=stop.rip, place=self._place(stop.rip))
            yield from self._die(_trap_text(stop, death, style))
        else:
            yield from self._double_fault(stop)

    # -- what happened

    def _page_fault(self, fault: PageFault, entries: Entries) -> Iterator[str]:
        style, code = self.style, fault.error_code
        if code & PF_I and fault.walk:
            yield from _fetch_lines(fault, fault.walk)
        is_null = fault.address < PAGE_SIZE and fault.cpl == 0
        what = style.null_pointer if is_null else style.paging_request
        yield what.format(f"{fault.address:016x}" if fault.address else style.null_address)
        if style.ip:
            yield style.ip.format(self._place(fault.rip))
        if style.explains_error_code:
            user = "user" if code & PF_U else "supervisor"
            mode = "user" if fault.cpl == 3 else "kernel"
            yield f"#PF: {user} {_access_text(code)} in {mode} mode"
            yield f"#PF: error_code(0x{code:04x}) - {_error_text(code)}"
        yield dump_pagetable(entries, style)

    def _double_fault(self, trap: Trap) -> Iterator[str]:
        style, death = self.style, self.death
        guard, (first, end) = style.stack_guard, death.bounds
        what = _TRAP_TEXT[DF]
        if guard is not None and first - PAGE_SIZE <= death.cr2 < first:
            what = guard.what
            yield guard.line.format(at=death.cr2, first=first, last=end - 1 + guard.last)
        else:
            yield style.double_fault.format(trap.error_code or 0)
            if style.double_fault_ends == "halts":
                yield from self._show_regs()
                yield "Kernel panic - not syncing: Machine halted."
                return
        yield from self._die(what)
        if style.double_fault_ends == "dies-in-nmi":
            yield "Kernel panic - not syncing: Fatal exception in interrupt"

    # -- the oops proper

    def _die(self, what: str) -> Iterator[str]:
        """From the header to the end marker."""
        style, death, stop = self.style, self.death, self.death.stop
        modules = f"Modules linked in: {' '.join(self.build.modules)}"
        preempt = " PREEMPT" if style.preempt_in_header and self.build.preempt == "full" else ""
        code = (stop.error_code or 0) & 0xFFFF
        end = style.header_end
        if death.kasan:
            end = end.replace(" SMP", " SMP KASAN").rstrip()
        if death.pti:
            end = end.replace("NOPTI", "PTI")
        yield f"{style.die_prefix}{what}: {code:04x} [#{death.number}]{preempt}{end}"
        if style.modules == "first":
            yield modules
        yield from self._show_regs()
        if style.modules == "last":
            yield modules
        r = death.registers
        for line in style.summary:
            yield line.format(place=self._place(r.rip), rsp=r.rsp)
        if isinstance(stop, PageFault):
            yield f"CR2: {stop.address:016x}"
        yield f"---[ end trace {death.number - 1 if style.counts_oopses else 0:016x} ]---"
        if style.first_registers:
            yield from self._registers(self.first)

    def _show_regs(self) -> Iterator[str]:
        style, death = self.style, self.death
        yield self._cpu_line()
        taint = self._taint()
        if taint and style.verbose_taint:
            yield f"Tainted: {', '.join(f'[{flag}]={_TAINT_NAMES[flag]}' for flag in taint)}"
        if style.task:
            yield style.task.format(task=death.task, stack=death.bounds[0])
        yield from self._registers(death)
        if style.stack_words:
            yield "Stack:"
            yield from self._stack()
        yield "Call Trace:"
        if style.task_marker:
            yield " <TASK>"
        frame_pointers = self.build.frame_pointers
        for found in call_trace(death, self.image, frame_pointers=frame_pointers):
            place = self._place(found.address, returned_to=True, uncertain=not found.certain)
            yield f" {place}"
        if style.task_marker:
            yield " </TASK>"
        if style.code == "last":
            yield self._code(death)

    def _stack(self) -> Iterator[str]:
        words = [f" {word:016x}" for _, word in self.death.words()][: self.style.stack_words]
        for i in range(0, len(words), _WORDS_PER_LINE):
            yield "".join(words[i : i + _WORDS_PER_LINE])

    # -- who

    def _cpu_line(self) -> str:
        style, death = self.style, self.death
        uid = " UID: 0" if style.uid_in_cpu_line else ""
        line = (
            f"CPU: {death.cpu}{uid} PID: {death.pid} Comm: {death.comm:.20s} {self._tainted()} "
            f"{self.release.uname} #1"
        )
        if not style.uid_in_cpu_line:
            return line
        model = f"PREEMPT({self.build.preempt}) " if style.preempt_in_cpu_line else ""
        return f"{line} {model}"

    def _taint(self) -> str:
        """Return the letters of what taints the kernel, in order: an oops before this one does."""
        letters = self.release.taint + ("D" if self.death.number > 1 else "")
        return "".join(flag for flag in self.style.taint_flags if flag in letters)

    def _tainted(self) -> str:
        letters = self._taint()
        if not letters:
            return "Not tainted"
        others = (flag if flag in letters else " " for flag in self.style.taint_flags[1:])
        return f"Tainted: G{''.join(others)}"

    # -- where

    def _place(self, address: int, *, returned_to: bool = False, uncertain: bool = False) -> str:
        """Name an address of text, with itself before it where a release does that."""
        name = symbolise(self.image, address, returned_to=returned_to)
        name = ("? " if uncertain else "") + (name if address else self.style.null_symbol)
        if not self.style.text_addresses:
            return name
        return f"[<{f'{address:016x}' if address else NULL}>] {name}"

    def _registers(self, whose: Death) -> Iterator[str]:
        """Show a task's registers (__show_regs); the segment bases and control registers are those
        that the CPU has now.
        """
        style, now = self.style, self.death
        r, selectors = whose.registers, whose.selectors
        yield style.rip.format(cs=selectors["cs"], rip=r.rip, place=self._place(r.rip))
        if style.code == "first":
            yield self._code(whose)
        yield style.rsp.format(ss=selectors["ss"], rsp=r.rsp, rflags=r.rflags | _RF)
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
            f"CS:  {selectors['cs']:04x} DS: {now.selectors['ds']:04x} "
            f"ES: {now.selectors['es']:04x} CR0: {paging.cr0:016x}"
        )
        yield f"CR2: {now.cr2:016x} CR3: {now.cr3:016x} CR4: {paging.cr4:016x}"
        if style.pkru and paging.cr4 & CR4_PKE:
            yield f"PKRU: {paging.pkru:08x}"

    def _code(self, whose: Death) -> str:
        style = self.style
        if not whose.code:
            return style.no_code.format(at=whose.registers.rip - style.code_before & U64)
        bytes_ = [f"{byte:02x}" for byte in whose.code]
        bytes_[style.code_before] = f"<{bytes_[style.code_before]}>"
        return f"Code: {' '.join(bytes_)}{style.code_end}"


def _trap_text(trap: Trap, death: Death, style: OopsStyle) -> str:
    """Name an exception, and for a #GP the address that it may be about (get_kernel_gp_address)."""
    text = _TRAP_TEXT.get(trap.vector, f"exception {trap.vector}")
    if trap.vector != GP or not style.gp_hint:
        return text
    if trap.error_code:
        return f"segment-related {text}"
    hint = _gp_hint(death, style)
    return f"{text}, {hint}" if hint else text


def _gp_hint(death: Death, style: OopsStyle) -> str:
    """Say which address the instruction's operand has: the one that is not canonical, if any."""
    instruction = decode(death.code[style.code_before :])
    accesses = instruction.accesses(death.registers) if instruction else ()
    canonical = death.paging.is_canonical
    for access in accesses:
        if not (canonical(access.va) and canonical(access.va + access.size - 1 & U64)):
            return f"probably for non-canonical address {access.va:#x}"
    return f"maybe for address {accesses[0].va:#x}" if accesses else ""


def _fetch_lines(fault: PageFault, walk: Walk) -> Iterator[str]:
    """Say so first, where code was fetched from a page that is mapped but not to be executed."""
    if walk.verdict != "mapped":
        return
    if any(step.entry & XD for step in walk.steps):
        yield "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)"
    elif fault.reason == "smep":
        yield "unable to execute userspace code (SMEP?) (uid: 0)"


def _access_text(code: int) -> str:
    if code & PF_I:
        return "instruction fetch"
    return f"{'write' if code & PF_W else 'read'} access"


def _error_text(code: int) -> str:
    if not code & PF_P:
        return "not-present page"
    if code & PF_RSVD:
        return "reserved bit violation"
    if code & PF_PK:
        return "protection keys violation"
    return "permissions violation"


def dump_pagetable(entries: Entries, style: OopsStyle) -> str:
    """Return the entries as the kernel prints them: "PGD 0 P4D 0 "."""
    tokens, end = [], ""
    for name, entry in entries:
        if name == "p4d" and not style.p4d:
            continue
        if entry is None:
            end = style.bad
            break
        tokens.append(f"{name.upper()} {entry:x}" + ("" if name == "pte" else " "))
    if style.entries == "one-line":
        return "".join(tokens) + end
    return "\n".join((*tokens, end))
