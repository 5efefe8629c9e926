"""A lab's RAM, as words: page tables and pages in frames whose places come from the seed.

Knows how tables are put together, and how they are shown to a student: as a listing, and as a `.S`
file that has them in it. Refuses to know which question they are for, and loads no engine.

The frames of a board are the last of its RAM but one. That is where `pagewalk trace` puts a data
section behind a page of code, so the file's tables lie at the very addresses of the listing.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from emu.paging import (
    ADDRESS,
    ENTRY_SIZE,
    FRAME_SIZE,
    PS,
    RW,
    US,
    P,
    Paging,
    PhysAddr,
    VirtAddr,
    index,
)
from emu.walk import Walk, walk
from pagewalk.labs.seeded import Dice

TABLE: Final = P | RW | US
"""The flags of an entry that leads to a table, where a lab is about something else."""
DIRECT: Final = 0xFFFF_8880_0000_0000
"""Where all RAM is mapped: pa is at DIRECT + pa, as in Linux."""
KERNEL_SLOTS: Final = {4: (273, 402, 511), 5: (511,)}  # direct map, stack, code: all of `trace`'s
_LEAST_RAM, _MOST_RAM = 0x4000, 0x3FFFF  # frames


class Board:
    """RAM of a size that is drawn, and `nr_frames` frames, handed out in an order that is drawn."""

    def __init__(
        self, dice: Dice, *, nr_frames: int, levels: int = 4, ram: int | None = None
    ) -> None:
        self.levels: Final = levels
        self.ram: Final = ram or FRAME_SIZE * dice.between(_LEAST_RAM, _MOST_RAM)
        self.words: Final[dict[int, int]] = {}
        end = self.ram - FRAME_SIZE
        self._frames: Final = range(end - nr_frames * FRAME_SIZE, end, FRAME_SIZE)
        self._free = dice.sample(self._frames, nr_frames)

    def frame(self) -> int:
        """Return a frame that nothing uses yet."""
        return self._free.pop()

    def map(self, root: int, va: int, pa: int, *, flags: int = RW, level: int = 1) -> None:
        """Map the page of `level` at `va` to `pa`; tables that are missing get frames."""
        table = root
        for at in range(self.levels, level, -1):
            entry_pa = table + ENTRY_SIZE * index(va, at)
            if not self.words.get(entry_pa):
                self.words[entry_pa] = self.frame() | TABLE
            table = self.words[entry_pa] & ADDRESS
        size = PS if level > 1 else 0
        self.words[table + ENTRY_SIZE * index(va, level)] = pa | flags | size | P

    @property
    def below(self) -> int:
        """The pa at which the frames begin; what lies below is free for large pages."""
        return self._frames.start

    def walk(self, root: int, va: int) -> Walk:
        """Return the entries that translate `va` from `root`."""
        paging = Paging.long_mode(root, levels=self.levels)
        return walk(lambda pa: self.words.get(pa, 0), paging, VirtAddr(va))

    def pa(self, root: int, va: int) -> PhysAddr:
        """Return where `va` leads, which the board maps."""
        pa = self.walk(root, va).pa
        assert pa is not None
        return pa

    def without(self, frame: int) -> dict[int, int]:
        """Return the words, but those of one frame."""
        return {pa: word for pa, word in self.words.items() if pa & ADDRESS != frame}

    def listing(self, frames: Iterable[int] | None = None) -> str:
        """Return what frames hold, for the text of a lab: a line for each word that is not 0.

        That is all frames of the board, unless some are named; large pages are not among them.
        """
        wanted = self._frames if frames is None else frames
        lines = []
        for frame, found in self._by_frame():
            if frame in wanted:
                lines.append(f"frame {frame:#x}")
                lines += [f"    [{(pa - frame) // ENTRY_SIZE:3}] {w:#018x}" for pa, w in found]
        return "\n".join(lines)

    def source(self, body: str, roots: Iterable[int]) -> str:
        """Return a `.S` file with the board's RAM in it, and `body`, which may load the roots.

        A root takes along the entries of `pagewalk trace`'s own code, stack and direct map.
        """
        levels = "" if self.levels == 4 else f" --levels {self.levels}"
        lines = [
            f"# pagewalk: --ram {self.ram:#x}{levels} --map {DIRECT:#x}=0x0+{self.ram:#x}:rw",
            "",
            "        .globl  main",
            "        .type   main, @function",
            "main:",
            *self._stores(),
            "        # What `pagewalk trace` needs itself must be in every root that is loaded.",
            f"        mov     rbx, {DIRECT:#x}          # all of RAM is mapped here",
            "        mov     rcx, cr3",
        ]
        for slot in KERNEL_SLOTS[self.levels]:
            lines.append(f"        mov     rdx, [rbx + rcx + 8 * {slot}]")
            lines += [f"        mov     [rip + {label(root)} + 8 * {slot}], rdx" for root in roots]
        lines += ["", body.strip("\n"), "", *self._section()]
        return "\n".join(lines) + "\n"

    def _stores(self) -> Iterator[str]:
        """Yield the stores of what lies in none of the frames: in large pages."""
        for pa, word in sorted(self.words.items()):
            if pa & ADDRESS not in self._frames:
                yield f"        mov     rax, {word:#x}"
                yield f"        mov     rcx, {DIRECT + pa:#x}          # pa {pa:#x}"
                yield "        mov     [rcx], rax"

    def _section(self) -> Iterator[str]:
        """Yield the section that becomes the board's frames."""
        yield f"# RAM from {self._frames.start:#x} on; a label says which frame."
        yield '        .section .ram, "aw"'
        words = {frame: dict(found) for frame, found in self._by_frame()}
        for frame in self._frames:
            yield f"{label(frame)}:"
            at = 0
            for pa, word in words.get(frame, {}).items():
                offset = pa - frame
                if offset > at:
                    yield f"        .zero   {offset - at:#x}"
                yield f"        .quad   {word:#x}{' ' * 8}# [{offset // ENTRY_SIZE}]"
                at = offset + ENTRY_SIZE
            yield f"        .zero   {FRAME_SIZE - at:#x}"

    def _by_frame(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        for frame, found in groupby(sorted(self.words.items()), lambda word: word[0] & ADDRESS):
            yield frame, list(found)


def label(frame: int) -> str:
    """Return what a frame is called in the file."""
    return f"pa_{frame:x}"
