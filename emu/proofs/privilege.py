"""What delivery leaves to the engine: the instructions that load tables and change the ring.

Knows lidt, ltr, iretq, sysretq and swapgs. Refuses to know `interrupts`: going to a handler is ours
and needs no proof, coming back is the engine's.
"""

from typing import Final

from unicorn import x86_const as x86

from emu import _layout
from emu.descriptors import (
    KERNEL_CODE,
    TSS_SELECTOR,
    USER_CODE,
    USER_DATA,
    flat_gdt,
)
from emu.fault import GP
from emu.paging import EFER_SCE, RFLAGS_AC, RW, US, PhysAddr
from emu.proofs.bare import CODE, DATA, DATA_PA, EFER, HLT, Bare
from emu.proofs.proof import Proof, proof, seen
from emu.registers import MSR_KERNEL_GS_BASE, MSR_STAR

_LIDT: Final = b"\x0f\x01\x1f"  # lidt [rdi]
_LTR: Final = b"\x0f\x00\xdf"  # ltr di
_IRETQ: Final = b"\x48\xcf"
_SYSRETQ: Final = b"\x48\x0f\x07"
_SWAPGS: Final = b"\x0f\x01\xf8"
_TSS: Final = DATA + 0x100
_STACK: Final = DATA + 0x800
_FLAGS: Final = RFLAGS_AC | 0x2


def _with_gdt() -> Bare:
    """A page of data that begins with a GDT, and code that both rings may run."""
    bare = Bare()
    bare.map(DATA, DATA_PA, RW | US)
    for level in (4, 3, 2, 1):
        bare.memory.write_u64(bare.entry_pa(CODE, level), bare.entry(CODE, level) | US)
    gdt = flat_gdt(_TSS)
    bare.memory.write(DATA_PA, gdt)
    bare.uc.reg_write(x86.UC_X86_REG_GDTR, (0, DATA, len(gdt) - 1, 0))
    return bare


def _cpl(bare: Bare) -> int:
    return _layout.view(bare.uc.context_save())[_layout.AT_HFLAGS] & 3


@proof("lidt", "lidt loads 16 bits of limit: a larger one says that it was never executed")
def lidt() -> str:
    bare = _with_gdt()
    bare.memory.write(PhysAddr(DATA_PA + 0x200), b"\xff" * 10)
    bare.put(_LIDT)
    bare.run(rdi=DATA + 0x200)
    _, base, limit, _ = bare.uc.reg_read(x86.UC_X86_REG_IDTR)
    return seen(
        (base, limit) == ((1 << 64) - 1, 0xFFFF),
        f"ten bytes of ff loaded base {base:#x}, limit {limit:#x}",
    )


@proof("ltr", "ltr reads its descriptor through the page tables: TR has base and limit of the TSS")
def ltr() -> str:
    bare = _with_gdt()
    bare.put(_LTR)
    bare.run(rdi=TSS_SELECTOR)
    selector, base, limit, _ = bare.uc.reg_read(x86.UC_X86_REG_TR)
    return seen(
        (selector, base, limit) == (TSS_SELECTOR, _TSS, 103),
        f"selector {selector:#x} loaded base {base:#x}, limit {limit}",
    )


@proof("iretq", "iretq goes to CPL 3, where hlt is privileged; and stays in the kernel")
def iretq() -> str:
    found = []
    for cpl, cs, ss in ((3, USER_CODE, USER_DATA), (0, KERNEL_CODE, 0)):
        bare = _with_gdt()
        bare.put(_IRETQ + HLT)
        for n, word in enumerate((CODE + 0x40, cs, _FLAGS, _STACK + 0x40, ss)):
            bare.memory.write_u64(PhysAddr(DATA_PA + 0x800 + 8 * n), word)
        stopped = bare.run(rsp=_STACK)
        rsp, flags = bare.get("rsp"), bare.get("rflags") & RFLAGS_AC
        good = (_cpl(bare), rsp, flags) == (cpl, _STACK + 0x40, RFLAGS_AC)
        found.append((good and stopped.vector == (GP if cpl else None), str(stopped)))
    return seen(all(good for good, _ in found), f"to CPL 3: {found[0][1]}; to CPL 0: {found[1][1]}")


@proof("sysretq", "sysretq goes to CPL 3, RIP from RCX, RFLAGS from R11, selectors from STAR")
def sysretq() -> str:
    bare = _with_gdt()
    bare.put(_SYSRETQ)
    bare.set_efer(EFER | EFER_SCE)
    bare.uc.msr_write(MSR_STAR, (USER_DATA - 8) << 48)
    stopped = bare.run(rcx=CODE + 0x40, r11=_FLAGS)
    selectors = bare.get("cs"), bare.get("ss")
    return seen(
        (stopped.vector, stopped.rip, _cpl(bare)) == (GP, CODE + 0x40, 3)
        and selectors == (USER_CODE, USER_DATA)
        and bool(bare.get("rflags") & RFLAGS_AC),
        f"{stopped}, with CS {selectors[0]:#x} and SS {selectors[1]:#x}",
    )


@proof("swapgs", "swapgs exchanges the base of GS and IA32_KERNEL_GS_BASE")
def swapgs() -> str:
    bare = _with_gdt()
    bare.put(_SWAPGS)
    bare.uc.msr_write(MSR_KERNEL_GS_BASE, 0x2222)
    bare.run(gs_base=0x1111)
    found = bare.get("gs_base"), bare.uc.msr_read(MSR_KERNEL_GS_BASE)
    return seen(found == (0x2222, 0x1111), f"0x1111 and 0x2222 became {found[0]:#x}, {found[1]:#x}")


PROOFS: Final[tuple[Proof, ...]] = (lidt, ltr, iretq, sysretq, swapgs)
