"""System tables for a bare guest: a GDT, an IDT and a TSS, written where the guest can see them.

Knows which tables a CPU needs before it can take an exception and return from it, and writes them
through the guest's page tables. Refuses to know what the handlers do. SDM vocabulary.

    with Machine() as machine:
        ...                                         # map code, two pages at `va`, and a stack
        cpu = machine.cpu
        tables = write_system_tables(machine.memory, cpu.paging, va, {PF: handler})
        cpu.gdt, cpu.idt, cpu.tr = tables           # from now on, a #PF goes to `handler`
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from emu.descriptors import (
    GATE_SIZE,
    KERNEL_CODE,
    TSS_SELECTOR,
    TSS_SIZE,
    Gate,
    SystemSegment,
    TableRegister,
    flat_gdt,
    tss,
)
from emu.memory import PhysMemory
from emu.paging import FRAME_SIZE, Paging, VirtAddr
from emu.virtual import write_virtual

VECTORS: Final = 256
_TSS_OFFSET: Final = 0x800  # in the second page, behind the GDT


class SystemTables(NamedTuple):
    """What GDTR, IDTR and TR are to be loaded with, as `lgdt`, `lidt` and `ltr` would."""

    gdt: TableRegister
    idt: TableRegister
    tr: SystemSegment


def write_system_tables(
    memory: PhysMemory,
    paging: Paging,
    va: int,
    handlers: Mapping[int, int | Gate],
    *,
    rsp0: int = 0,
    ist: Iterable[int] = (),
) -> SystemTables:
    """Write an IDT at `va`, and a GDT and a TSS in the page behind it; both pages must be mapped.

    A handler is an address, and gets an interrupt gate for `KERNEL_CODE`; or a `Gate`. All other
    vectors are absent. `rsp0` is the stack for exceptions at CPL 3, `ist` those of IST 1 and up.
    Raises NotMapped if the pages are not there, and ValueError for a gate that cannot be.
    """
    if va & (FRAME_SIZE - 1):
        raise ValueError(f"va {va:#x} is not 4 KiB aligned")
    idt = bytearray(VECTORS * GATE_SIZE)
    for vector, handler in handlers.items():
        if vector not in range(VECTORS):
            raise ValueError(f"vector {vector}: expected 0 to {VECTORS - 1}")
        gate = handler if isinstance(handler, Gate) else Gate(handler, KERNEL_CODE)
        idt[GATE_SIZE * vector : GATE_SIZE * (vector + 1)] = gate.pack()
    tss_va = va + FRAME_SIZE + _TSS_OFFSET
    gdt, state = flat_gdt(tss_va), tss(rsp0, ist)
    write_virtual(memory, paging, VirtAddr(va), bytes(idt))
    write_virtual(memory, paging, VirtAddr(va + FRAME_SIZE), gdt)
    write_virtual(memory, paging, VirtAddr(tss_va), state)
    return SystemTables(
        TableRegister(va + FRAME_SIZE, len(gdt) - 1),
        TableRegister(va, len(idt) - 1),
        SystemSegment(TSS_SELECTOR, tss_va, TSS_SIZE - 1),
    )
