"""What firmware says of physical memory: where RAM is, and where devices have theirs.

Knows ranges. Refuses to know what is mapped: RAM gets a direct map and struct pages at boot
(`boot`), a device what its driver asks for. Linux vocabulary; source: arch/x86/kernel/e820.c
(v4.4).
"""

from dataclasses import dataclass
from typing import Final, Self

from emu.paging import MAXPHYADDR
from kernel_model.layout import PAGE_SIZE, TIB
from kernel_model.sparse import SECTION_SIZE

MOST: Final = 1 << MAXPHYADDR
Range = tuple[int, int]
"""[start, end) in physical memory, in whole pages."""


@dataclass(frozen=True, slots=True)
class E820:
    """RAM and devices, each lowest first and apart from each other.

    What lies between them is nobody's. Boot takes the frames that it needs from the last range of
    RAM, from its end down. Raises ValueError, naming the range, for a map that cannot be.
    """

    ram: tuple[Range, ...]
    devices: tuple[Range, ...] = ()

    def __post_init__(self) -> None:
        if not self.ram or self.ram[0][0] != 0:
            raise ValueError("no RAM at physical 0: expected some for the kernel")
        last = 0
        for start, end in sorted((*self.ram, *self.devices)):
            if (start | end) % PAGE_SIZE or start >= end:
                raise ValueError(f"range {start:#x}-{end:#x}: expected whole pages")
            if start < last:
                raise ValueError(f"range {start:#x}-{end:#x} overlaps the one below it")
            last = end
        if last > MOST:
            raise ValueError(f"range {start:#x}-{end:#x}: expected at most {MOST // TIB} TiB")

    @classmethod
    def plain(cls, ram: int) -> Self:
        """Return the map of `ram` bytes from 0 on; ValueError unless that is whole sections."""
        if ram % SECTION_SIZE or not 0 < ram <= MOST:
            raise ValueError(
                f"ram {ram:#x}: expected a multiple of 128 MiB, up to {MOST // TIB} TiB"
            )
        return cls(((0, ram),))

    @property
    def ram_end(self) -> int:
        """The byte after the last of RAM (max_pfn)."""
        return self.ram[-1][1]

    @property
    def end(self) -> int:
        """The byte after the last of anything."""
        return max(end for _, end in (*self.ram, *self.devices))

    def pieces(self) -> list[Range]:
        """List all that holds data, neighbours joined, lowest first."""
        pieces: list[Range] = []
        for start, end in sorted((*self.ram, *self.devices)):
            if pieces and pieces[-1][1] == start:
                pieces[-1] = (pieces[-1][0], end)
            else:
                pieces.append((start, end))
        return pieces

    def sections(self) -> list[int]:
        """List the sections that have RAM in them, by number."""
        numbers: dict[int, None] = {}
        for start, end in self.ram:
            numbers.update(dict.fromkeys(range(start // SECTION_SIZE, -(-end // SECTION_SIZE))))
        return list(numbers)
