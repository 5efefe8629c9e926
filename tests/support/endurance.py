"""Random accesses without end on one CPU, each under tables, rights and controls of its own.

Address, page size, entries and the frames of the tables are drawn anew each time, the machine
stays. What each access must come to, `one_access` says.
"""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from support.guest import CODE, USER_CODE, Guest
from support.one_access import predicted

from emu import PageFault, Paging, PhysAddr, Returned, Stop, VirtAddr
from emu.paging import PS, RFLAGS_AC, RW, US, XD, P, canonical, index, page_size
from emu.probe import Case

WINDOW_PA, WINDOW = PhysAddr(0x40_0000), 0x20_0000  # full of HLT: where every page leads
HLT = 0xF4  # stores put it there again
SOURCES = {  # how to make each access; the last one loads first
    "fetch": ("jmp rdi",),
    "read": ("mov al, [rdi]",),
    "write": ("mov [rdi], al", "lock or [rdi], al"),
}
KINDS = tuple(SOURCES)
LEAF_LEVELS = (1, 1, 2, 3)
NOISE = 0x7FF0_0000_0000_0F78  # keys and whatever else does not refuse by itself
HIGH = 1 << 45  # reserved anywhere
LOW = 1 << 13  # reserved where it is no address bit: in large pages
REFUSING = (P, RW, US, RW | US, XD, XD | RW, XD | US, HIGH)
ABOVE_FLIPS = (0,) * 24 + REFUSING
LEAF_FLIPS = (0, *REFUSING, XD | RW | US, HIGH | XD, LOW, LOW | XD)
SAME_CONTROLS = 32  # so many accesses, at one CPL: to change these is slow
TABLES = 64  # a level


class Ran(NamedTuple):
    """An access, whether it had to fault, and what was wrong with how it ended."""

    case: Case
    faulted: bool
    wrong: str


class Wanderer:
    """A CPU, and the tables to choose from."""

    def __init__(self, levels: int, seed: int) -> None:
        self.levels = levels
        self._rng = Random(seed)
        self._guest = Guest(levels=levels)
        self._guest.memory.write(WINDOW_PA, bytes([HLT]) * WINDOW)
        self._tables = [self._guest.frames.allocate() for _ in range(TABLES * levels)]
        self._routines = {
            kind: [self._guest.put_user(source) for source in sources]
            for kind, sources in SOURCES.items()
        }

    def run(self) -> Iterator[Ran]:
        """Make one random access after another."""
        rng, cpu = self._rng, self._guest.cpu
        root = self._guest.paging.root
        while True:
            bits = rng.getrandbits(5)
            names = ("wp", "smep", "smap", "nxe", "pke")
            controls = {name: bool(bits >> n & 1) for n, name in enumerate(names)}
            controls["pkru"] = rng.getrandbits(32)
            cpu.paging = Paging.long_mode(root, levels=self.levels, **controls)  # type: ignore[arg-type]
            user = rng.random() < 0.5
            cpu.cpl = 3 if user else 0
            for _ in range(SAME_CONTROLS):
                va, entries = self._tables_for_some_page()
                kind, ac = rng.choice(KINDS), rng.random() < 0.5
                yield self._access(
                    Case(va, entries, self.levels, kind, user, ac=ac, **controls)  # type: ignore[arg-type]
                )

    def _tables_for_some_page(self) -> tuple[VirtAddr, tuple[int, ...]]:
        """Draw an address and the entries that translate it, and put these into RAM."""
        rng, levels = self._rng, self.levels
        leaf = rng.choice(LEAF_LEVELS)
        size = page_size(leaf)
        pa = WINDOW_PA + rng.randrange(WINDOW)
        slot = rng.randrange(1, 511)  # the first and the last lead to the code
        page = slot * page_size(levels) + rng.randrange(page_size(levels)) & -size
        va = canonical(page | pa & (size - 1), levels)

        table, entries = self._guest.paging.root, []
        for level in range(levels, 0, -1):
            entry = P | RW | US | rng.getrandbits(64) & NOISE
            entry_pa = PhysAddr(table + 8 * index(va, level))
            if level == leaf:
                entry |= pa & -size | (PS if leaf > 1 else 0)
                entries.append(entry ^ rng.choice(LEAF_FLIPS))
                self._guest.memory.write_u64(entry_pa, entries[-1])
                break
            table = self._tables[TABLES * (level - 1) + rng.randrange(TABLES)]
            entries.append((entry | table) ^ rng.choice(ABOVE_FLIPS))
            self._guest.memory.write_u64(entry_pa, entries[-1])
        return va, tuple(entries)

    def _access(self, case: Case) -> Ran:
        """Have the CPU make the access, and compare."""
        cpu = self._guest.cpu
        routine = self._rng.choice(self._routines[case.kind])
        mapping = 0 if case.user else CODE - USER_CODE
        rip = VirtAddr(routine.rip + mapping)
        fetch = case.kind == "fetch"
        cpu.invalidate_tlb()
        cpu.write(rflags=2 | RFLAGS_AC * case.ac, rdi=case.va, rax=HLT)
        stop = cpu.run(rip, returns_to=case.va if fetch else routine.hlt + mapping)

        (vector, code, cr2), _ = predicted(case)
        expected: Stop = Returned()
        if vector is not None:
            expected = PageFault(cr2, code, VirtAddr(case.va) if fetch else rip)
        wrong = "" if stop == expected else f"{case}: {stop!r}, expected {expected!r}"
        return Ran(case, vector is not None, wrong)
