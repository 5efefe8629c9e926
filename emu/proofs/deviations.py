"""Each named deviation of the engine, and its correction: both are shown.

Knows `emu.deviations.DEVIATIONS`, but for what a CPU refuses: that is in `refusals`. Refuses to
know the UNCORRECTED ones: nothing relies on those. A deviation that has gone fails its proof, too:
the correction then has nothing to correct, and the name is out of date.
"""

from typing import Final

import unicorn

from emu.deviations import DEVIATIONS
from emu.fault import DB, DF, GP, PF, SS, UD, OutsideRam, StepLimit, Trap
from emu.paging import CR4_PKE, EFER_NXE, KEY_SHIFT, RFLAGS_RF, RW, US, XD, P, VirtAddr
from emu.proofs.bare import (
    ADD,
    CODE,
    CODE_PA,
    CODE_SIZE,
    COUNT,
    DATA,
    DATA_PA,
    EFER,
    HLT,
    HOLE,
    LOAD,
    LOOP,
    MOVABS,
    NOP,
    PATCH,
    Bare,
    Stopped,
    answer,
    place,
)
from emu.proofs.ours import Ours, both, page_fault, told, trap
from emu.proofs.proof import Proof, proof, seen
from emu.tables import unmap_page

_USER: Final = 0x40_0000
_BORDER: Final = CODE + CODE_SIZE
_WRPKRU: Final = b"\x0f\x01\xef"
_PUSH: Final = b"\x50"
_INT_6: Final = b"\xcd\x06"
_SYSCALL: Final = b"\x0f\x05"
_SYSENTER: Final = b"\x0f\x34"
_INT1: Final = b"\xf1"
_NON_CANONICAL: Final = 1 << 63


@proof("old-exception", DEVIATIONS["old-exception"])
def old_exception() -> str:
    bare = Bare()
    bare.put(LOAD)
    found = [bare.start(rdi=DATA) for _ in range(3)]
    ours = Ours()
    ours.put(LOAD)
    stops = [ours.run(rdi=DATA) for _ in range(3)]
    return seen(
        [s.vector for s in found] == [PF, DF, None] and stops == [page_fault(DATA, 0)] * 3,
        both(", ".join(map(_vector, found)), ", ".join(told(s)[:3] for s in stops)),
    )


def _vector(stopped: Stopped) -> str:
    return {PF: "#PF", DF: "#DF", None: "nothing"}.get(stopped.vector, str(stopped))


@proof("until", DEVIATIONS["until"])
def until() -> str:
    end = _BORDER + 0x5008
    bare = Bare()
    bare.put(HLT)
    bare.run(cr2=0x1234)
    without = bare.get("cr2")
    bare.uc.ctl_exits_enabled(False)
    bare.uc.emu_start(CODE, end)
    with_end = bare.get("cr2")
    ours = Ours()
    ours.put(HLT)
    ours.run(cr2=0x1234)
    kept = ours.cpu.engine.read("cr2")
    return seen(
        (without, with_end, kept) == (0x1234, end - 1, 0x1234),
        both(
            f"CR2={without:#x} stays, but with an end address becomes {place(with_end)}",
            f"CR2={kept:#x} stays",
        ),
    )


@proof("rmw-reports-read", DEVIATIONS["rmw-reports-read"])
def rmw_reports_read() -> str:
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.put(ADD)
    found, stop = bare.run(rdi=DATA), ours.run(rdi=DATA)
    return seen(found.page_fault == 0 and stop == page_fault(DATA, 2), both(str(found), told(stop)))


@proof("early-fetch", DEVIATIONS["early-fetch"])
def early_fetch() -> str:
    code = COUNT * 3 + MOVABS
    offset = CODE_SIZE - 8  # the last instruction straddles the border
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.put(code[:8], offset)
    found = bare.run(CODE + offset, rbx=0)
    stop = ours.run(CODE + offset, rbx=0)
    counts = bare.get("rbx"), ours.cpu.registers.rbx
    return seen(
        (found.page_fault, found.rip, found.cr2) == (0x10, CODE + offset, _BORDER)
        and stop == page_fault(_BORDER, 0x10, CODE + offset + 6)
        and counts == (0, 3),
        both(f"{found}, {counts[0]} of 3 run", f"{told(stop)}, {counts[1]} of 3 run"),
    )


