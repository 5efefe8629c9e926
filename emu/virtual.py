"""Read and write bytes by linear address, through the tables that the CPU would use.

Knows how to cut a range at page borders. Refuses to know rights: this is the debugger's view,
for stacks, code and tests. Sets no A or D bit.
"""

from collections.abc import Iterator

from emu.fault import NotMapped
from emu.memory import PhysMemory
from emu.paging import FRAME_SIZE, Paging, PhysAddr, VirtAddr
from emu.walk import walk


def translate(memory: PhysMemory, paging: Paging, va: VirtAddr) -> PhysAddr:
    """Return where `va` lies; NotMapped without a translation into RAM."""
    found = walk(memory.read_u64, paging, va)
    pa = found.pa
    if pa is None or not memory.holds(pa):
        raise NotMapped(found)
    return pa


def read_virtual(memory: PhysMemory, paging: Paging, va: VirtAddr, size: int) -> bytes:
    """Return `size` bytes at `va`; NotMapped if any page of them is not."""
    return b"".join(memory.read(pa, n) for pa, _, n in _pieces(memory, paging, va, size))


def write_virtual(memory: PhysMemory, paging: Paging, va: VirtAddr, data: bytes) -> None:
    """Store `data` at `va`; NotMapped if any page of it is not, and then nothing is stored."""
    for pa, offset, n in list(_pieces(memory, paging, va, len(data))):
        memory.write(pa, data[offset : offset + n])


def _pieces(
    memory: PhysMemory, paging: Paging, va: VirtAddr, size: int
) -> Iterator[tuple[PhysAddr, int, int]]:
    """Yield (pa, offset, size) for each page that the range touches."""
    if size < 0:
        raise ValueError(f"size {size:#x}: expected 0 or more")
    offset = 0
    while offset < size:
        pa = translate(memory, paging, VirtAddr(va + offset))
        n = min(size - offset, FRAME_SIZE - (pa & (FRAME_SIZE - 1)))
        yield pa, offset, n
        offset += n
