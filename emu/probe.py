"""One access on the CPU, under entries that a caller gives as raw values.

Knows how to put the entries where a walk for the address comes by, and how to make the CPU touch
it once; around that, RAM is empty. Refuses to know which cases are worth it, and what an access
should come to: that the CPU says, and `walk` and `rights` explain. SDM vocabulary.
"""

from functools import lru_cache
from typing import Final, get_args

from emu.case import (
    NON_CANONICAL,
    WENT_THROUGH,
    Case,
    Outcome,
    Seen,
    Verdict,
    check,
    check_shared,
    judge,
)
from emu.fault import BP, GP, PF, EngineError
from emu.machine import Machine
from emu.memory import Frames
from emu.paging import (
    ENTRY_SIZE,
    FRAME_SIZE,
    MAXPHYADDR,
    RFLAGS_AC,
    US,
    A,
    D,
    P,
    Paging,
    PhysAddr,
    VirtAddr,
    index,
    page_shift,
)
from emu.rights import Access, Kind, refusal
from emu.tables import map_page
from emu.walk import Walk, walk

_FRAME: Final = (1 << MAXPHYADDR) - FRAME_SIZE  # bits 39:12 of an entry name a frame
_GIB: Final = 30
# Five entries name no more than five frames, and pages of no more than five GiB: one home of six
# is always in none of them.
_HOMES: Final = tuple(PhysAddr(gib << _GIB) for gib in range(0x2A0, 0x2A6))
_HOME_SIZE: Final = 16 * FRAME_SIZE
_LEASE: Final = 1024  # cases; they touch 70 MiB of the host's memory at the worst
_SLOTS: Final = (1, 2)  # top-level entries of the routines; the case's address needs another
_USER: Final = FRAME_SIZE  # from the supervisor's mapping of the routines to the user's
_WRITE: Final = 16  # from the routine that reads to the one that writes
_INT3: Final = 0xCC  # how each ends: whatever comes before it, it comes after the access
_READ_ROUTINE: Final = bytes((0x8A, 0x07, _INT3))  # mov al, [rdi]; int3
_WRITE_ROUTINE: Final = bytes((0x88, 0x07, _INT3))  # mov [rdi], al; int3
_RFLAGS: Final = 0x2  # bit 1 is always 1
_ACCESS: Final = {
    (kind, user, ac): Access(kind, user, ac=ac)
    for kind in get_args(Kind)
    for user in (False, True)
    for ac in (False, True)
}


