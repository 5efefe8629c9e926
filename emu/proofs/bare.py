"""A bare Unicorn: RAM, page tables, and routines to run. Nothing is corrected.

Knows how to set the engine up and what it said at the end of a run. Refuses to know `cpu` and
`tables`, which the proofs hold against it; of the engine's insides it uses `_layout`.
Its own address space is drawn here:

    CODE   8 KiB of `hlt`, where routines go; nothing is mapped behind it
    DATA   mapped by the proofs that need it
    HOLE   a physical address without RAM
"""

from typing import Final, NamedTuple

import unicorn
from unicorn import x86_const as x86

from emu import _layout
from emu.fault import PF, VECTOR_NAME
from emu.memory import PhysMemory
from emu.paging import ADDRESS, ENTRY_SIZE, FRAME_SIZE, RW, US, P, PhysAddr, index
from emu.registers import MSR_EFER

RAM_SIZE: Final = 4 << 20
HOLE: Final = 1 << 30
CODE: Final = 0xFFFF_FFFF_8100_0000
CODE_PA: Final = PhysAddr(0x1_0000)
CODE_SIZE: Final = 0x2000
DATA: Final = 0xFFFF_E700_0000_0000
DATA_PA: Final = PhysAddr(0x2_0000)
_TABLES: Final = PhysAddr(0x10_0000)

# Machine code; a routine ends at the `hlt` behind it.
NOP: Final = b"\x90"
HLT: Final = b"\xf4"
LOAD: Final = b"\x48\x8b\x07"  # mov rax, [rdi]
STORE: Final = b"\x48\x89\x07"  # mov [rdi], rax
ADD: Final = b"\x48\x01\x07"  # add [rdi], rax
COUNT: Final = b"\xff\xc3"  # inc ebx
MOVABS: Final = b"\x48\xb8\x88\x77\x66\x55\x44\x33\x22\x11"  # mov rax, 0x1122334455667788
PATCH: Final = b"\x40\x88\x77\x01"  # mov [rdi + 1], sil: the constant of an `answer`
LOOP: Final = b"\xff\xc3\xff\xc9\x75\xfa"  # inc ebx; dec ecx; jnz back to the start

CR0: Final = 0x8001_0033  # PG, WP, NE, ET, MP, PE
CR4: Final = 0x6B0  # OSXMMEXCPT, OSFXSR, PGE, PAE, PSE
EFER: Final = 0xD00  # NXE, LMA, LME


def answer(value: int) -> bytes:
    """The routine `mov eax, value`."""
    return b"\xb8" + value.to_bytes(4, "little")


class Stopped(NamedTuple):
    """What the engine said at the end of a run; `vector` is None if no exception ended it."""

    status: int
    vector: int | None
    error_code: int
    software: bool
    cr2: int
    rip: int

    @property
    def page_fault(self) -> int | None:
        """The error code if a #PF ended the run."""
        return self.error_code if self.vector == PF else None

    def __str__(self) -> str:
        if self.vector == PF and not self.software:
            return f"#PF({self.error_code:#x}) for {place(self.cr2)} at {place(self.rip)}"
        if self.vector is not None:
            name = VECTOR_NAME.get(self.vector, f"vector {self.vector:#x}")
            return f"{name} at {place(self.rip)}"
        if self.status:
            name = str(unicorn.UcError(self.status)).partition("(")[2].rstrip(")")
            return f"{name} at {place(self.rip)}"
        return f"a normal end at {place(self.rip)}"


