"""SYSCALL and SYSENTER, which the engine executes as no-operations.

Knows how each enters the kernel, from a picture that was taken behind it, and when it is refused
instead. Refuses to know how the run came there, and goes on. SDM vocabulary; source: Intel SDM
volume 2, "SYSCALL-Fast System Call" and "SYSENTER-Fast Call to System Procedures".
"""

from typing import Final

from emu.descriptors import SELECTOR_RPL
from emu.fault import GP, UD, Trap
from emu.paging import EFER_SCE, RFLAGS_IF, RFLAGS_RF, RFLAGS_VM, U64
from emu.picture import Picture
from emu.registers import (
    MSR_FMASK,
    MSR_LSTAR,
    MSR_STAR,
    MSR_SYSENTER_CS,
    MSR_SYSENTER_EIP,
    MSR_SYSENTER_ESP,
)

_SELECTOR: Final = 0xFFFF & ~SELECTOR_RPL  # of the kernel's code
_STACK: Final = 8  # from there to the one of its stack
_SIZE: Final = 2  # of both instructions


def syscall(picture: Picture) -> Trap | None:
    """Enter the kernel (deviation "syscall-nop"), or return what is raised instead."""
    engine = picture.engine
    registers = engine.registers()
    if not picture.control()[0].efer & EFER_SCE:
        return _refused(picture, UD, None)
    cs = engine.read_msr(MSR_STAR) >> 32 & _SELECTOR
    rflags = registers.rflags & ~RFLAGS_RF
    cleared = engine.read_msr(MSR_FMASK)
    target = engine.read_msr(MSR_LSTAR)
    engine.enter(0, cs, cs + _STACK & 0xFFFF, target, registers.rsp, rflags & ~cleared | 2)
    engine.write_all({"rcx": registers.rip, "r11": rflags})
    engine.save()
    return None


def sysenter(picture: Picture) -> Trap | None:
    """Enter the kernel (deviation "sysenter-nop"), or return what is raised instead."""
    engine = picture.engine
    cs = engine.read_msr(MSR_SYSENTER_CS) & _SELECTOR
    if not cs:
        return _refused(picture, GP, 0)
    rsp, rip = engine.read_msr(MSR_SYSENTER_ESP), engine.read_msr(MSR_SYSENTER_EIP)
    rflags = engine.registers().rflags & ~(RFLAGS_VM | RFLAGS_IF)
    engine.enter(0, cs, cs + _STACK & 0xFFFF, rip, rsp, rflags)
    engine.save()
    return None


def _refused(picture: Picture, vector: int, error_code: int | None) -> Trap:
    """Raise it at the instruction: RIP is behind."""
    engine = picture.engine
    rip = engine.rip() - _SIZE & U64
    engine.write("rip", rip)
    engine.save()
    return picture.trap(vector, error_code, engine.registers())
