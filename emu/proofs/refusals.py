"""The deviations in what a CPU refuses: the engine executes each, and ours raises what it should.

Knows the names in `emu.deviations.DEVIATIONS` that `emu.refusals` corrects, and what makes that
possible: that blocks of code are told before they run. Refuses to know the rules, which
`emu.sensitive` has; each proof has one example of its own.
"""

from typing import Any, Final

import unicorn

from emu.deviations import DEVIATIONS
from emu.fault import GP, PF_P, PF_U, Stop
from emu.paging import CR4_LA57, EFER_SCE, RW, US
from emu.proofs.bare import CODE, CODE_PA, COUNT, CR0, CR4, DATA, DATA_PA, EFER, Bare, Stopped
from emu.proofs.ours import Ours, both, page_fault, told, trap
from emu.proofs.proof import Proof, proof, seen
from emu.registers import MSR_EFER, MSR_FS_BASE

_USER: Final = 0x40_0000
_NOWHERE: Final = 1 << 60  # not canonical at any number of levels
_MOVAPS: Final = b"\x0f\x28\x07"  # movaps xmm0, [rdi]
_MOV_CR0, _MOV_CR3, _MOV_CR4 = b"\x0f\x22\xc0", b"\x0f\x22\xd8", b"\x0f\x22\xe0"  # of rax
_MOV_CR8: Final = b"\x44\x0f\x22\xc0"
_WRMSR: Final = b"\x0f\x30"
_LTR: Final = b"\x0f\x00\xd8"  # ltr ax
_CLFLUSH: Final = b"\x0f\xae\x3f"  # clflush [rdi]
_SYSRETQ: Final = b"\x48\x0f\x07"
_IN: Final = b"\xec"  # in al, dx
_RETFQ: Final = b"\x48\xcb"
_JUMP: Final = b"\xeb\x00"
_ADD_8: Final = b"\x48\x83\xc7\x08"  # add rdi, 8: here it sets AF
_CR0_NW: Final = 1 << 29
_GP: Final = trap(GP, 0)


def _refused(name: str, code: bytes, wanted: Stop = _GP, **registers: int) -> Proof:
    """One step in ring 0: the engine takes it, and ours does not."""

    @proof(name, DEVIATIONS[name])
    def see() -> str:
        bare, ours = Bare(), Ours()
        for each in (bare, ours):
            each.map(DATA, DATA_PA)
            each.put(code)
        found, stop = bare.run(count=1, **registers), ours.run(**registers)
        return seen(
            found.rip == CODE + len(code) and stop == wanted,
            both(str(found), told(stop)),
        )

    return see


@proof("sysret-target", DEVIATIONS["sysret-target"])
def sysret_target() -> str:
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.put(_SYSRETQ)
    bare.set_efer(EFER | EFER_SCE)
    ours.cpu.engine.write_efer(EFER | EFER_SCE)
    found, stop = bare.run(rcx=_NOWHERE), ours.run(rcx=_NOWHERE)
    return seen(
        (found.vector, found.rip) == (GP, _NOWHERE) and stop == _GP,
        both(str(found), told(stop)),
    )


@proof("user-io", DEVIATIONS["user-io"])
def user_io() -> str:
    found, stop = _at_cpl_3(_IN)
    return seen(
        (found.vector, found.rip) == (GP, _USER + 1) and stop == trap(GP, 0, _USER),
        both(f"{found}, where the hlt is", told(stop)),
    )


@proof("far-return", DEVIATIONS["far-return"])
def far_return() -> str:
    found, stop = _at_cpl_3(_RETFQ, rsp=DATA)
    return seen(
        found.vector == GP and stop == page_fault(DATA, PF_P | PF_U, _USER),
        both(f"{found}, for the selector on the supervisor's page", told(stop)),
    )


def _at_cpl_3(code: bytes, **registers: int) -> tuple[Stopped, Stop]:
    """Run it as the user. DATA is the supervisor's."""
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.map(_USER, CODE_PA, US)
        each.map(DATA, DATA_PA, RW)
        each.put(code)
    bare.set_cpl(3)
    ours.cpu.cpl = 3
    return bare.run(_USER, **registers), ours.run(_USER, **registers)


