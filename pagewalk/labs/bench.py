"""A CPU over a lab's words: it makes one access at a time, under a CR3 that is given or left.

Knows how to have code under any root. Writing CR3 invalidates the TLB, and nothing else does unless
asked to. Refuses to know what an access is to show. What an answer makes impossible is Lost.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pagewalk.labs.lab import Lost

if TYPE_CHECKING:
    from emu import Cpu, PhysAddr, Stop

LOAD, STORE, INVLPG = 0, 4, 8
"""Where each of them begins in ROUTINES; the `hlt` that ends it is HLT bytes behind."""
HLT: Final = 3
ROUTINES: Final = bytes.fromhex(
    "488b07f4"  # mov rax, [rdi]; hlt
    "488907f4"  # mov [rdi], rax; hlt
    "0f013ff4"  # invlpg [rdi]; hlt
)
_OWN: Final = 1 << 20  # bytes of RAM behind the lab's, for the routines and their tables
_SLOT: Final = 300
"""The top-level entry that every root lends to the routines; no lab uses it."""

_MARK: Final = 0x6B72616D  # no lab's word


class Bench:
    """RAM that holds `words`, and a CPU."""

    def __init__(self, ram: int, words: Mapping[int, int], *, levels: int = 4) -> None:
        from emu import Machine, VirtAddr, map_page
        from emu.paging import canonical, page_shift

        self._ram: Final = ram
        self._machine: Final = Machine(ram=ram + _OWN, levels=levels, frames=(ram, ram + _OWN))
        memory, frames, paging = self._machine.memory, self._machine.frames, self.cpu.paging
        self._paging: Final = paging
        self._code: Final = canonical(_SLOT << page_shift(levels), levels)
        code = frames.allocate()
        memory.write(code, ROUTINES)
        map_page(memory, frames, paging, VirtAddr(self._code), code, 0)
        for pa, word in words.items():
            self.put(pa, word)

    @property
    def cpu(self) -> "Cpu":
        """The CPU."""
        return self._machine.cpu

    @property
    def cr3(self) -> int:
        """CR3. Writing it invalidates the TLB; Lost if the lab has no RAM where it points."""
        return self.cpu.cr3

    @cr3.setter
    def cr3(self, cr3: int) -> None:
        from emu.paging import ENTRY_SIZE, FRAME_SIZE

        lent = self._in_ram((cr3 & -FRAME_SIZE) + ENTRY_SIZE * _SLOT)
        words = self._machine.memory.words
        words[lent // ENTRY_SIZE] = words[self._paging.root // ENTRY_SIZE + _SLOT]
        self.cpu.paging = self._paging.with_root(cr3)

    def put(self, pa: int, word: int) -> None:
        """Store 8 bytes in RAM, from outside; Lost if the lab has none there."""
        self._machine.memory.write(self._in_ram(pa), word.to_bytes(8, "little"))

    def get(self, pa: int) -> int:
        """Return the 8 bytes at `pa`; Lost if the lab has no RAM there."""
        return int.from_bytes(self._machine.memory.read(self._in_ram(pa), 8), "little")

    def load(self, cr3: int, va: int) -> "Stop":
        """Write CR3 and have the CPU load 8 bytes; they are in Returned, unless it was stopped."""
        self.cr3 = cr3
        return self.access(LOAD, va)

    def store(self, cr3: int, va: int, word: int) -> "Stop":
        """Write CR3 and have the CPU store 8 bytes."""
        self.cr3 = cr3
        return self.access(STORE, va, word)

    def access(self, routine: int, va: int, word: int = 0) -> "Stop":
        """Have the CPU run LOAD, STORE or INVLPG under the CR3 and with the TLB that it has."""
        code = self._code + routine
        return self.cpu.run(code, returns_to=code + HLT, rdi=va, rax=word)

    def value(self, cr3: int, va: int) -> int:
        """Write CR3, have the CPU load 8 bytes and return them; Lost if it cannot."""
        return loaded(self.load(cr3, va), f"with CR3 = {cr3:#x}, a load from {va:#x}")

    def check_translation(self, cr3: int, va: int, pa: int) -> None:
        """Put a mark at `pa`, and have the CPU load from `va`; Lost unless it finds the mark."""
        self.put(pa, _MARK)
        if self.value(cr3, va) != _MARK:
            raise Lost(f"the CPU, loading from {va:#x}, does not find what is put at pa {pa:#x}")

    def _in_ram(self, pa: int) -> "PhysAddr":
        from emu import PhysAddr

        if pa + 8 > self._ram:
            raise Lost(f"pa {pa:#x} is outside RAM, which ends at {self._ram:#x}")
        return PhysAddr(pa)


def stop_text(stop: "Stop") -> str:
    """Say how an access ended, without the address of our own routine."""
    return str(stop).partition(", rip ")[0].partition(" at rip ")[0]


def loaded(stop: "Stop", what: str) -> int:
    """Return what a load has found; Lost, saying `what` has failed, if it did not go through."""
    from emu import Returned

    if not isinstance(stop, Returned):
        raise Lost(f"{what} fails: {stop_text(stop)}")
    return stop.value