@proof("table-outside-ram", DEVIATIONS["table-outside-ram"])
def table_outside_ram() -> str:
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.put(LOAD)
    bare.memory.write_u64(bare.entry_pa(DATA, 4), HOLE | RW | P)
    ours.map(DATA, DATA_PA)
    ours.memory.write_u64(ours.top_entry_pa(DATA), HOLE | RW | P)
    found, stop = bare.run(rdi=DATA), ours.run(rdi=DATA)
    return seen(
        found.page_fault == 0
        and isinstance(stop, OutsideRam)
        and (stop.what, stop.rip, stop.pa & ~0xFFF) == ("table", CODE, HOLE),
        both(str(found), told(stop)),
    )


@proof("alias-store", DEVIATIONS["alias-store"])
def alias_store() -> str:
    bare, covered, ours = Bare(), Bare(), Ours()
    covered.uc.hook_add(
        unicorn.UC_HOOK_MEM_WRITE_PROT, lambda *_: False, None, CODE_PA, CODE_PA + CODE_SIZE - 1
    )
    answers: list[list[int]] = []
    for each in (bare, covered, ours):
        each.map(DATA, CODE_PA, RW | XD)
        each.put(answer(1))
        each.put(PATCH, 0x800)
        values = []
        for value in (2, 3, 4):
            each.run(CODE + 0x800, rdi=DATA, rsi=value)
            each.run(CODE, rax=0)
            values.append(each.get("rax") if isinstance(each, Bare) else each.cpu.registers.rax)
        answers.append(values)
    return seen(
        answers == [[2, 2, 2], [2, 3, 4], [2, 3, 4]],
        both(
            f"2, 3 and 4 are stored, {answers[0]} run, with a write-protection hook {answers[1]}",
            str(answers[2]),
        ),
    )


@proof("warm-count", DEVIATIONS["warm-count"])
def warm_count() -> str:
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.put(LOOP)
        each.run(rcx=100, rbx=0)
    bare.run(count=10, rcx=100, rbx=0)
    stop = ours.run(step_limit=10, rcx=100, rbx=0)
    counts = bare.get("rbx"), ours.cpu.registers.rbx
    return seen(
        counts == (100, 4) and isinstance(stop, StepLimit),
        both(f"10 steps count to {counts[0]}", f"{told(stop)}, it counted to {counts[1]}"),
    )


@proof("late-hook", DEVIATIONS["late-hook"])
def late_hook() -> str:
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.put(NOP)
        each.run()
    calls: tuple[list[int], list[int]] = [], []
    bare.uc.hook_add(unicorn.UC_HOOK_CODE, lambda uc, rip, size, _: calls[0].append(rip))
    ours.cpu.engine.hook_code(lambda uc, rip, size, _: calls[1].append(rip))
    for each in (bare, ours):
        each.run()
    return seen(
        calls == ([], [CODE, CODE + 1]),
        both(f"{len(calls[0])} calls for 2 instructions", f"{len(calls[1])} calls"),
    )


@proof("stack-gp", DEVIATIONS["stack-gp"])
def stack_gp() -> str:
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.put(_PUSH)
    found, stop = bare.run(rsp=_NON_CANONICAL), ours.run(rsp=_NON_CANONICAL)
    return seen(
        (found.vector, found.rip) == (GP, CODE) and stop == trap(SS, 0),
        both(str(found), told(stop)),
    )


@proof("nxe-pke-tlb", DEVIATIONS["nxe-pke-tlb"])
def nxe_pke_tlb() -> str:
    bare, ours = Bare(cr4=CR4_PKE), Ours()
    for each in (bare, ours):
        each.map(DATA, DATA_PA, XD)
        each.map(_USER, DATA_PA, US | 1 << KEY_SHIFT)
        each.put(LOAD)
        each.put(_WRPKRU + LOAD, 0x40)
    bare.run(CODE + 0x40, rax=4, rcx=0, rdx=0, rdi=DATA)  # key 1 denied; fills the TLB for DATA
    cr4 = bare.get("cr4")
    bare.set(cr4=cr4 & ~CR4_PKE)
    bare.run(rdi=_USER)
    bare.set(cr4=cr4)
    bare.set_efer(EFER & ~EFER_NXE)
    found = [bare.run(rdi=_USER), bare.run(rdi=DATA)]
    bare.invalidate_tlb()
    flushed = [bare.run(rdi=_USER), bare.run(rdi=DATA)]
    ours.run(rdi=_USER)
    ours.run(rdi=DATA)
    ours.use(pke=True, pkru=4)
    stops = [ours.run(rdi=_USER)]
    ours.use(nxe=False)
    stops.append(ours.run(rdi=DATA))
    return seen(
        not any(s.vector for s in found)
        and [s.page_fault for s in flushed] == [0x21, 9]
        and stops == [page_fault(_USER, 0x21), page_fault(DATA, 9)],
        both(
            f"PKE set {found[0]}, NXE cleared {found[1]}, after a flush {flushed[0]}, {flushed[1]}",
            f"{told(stops[0])}, {told(stops[1])}",
        ),
    )


