"""The trampoline: what code runs on between real mode and the kernel's own tables.

Knows its table, which is filled once at boot, and of what. Refuses to know real mode. Linux
vocabulary; source: arch/x86/realmode/init.c, arch/x86/kernel/reboot.c (v4.4, v6.17), 51523ed1c267
"x86/64/mm: Map all kernel memory into trampoline_pgd" (5.17).

CPUs that come up pass through it, and so does a reboot by way of the BIOS. It is not on pgd_list:
what is not in it at boot never gets there.
"""

from typing import TYPE_CHECKING, Final

from emu import PhysAddr
from emu.paging import ENTRIES
from kernel_model.callstack import kernel_function
from kernel_model.errors import KernelError
from kernel_model.history import Copied
from kernel_model.layout import PAGE_SIZE
from kernel_model.mm import Mm
from kernel_model.pgtable import PAGE_TABLE

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_TRAMPOLINE_PGD: Final = PhysAddr(0x9_9000)  # real mode's memory lies below 1 MiB
NAME: Final = "trampoline_pgd"


def setup_real_mode(kernel: "Kernel") -> None:
    """Fill the trampoline's table: the first of RAM as slot 0, the text; later all of the kernel.

    Raises OutOfFrames.
    """
    words, layout = kernel.memory.words, kernel.layout
    kernel.memory.zero(_TRAMPOLINE_PGD, PAGE_SIZE)
    new, old = _TRAMPOLINE_PGD >> 3, kernel.init_mm.pgd >> 3
    first = layout.kernel_pgd_boundary if kernel.release.trampoline_has_all else ENTRIES - 1
    words[new + first : new + ENTRIES] = words[old + first : old + ENTRIES]
    words[new] = _trampoline_pgd_entry(kernel)
    kernel.outside[Mm(NAME, _TRAMPOLINE_PGD)] = None
    kernel.history.append(Copied(NAME, first, ENTRIES - 1, "setup_real_mode"))


def trampoline_pgd(kernel: "Kernel") -> Mm:
    """Return the trampoline's table; KernelError if the kernel was booted without."""
    return outside(kernel, NAME)


def outside(kernel: "Kernel", name: str) -> Mm:
    """Return a table that is not on pgd_list by its name; KernelError if there is none."""
    for mm in kernel.outside:
        if mm.name == name:
            return mm
    raise KernelError(f"there is no {name}: expected a Kernel with other firmware")


@kernel_function
def native_machine_emergency_restart(kernel: "Kernel", variable: int) -> int:
    """Leave for real mode, up to where long mode ends; the kernel needs `variable` on the way.

    What is modelled ends before the jump, and the task goes on with its own table.
    """
    kernel.call("machine_real_restart", rdi=trampoline_pgd(kernel).pgd, rsi=variable)
    kernel.switch_mm(kernel.current.mm)
    return 0


def _trampoline_pgd_entry(kernel: "Kernel") -> int:
    """Return the entry that maps physical memory from 0 on at address 0.

    It is the direct map's first one, unless KASLR has the direct map begin inside a slot: then
    there are tables for it, with the first 1 GiB.
    """
    words, pgtable, base = kernel.memory.words, kernel.pgtable, kernel.layout.page_offset_base
    pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, base)
    if not base % kernel.layout.pgdir_size:
        return pgtable.get(pgdp)
    pudp = pgtable.pud_offset(pgtable.p4d_offset(pgdp, base), base)
    lower = kernel.frames.allocate()
    words[lower >> 3] = pgtable.get(pudp)
    if not pgtable.p4d_folded:
        p4d = kernel.frames.allocate()
        words[p4d >> 3] = lower | PAGE_TABLE
        lower = p4d
    return lower | PAGE_TABLE
