"""All combinations of entry bits, controls and accesses, numbered; and a guest that runs them.

A number is a case, so that a sample is a list of numbers. The leaf takes every combination of its
bits; of the levels above it one at a time is other than permissive, since rights combine by and
and or.
"""

from itertools import product
from math import prod
from typing import NamedTuple

from support.guest import CODE, USER_CODE, Guest, Routine
from support.oracle import Case, Entry

from emu import Access, PageFault, Paging, Refusal, Returned, Stop, VirtAddr, refusal
from emu.paging import ADDRESS, PS, RFLAGS_AC, RW, US, XD, P

PA = 0x40_0000  # in RAM, and the same through a page of any size
VA = {4: VirtAddr(0x5000_0000_0000 | PA), 5: VirtAddr(0x33_5000_0000_0000 | PA)}
KEY = 5
HLT = 0xF4  # what the page holds; stores put it there again
TO_SUPERVISOR = CODE - USER_CODE  # from the one mapping of the code to the other
SOURCE = {
    "read": "mov al, [rdi]",
    "write": "mov [rdi], al",
    "update": "lock or [rdi], al",
    "fetch": "jmp rdi",
}
PERMISSIVE = Entry()
LEAVES = tuple(Entry(*bits) for bits in product((True, False), repeat=5))
ODD = tuple(PERMISSIVE._replace(**{name: not getattr(PERMISSIVE, name)}) for name in Entry._fields)


class Controls(NamedTuple):
    """The control registers of a case, AC aside."""

    wp: bool
    nxe: bool
    smep: bool
    smap: bool
    pke: bool
    access_disable: bool
    write_disable: bool


CONTROLS = tuple(
    Controls(*bits) for bits in product((True, False), repeat=7) if bits[4] or not any(bits[5:])
)


class Matrix:
    """The cases of one depth and one page size, and the machine that they run on."""

    def __init__(self, levels: int, leaf: int) -> None:
        self.leaf = leaf
        self.above = levels - leaf
        self.guest = Guest(levels=levels)
        self.va = VA[levels]
        self.guest.map(self.va & -(1 << 3 + 9 * leaf), PA if leaf < 3 else 0, US | RW, leaf)
        self.guest.memory.write(PA, bytes([HLT]))
        steps = self.guest.walk(self.va).steps
        self.entry_pas = [step.entry_pa for step in steps]
        self.targets = [step.entry & ADDRESS for step in steps]
        self.routines: dict[str, Routine] = {
            access: self.guest.put_user(source) for access, source in SOURCE.items()
        }
        self.dimensions = (
            CONTROLS,
            (True, False),  # RFLAGS.AC
            (0, 3),
            tuple(SOURCE),
            range(1 + self.above * len(ODD)),
            LEAVES,
        )
        self.size = prod(map(len, self.dimensions))
        self._controls: Controls | None = None
        self._turn = 0  # which of the reserved bits is next

    def case(self, number: int) -> Case:
        """Return the case with this number; neighbours differ in the leaf first."""
        picked = []
        for dimension in reversed(self.dimensions):
            number, n = divmod(number, len(dimension))
            picked.append(dimension[n])
        leaf, odd, access, cpl, ac, controls = picked
        entries = [PERMISSIVE] * self.above + [leaf]
        if odd:
            entries[(odd - 1) // len(ODD)] = ODD[(odd - 1) % len(ODD)]
        return Case(access, cpl, tuple(entries), ac=ac, **controls._asdict())

    def run(self, case: Case) -> Stop:
        """Build the tables of the case and make the CPU do it."""
        guest, cpu = self.guest, self.guest.cpu
        top = guest.paging.levels
        for level, entry_pa, target, entry in zip(
            range(top, 0, -1), self.entry_pas, self.targets, case.entries, strict=False
        ):
            guest.memory.write_u64(entry_pa, self._entry(entry, target, level))
        controls = Controls(*(getattr(case, name) for name in Controls._fields))
        if controls != self._controls:
            cpu.paging = self._paging(controls)
            self._controls = controls
        cpu.invalidate_tlb()
        cpu.cpl = case.cpl
        routine = self.routines[case.access]
        shift = 0 if case.cpl == 3 else TO_SUPERVISOR
        returns_to = self.va if case.access == "fetch" else routine.hlt + shift
        cpu.write(rflags=2 | RFLAGS_AC * case.ac, rdi=self.va, rax=HLT)
        return cpu.run(routine.rip + shift, returns_to=returns_to)

    def predict(self, case: Case) -> Refusal | None:
        """Ask walk and rights about the tables that `run` left."""
        kind = "write" if case.access == "update" else case.access
        access = Access(kind, user=case.cpl == 3, ac=case.ac)  # type: ignore[arg-type]
        return refusal(self.guest.walk(self.va), access, self.guest.cpu.paging)

    def stop(self, case: Case, code: int | None) -> Stop:
        """Return what a run must end with if the oracle's answer is `code`."""
        if code is None:
            return Returned()
        rip = self.routines[case.access].rip + (0 if case.cpl == 3 else TO_SUPERVISOR)
        return PageFault(self.va, code, VirtAddr(self.va if case.access == "fetch" else rip))

    def _entry(self, entry: Entry, target: int, level: int) -> int:
        value = target | (P if entry.present else 0) | (RW if entry.writable else 0)
        value |= (US if entry.user else 0) | (XD if entry.execute_disable else 0)
        if entry.reserved:
            candidates = self._reserved_bits(level)
            self._turn += 1
            value |= 1 << candidates[self._turn % len(candidates)]
        if level == self.leaf:
            value |= KEY << 59 | (PS if self.leaf > 1 else 0)
        return value

    def _reserved_bits(self, level: int) -> tuple[int, ...]:
        """The bits that are reserved in an entry of `level` whatever the controls."""
        above_maxphyaddr = tuple(range(40, 52))
        if level == self.leaf:
            return above_maxphyaddr + tuple(range(13, 3 + 9 * level))  # none for a 4 KiB page
        return above_maxphyaddr + ((7,) if level > 3 else ())

    def _paging(self, controls: Controls) -> Paging:
        wanted = controls._asdict()
        disable = wanted.pop("access_disable") | wanted.pop("write_disable") << 1
        root = self.guest.paging.root
        levels = self.guest.paging.levels
        return Paging.long_mode(root, levels=levels, pkru=disable << 2 * KEY, **wanted)
