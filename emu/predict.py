"""What must have happened at an instruction: an independent reading of the same tables.

Knows how to find the instruction at RIP, ask it what it touches, walk for each touch, and judge.
Refuses to know what the CPU said: `cpu` compares. Imports no engine.
"""

from typing import Final, Literal, NamedTuple

from emu.instruction import Instruction, decode
from emu.memory import PhysMemory
from emu.paging import FRAME_SIZE, RFLAGS_AC, U64, Paging, PhysAddr, VirtAddr
from emu.registers import Registers
from emu.rights import Access, refusal
from emu.walk import Step, Walk, walk

MAX_INSTRUCTION: Final = 15
_CACHED_PAGES: Final = 1024
_OFFSET: Final = FRAME_SIZE - 1
_DATA_ACCESS: Final = {
    (writes, user, implicit, ac): Access("write" if writes else "read", user, implicit, ac)
    for writes in (False, True)
    for user in (False, True)
    for implicit in (False, True)
    for ac in (False, True)
}


class Expected(NamedTuple):
    """One thing that stops an instruction.

    `rmw` marks the load of a read-modify-write, whose #PF the architecture reports as a write.
    With "outside-ram", `pa` is the address without RAM and `what` should have been there.
    """

    kind: Literal["page-fault", "outside-ram", "non-canonical", "invalid"]
    address: VirtAddr
    walk: Walk
    error_code: int = 0
    reason: str = ""
    rmw: bool = False
    pa: PhysAddr = PhysAddr(0)
    what: Literal["leaf", "table", "root"] = "leaf"


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
        self._code: dict[tuple[int, int, bool], tuple[Paging, tuple[Step, ...], PhysAddr]] = {}

    def touch(
        self, paging: Paging, va: VirtAddr, access: Access, size: int = 1, rmw: bool = False
    ) -> Expected | Walk:
        """Judge one access to [va, va + size), which stays within one 4 KiB page.

        Returns the walk if nothing stops the access.
        """
        found = walk(self._memory.read_u64, paging, va)
        if found.verdict == "non-canonical":
            return Expected("non-canonical", va, found)
        if found.verdict == "outside-ram":
            what: Literal["table", "root"] = "table" if found.steps else "root"
            return Expected("outside-ram", va, found, pa=found.table, what=what)
        refused = refusal(found, access, paging)
        if refused is not None:
            return Expected("page-fault", va, found, refused.error_code, refused.reason, rmw)
        pa = found.pa
        assert pa is not None
        if not self._memory.holds(pa, size):
            return Expected("outside-ram", va, found, pa=pa)
        return found

    def instruction(self, who: Context, rip: VirtAddr) -> Instruction | Expected:
        """Fetch and decode the instruction at `rip`, or say what stops the fetch."""
        page = self._code_page(who, rip)
        if isinstance(page, Expected):
            return page
        offset = rip & _OFFSET
        here = FRAME_SIZE - offset
        if here >= MAX_INSTRUCTION:
            code = self._memory.peek(page + offset, MAX_INSTRUCTION)
            instruction = decode(code)
        else:
            code = self._memory.peek(page + offset, here)
            instruction = decode(code)
            if instruction is None:
                rest = self._code_page(who, VirtAddr((rip + here) & U64))
                if isinstance(rest, Expected):
                    return rest
                code += self._memory.peek(rest, MAX_INSTRUCTION - here)
                instruction = decode(code)
        if instruction is None:
            return Expected("invalid", rip, walk(self._memory.read_u64, who.paging, rip))
        return instruction

    def stops(self, who: Context, instruction: Instruction, registers: Registers) -> list[Expected]:
        """List what stops the instruction's accesses, in the order in which it makes them."""
        paging, user, ac = who
        found = []
        for va, size, reads, writes, _, implicit in instruction.accesses(registers):
            access = _DATA_ACCESS[writes, user and not implicit, implicit, ac]
            while size > 0:
                here = min(size, FRAME_SIZE - (va & _OFFSET))
                stop = self.touch(paging, VirtAddr(va), access, here, reads and writes)
                if isinstance(stop, Expected):
                    found.append(stop)
                va = (va + here) & U64
                size -= here
        return found

    def straddler(self, who: Context, rip: VirtAddr, border: VirtAddr) -> VirtAddr | None:
        """Return the first instruction from `rip` on, in a straight line, that touches `border`.

        That is the one whose fetch can fault on the page at `border`. None if the line ends
        before it.
        """
        while rip < border:
            found = self.instruction(who, rip)
            if isinstance(found, Expected):
                return rip if found.address == border else None
            if rip + found.size > border:
                return rip
            if found.ends_block:
                return None
            rip = VirtAddr(rip + found.size)
        return rip if rip == border else None

    def _code_page(self, who: Context, rip: VirtAddr) -> PhysAddr | Expected:
        """Return the frame that `rip` executes from, or what stops the fetch."""
        paging, user, _ = who
        key = (rip >> 12, paging.cr3, user)
        known = self._code.get(key)
        if known and known[0] is paging:
            _, steps, frame = known
            words = self._memory.words
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
