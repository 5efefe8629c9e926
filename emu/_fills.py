"""Seeing walks without machine code: the engine asks for each translation, and is answered.

Knows how the CPU fills its TLB from the tables, and does so in its place (the engine's mode
UC_TLB_VIRTUAL). Refuses to know faults: where the CPU would fault, the engine is told so, and the
instruction is begun again with the CPU's own walk, which is the one that decides.

One walk of the CPU's own is not seen so: that for the code of an instruction that is begun again,
if the TLB has lost it since its block began, by `wrpkru` or to the pages that the block accessed.
"""

from collections.abc import Callable
from typing import Any, Final

import unicorn

from emu._layout import LIVE_HFLAGS, LIVE_RFLAGS
from emu._tape import LED_TO_A_PAGE, REFUSED, USER_MODE, WALK, Tape, Word
from emu.cpu import Cpu
from emu.events import Invalidated
from emu.paging import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    FRAME_SIZE,
    RFLAGS_AC,
    U64,
    A,
    D,
    Paging,
    page_size,
)
from emu.rights import Access, Kind, refusal
from emu.walk import walk

_PAGE: Final = -FRAME_SIZE
_KIND: Final[dict[int, Kind]] = {
    unicorn.UC_MEM_READ: "read",
    unicorn.UC_MEM_WRITE: "write",
    unicorn.UC_MEM_FETCH: "fetch",
}
_PERMISSION: Final[dict[Kind, int]] = {
    "read": unicorn.UC_PROT_READ,
    "write": unicorn.UC_PROT_WRITE,
    "fetch": unicorn.UC_PROT_EXEC,
}
_KINDS: Final = tuple(_PERMISSION)
# A change of these has the engine drop all translations.
_CR0_DROPS: Final = CR0_PG | CR0_WP | CR0_PE
_CR4_DROPS: Final = CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_SMEP | CR4_SMAP


class Fills:
    """Answers one engine's questions, and puts each walk on the tape."""

    def __init__(self, cpu: Cpu, tape: Tape, live: memoryview, broken: Callable[..., None]) -> None:
        self._cpu: Final = cpu
        self._memory: Final = cpu.memory
        self._tape: Final = tape
        self._live: Final = live
        self._break_off: Final = broken
        self.refused: Kind | None = None
        self._large: dict[int, tuple[int, int]] = {}
        """By the engine's mode, the region that holds all large pages used: address and mask."""

    def on_fill(self, engine: Any, va: int, kind: int, found: Any, data: Any) -> bool:
        """Translate the page of `va`; False where the CPU would fault."""
        try:
            return self._fill(va & _PAGE, _KIND[kind], found.contents)
        except BaseException as error:  # noqa: BLE001 (ctypes would print it and go on)
            self._break_off(error)
            return False

    def _fill(self, va: int, kind: Kind, found: Any) -> bool:
        paging, words = self._cpu.paging, self._memory.words
        user = self._live[LIVE_HFLAGS] & 3 == 3
        ac = bool(self._live[LIVE_RFLAGS] & RFLAGS_AC)
        seen = walk(self._memory.read_u64, paging, va)  # type: ignore[arg-type]
        pa = seen.pa
        allowed = (
            ()
            if pa is None
            else tuple(
                allows
                for allows in _KINDS
                if not refusal(seen, Access(allows, user, ac=ac), paging)
            )
        )
        if pa is None or kind not in allowed:
            self.refused = kind
            self._put(va, kind, user, seen.steps, REFUSED, paging)
            return False
        for _, entry_pa, entry in seen.steps:
            words[entry_pa >> 3] = entry | A
        leaf_pa = seen.steps[-1].entry_pa
        if kind == "write":
            words[leaf_pa >> 3] |= D
        self._put(va, kind, user, seen.steps, LED_TO_A_PAGE, paging)
        if kind == "fetch":
            self._tape.words[Word.GENERATION] += 1  # no code is known by heart now
        if seen.level > 1:
            self._use_large(va, page_size(seen.level), self._mode(user, ac, paging))
        dirty = words[leaf_pa >> 3] & D
        found.paddr = pa & _PAGE
        found.perms = sum(_PERMISSION[allows] for allows in allowed if dirty or allows != "write")
        return True

    def invalidated(self, what: Invalidated) -> None:
        """Drop what the CPU drops at an `invlpg` and an engine that asks does not: to that, every
        page is a small one, while the CPU drops all if the page lies in the region of large ones.
        """
        if what.what != "invlpg":
            if self._drops_all(what):
                self._large.clear()
        elif any((what.value ^ at) & mask == 0 for at, mask in self._large.values()):
            self._large.clear()
            self._cpu.invalidate_tlb()

    def _drops_all(self, what: Invalidated) -> bool:
        paging = self._cpu.paging
        match what.what:
            case "cr0":
                return bool((what.value ^ paging.cr0) & _CR0_DROPS)
            case "cr4":
                return bool((what.value ^ paging.cr4) & _CR4_DROPS)
        return what.what in ("cr3", "pkru")

    def _use_large(self, va: int, size: int, mode: int) -> None:
        """Extend the region to a large page, as the engine does."""
        at, mask = self._large.get(mode, (va, -size & U64))
        mask &= -size
        while (at ^ va) & mask:
            mask = mask << 1 & U64
        self._large[mode] = at & mask, mask

    def _mode(self, user: bool, ac: bool, paging: Paging) -> int:
        if user:
            return USER_MODE
        return 0 if paging.cr4 & CR4_SMAP and not ac else 2

    def _put(self, va: int, kind: Kind, user: bool, steps: Any, done: int, paging: Paging) -> None:
        tape = self._tape
        number = tape.words[Word.WALKS]
        if number >= tape.words[Word.WALKS_END]:
            tape.words[Word.LOST] += 1
            return
        entries = [0] * 15
        for n, (_, entry_pa, before) in enumerate(steps):
            entries[3 * n : 3 * n + 3] = entry_pa, before, self._memory.words[entry_pa >> 3]
        where = tape.words[Word.HEAD], tape.words[Word.ACCESSES]
        mode = USER_MODE if user else 0
        head = va, *where, _KINDS.index(kind), mode, len(steps), done
        WALK.pack_into(tape.walks, WALK.size * number, *head, *entries, paging.efer)
        tape.words[Word.WALKS] = number + 1
        if number + 1 >= tape.words[Word.WALKS_FULL]:
            tape.words[Word.LIMIT] = 0
