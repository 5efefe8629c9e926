"""What the bits mean: entry flags, levels 5..1, sizes, control registers, canonical form.

Knows the constants of x86-64 paging that translations and rights depend on, and nothing that
moves: no memory, no walk, no verdict on an access. SDM vocabulary; source: Intel SDM volume 3A,
"Paging", sections "4-Level Paging and 5-Level Paging" and "Reserved Bits".

A linear address picks one entry of 512 at each level; the level's number is also the number in
the name PML4, and counts down to 1:

    63     57 56     48 47     39 38     30 29     21 20     12 11         0
    +--------+---------+---------+---------+---------+---------+------------+
    |  sign  |  PML5E  |  PML4E  |  PDPTE  |   PDE   |   PTE   |   offset   |
    +--------+---------+---------+---------+---------+---------+------------+
      level       5         4         3         2         1
                                    1 GiB     2 MiB     4 KiB     <- page that it may map

An entry:

    63  62..59   58..52     51..M    M-1 .. 12    11..9  8  7  6 5  4   3   2  1  0
    +--+-------+----------+---------+-----------+------+--+--+--+-+---+---+--+--+--+
    |XD|  key  | ignored  |  zero   |  address  | ign. | G|PS| D|A|PCD|PWT|US|RW| P|
    +--+-------+----------+---------+-----------+------+--+--+--+-+---+---+--+--+--+

M is MAXPHYADDR. Bit 7 is PS at levels 3 and 2, PAT at level 1, and must be 0 above.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NewType

VirtAddr = NewType("VirtAddr", int)
"""A linear address: what an instruction uses. Nobody but a type checker tells it from an int."""
PhysAddr = NewType("PhysAddr", int)
"""A physical address: where something lies in RAM."""

# Flags of an entry.
P: Final = 1 << 0  # present: everything else is ignored without it
RW: Final = 1 << 1  # writes allowed; at every level, or not at all
US: Final = 1 << 2  # user-mode accesses allowed; at every level, or not at all
PWT: Final = 1 << 3  # write-through: no effect on translation
PCD: Final = 1 << 4  # cache disable: no effect on translation
A: Final = 1 << 5  # accessed: set by the CPU at every level that a walk uses
D: Final = 1 << 6  # dirty: set by the CPU in the entry that maps a written page
PS: Final = 1 << 7  # maps a page: levels 3 and 2 only (level 1: PAT; above: reserved)
G: Final = 1 << 8  # global: survives a CR3 write; only in an entry that maps a page
XD: Final = 1 << 63  # execute disable; at one level is enough; reserved without EFER.NXE
ADDRESS: Final = 0x000F_FFFF_FFFF_F000  # next table or frame, bits 51:12
KEY_SHIFT: Final = 59  # protection key, bits 62:59 of the entry that maps the page

ENTRY_SIZE: Final = 8
ENTRIES: Final = 512
FRAME_SIZE: Final = 4096
TOP_LEVEL: Final = 5
ENTRY_NAME: Final = {5: "PML5E", 4: "PML4E", 3: "PDPTE", 2: "PDE", 1: "PTE"}
PAGE_SIZE_NAME: Final = {3: "1G", 2: "2M", 1: "4K"}
_FLAG_NAME: Final = {
    P: "P",
    RW: "RW",
    US: "US",
    A: "A",
    D: "D",
    PS: "PS",
    G: "G",
    XD: "XD",
}

# Control registers and EFER: what paging depends on, and what a 64-bit kernel sets besides.
CR0_PE: Final = 1 << 0
CR0_MP: Final = 1 << 1
CR0_EM: Final = 1 << 2
CR0_TS: Final = 1 << 3
CR0_ET: Final = 1 << 4
CR0_NE: Final = 1 << 5
CR0_WP: Final = 1 << 16
CR0_NW: Final = 1 << 29
CR0_CD: Final = 1 << 30
CR0_PG: Final = 1 << 31
CR4_PSE: Final = 1 << 4
CR4_PAE: Final = 1 << 5
CR4_PGE: Final = 1 << 7
CR4_OSFXSR: Final = 1 << 9
CR4_OSXMMEXCPT: Final = 1 << 10
CR4_LA57: Final = 1 << 12
CR4_SMEP: Final = 1 << 20
CR4_SMAP: Final = 1 << 21
CR4_PKE: Final = 1 << 22
EFER_SCE: Final = 1 << 0
EFER_LME: Final = 1 << 8
EFER_LMA: Final = 1 << 10
EFER_NXE: Final = 1 << 11
RFLAGS_TF: Final = 1 << 8
RFLAGS_IF: Final = 1 << 9
RFLAGS_NT: Final = 1 << 14
RFLAGS_RF: Final = 1 << 16
RFLAGS_VM: Final = 1 << 17
RFLAGS_AC: Final = 1 << 18
_CR0: Final = CR0_PG | CR0_NE | CR0_ET | CR0_MP | CR0_PE
_CR4: Final = CR4_PSE | CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT

MAXPHYADDR: Final = 40  # what every CPU model of the engine reports (CPUID.80000008H:EAX[7:0])
U64: Final = (1 << 64) - 1

_SHIFT: Final = tuple(3 + 9 * level for level in range(TOP_LEVEL + 2))


def page_shift(level: int) -> int:
    """Return log2 of the bytes that one entry of `level` covers."""
    return _SHIFT[level]


def page_size(level: int) -> int:
    """Return the bytes that one entry of `level` covers."""
    return 1 << _SHIFT[level]


def index(va: int, level: int) -> int:
    """Return which of the 512 entries of a table of `level` translates `va`."""
    return (va >> _SHIFT[level]) & 511


def slot_of(entry_pa: int) -> int:
    """Return which of the 512 entries of its table lies at `entry_pa`."""
    return entry_pa % FRAME_SIZE // ENTRY_SIZE


def maps_page(entry: int, level: int) -> bool:
    """Tell whether a present, well-formed entry of `level` maps a page instead of a table."""
    return level == 1 or bool(entry & PS)


def flags_text(entry: int, level: int) -> str:
    """Name the bits of an entry that are set: "P RW A D". At level 1, bit 7 is PAT."""
    names = [name for bit, name in _FLAG_NAME.items() if entry & bit]
    if level == 1 and entry & PS:
        names[names.index("PS")] = "PAT"
    return " ".join(names) or "-"


def frame(entry: int, level: int) -> PhysAddr:
    """Return the physical address of the page that an entry of `level` maps."""
    return PhysAddr(entry & ADDRESS & -page_size(level))


def address_bits(levels: int) -> int:
    """Return the width of a linear address: 48 at 4 levels, 57 at 5."""
    return _SHIFT[levels + 1]


@lru_cache
def halves(levels: int) -> tuple[range, range]:
    """Return the canonical addresses, the lower and the upper half.

    In these the bits above the linear address equal its top bit.
    """
    half = 1 << (address_bits(levels) - 1)
    return range(half), range(U64 + 1 - half, U64 + 1)


def canonical(va: int, levels: int) -> VirtAddr:
    """Return the canonical address with the same linear-address bits as `va`."""
    lower, upper = halves(levels)
    va &= 2 * lower.stop - 1
    return VirtAddr(va if va in lower else va - lower.stop + upper.start)


def is_canonical(va: int, levels: int) -> bool:
    """Tell whether `va` lies in one of the two halves; no negative number does."""
    lower, upper = halves(levels)
    return va in lower or va in upper


@lru_cache
def reserved_masks(nxe: bool, maxphyaddr: int) -> tuple[int, ...]:
    """Return the reserved bits of a present entry, at index 2 * level + its bit 7.

    Source: Intel SDM volume 3A, "Paging", tables "Format of a … Entry".
    """
    everywhere = ADDRESS & -(1 << maxphyaddr) | (0 if nxe else XD)
    large = [0] * (TOP_LEVEL + 1)
    large[5] = large[4] = PS
    for level in (3, 2):
        large[level] = (page_size(level) - 1) & ~0x1FFF  # from bit 13: bit 12 is PAT
    return tuple(
        everywhere | (large[level] if bit7 else 0)
        for level in range(TOP_LEVEL + 1)
        for bit7 in (False, True)
    )


@dataclass(frozen=True, slots=True)
class Paging:
    """Everything outside the tables that decides a translation or a right.

    `levels` and `root` follow from the registers; `reserved_by_level` is `reserved_masks`' answer,
    and `halves` that of the function.
    """

    cr0: int
    cr3: int
    cr4: int
    efer: int
    pkru: int = 0
    maxphyaddr: int = MAXPHYADDR
    levels: int = field(init=False, compare=False)
    root: PhysAddr = field(init=False, compare=False)
    reserved_by_level: tuple[int, ...] = field(init=False, compare=False, repr=False)
    halves: tuple[range, range] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        levels = 5 if self.cr4 & CR4_LA57 else 4
        put = object.__setattr__
        put(self, "levels", levels)
        put(self, "root", PhysAddr(self.cr3 & ADDRESS))
        masks = reserved_masks(bool(self.efer & EFER_NXE), self.maxphyaddr)
        put(self, "reserved_by_level", masks)
        put(self, "halves", halves(levels))

    @classmethod
    def long_mode(
        cls,
        root: int,
        *,
        levels: int = 4,
        wp: bool = True,
        nxe: bool = True,
        smep: bool = False,
        smap: bool = False,
        pke: bool = False,
        pkru: int = 0,
    ) -> "Paging":
        """Return 64-bit paging from `root`, with the features named."""
        if levels not in (4, 5):
            raise ValueError(f"{levels} levels of paging: expected 4 or 5")
        if root & ~ADDRESS:
            raise ValueError(f"root {root:#x} is not a 4 KiB aligned physical address")
        cr4 = _CR4
        for wanted, bit in (
            (levels == 5, CR4_LA57),
            (smep, CR4_SMEP),
            (smap, CR4_SMAP),
            (pke, CR4_PKE),
        ):
            cr4 |= bit if wanted else 0
        return cls(
            cr0=_CR0 | (CR0_WP if wp else 0),
            cr3=root,
            cr4=cr4,
            efer=EFER_LME | EFER_LMA | (EFER_NXE if nxe else 0),
            pkru=pkru,
        )

    def with_root(self, root: int) -> "Paging":
        """Return the same paging from another root."""
        return Paging(self.cr0, root, self.cr4, self.efer, self.pkru, self.maxphyaddr)

    def reserved(self, entry: int, level: int) -> int:
        """Return the bits of a present `entry` of `level` that must be 0 and are not."""
        return entry & self.reserved_by_level[2 * level + (entry >> 7 & 1)]

    def is_canonical(self, va: int) -> bool:
        """Tell whether `va` is an address that this paging can translate at all."""
        lower, upper = self.halves
        return va in lower or va in upper

    def __repr__(self) -> str:
        return (
            f"Paging(cr0={self.cr0:#x}, cr3={self.cr3:#x}, cr4={self.cr4:#x}, "
            f"efer={self.efer:#x}, pkru={self.pkru:#x})"
        )