class Bare:
    """One engine of the model that we use, in 64-bit mode, with paging on and no end address.

    `beside` another one it shares RAM and tables.
    """

    def __init__(
        self,
        *,
        levels: int = 4,
        cr4: int = 0,
        ram: int = RAM_SIZE,
        beside: "Bare | None" = None,
    ) -> None:
        self.uc = uc = unicorn.Uc(
            unicorn.UC_ARCH_X86, unicorn.UC_MODE_64, x86.UC_CPU_X86_ICELAKE_SERVER
        )
        self.memory: PhysMemory = beside.memory if beside else PhysMemory(ram)
        self.levels = levels
        self.root = _TABLES
        self._next_table = PhysAddr(_TABLES + FRAME_SIZE)
        uc.ctl_set_tcg_buffer_size(1 << 20)
        uc.mem_map_ptr(0, self.memory.size, unicorn.UC_PROT_ALL, self.memory.host_address)
        uc.ctl_exits_enabled(True)
        uc.ctl_set_exits([])
        self._event: list[int] = []
        event = self._event  # no `self` in the hook: it would be a cycle

        def on_interrupt(uc: unicorn.Uc, vector: int, _: object) -> None:
            event.append(vector)
            uc.emu_stop()

        uc.hook_add(unicorn.UC_HOOK_INTR, on_interrupt)
        if beside is None:
            self.memory.write(CODE_PA, HLT * CODE_SIZE)
            for offset in range(0, CODE_SIZE, 0x1000):
                self.map(CODE + offset, CODE_PA + offset, RW)
        self.set(cr4=CR4 | cr4 | (levels == 5) << 12)
        self.set_efer(EFER)
        self.set(cr3=self.root, cr0=CR0)

    # -- memory

    def map(self, va: int, pa: int, flags: int = RW, level: int = 1) -> PhysAddr:
        """Map a page, and return where its entry lies. `flags` are all but P."""
        entry_pa = self.entry_pa(va, level)
        self.memory.write_u64(entry_pa, pa | flags | P)
        return entry_pa

    def entry_pa(self, va: int, level: int) -> PhysAddr:
        """Where the entry of `level` lies that translates `va`; missing tables are made."""
        table: int = self.root
        for at in range(self.levels, level, -1):
            entry_pa = PhysAddr(table + ENTRY_SIZE * index(va, at))
            entry = self.memory.words[entry_pa >> 3]
            if not entry & P:
                entry = self._new_table() | P | RW | US
                self.memory.write_u64(entry_pa, entry)
            table = entry & ADDRESS
        return PhysAddr(table + ENTRY_SIZE * index(va, level))

    def copy_root(self) -> PhysAddr:
        """Make another root with the same entries, but none for DATA; return where it lies."""
        copy = self._new_table()
        self.memory.write(copy, self.memory.read(self.root, FRAME_SIZE))
        self.memory.write_u64(PhysAddr(copy + ENTRY_SIZE * index(DATA, self.levels)), 0)
        return copy

    def entry(self, va: int, level: int = 1) -> int:
        """The entry of `level` that translates `va`."""
        return int(self.memory.words[self.entry_pa(va, level) >> 3])

    def put(self, code: bytes, offset: int = 0) -> int:
        """Write a routine behind the engine's back, and return its address."""
        self.memory.write(PhysAddr(CODE_PA + offset), code)
        return CODE + offset

    def _new_table(self) -> PhysAddr:
        table = self._next_table
        self._next_table = PhysAddr(table + FRAME_SIZE)
        return table

    # -- registers

    def set(self, **registers: int) -> None:
        """Set registers by name."""
        for name, value in registers.items():
            self.uc.reg_write(getattr(x86, f"UC_X86_REG_{name.upper()}"), value)

    def get(self, name: str) -> int:
        """Return a register by name."""
        return int(self.uc.reg_read(getattr(x86, f"UC_X86_REG_{name.upper()}")))

    def set_efer(self, value: int) -> None:
        """Set EFER, and nothing else."""
        self.uc.msr_write(MSR_EFER, value)

    def set_cpl(self, cpl: int) -> None:
        """Set the current privilege level, where the engine keeps it."""
        context = self.uc.context_save()
        blob = _layout.view(context)
        blob[_layout.AT_HFLAGS] = blob[_layout.AT_HFLAGS] & ~3 | cpl
        self.uc.context_restore(context)

    def invalidate_tlb(self) -> None:
        """Flush the TLB, as `_unicorn` does it."""
        self.uc.ctl(unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE)

    # -- running

    def start(self, rip: int = CODE, count: int = 0, **registers: int) -> Stopped:
        """Run, and leave the engine's memory of the last exception as it is."""
        self.set(**registers)
        self._event.clear()
        status = 0
        try:
            self.uc.emu_start(rip, 0, count=count)
        except unicorn.UcError as error:
            status = error.errno
        blob = _layout.view(self.uc.context_save())
        *_, error_code, software = _layout.CONTROL.unpack_from(blob, _layout.AT_CONTROL)
        vector = self._event[-1] if self._event else None
        return Stopped(status, vector, error_code, bool(software), self.get("cr2"), self.get("rip"))

    def run(self, rip: int = CODE, count: int = 0, **registers: int) -> Stopped:
        """Run, and clear the memory of the exception: no run depends on the one before."""
        stopped = self.start(rip, count, **registers)
        self.forget()
        return stopped

    def forget(self) -> None:
        """Clear the engine's memory of the last exception."""
        context = self.uc.context_save()
        none = _layout.NO_EXCEPTION.to_bytes(4, "little", signed=True)
        at = _layout.AT_OLD_EXCEPTION
        _layout.view(context)[at : at + 4] = none
        self.uc.context_restore(context)


def place(va: int) -> str:
    """An address by the region it lies in: code+0x3."""
    for name, start in (("code", CODE), ("data", DATA)):
        if start <= va < start + 0x10_0000:
            return f"{name}+{va - start:#x}"
    return f"{va:#x}"
