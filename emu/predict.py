"""What must have happened at an instruction: an independent reading of the same tables.

Knows how to find the instruction at RIP, ask it what it touches, walk for each touch, and judge.
Refuses to know what becomes of it: `stops` makes a Stop, or an EngineError. Imports no engine.
"""

from typing import Final, Literal, NamedTuple

from emu.descriptors import (
    SELECTOR_INDEX,
    SELECTOR_LDT,
    SELECTOR_RPL,
    SystemSegment,
    TableRegister,
)
from emu.fault import PF_U, PageFault
from emu.instruction import MAX_SIZE, Instruction, decode
from emu.memory import PhysMemory
from emu.paging import FRAME_SIZE, RFLAGS_AC, U64, Paging, PhysAddr, VirtAddr
from emu.registers import Registers
from emu.rights import Access, Kind, refusal
from emu.walk import Step, Walk, walk

_CACHED_PAGES: Final = 1024
_OFFSET: Final = FRAME_SIZE - 1
_DATA_ACCESS: Final = {
    (writes, user, implicit, ac): Access("write" if writes else "read", user, implicit, ac)
    for writes in (False, True)
    for user in (False, True)
    for implicit in (False, True)
    for ac in (False, True)
}
_IMPLICIT: Final = (Access("read", implicit=True), Access("write", implicit=True))
_FAR_POINTER: Final = frozenset(("call", "jmp", "lcall", "ljmp", "lss", "lfs", "lgs"))
_FAR_RETURN: Final = frozenset(("retf", "retfq"))
_INTERRUPT_RETURN: Final = frozenset(("iret", "iretd", "iretq"))
_IO: Final = frozenset(("in", "out", "insb", "insw", "insd", "outsb", "outsw", "outsd"))


class Expected(NamedTuple):
    """One thing that stops an instruction.

    `rmw` marks the load of a read-modify-write, whose #PF the architecture reports as a write;
    `stack` an access through SS, for which an address that is not canonical is a #SS; `number`
    says which of the instruction's accesses it is, where there are several.
    With "outside-ram", `pa` is the address without RAM and `what` should have been there; for a
    table or the root, `error_code` is that of the #PF which a table of zeros would give.
    """

    kind: Literal["page-fault", "outside-ram", "non-canonical", "invalid"]
    address: VirtAddr
    walk: Walk
    access: Kind
    error_code: int = 0
    reason: str = ""
    rmw: bool = False
    pa: PhysAddr = PhysAddr(0)
    what: Literal["leaf", "table", "root"] = "leaf"
    stack: bool = False
    number: int = 0

    def page_fault(self, registers: Registers, cpl: int, cr3: int) -> PageFault:
        """Return it as the fault that ends a run, of the CPU that has these."""
        return PageFault(
            self.address,
            self.error_code,
            VirtAddr(registers.rip),
            self.walk,
            cpl,
            cr3,
            self.reason,
            registers,
        )


class Context(NamedTuple):
    """Who executes: the control registers, CPL 3 or not, and RFLAGS.AC."""

    paging: Paging
    user: bool
    ac: bool


def context(paging: Paging, cpl: int, rflags: int) -> Context:
    """Return the context of code that runs at `cpl` with `rflags`."""
    return Context(paging, cpl == 3, bool(rflags & RFLAGS_AC))


