"""What the engine itself touches: one instruction on a bare Unicorn without paging.

The oracle of the instruction tests; imports nothing of ours. Addresses are physical and equal to
virtual ones. Accesses to unmapped memory are recorded too, as far as the instruction gets.
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

import unicorn as u
from unicorn import x86_const as x

RAM, RAM_SIZE = 0x1000, 0xFFF000
GDT, GDT_SIZE = 0x800000, 0x100
LANDING = 0xE00000  # for branches
CODE = 0xF00000
HLT = b"\xf4"

NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
IDS = {name: getattr(x, f"UC_X86_REG_{name.upper()}") for name in (*NAMES, "fs_base", "gs_base")}
READS = (u.UC_MEM_READ, u.UC_MEM_READ_UNMAPPED)
WRITES = (u.UC_MEM_WRITE, u.UC_MEM_WRITE_UNMAPPED)


class Record(NamedTuple):
    """One access that the engine made, in order; `implicit` if it is to the GDT."""

    writes: bool
    va: int
    size: int
    implicit: bool


class Outcome(NamedTuple):
    """What one instruction at `rip` did, and RAX after it.

    `invalid`: the engine knows no such instruction.
    """

    records: tuple[Record, ...]
    rip: int
    rax: int
    invalid: bool

    def touched(self, *, writes: bool) -> set[int]:
        """The bytes that were read or written, other than in the GDT."""
        return {
            (record.va + n) & (1 << 64) - 1
            for record in self.records
            if record.writes == writes and not record.implicit
            for n in range(record.size)
        }


def descriptor(access: int, flags: int) -> bytes:
    """A flat segment: base 0, limit 4 GiB."""
    return struct.pack("<HHBBBB", 0xFFFF, 0, 0, access, flags << 4 | 0xF, 0)


class InstructionEngine:
    """One engine for many instructions. Every run starts from the same state."""

    def __init__(self) -> None:
        self._uc = u.Uc(u.UC_ARCH_X86, u.UC_MODE_64)
        self._uc.ctl_set_cpu_model(x.UC_CPU_X86_ICELAKE_SERVER)
        self._uc.mem_map(RAM, RAM_SIZE)
        code_segment, data_segment = descriptor(0x9B, 0xA), descriptor(0x93, 0xC)
        self._uc.mem_write(LANDING, HLT)
        self._uc.mem_write(GDT, bytes(8) + code_segment + data_segment)
        self._uc.reg_write(x.UC_X86_REG_GDTR, (0, GDT, GDT_SIZE - 1, 0))
        self._uc.reg_write(
            x.UC_X86_REG_CR4, 1 << 9 | 1 << 10 | 1 << 18
        )  # OSFXSR OSXMMEXCPT OSXSAVE
        self._uc.hook_add(u.UC_HOOK_MEM_READ | u.UC_HOOK_MEM_WRITE, self._on_access)
        self._uc.hook_add(u.UC_HOOK_MEM_UNMAPPED, self._on_access)
        self._uc.hook_add(u.UC_HOOK_INTR, lambda uc, vector, data: uc.emu_stop())
        self._start = self._uc.context_save()
        self._records: list[Record] = []

    def run(
        self, code: bytes, registers: Mapping[str, int], memory: Mapping[int, bytes] = {}
    ) -> Outcome:
        """Execute the one instruction `code` with `registers` (by name; others are 0)."""
        uc = self._uc
        uc.context_restore(self._start)
        for name, value in registers.items():
            uc.reg_write(IDS[name], value)
        for va, content in memory.items():
            uc.mem_write(va, content)
        uc.mem_write(CODE, code + HLT)  # a translation block ends at hlt
        uc.ctl_flush_tb()
        self._records = []
        invalid = False
        try:
            uc.emu_start(CODE, 0, count=1)
        except u.UcError as error:
            invalid = error.errno == u.UC_ERR_INSN_INVALID
        return Outcome(tuple(self._records), CODE, uc.reg_read(IDS["rax"]), invalid)

    def _on_access(self, uc: u.Uc, kind: int, va: int, size: int, value: int, data: object) -> bool:
        if kind in READS or kind in WRITES:
            va &= (1 << 64) - 1
            self._records.append(Record(kind in WRITES, va, size, GDT <= va < GDT + GDT_SIZE))
        return False
