"""A CPU over a lab's words: one load or store at a time, under a CR3 that is given.

Knows how to have code under any root: a top-level entry that the address does not use is lent to
it. Refuses to know what the access is to show. What a student's answer makes impossible is Lost.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pagewalk.labs.lab import Lost

if TYPE_CHECKING:
    from emu import Cpu, PhysAddr, Stop

_OWN: Final = 1 << 20  # bytes of RAM behind the lab's, for code and its tables
_SLOTS: Final = (300, 301)
_LOAD: Final = bytes.fromhex("488b07f4")  # mov rax, [rdi]; hlt
_STORE: Final = bytes.fromhex("488907f4")  # mov [rdi], rax; hlt
_HLT: Final = 3  # where it is in both of them


class Bench:
    """RAM that holds `words`, and a CPU over it."""

    def __init__(self, ram: int, words: Mapping[int, int], *, levels: int = 4) -> None:
        from emu import Machine, VirtAddr, map_page
        from emu.paging import canonical, page_shift

        self._ram: Final = ram
        self._levels: Final = levels
        self._machine: Final = Machine(ram=ram + _OWN, levels=levels, frames=(ram, ram + _OWN))
        memory, frames, paging = self._machine.memory, self._machine.frames, self.cpu.paging
        self._paging: Final = paging
        code = frames.allocate()
        memory.write(code, _LOAD + _STORE)
        self._code: Final = {slot: canonical(slot << page_shift(levels), levels) for slot in _SLOTS}
        for va in self._code.values():
            map_page(memory, frames, paging, VirtAddr(va), code, 0)
        for pa, word in words.items():
            self.put(pa, word)

    @property
    def cpu(self) -> "Cpu":
        """The CPU."""
        return self._machine.cpu

    def put(self, pa: int, word: int) -> None:
        """Store 8 bytes in RAM; Lost if the lab has none there."""
        self._machine.memory.write(self._in_ram(pa), word.to_bytes(8, "little"))

    def get(self, pa: int) -> int:
        """Return the 8 bytes at `pa`; Lost if the lab has no RAM there."""
        return int.from_bytes(self._machine.memory.read(self._in_ram(pa), 8), "little")

    def load(self, cr3: int, va: int) -> "Stop":
        """Have the CPU load 8 bytes; they are in Returned, unless something stopped it."""
        return self._touch(cr3, va, 0, 0)

    def store(self, cr3: int, va: int, word: int) -> "Stop":
        """Have the CPU store 8 bytes."""
        return self._touch(cr3, va, len(_LOAD), word)

    def value(self, cr3: int, va: int) -> int:
        """Have the CPU load 8 bytes and return them; Lost if it cannot."""
        from emu import Returned

        stop = self.load(cr3, va)
        if not isinstance(stop, Returned):
            raise Lost(f"with CR3 = {cr3:#x}, a load from {va:#x} does not go through: {stop}")
        return stop.value

    def _touch(self, cr3: int, va: int, routine: int, word: int) -> "Stop":
        """Load CR3, and run a routine from the slot that `va` does not use."""
        from emu.paging import ADDRESS, ENTRY_SIZE, index

        slot = _SLOTS[index(va, self._levels) == _SLOTS[0]]
        lent = self._in_ram((cr3 & ADDRESS) + ENTRY_SIZE * slot) // ENTRY_SIZE
        words = self._machine.memory.words
        before, words[lent] = words[lent], words[self._paging.root // ENTRY_SIZE + slot]
        self.cpu.paging = self._paging.with_root(cr3)
        code = self._code[slot] + routine
        try:
            return self.cpu.run(code, returns_to=code + _HLT, rdi=va, rax=word)
        finally:
            words[lent] = before

    def _in_ram(self, pa: int) -> "PhysAddr":
        from emu import PhysAddr

        if pa + 8 > self._ram:
            raise Lost(f"pa {pa:#x} is outside RAM, which ends at {self._ram:#x}")
        return PhysAddr(pa)