class Predictor:
    """Reads the tables in `memory` as a CPU would.

    Remembers which entries led to a page of code, and uses them again only if RAM still holds
    the same values.
    """

    def __init__(self, memory: PhysMemory) -> None:
        self._memory = memory
        self._words = memory.words
        self._code: dict[tuple[int, int, bool], tuple[Paging, tuple[Step, ...], PhysAddr]] = {}

    def touch(
        self, paging: Paging, va: VirtAddr, access: Access, size: int = 1, rmw: bool = False
    ) -> Expected | Walk:
        """Judge one access to [va, va + size), which stays within one 4 KiB page.

        Returns the walk if nothing stops the access.
        """
        found = walk(self._memory.read_u64, paging, va)
        if found.verdict == "non-canonical":
            return Expected("non-canonical", va, found, access.kind)
        if found.verdict == "outside-ram":
            what: Literal["table", "root"] = "table" if found.steps else "root"
            code = _code_of_zeros(found, access, paging)
            return Expected("outside-ram", va, found, access.kind, code, "", rmw, found.table, what)
        refused = refusal(found, access, paging)
        if refused is not None:
            return Expected("page-fault", va, found, access.kind, *refused, rmw)
        pa = found.pa
        assert pa is not None
        if not self._memory.holds(pa, size):
            return Expected("outside-ram", va, found, access.kind, pa=pa)
        return found

    def instruction(self, who: Context, rip: VirtAddr) -> Instruction | Expected:
        """Fetch and decode the instruction at `rip`, or say what stops the fetch."""
        page = self._code_page(who, rip)
        if isinstance(page, Expected):
            return page
        offset = rip & _OFFSET
        here = FRAME_SIZE - offset
        if here >= MAX_SIZE:
            code = self._memory.peek(page + offset, MAX_SIZE)
            instruction = decode(code)
        else:
            code = self._memory.peek(page + offset, here)
            instruction = decode(code)
            if instruction is None:
                rest = self._code_page(who, VirtAddr((rip + here) & U64))
                if isinstance(rest, Expected):
                    return rest
                code += self._memory.peek(rest, MAX_SIZE - here)
                instruction = decode(code)
        if instruction is None:
            fetched = walk(self._memory.read_u64, who.paging, rip)
            return Expected("invalid", rip, fetched, "fetch")
        return instruction

    def stops(self, who: Context, registers: Registers) -> list[Expected]:
        """List what stops the instruction at RIP, in the order in which the CPU meets it."""
        instruction = self.instruction(who, VirtAddr(registers.rip))
        if isinstance(instruction, Expected):
            return [instruction]
        paging, user, ac = who
        found = []
        accesses = instruction.accesses(registers)
        for number, (va, size, reads, writes, stack, implicit) in enumerate(accesses):
            access = _DATA_ACCESS[writes, user and not implicit, implicit, ac]
            while size > 0:
                here = FRAME_SIZE - (va & _OFFSET)
                if here > size:
                    here = size
                stop = self.touch(paging, VirtAddr(va), access, here, reads and writes)
                if isinstance(stop, Expected):
                    if stack or number:
                        stop = stop._replace(stack=stack, number=number)
                    found.append(stop)
                va = (va + here) & U64
                size -= here
        return found

    def first_stops(self, who: Context, registers: Registers) -> list[Expected]:
        """List those of `stops` of which any may be the one that the CPU meets first.

        The SDM gives no order between the two pages of one access, and none between the two loads
        of a cmps. Everything else has its order, and there it is the first access alone.
        """
        return self._unordered(who, registers, self.stops(who, registers))

    def _unordered(
        self, who: Context, registers: Registers, stops: list[Expected]
    ) -> list[Expected]:
        """Keep of `stops` those that `first_stops` lists."""
        instruction = self.instruction(who, VirtAddr(registers.rip))
        if isinstance(instruction, Instruction) and "cmps" in instruction.mnemonic:
            return stops
        return [stop for stop in stops if stop.number == stops[0].number]

    def explain(
        self, who: Context, registers: Registers, address: int, error_code: int
    ) -> Expected | None:
        """Return what makes the instruction at RIP fault as the CPU says; None if nothing does.

        The CPU may report the load of a read-modify-write (deviation "rmw-reports-read"), "not
        present" where a table is outside RAM (deviation "table-outside-ram"), and a supervisor's
        access where the user returns far (deviation "far-return").
        """
        stops = self.stops(who, registers)
        if len(stops) > 1:
            stops = self._unordered(who, registers, stops)
        for stop in stops:
            if stop.address != address:
                continue
            if stop.kind == "page-fault" and stop.error_code == error_code:
                return stop
            if self._is_reported_as(who, stop, error_code):
                return stop
        instruction = self.instruction(who, VirtAddr(registers.rip))
        if isinstance(instruction, Expected) or not instruction.implicit:
            return None
        if "ret" in instruction.mnemonic:  # deviation "far-return"
            for stop in stops:
                if stop.address == address and self._is_reported_as(who, stop, error_code | PF_U):
                    return stop
        if stops and stops[0].access == "read" and "outs" not in instruction.mnemonic:
            return None  # a selector is loaded before it is looked up; a port is checked first
        for access in _IMPLICIT:  # a descriptor or the TSS: only the CPU knows where
            touched = self.touch(who.paging, VirtAddr(address), access)
            if isinstance(touched, Expected) and self._is_reported_as(who, touched, error_code):
                return touched
        return None

    def descriptor_outside_ram(
        self, who: Context, registers: Registers, gdt: TableRegister, ldt: SystemSegment
    ) -> Expected | None:
        """Return the first descriptor that the instruction at RIP looks up where there is no RAM.

        Follows the selectors that it names, in the order of its operands; not what a descriptor
        leads to in turn, such as the TSS behind a call gate.
        """
        instruction = self.instruction(who, VirtAddr(registers.rip))
        if isinstance(instruction, Expected) or not instruction.implicit:
            return None
        for selector in self._selectors(who, registers, instruction):
            if not selector & ~SELECTOR_RPL:
                continue
            base, limit = ldt[1:] if selector & SELECTOR_LDT else gdt
            offset = selector & SELECTOR_INDEX
            for at in (offset, offset + 8):  # of 16 bytes, if it is one of the system's
                if at + 7 > limit:
                    continue
                for va in dict.fromkeys((base + at & U64, base + at + 7 & U64)):
                    found = self.touch(who.paging, VirtAddr(va), _IMPLICIT[0])
                    if isinstance(found, Expected) and found.kind == "outside-ram":
                        return found
        return None

    def _selectors(self, who: Context, registers: Registers, instruction: Instruction) -> list[int]:
        """Return the selectors that the instruction looks up, as far as they can be read."""
        name = instruction.mnemonic.split()[-1]
        if name in _IO:
            return []
        source = next((a for a in instruction.accesses(registers) if a.reads), None)
        if source is None:
            register = instruction.operands.split(", ")[-1]
            return [getattr(registers, _whole(register)) & 0xFFFF]
        va, size = source[:2]
        if name in _INTERRUPT_RETURN:
            where = [va + size // 5, va + size // 5 * 4]
        elif name in _FAR_RETURN:
            where = [va + size // 2]
        else:
            where = [va + size - 2 if name in _FAR_POINTER else va]
        return [word for at in where if (word := self._word(who.paging, at)) is not None]

    def _word(self, paging: Paging, va: int) -> int | None:
        """Read 2 bytes, whoever may; None where they are not mapped, or not in RAM."""
        found = 0
        for n in (0, 1):
            pa = walk(self._memory.read_u64, paging, VirtAddr(va + n & U64)).pa
            if pa is None or not self._memory.holds(pa, 1):
                return None
            found |= self._memory.peek(pa, 1)[0] << 8 * n
        return found

    def _is_reported_as(self, who: Context, stop: Expected, error_code: int) -> bool:
        """Tell whether the CPU reports `stop` as a #PF with this error code."""
        missing_table = stop.kind == "outside-ram" and stop.what != "leaf"
        if stop.kind != "page-fault" and not missing_table:
            return False
        if stop.error_code == error_code:
            return True
        if not stop.rmw:
            return False
        load = _DATA_ACCESS[False, who.user, False, who.ac]
        if missing_table:
            return _code_of_zeros(stop.walk, load, who.paging) == error_code
        refused = refusal(stop.walk, load, who.paging)
        return refused is not None and refused.error_code == error_code

    def straddler(self, who: Context, rip: VirtAddr) -> VirtAddr | None:
        """Return the first instruction of the straight line from `rip` that reaches the next page.

        That is the one whose fetch can fault there. None if the line ends before it.
        """
        border = page_border(rip)
        left = FRAME_SIZE - (rip & _OFFSET)
        while left > 0:
            found = self.instruction(who, rip)
            if isinstance(found, Expected):
                return rip if found.address == border else None
            if found.size > left:
                return rip
            if found.ends_block:
                return None
            left -= found.size
            rip = VirtAddr((rip + found.size) & U64)
        return rip

    def _code_page(self, who: Context, rip: VirtAddr) -> PhysAddr | Expected:
        """Return the frame that `rip` executes from, or what stops the fetch."""
        paging, user, _ = who
        key = (rip >> 12, paging.cr3, user)
        known = self._code.get(key)
        if known and known[0] is paging:
            _, steps, frame = known
            words = self._words
            for _, entry_pa, entry in steps:
                if words[entry_pa >> 3] != entry:
                    break
            else:
                return frame
        found = self.touch(paging, rip, Access("fetch", user))
        if isinstance(found, Expected):
            return found
        pa = found.pa
        assert pa is not None
        frame = PhysAddr(pa & ~_OFFSET)
        if len(self._code) >= _CACHED_PAGES:
            self._code.clear()
        self._code[key] = paging, found.steps, frame
        return frame


def page_border(rip: VirtAddr) -> VirtAddr:
    """Return the first address of the page after the one that `rip` lies in."""
    return VirtAddr((rip | _OFFSET) + 1 & U64)


def _code_of_zeros(found: Walk, access: Access, paging: Paging) -> int:
    """Return the error code that `access` would give if the missing table were RAM and empty."""
    refused = refusal(found._replace(verdict="not-present"), access, paging)
    assert refused is not None
    return refused.error_code


def _whole(name: str) -> str:
    """Return the name of the 64-bit register that `name` is a part of: rax for ax, r8 for r8d."""
    return name.rstrip("dw") if name[1:2].isdigit() else f"r{name[-2:]}"
