"""Exceptions through the guest's IDT: from what was raised to the handler's first instruction.

Knows gates, the stack of the TSS and of an IST, the frame, and what becomes of a fault on the way:
another exception, a double fault, or a shutdown. A pure function of state: it reads RAM through the
guest's tables, and answers with what the CPU becomes and what it stores. Refuses to know why the
exception was raised (`stops`) and what hardware interrupts are: there are none.

SDM vocabulary; source: Intel SDM volume 3A, "Interrupt and Exception Handling", above all "64-Bit
Mode Stack Frame", "Error Code" and the tables under "Interrupt 8 - Double Fault Exception (#DF)";
volume 2A, "INT n/INTO/INT3/INT1", "Operation".
"""

from typing import Final, NamedTuple

from emu.descriptors import (
    GATE_SIZE,
    INTERRUPT_GATE,
    SEGMENT_ACCESSED,
    SEGMENT_CODE,
    SEGMENT_CONFORMING,
    SEGMENT_DEFAULT,
    SEGMENT_DPL_SHIFT,
    SEGMENT_LONG,
    SEGMENT_NOT_SYSTEM,
    SEGMENT_PRESENT,
    SELECTOR_INDEX,
    SELECTOR_LDT,
    SELECTOR_RPL,
    TRAP_GATE,
    TSS_IST1,
    TSS_RSP0,
    Gate,
    SystemSegment,
    TableRegister,
)
from emu.fault import (
    CP,
    DB,
    DE,
    DF,
    GP,
    MC,
    NMI,
    NP,
    PF,
    SS,
    TS,
    VE,
    OutsideRam,
    PageFault,
    Shutdown,
    Trap,
)
from emu.paging import (
    FRAME_SIZE,
    RFLAGS_AC,
    RFLAGS_IF,
    RFLAGS_NT,
    RFLAGS_RF,
    RFLAGS_TF,
    RFLAGS_VM,
    U64,
    A,
    D,
    Paging,
    PhysAddr,
    VirtAddr,
)
from emu.rights import Access, refusal
from emu.walk import ReadU64, Step, walk

Exc = PageFault | Trap
"""An exception, by how it would end a run that nobody handles it in."""

CONTRIBUTORY: Final = frozenset((DE, TS, NP, SS, GP, CP))
PAGE_FAULTS: Final = frozenset((PF, VE))
_NOT_FAULTS: Final = frozenset((DB, NMI, DF, MC))  # besides these, only what software raises
_IDT: Final = 2  # in an error code that names a selector: it is a gate's number
_KNOWN_PAGES: Final = 64
_OFFSET: Final = FRAME_SIZE - 1
_ACCESSED_BYTE: Final = (SEGMENT_ACCESSED.bit_length() - 1) // 8
_READ: Final = Access("read", implicit=True)
_UPDATE: Final = Access("write", implicit=True)
_PUSH: Final = {
    (user, ac): Access("write", user, ac=ac) for user in (False, True) for ac in (False, True)
}


class State(NamedTuple):
    """What delivery depends on, besides RAM."""

    paging: Paging
    cpl: int
    cs: int
    ss: int
    rsp: int
    rflags: int
    idt: TableRegister
    gdt: TableRegister
    ldt: SystemSegment
    tr: SystemSegment


class Delivery(NamedTuple):
    """The handler is entered: what the CPU is now, and the words that it stored.

    `exceptions` are what was raised, in order; the last one is what the handler is for. `cr2` is
    None unless a page fault was among those raised on the way.
    """

    exceptions: tuple[Exc, ...]
    cpl: int
    cs: int
    ss: int
    rip: VirtAddr
    rsp: int
    rflags: int
    cr2: int | None
    stores: dict[PhysAddr, int]


class _Code(NamedTuple):
    """A handler's code segment, as far as it matters."""

    selector: int
    dpl: int
    conforming: bool


