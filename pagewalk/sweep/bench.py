"""A machine that does the cases of one depth: it puts the entries, and has the CPU touch the page.

Through `Cpu.run`, as everybody's accesses: decoded, checked against the tables, corrected. Refuses
to know what should come of it.
"""

from typing import Final, NamedTuple

from emu import Access, EngineError, Machine, PageFault, PhysAddr, Returned, Stop, Trap, VirtAddr
from emu.paging import RFLAGS_AC, US, Paging, canonical, page_shift
from emu.tables import map_page
from pagewalk.sweep.entries import ADDRESSES, RAM, Setting, page, slots

_USER_CODE: Final = VirtAddr(1 << 16)
_HLT: Final = 0xF4  # what the page holds; a store puts it there again
_ROUTINE: Final = {
    "read": b"\x8a\x07\xf4",  # mov al, [rdi]; hlt
    "write": b"\x88\x07\xf4",  # mov [rdi], al; hlt
    "update": b"\xf0\x08\x07\xf4",  # lock or [rdi], al; hlt
}
_STEP: Final = 16  # from one routine to the next
_AT: Final = {name: _STEP * place for place, name in enumerate(_ROUTINE)}
_LENGTH: Final = {name: len(code) - 1 for name, code in _ROUTINE.items()}


class Outcome(NamedTuple):
    """An exception, or None where the access went through.

    `otherwise` says what else ended the run; there is no such `vector` then.
    """

    vector: int | None = None
    error_code: int | None = None
    cr2: int | None = None
    otherwise: str = ""


THROUGH: Final = Outcome()
NO_VECTOR: Final = -1


class Bench:
    """One machine; each case as if it were the only one."""

    def __init__(self, levels: int) -> None:
        self.machine: Final = Machine(ram=RAM, levels=levels)
        self.memory: Final = self.machine.memory
        self.root: Final = self.machine.cpu.paging.root
        self.slots: Final = slots(self.root, levels)
        self._cpu: Final = self.machine.cpu
        self._words: Final = [slot >> 3 for slot in self.slots]
        self._paging: Paging | None = None
        self._user = False
        self._ac = False
        self._code: Final = {
            True: _USER_CODE,
            False: canonical(511 << page_shift(levels), levels),
        }
        self._put_routines()
        for level in (1, 2, 3):
            self.memory.write(page(ADDRESSES[levels], level), bytes([_HLT]))
        self._cpu.write(rdi=ADDRESSES[levels], rax=_HLT)
        self._page: Final = ADDRESSES[levels]
        self._rdi = self._page

    def do(self, case: Setting) -> tuple[Outcome, tuple[int, ...]]:
        """Run a case, and return what came of it and what its entries are afterwards."""
        va, entries, paging, access, update, twice = case
        words = self.memory.words
        for at, entry in zip(self._words, entries, strict=True):
            words[at] = entry
        self._load(va, paging)
        if twice:
            self._touch(va, Access("read", ac=access.ac), "read")
        outcome = self._touch(va, access, "update" if update else access.kind)
        return outcome, tuple([words[at] for at in self._words])

    def close(self) -> None:
        """Free the machine."""
        self.machine.close()

    def _load(self, va: VirtAddr, paging: Paging) -> None:
        if paging is not self._paging:
            self._cpu.paging = self._paging = paging
        if va != self._rdi:
            self._cpu.write(rdi=va)
            self._rdi = va
        self._cpu.invalidate_tlb()

    def _touch(self, va: VirtAddr, access: Access, what: str) -> Outcome:
        cpu = self._cpu
        user, ac = access.user, access.ac
        if user is not self._user:
            cpu.cpl = 3 if user else 0
            self._user = user
        if ac is not self._ac:
            cpu.write(rflags=2 | RFLAGS_AC * ac)
            self._ac = ac
        if what == "fetch":
            rip, end = va, self._page  # a hlt is there, and never at an address that is none
        else:
            rip = VirtAddr(self._code[user] + _AT[what])
            end = VirtAddr(rip + _LENGTH[what])
        try:
            return _outcome(cpu.run(rip, returns_to=end))
        except EngineError as error:
            return Outcome(NO_VECTOR, otherwise=f"EngineError: {error}")

    def _put_routines(self) -> None:
        memory, frames = self.memory, self.machine.frames
        code = frames.allocate()
        for name, routine in _ROUTINE.items():
            memory.write(PhysAddr(code + _AT[name]), routine)
        for user, va in self._code.items():
            map_page(memory, frames, self._cpu.paging, va, code, US if user else 0)


def _outcome(stop: Stop) -> Outcome:
    match stop:
        case Returned():
            return THROUGH
        case PageFault():
            return Outcome(14, stop.error_code, stop.address)
        case Trap():
            return Outcome(stop.vector, stop.error_code)
        case _:
            return Outcome(NO_VECTOR, otherwise=f"{type(stop).__name__}: {stop}")