@proof("int-6", DEVIATIONS["int-6"])
def int_6() -> str:
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.put(_INT_6)
    found, stop = bare.run(), ours.run()
    return seen(
        (found.status, found.vector, found.rip) == (unicorn.UC_ERR_INSN_INVALID, None, CODE)
        and stop == trap(UD, None, CODE + 2),
        both(str(found), told(stop)),
    )


@proof("syscall-nop", DEVIATIONS["syscall-nop"])
def syscall_nop() -> str:
    return _raised(_SYSCALL, None, trap(UD, None))


@proof("sysenter-nop", DEVIATIONS["sysenter-nop"])
def sysenter_nop() -> str:
    return _raised(_SYSENTER, None, trap(GP, 0))


@proof("icebp", DEVIATIONS["icebp"])
def icebp() -> str:
    return _raised(_INT1, unicorn.UC_ERR_INSN_INVALID, trap(DB, None, CODE + 1))


def _raised(code: bytes, error: int | None, wanted: Trap) -> str:
    """An instruction that the engine runs, or ends with `error`, and that raises something."""
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.put(code)
    found, stop = bare.run(), ours.run()
    ends = (error, CODE) if error else (0, CODE + len(code) + 1)
    return seen(
        (found.vector, found.status, found.rip) == (None, *ends) and stop == wanted,
        both(str(found), told(stop)),
    )


@proof("resume-flag", DEVIATIONS["resume-flag"])
def resume_flag() -> str:
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.put(NOP)
        each.run(rflags=RFLAGS_RF | 2)
    found, corrected = bare.get("rflags"), ours.cpu.registers.rflags
    return seen(
        bool(found & RFLAGS_RF) and not corrected & RFLAGS_RF,
        both(f"RFLAGS {found:#x} after a nop", f"RFLAGS {corrected:#x}"),
    )


@proof("counted-exit", DEVIATIONS["counted-exit"])
def counted_exit() -> str:
    bare, ours = Bare(), Ours()
    there = CODE + 0x1000
    bare.start(there, count=9)
    bare.memory.write_u64(bare.entry_pa(there, 1), 0)
    bare.invalidate_tlb()
    bare.put(LOAD, 0x40)
    found = [bare.start(cr2=0x1234), bare.start(CODE + 0x40, rdi=DATA)]
    ours.put(LOAD, 0x40)
    ours.run(there, step_limit=9)
    unmap_page(ours.memory, ours.paging, VirtAddr(there))
    ours.cpu.invalidate_tlb()
    ours.run(cr2=0x1234)
    kept = ours.cpu.engine.read("cr2")
    stop = ours.run(CODE + 0x40, rdi=DATA)
    return seen(
        (found[0].vector, found[0].cr2, found[1].vector) == (None, there, DF)
        and kept == 0x1234
        and stop == page_fault(DATA, 0, CODE + 0x40),
        both(
            f"CR2={place(found[0].cr2)} after a run that met no fault, then {found[1]}",
            f"CR2={kept:#x} stays, then {told(stop)}",
        ),
    )


PROOFS: Final[tuple[Proof, ...]] = (
    old_exception,
    until,
    rmw_reports_read,
    early_fetch,
    table_outside_ram,
    alias_store,
    warm_count,
    late_hook,
    stack_gp,
    nxe_pke_tlb,
    int_6,
    syscall_nop,
    sysenter_nop,
    icebp,
    resume_flag,
    counted_exit,
)