Stopped = PageFault | Trap | OutsideRam
"""What may come instead of a step's result."""

Known = dict[tuple[int, Access], tuple[Paging, tuple[Step, ...], PhysAddr]]
"""Where pages were that earlier deliveries used, by page number and access: under which paging, by
which entries, in which frame. Believed only as long as RAM still holds these entries."""


def deliver(
    read_u64: ReadU64, state: State, raised: Exc, known: Known
) -> Delivery | Shutdown | OutsideRam:
    """Return what becomes of the CPU when `raised` goes through the guest's IDT.

    An exception on the way is served instead, or becomes a double fault, by the SDM's table; one
    on the way to the handler of a double fault ends in a Shutdown. Where the CPU would have to
    read or write outside RAM there is nothing to go on with: OutsideRam. With these two, stores are
    lost; they were A and D bits, and accessed flags. `known` may start empty, and saves walks.
    """
    stores: dict[PhysAddr, int] = {}
    exceptions = [raised]
    while True:
        served = exceptions[-1]
        found = _Attempt(read_u64, stores, known, state, served).enter()
        if isinstance(found, Delivery):
            faults = [exc.address for exc in exceptions[1:] if isinstance(exc, PageFault)]
            return found._replace(exceptions=tuple(exceptions), cr2=faults[-1] if faults else None)
        if isinstance(found, OutsideRam):
            return found
        exceptions.append(found)
        if served.vector == DF and not is_software(served):
            return Shutdown(found.rip, tuple(exceptions))
        if _is_double_fault(served, found):
            exceptions.append(_trap(DF, 0, found.rip, state))


def _is_double_fault(first: Exc, second: Exc) -> bool:
    """Tell whether `second`, met on the way to the handler of `first`, is not served after it."""
    if is_software(first):
        return False
    if first.vector in PAGE_FAULTS:
        return second.vector in CONTRIBUTORY or second.vector in PAGE_FAULTS
    return first.vector in CONTRIBUTORY and second.vector in CONTRIBUTORY


def is_software(exc: Exc) -> bool:
    """Tell whether `int n` or `int3` raised it, and no error of the program."""
    return isinstance(exc, Trap) and exc.instruction is not None


def is_fault(exc: Exc) -> bool:
    """Tell whether its instruction has not completed, and is retried by the handler's `iretq`."""
    return not is_software(exc) and exc.vector not in _NOT_FAULTS


