"""Build page tables in RAM.

Knows how entries are made. Refuses to know whose tables they are, and what they map in the end
(`address_space`); and invalidates nothing: after a change of a present entry tell the CPU
(`Cpu.invalidate_tlb`). SDM vocabulary.
"""

from typing import Final

from emu.memory import Frames, PhysMemory
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
    maps_page,
    page_size,
)
from emu.walk import walk

_LARGE_PAT: Final = 1 << 12  # PAT in an entry that maps a large page, address in any other


def map_page(
    memory: PhysMemory,
    frames: Frames,
    paging: Paging,
    va: VirtAddr,
    pa: PhysAddr,
    flags: int,
    *,
    level: int = 1,
    table_flags: int = P | RW | US,
) -> PhysAddr:
    """Map the page of `level` at `va` to `pa` and return where its entry lies.

    Missing tables come from `frames`. `flags` are the leaf's, PS aside; bit 12 (PAT) only for a
    large page. Raises ValueError if `va` or `pa` is not aligned to the page, if something else is
    mapped there already, or if an entry on the way has a reserved bit set.
    """
    if level not in (1, 2, 3):
        raise ValueError(f"level {level} maps no page: expected 1, 2 or 3")
    size = page_size(level)
    if va & (size - 1) or not paging.is_canonical(va):
        raise ValueError(f"va {va:#x} is not a canonical, {size:#x}-aligned address")
    if pa & (size - 1) or not 0 <= pa < 1 << paging.maxphyaddr:
        raise ValueError(f"pa {pa:#x} is not a {size:#x}-aligned physical address")
    if flags & ADDRESS & ~(_LARGE_PAT if level > 1 else 0) or table_flags & ADDRESS:
        raise ValueError(f"flags {flags:#x}, {table_flags:#x}: expected no address bits")
    table = paging.root
    for at in range(paging.levels, level, -1):
        entry_pa = PhysAddr(table + ENTRY_SIZE * index(va, at))
        entry = memory.read_u64(entry_pa)
        if entry is None:
            raise ValueError(f"the table at pa {table:#x} is outside RAM")
        if not entry & P:
            entry = frames.allocate() | table_flags
            memory.write_u64(entry_pa, entry)
        elif paging.reserved(entry, at):
            raise ValueError(
                f"the entry {entry:#x} at pa {entry_pa:#x} has a reserved bit set: expected a table"
            )
        elif maps_page(entry, at):
            raise ValueError(f"va {va:#x} lies in a page of level {at} that is mapped already")
        table = PhysAddr(entry & ADDRESS)
    entry_pa = PhysAddr(table + ENTRY_SIZE * index(va, level))
    if (memory.read_u64(entry_pa) or 0) & P:
        raise ValueError(f"va {va:#x} is mapped already")
    memory.write_u64(entry_pa, pa | flags | P | (PS if level > 1 else 0))
    return entry_pa


def map_range(
    memory: PhysMemory,
    frames: Frames,
    paging: Paging,
    va: VirtAddr,
    pa: PhysAddr,
    size: int,
    flags: int,
    *,
    largest: int = 1,
    table_flags: int = P | RW | US,
) -> None:
    """Map [va, va + size) to [pa, pa + size), with the largest pages up to level `largest`.

    Page by page, lowest first, and not atomic: if `map_page` raises, the pages below stay mapped.
    """
    if largest not in (1, 2, 3):
        raise ValueError(f"level {largest} maps no page: expected 1, 2 or 3")
    if size < 0 or (va | pa | size) & (FRAME_SIZE - 1):
        raise ValueError(f"va {va:#x}, pa {pa:#x}, size {size:#x}: expected whole 4 KiB pages")
    offset = 0
    while offset < size:
        level = largest
        while (va + offset | pa + offset) % page_size(level) or size - offset < page_size(level):
            level -= 1
        map_page(
            memory,
            frames,
            paging,
            VirtAddr(va + offset),
            PhysAddr(pa + offset),
            flags,
            level=level,
            table_flags=table_flags,
        )
        offset += page_size(level)


def unmap_page(memory: PhysMemory, paging: Paging, va: VirtAddr) -> None:
    """Clear the entry that maps `va`; ValueError if none does. Tables stay."""
    found = walk(memory.read_u64, paging, va)
    if found.verdict != "mapped":
        raise ValueError(f"va {va:#x} is not mapped: {found!r}")
    memory.write_u64(found.steps[-1].entry_pa, 0)