class Probe:
    """Runs cases, one after the other, each as if it were the only one. Free it as a Machine.

    >>> case = Case(0x7F00_1234_5678, (0x1007, 0x2007, 0x3007, 0x4005), kind="write")
    >>> with Probe() as probe:
    ...     probe.access(case)
    ...     probe.access(case._replace(wp=False))
    ...     probe.see(case).walk.pa == 0x4678
    Verdict(#PF 0x3 at 0x7f0012345678, 'wp', after 0x1027 0x2027 0x3027 0x4005)
    Verdict(no exception, None, after 0x1027 0x2027 0x3027 0x4065)
    True
    """

    def __init__(self) -> None:
        self._benches: Final[dict[int, _Bench]] = {}

    def access(self, case: Case) -> Verdict:
        """Run the case, and say what it comes to on a CPU.

        Raises BadCase, which is a ValueError, for a case that is bad input, and EngineError if the
        CPU and the tables disagree.
        """
        return judge(case, self.see(case))

    def see(self, case: Case) -> Seen:
        """Run the case, and say what there was to see, without a judgement. Raises BadCase."""
        check(case)
        bench = self._benches.get(case.levels)
        if bench is None or bench.left == 0 or not bench.is_outside(case.entries):
            bench = self._new_bench(case)
        return bench.run(case)

    def close(self) -> None:
        """Free the machines. The probe makes new ones if it is used again."""
        for bench in self._benches.values():
            bench.machine.close()
        self._benches.clear()

    def _new_bench(self, case: Case) -> "_Bench":
        """Make a machine for the case: for its depth, and at home in no GiB that it names."""
        old = self._benches.pop(case.levels, None)
        if old is not None:
            old.machine.close()
        named = {(entry & _FRAME) >> _GIB for entry in case.entries}
        home = next(home for home in _HOMES if home >> _GIB not in named)
        bench = self._benches[case.levels] = _Bench(case.levels, home)
        return bench

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Bench:
    """A machine for cases of one depth: a terabyte of zeros, but for the routines at home.

    It is given up after a number of cases, and with it what they touched of the host's memory:
    page tables, and what the engine keeps about each frame that was executed from.
    """

    def __init__(self, levels: int, home: PhysAddr) -> None:
        paging = Paging.long_mode(home, levels=levels)
        self.machine: Final = Machine(ram=1 << MAXPHYADDR, paging=paging)
        self.machine.memory.prefer_small_pages()
        self.left = _LEASE
        self._cpu: Final = self.machine.cpu
        self._engine: Final = self._cpu.engine
        self._words: Final = self.machine.memory.words
        self._home: Final = home
        self._levels: Final = levels
        self._paging = paging
        self._controls: tuple[int, ...] = ()
        self._user = False
        self._put_routines()

    def is_outside(self, entries: tuple[int, ...]) -> bool:
        """Tell whether the home is in no GiB that one of the entries names."""
        gib = self._home >> _GIB
        for entry in entries:  # noqa: SIM110 (faster than any())
            if (entry & _FRAME) >> _GIB == gib:
                return False
        return True

    def run(self, case: Case) -> Seen:
        """Put the entries, touch the address, take the entries away again."""
        va, words = VirtAddr(case.va), self._words
        slots = self._slots(case)
        left, self.left = self.left - 1, 0  # what breaks off here is not to be used again
        self._load(case)
        routines = words[slots[0] >> 3]  # their entry, if it is the case's slot
        planted = None
        try:
            for slot, entry in zip(slots, case.entries, strict=True):
                words[slot >> 3] = entry
            found = walk(self.machine.memory.read_u64, self._paging, va)
            pa = found.pa
            in_entry = pa is not None and pa & ~7 in slots
            if case.kind != "fetch":
                byte = _byte_after(found, words) if in_entry else 0
                outcome = self._touch(self._routine(case), case, byte)
            elif in_entry:  # an instruction planted there would be another entry
                outcome = self._fetch(va)
            else:
                if pa is not None:
                    planted = pa >> 3
                    words[planted] = _INT3 << 8 * (pa & 7)
                outcome = self._touch(va, case)
            after = tuple([words[slot >> 3] for slot in slots])
        finally:
            for slot in slots:
                words[slot >> 3] = 0
            words[slots[0] >> 3] = routines
            if planted is not None:
                words[planted] = 0
        self.left = left
        refused = None
        if found.verdict != NON_CANONICAL:
            refused = refusal(found, _ACCESS[case.kind, case.user, case.ac], self._paging)
        return tuple.__new__(Seen, (*outcome, after, found, refused, slots))

    def _slots(self, case: Case) -> tuple[PhysAddr, ...]:
        """Return where each entry lies; BadCase if one place should hold two values."""
        va, level, table = case.va, case.levels, int(self._home)
        slots = []
        for entry in case.entries:
            slots.append(PhysAddr(table + ENTRY_SIZE * index(va, level)))
            table = entry & _FRAME
            level -= 1
        if len(set(slots)) < len(slots):
            check_shared(case.entries, slots)
        return tuple(slots)

    def _load(self, case: Case) -> None:
        """Set the control registers and CPL where they differ, and empty the TLB."""
        engine = self._engine
        controls = case[5:9] + case[10:]
        if controls != self._controls:
            old, new = self._paging, _paging(self._home, self._levels, *controls)
            if new.cr0 != old.cr0:
                engine.write("cr0", new.cr0)
            if new.cr4 != old.cr4:
                engine.write("cr4", new.cr4)
            if new.efer != old.efer:
                engine.write_efer(new.efer)
            if new.pkru != old.pkru:
                engine.write_pkru(new.pkru)
            self._paging, self._controls = new, controls
        if case.user != self._user:
            self._cpu.cpl = 3 if case.user else 0
            self._user = case.user
        engine.invalidate_tlb()

    def _routine(self, case: Case) -> int:
        """Return where to begin for a read or write of this case."""
        top = _SLOTS[index(case.va, self._levels) == _SLOTS[0]]
        return (
            (top << page_shift(self._levels))
            + (_USER if case.user else 0)
            + (_WRITE if case.kind == "write" else 0)
        )

    def _touch(self, rip: int, case: Case, byte: int = 0) -> Outcome:
        """Run from `rip`, with the case's address in RDI and `byte` in AL."""
        engine = self._engine
        flags = _RFLAGS | RFLAGS_AC if case.ac else _RFLAGS
        engine.write_all({"rax": byte, "rdi": case.va, "rflags": flags})
        error = engine.start(rip)
        vector = engine.event[0]
        if vector == BP:
            return WENT_THROUGH
        if vector not in (PF, GP):
            raise EngineError(f"unicorn error {error}, event {vector}, on {case}")
        engine.forget_exception()
        return self._exception(vector)

    def _fetch(self, va: VirtAddr) -> Outcome:
        """Have the CPU translate a fetch, and execute nothing."""
        return self._exception(PF) if self._engine.fetch(va) else WENT_THROUGH

    def _exception(self, vector: int) -> Outcome:
        control = self._engine.control()
        cr2, code = control[2], control[7]
        return vector, code, VirtAddr(cr2) if vector == PF else None

    def _put_routines(self) -> None:
        """Map them for the supervisor and for the user, below two top-level entries."""
        memory, paging = self.machine.memory, self._paging
        frames = Frames(memory, self._home + FRAME_SIZE, self._home + _HOME_SIZE)
        code = frames.allocate()
        memory.write(code, _READ_ROUTINE)
        memory.write(PhysAddr(code + _WRITE), _WRITE_ROUTINE)
        for slot in _SLOTS:
            va = VirtAddr(slot << page_shift(self._levels))
            map_page(memory, frames, paging, va, code, P | A)
            map_page(memory, frames, paging, VirtAddr(va + _USER), code, P | US | A)


def _paging(root: int, levels: int, *controls: int) -> Paging:
    *switches, pkru = controls  # of which there are few, and many
    paging = _switched(root, levels, *map(bool, switches))
    return Paging(paging.cr0, paging.cr3, paging.cr4, paging.efer, pkru) if pkru else paging


@lru_cache(maxsize=512)
def _switched(
    root: int, levels: int, wp: bool, smep: bool, smap: bool, nxe: bool, pke: bool
) -> Paging:
    return Paging.long_mode(root, levels=levels, wp=wp, smep=smep, smap=smap, nxe=nxe, pke=pke)


def _byte_after(found: Walk, words: memoryview) -> int:
    """Return the byte that `found` leads to, in an entry, as it is when a write has set A and D.

    A write stores it again, and so changes nothing but A and D.
    """
    pa = found.pa
    assert pa is not None
    word: int = words[pa >> 3]
    for _, entry_pa, _ in found.steps:
        if entry_pa == pa & ~7:
            word |= A
    if found.steps[-1].entry_pa == pa & ~7:
        word |= D
    return word >> 8 * (pa & 7) & 0xFF