class _Attempt:
    """The way of one exception to its handler. What stops it is the next one."""

    def __init__(
        self,
        read_u64: ReadU64,
        stores: dict[PhysAddr, int],
        known: Known,
        state: State,
        exc: Exc,
    ) -> None:
        self._ram = read_u64
        self._stores = stores
        self._known = known
        self._state = state
        self._exc = exc
        # The error code's EXT: not the program's own doing, and so neither is what comes of it.
        self._software = is_software(exc)
        self._rip = exc.rip
        if isinstance(exc, Trap) and exc.instruction is not None:
            self._rip = exc.instruction

    def enter(self) -> Delivery | Stopped:
        """Go through the gate: find the handler and its stack, push, and change the flags."""
        state, exc = self._state, self._exc
        gate = self._gate()
        if not isinstance(gate, Gate):
            return gate
        code = self._code(gate.selector)
        if not isinstance(code, _Code):
            return code
        cpl = state.cpl if code.conforming else code.dpl
        rsp = self._stack(gate.ist, cpl)
        if not isinstance(rsp, int):
            return rsp
        if not state.paging.is_canonical(rsp - 8 & U64):
            return self._raise(SS, 0)
        if not state.paging.is_canonical(gate.offset):
            return self._raise(GP, 0)

        rflags = state.rflags
        frame = [state.ss, state.rsp, rflags | RFLAGS_RF if is_fault(exc) else rflags]
        frame += [state.cs, exc.rip]
        if exc.error_code is not None:
            frame.append(exc.error_code)
        stopped = self._push(rsp, frame, cpl)
        if stopped is not None:
            return stopped

        rflags &= ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM)
        if gate.type == INTERRUPT_GATE:
            rflags &= ~RFLAGS_IF
        return Delivery(
            exceptions=(),
            cpl=cpl,
            cs=code.selector & ~SELECTOR_RPL | cpl,
            ss=cpl if cpl < state.cpl else state.ss,  # the null selector is good enough for CPL < 3
            rip=VirtAddr(gate.offset),
            rsp=(rsp - 8 * len(frame)) & U64,
            rflags=rflags,
            cr2=None,
            stores=self._stores,
        )

    # -- what has to be found: each is the result, or what stops the delivery

    def _gate(self) -> Gate | Stopped:
        """The gate, checked in the SDM's order: limit, type, privilege, presence."""
        name = self._exc.vector << 3 | _IDT
        offset = GATE_SIZE * self._exc.vector
        idt = self._state.idt
        if offset + GATE_SIZE - 1 > idt.limit:
            return self._raise(GP, name)
        data = self._read(idt.base + offset, GATE_SIZE, (GP, name))
        if not isinstance(data, int):
            return data
        gate = Gate.unpack(data.to_bytes(GATE_SIZE, "little"))
        if gate.type not in (INTERRUPT_GATE, TRAP_GATE):
            return self._raise(GP, name)
        if self._software and gate.dpl < self._state.cpl:
            return self._raise(GP, name)
        if not gate.present:
            return self._raise(NP, name)
        return gate

    def _code(self, selector: int) -> _Code | Stopped:
        """The handler's code segment, checked, and marked as accessed."""
        state = self._state
        name, offset = selector & ~SELECTOR_RPL, selector & SELECTOR_INDEX
        if not name:
            return self._raise(GP, 0)
        table = state.ldt if selector & SELECTOR_LDT else state.gdt
        if offset + 7 > table.limit:
            return self._raise(GP, name)
        found = self._read(table.base + offset, 8, (GP, name))
        if not isinstance(found, int):
            return found
        dpl = found >> SEGMENT_DPL_SHIFT & 3
        kind = found & (SEGMENT_NOT_SYSTEM | SEGMENT_CODE | SEGMENT_LONG | SEGMENT_DEFAULT)
        if kind != SEGMENT_NOT_SYSTEM | SEGMENT_CODE | SEGMENT_LONG or dpl > state.cpl:
            return self._raise(GP, name)
        if not found & SEGMENT_PRESENT:
            return self._raise(NP, name)
        if not found & SEGMENT_ACCESSED:
            stopped = self._set_accessed(table.base + offset, (GP, name))
            if stopped is not None:
                return stopped
        return _Code(selector, dpl, bool(found & SEGMENT_CONFORMING))

    def _stack(self, ist: int, cpl: int) -> int | Stopped:
        """RSP before the pushes: of the IST, of the TSS if CPL changes, or as it is."""
        state = self._state
        if not ist and cpl == state.cpl:
            return state.rsp & ~15
        offset = TSS_IST1 + 8 * (ist - 1) if ist else TSS_RSP0 + 8 * cpl
        name = state.tr.selector & ~SELECTOR_RPL
        if offset + 7 > state.tr.limit:
            return self._raise(TS, name)
        rsp = self._read(state.tr.base + offset, 8, (TS, name))
        return rsp & ~15 if isinstance(rsp, int) else rsp

    # -- memory; `beyond` is the exception, vector and error code, at no canonical address

    def _read(self, va: int, size: int, beyond: tuple[int, int]) -> int | Stopped:
        """Read a system structure, the lowest byte first."""
        skip = va & 7
        value = shift = pa = 0
        for at in range(va - skip, va + size, 8):
            if not shift or not at & _OFFSET:
                found = self._translate(max(at, va) & U64, _READ, beyond)
                if not isinstance(found, int):
                    return found
                pa = found & ~7
            value |= (self._word(PhysAddr(pa)) or 0) << shift
            pa += 8
            shift += 64
        return value >> 8 * skip & (1 << 8 * size) - 1

    def _push(self, rsp: int, frame: list[int], cpl: int) -> Stopped | None:
        """Push all words of the frame, or none, at `cpl`; `rsp` is a multiple of 16."""
        access = _PUSH[cpl == 3, bool(self._state.rflags & RFLAGS_AC)]
        where: list[PhysAddr] = []
        pa = 0
        for at in range(rsp - 8, rsp - 8 * len(frame) - 8, -8):
            if not where or at & _OFFSET == FRAME_SIZE - 8:
                found = self._translate(at & U64, access, (SS, 0))
                if not isinstance(found, int):
                    return found
                pa = found + 8
            pa -= 8
            where.append(PhysAddr(pa))
        self._stores.update(zip(where, frame, strict=True))
        return None

    def _set_accessed(self, va: int, beyond: tuple[int, int]) -> Stopped | None:
        """Set the accessed flag of the code segment that the descriptor at `va` describes."""
        at = va + _ACCESSED_BYTE & U64
        pa = self._translate(at, _UPDATE, beyond)
        if not isinstance(pa, int):
            return pa
        word = PhysAddr(pa & ~7)
        self._stores[word] = (self._word(word) or 0) | 1 << 8 * (pa & 7)
        return None

    def _translate(self, va: int, access: Access, beyond: tuple[int, int]) -> PhysAddr | Stopped:
        """Return where `va` lies, in RAM."""
        read = self._word if self._stores else self._ram
        known = self._known.get((va >> 12, access))
        if known and known[0] is self._state.paging:
            for _, entry_pa, entry in known[1]:
                if read(entry_pa) != entry:
                    break
            else:
                return PhysAddr(known[2] | va & _OFFSET)
        if not self._state.paging.is_canonical(va):
            return self._raise(*beyond)
        return self._walk(read, VirtAddr(va), access)

    def _walk(self, read: ReadU64, va: VirtAddr, access: Access) -> PhysAddr | Stopped:
        """Walk as the CPU does, with A and D."""
        state, stores = self._state, self._stores
        found = walk(read, state.paging, va)
        if found.verdict == "outside-ram":
            return OutsideRam(found.table, self._rip, "table" if found.steps else "root", found)
        refused = refusal(found, access, state.paging)
        *above, (_, leaf_pa, leaf) = found.steps
        used = {pa: entry | A for _, pa, entry in above if not entry & A}
        if refused is not None:
            stores.update(used)
            rip, cr3 = self._rip, state.paging.cr3
            return PageFault(va, refused[0], rip, found, state.cpl, cr3, refused[1])
        pa = found.pa
        assert pa is not None
        if self._ram(PhysAddr(pa & ~7)) is None:
            return OutsideRam(pa, self._rip, "leaf", found)
        bits = A | D if access.kind == "write" else A
        if leaf & bits != bits:
            used[leaf_pa] = leaf | bits
        if used:
            stores.update(used)
        else:
            if len(self._known) >= _KNOWN_PAGES:
                self._known.clear()
            page = PhysAddr(pa & ~_OFFSET)
            self._known[va >> 12, access] = state.paging, found.steps, page
        return pa

    def _word(self, pa: PhysAddr) -> int | None:
        """Read RAM, with what this delivery has stored already."""
        stored = self._stores.get(pa)
        return self._ram(pa) if stored is None else stored

    def _raise(self, vector: int, code: int) -> Trap:
        return _trap(vector, code | (0 if self._software else 1), self._rip, self._state)


def _trap(vector: int, code: int, rip: VirtAddr, state: State) -> Trap:
    return Trap(vector, code, rip, cpl=state.cpl, cr3=state.paging.cr3)
