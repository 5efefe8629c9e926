"""Numbers that the tests of the kernel model judge by, and ways to look at its tables.

The numbers are those of the two oopses and of Linux's documentation, worked out by hand; nothing
here asks the code under test for one. What is read back is read by the machine's own walk.
"""

from typing import Final, NamedTuple

from emu import PhysAddr
from kernel_model import RELEASES, Kernel, Mm
from kernel_model.memremap import DevPagemap
from kernel_model.vmemmap import populate_section_memmap

MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40
PF_P, PF_W, PF_RSVD, PF_I = 1, 2, 8, 16
EEXIST, EINVAL, ENOMEM, ERANGE = 17, 22, 12, 34

ALL_RELEASES: Final = tuple(RELEASES)
EXPLICIT: Final = ("6.8", "6.13", "6.16")
SYNCING: Final = ("rfc-v1", "6.17")

SECTION: Final = 32768  # pages: 128 MiB
DEVICE_GENERIC, DEVICE_PRIVATE = 4, 1

# The second oops: one section at 64 TiB - 12 GiB, with struct pages of 80 bytes and no KASLR.
VRAM: Final = 0x3FFD_0000_0000
VRAM_PFN: Final = 0x3_FFD0_0000


class Where(NamedTuple):
    """A vmemmap that runs into the next top-level slot 64 GiB up in physical memory."""

    levels: int
    vmemmap_base: int
    boundary: int  # where the slot begins
    slot: int
    pfn: int  # whose struct page lies there


FOUR: Final = Where(4, 0xFFFF_E6FF_C000_0000, 0xFFFF_E700_0000_0000, 462, 0x100_0000)
FIVE: Final = Where(5, 0xFFD3_FFFF_C000_0000, 0xFFD4_0000_0000_0000, 468, 0x100_0000)


def boot(where: Where, release: str = "6.8", **options: int | str) -> Kernel:
    """A kernel with that vmemmap."""
    return Kernel(release, levels=where.levels, vmemmap_base=where.vmemmap_base, **options)  # type: ignore[arg-type]


def levels_of(release: str) -> tuple[int, ...]:
    """The paging depths that a release has."""
    return RELEASES[release].levels


def errno(number: int) -> int:
    """A negative errno as RAX holds it."""
    return (1 << 64) - number


def compound(start: int, size: int, shift: int = 9) -> DevPagemap:
    """A device whose pages come as compounds of 1 << shift."""
    return DevPagemap(DEVICE_GENERIC, start, size, vmemmap_shift=shift)


def populate_compound(kernel: Kernel, pfn: int) -> int:
    """Populate the memmap of one device-dax section, in init_mm."""
    device = compound(pfn << 12, 128 * MIB)
    return populate_section_memmap(kernel, pfn, SECTION, 0, None, device)


def slots(kernel: Kernel, mm: Mm) -> list[int]:
    """The 512 entries of a top table."""
    return list(kernel.memory.words[mm.pgd >> 3 : (mm.pgd >> 3) + 512])


def put_slot(kernel: Kernel, mm: Mm, slot: int, entry: int) -> None:
    """Write one entry of a top table."""
    kernel.memory.write_u64(PhysAddr(mm.pgd + 8 * slot), entry)


def frames(kernel: Kernel, start: int, size: int) -> list[int | None]:
    """The frame behind each page of [start, start + size), in init_mm."""
    return [kernel.walk(addr).pa for addr in range(start, start + size, 4096)]


def entries(kernel: Kernel, addr: int, mm: Mm | None = None) -> list[int]:
    """The entries that a walk reads, root first."""
    return [step.entry for step in kernel.walk(addr, mm).steps]


def in_order(wanted: tuple[str, ...], lines: list[str]) -> tuple[str, ...]:
    """Those of `wanted` that `lines` has, one behind the other."""
    rest = iter(lines)
    return tuple(line for line in wanted if line in rest)