@proof("hooked-flags", DEVIATIONS["hooked-flags"])
def hooked_flags() -> str:
    bare, ours = Bare(), Ours()
    for each in (bare, ours):
        each.put(_ADD_8 + _MOVAPS)
    at = CODE + len(_ADD_8)
    bare.uc.hook_add(unicorn.UC_HOOK_CODE, lambda *_: None, None, at, at)
    found, stop = bare.run(rdi=_USER + 8, rflags=2), ours.run(rdi=_USER + 8, rflags=2)
    rflags = bare.get("rflags"), ours.cpu.registers.rflags
    return seen(
        found.page_fault == 0 and stop == page_fault(_USER + 16, 0, at) and rflags == (2, 0x12),
        both(f"{found}, RFLAGS {rflags[0]:#x} and not 0x12", f"{told(stop)}, {rflags[1]:#x}"),
    )


@proof("silent-blocks", DEVIATIONS["silent-blocks"])
def silent_blocks() -> str:
    bare, ours = Bare(), Ours()
    found, corrected = _blocks(bare.uc), _blocks(ours.cpu.engine._uc)
    for each in (bare, ours):
        each.run()
    return seen(
        (found, corrected) == ([], [CODE]),
        both(f"{len(found)} calls for the first block", f"{len(corrected)} call"),
    )


@proof("late-watch", "code is told before it runs; forgotten then, it calls a hook that came later")
def late_watch() -> str:
    bare = Bare()
    bare.run(bare.put(_JUMP))  # deviation "silent-blocks"
    at = bare.put(COUNT + COUNT, 0x40)
    blocks = _blocks(bare.uc, stop=True)
    stopped = bare.run(at, rbx=0)
    counts = [bare.get("rbx")]
    watched: list[int] = []
    bare.uc.hook_add(
        unicorn.UC_HOOK_CODE, lambda uc, rip, *_: watched.append(rip), None, at + 2, at + 2
    )
    calls = []
    for forget in (False, True):
        if forget:
            bare.uc.ctl_remove_cache(at, at + 1)
        bare.run(at)
        calls.append(len(watched))
    counts.append(bare.get("rbx"))
    return seen(
        (blocks, stopped.rip, counts, calls) == ([at, at], at, [0, 4], [0, 1]),
        f"{stopped} with {counts[0]} of 2 run; {calls[0]} calls, and once forgotten {calls[1]}",
    )


def _blocks(uc: unicorn.Uc, *, stop: bool = False) -> list[int]:
    """List the blocks that are told from now on; the first one may be stopped at."""
    blocks: list[int] = []

    def on_block(uc: unicorn.Uc, block: Any, *_: Any) -> None:
        blocks.append(block.pc)
        if stop and len(blocks) == 1:
            uc.emu_stop()

    uc.hook_add(unicorn.UC_HOOK_EDGE_GENERATED, on_block)
    return blocks


PROOFS: Final[tuple[Proof, ...]] = (
    _refused("unaligned-vector", _MOVAPS, rdi=DATA + 4),
    _refused("reserved-cr0", _MOV_CR0, rax=CR0 | _CR0_NW),
    _refused("reserved-cr3", _MOV_CR3, rax=1 << 63),
    _refused("reserved-cr4", _MOV_CR4, rax=CR4 | 1 << 40),
    _refused("reserved-cr8", _MOV_CR8, rax=1 << 4),
    _refused("la57-toggle", _MOV_CR4, rax=CR4 | CR4_LA57),
    _refused("efer-lme", _WRMSR, rcx=MSR_EFER, rax=EFER & ~(1 << 8), rdx=0),
    _refused("msr-canonical", _WRMSR, rcx=MSR_FS_BASE, rax=0, rdx=_NOWHERE >> 32),
    _refused("null-tr", _LTR, rax=0),
    _refused("cache-line", _CLFLUSH, page_fault(_USER, 0), rdi=_USER),
    sysret_target,
    user_io,
    far_return,
    hooked_flags,
    silent_blocks,
    late_watch,
)
