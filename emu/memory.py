"""Physical memory: sparse RAM as one mapping, the one list of RAM pieces, and frames.

Knows where RAM is and what it holds. Refuses to know what the bytes mean: a page table is RAM
like any other. The engine maps the same host memory, so a store on either side is seen at once
on the other (but see `cpu` for what the CPU may have cached).
"""

import ctypes
import mmap
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from emu.fault import EmuError, OutOfFrames
from emu.paging import FRAME_SIZE, MAXPHYADDR, U64, PhysAddr

_NORESERVE: Final = 0x4000  # MAP_NORESERVE: absent from the mmap module before Python 3.13
MAX_PIECES: Final = 64  # the engine's cost of mapping grows with their square


class Piece(NamedTuple):
    """A run of RAM: first byte, and the byte after the last."""

    start: PhysAddr
    end: PhysAddr

    def __repr__(self) -> str:
        return f"{self.start:#x}-{self.end:#x}"


class NoRam(EmuError, ValueError):
    """Python asked for a physical address where there is no RAM."""


class PhysMemory:
    """RAM in one or more pieces of whole frames; zero until written; costs nothing until touched.

    `ram` is a size in bytes (one piece from 0), or the pieces as (start, end) pairs.
    Raises ValueError for pieces that overlap, are not frame aligned, or exceed MAXPHYADDR.
    """

    def __init__(self, ram: int | Iterable[tuple[int, int]]) -> None:
        pieces = [(0, ram)] if isinstance(ram, int) else sorted(ram)
        self.pieces: Final[tuple[Piece, ...]] = tuple(
            Piece(PhysAddr(s), PhysAddr(e)) for s, e in pieces
        )
        _check(self.pieces)
        self.size: Final[int] = self.pieces[-1].end
        self._map = mmap.mmap(-1, self.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
        anchor = ctypes.c_char.from_buffer(self._map)
        self.host_address: Final[int] = ctypes.addressof(anchor)
        del anchor  # it would keep the mapping from being closed
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")

    def close(self) -> None:
        """Give the memory back. No engine may still be using it."""
        self._words.release()
        self._bytes.release()
        self._map.close()

    def prefer_small_pages(self) -> None:
        """Have the host back RAM in 4 KiB pieces: for touches that are far from each other."""
        with suppress(OSError):  # a host that has no others
            self._map.madvise(mmap.MADV_NOHUGEPAGE)

    @property
    def words(self) -> memoryview:
        """All of physical memory as u64, index pa >> 3; holes read as 0. For bulk work."""
        return self._words

    def holds(self, pa: int, size: int = 1) -> bool:
        """Tell whether all of [pa, pa + size) is RAM."""
        for start, end in self.pieces:  # noqa: SIM110 (three times as fast as any())
            if start <= pa and pa + size <= end:
                return True
        return False

    def read_u64(self, pa: PhysAddr) -> int | None:
        """Return the aligned 8 bytes at `pa`, or None where there is no RAM."""
        if pa & 7:
            raise ValueError(f"pa {pa:#x} is not 8-byte aligned")
        for start, end in self.pieces:
            if start <= pa < end:
                return self._words[pa >> 3]
        return None

    def write_u64(self, pa: PhysAddr, value: int) -> None:
        """Store 8 bytes at an 8-byte aligned `pa`; NoRam where there is no RAM."""
        if pa & 7:
            raise ValueError(f"pa {pa:#x} is not 8-byte aligned")
        if not 0 <= value <= U64:
            raise ValueError(f"{value:#x} for pa {pa:#x} is not a 64-bit value")
        for start, end in self.pieces:
            if start <= pa < end:
                self._words[pa >> 3] = value
                return
        self._require(pa, 8)

    def read(self, pa: PhysAddr, size: int) -> bytes:
        """Return `size` bytes; NoRam if any of them is outside RAM."""
        self._require(pa, size)
        return bytes(self._bytes[pa : pa + size])

    def peek(self, pa: int, size: int) -> bytes:
        """Return `size` bytes that the caller knows to be RAM. For the hot path."""
        return bytes(self._bytes[pa : pa + size])

    def write(self, pa: PhysAddr, data: bytes | bytearray | memoryview) -> None:
        """Store bytes; NoRam if any of them would lie outside RAM, and then none is stored."""
        self._require(pa, len(data))
        self._bytes[pa : pa + len(data)] = data

    def zero(self, pa: PhysAddr, size: int) -> None:
        """Store `size` zero bytes."""
        self._require(pa, size)
        self._bytes[pa : pa + size] = bytes(size)

    def _require(self, pa: int, size: int) -> None:
        if size < 0:
            raise ValueError(f"size {size:#x}: expected 0 or more")
        if not self.holds(pa, size):
            ram = ", ".join(map(repr, self.pieces))
            raise NoRam(f"pa {pa:#x} (+{size:#x}) is outside RAM: expected an address in {ram}")


class Frames:
    """Hands out the free 4 KiB frames of [floor, ceiling), from the top down.

    What came back goes out first, the last of it before the others. A single frame is zeroed when
    it is handed out; a block is not, and holds what RAM held. `floor` may be raised later, to keep
    what lies below for other uses.
    """

    def __init__(self, memory: PhysMemory, floor: int, ceiling: int) -> None:
        if floor & (FRAME_SIZE - 1) or ceiling & (FRAME_SIZE - 1):
            raise ValueError(f"frames {floor:#x}-{ceiling:#x} are not 4 KiB aligned")
        if floor > ceiling or not memory.holds(floor, ceiling - floor):
            raise NoRam(f"frames {floor:#x}-{ceiling:#x} are not all RAM")
        self._memory = memory
        self.floor = floor
        self._top = ceiling
        self._ceiling = ceiling
        self._freed: dict[PhysAddr, None] = {}  # in the order in which they came back
        self._blocks: dict[int, dict[PhysAddr, None]] = {}  # larger ones that came back, by size

    @property
    def nr_free(self) -> int:
        """How many frames are left."""
        blocks = sum(size * len(blocks) for size, blocks in self._blocks.items())
        return len(self._freed) + (self._top - self.floor + blocks) // FRAME_SIZE

    def allocate(self) -> PhysAddr:
        """Return a zeroed frame; OutOfFrames when none is left."""
        pa = self._freed.popitem()[0] if self._freed else self.allocate_block(FRAME_SIZE)
        words = self._memory.words
        words[pa >> 3 : (pa + FRAME_SIZE) >> 3] = _ZERO_FRAME
        return pa

    def allocate_block(self, size: int) -> PhysAddr:
        """Return `size` bytes of frames, aligned to `size` (a power of two); not zeroed.

        OutOfFrames when so many are not left in one piece; single frames that came back do not
        count.
        """
        _check_block_size(size)
        if self._blocks.get(size):
            return self._blocks[size].popitem()[0]
        pa = (self._top - size) & -size
        if pa < self.floor:
            return self._split_block(size)
        if pa + size < self._top:
            skipped = range(pa + size, self._top, FRAME_SIZE)
            self._freed.update(dict.fromkeys(map(PhysAddr, skipped)))
        self._top = pa
        return PhysAddr(pa)

    def keep_low(self, size: int) -> PhysAddr:
        """Keep the lowest free `size` bytes, aligned to `size`, and what lies below them.

        Nothing of that is handed out until `floor` is what it was. OutOfFrames when the rest is
        not that large.
        """
        _check_block_size(size)
        pa = -(-self.floor // size) * size
        if pa + size > self._top:
            raise OutOfFrames(f"no {size:#x} free bytes are left below {self._top:#x}")
        self.floor = pa + size
        return PhysAddr(pa)

    def free(self, pa: PhysAddr) -> None:
        """Take back one frame that was handed out."""
        if pa & (FRAME_SIZE - 1) or not self._top <= pa < self._ceiling or self.is_free(pa):
            raise ValueError(f"pa {pa:#x} is no frame that was handed out")
        self._freed[pa] = None

    def free_block(self, pa: PhysAddr, size: int) -> None:
        """Take back a block of frames that were handed out, to be handed out as one again."""
        _check_block_size(size)
        inside = self._top <= pa and pa + size <= self._ceiling
        if pa & size - 1 or not inside or self._holds_free(pa, size):
            raise ValueError(f"pa {pa:#x} (+{size:#x}) is no block that was handed out")
        if size == FRAME_SIZE:
            self._freed[pa] = None
        else:
            self._blocks.setdefault(size, {})[pa] = None

    def is_free(self, pa: int) -> bool:
        """Tell whether the frame at `pa` may be handed out, now or again."""
        return (
            self.floor <= pa < self._top
            or pa in self._freed
            or any(pa & -size in blocks for size, blocks in self._blocks.items())
        )

    def _holds_free(self, pa: int, size: int) -> bool:
        """Tell whether some of a block came back: as it is, in parts, or with what is around it."""
        return self.is_free(pa) or not all(
            blocks.keys().isdisjoint(range(pa, pa + size, unit))
            for unit, blocks in ((FRAME_SIZE, self._freed), *self._blocks.items())
        )

    def _split_block(self, size: int) -> PhysAddr:
        """Take the lower end of the smallest block that came back and is larger; keep the rest."""
        larger = min((s for s, blocks in self._blocks.items() if blocks and s > size), default=0)
        if not larger:
            raise OutOfFrames(f"no {size:#x} free bytes are left above {self.floor:#x}")
        pa = self._blocks[larger].popitem()[0]
        half = larger >> 1
        while half >= size:
            self.free_block(PhysAddr(pa + half), half)
            half >>= 1
        return pa


def _check_block_size(size: int) -> None:
    if size < FRAME_SIZE or size & (size - 1):
        raise ValueError(f"size {size:#x}: expected a power of two from {FRAME_SIZE:#x} on")


_ZERO_FRAME: Final = memoryview(bytes(FRAME_SIZE)).cast("Q")


def _check(pieces: tuple[Piece, ...]) -> None:
    if not 1 <= len(pieces) <= MAX_PIECES:
        raise ValueError(f"{len(pieces)} pieces of RAM: expected 1 to {MAX_PIECES}")
    last = 0
    for start, end in pieces:
        if start & (FRAME_SIZE - 1) or end & (FRAME_SIZE - 1) or start >= end:
            raise ValueError(f"RAM {start:#x}-{end:#x}: expected whole 4 KiB frames")
        if start < last:
            raise ValueError(f"RAM {start:#x}-{end:#x} overlaps the piece below it")
        if end > 1 << MAXPHYADDR:
            raise ValueError(f"RAM {start:#x}-{end:#x} exceeds {MAXPHYADDR} physical address bits")
        last = end
