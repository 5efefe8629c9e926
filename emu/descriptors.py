"""What descriptors mean: gates of the IDT, segments of the GDT, the TSS, selectors.

Knows their layout in 64-bit mode, in both directions, and nothing that happens with them: that is
`interrupts`. SDM vocabulary; source: Intel SDM volume 3A, "Segment Descriptors", "64-Bit Mode IDT"
and "Task Management in 64-bit Mode".

A gate of the IDT, and the TSS, whose stack pointers are not aligned:

    127    96 95          64 63          48 47 46 45 44 43  40 39  35 34 32 31      16 15        0
    +--------+--------------+--------------+--+-----+--+------+------+-----+----------+----------+
    | ignored| offset 63:32 | offset 31:16 | P| DPL | 0| type | zero | IST | selector | off. 15:0|
    +--------+--------------+--------------+--+-----+--+------+------+-----+----------+----------+

    +0 reserved   +4 RSP0  +12 RSP1  +20 RSP2   +28 reserved   +36 IST1 ... +84 IST7   +102 I/O map
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from emu.paging import U64

GATE_SIZE: Final = 16
INTERRUPT_GATE: Final = 0xE  # clears RFLAGS.IF
TRAP_GATE: Final = 0xF
TSS_SIZE: Final = 104
TSS_RSP0: Final = 4
TSS_IST1: Final = 36
TSS_IO_MAP: Final = 102
ISTS: Final = 7

# Of a selector, and of the error code that names one.
SELECTOR_RPL: Final = 3  # of an error code, bit 0 is EXT and bit 1 says that it names a gate
SELECTOR_LDT: Final = 1 << 2
SELECTOR_INDEX: Final = 0xFFF8

# Of an 8-byte segment descriptor.
SEGMENT_ACCESSED: Final = 1 << 40  # set by the CPU when it loads the segment
SEGMENT_CONFORMING: Final = 1 << 42
SEGMENT_CODE: Final = 1 << 43
SEGMENT_NOT_SYSTEM: Final = 1 << 44
SEGMENT_DPL_SHIFT: Final = 45
SEGMENT_PRESENT: Final = 1 << 47
SEGMENT_LONG: Final = 1 << 53  # L: 64-bit code
SEGMENT_DEFAULT: Final = 1 << 54  # D: 32-bit otherwise; together with L, reserved

# The selectors of `flat_gdt`: the kernel's without RPL, the user's with it. Any others would do; in
# this order sysret finds the user's, with STAR[63:48] = USER_DATA - 8.
KERNEL_CODE: Final = 0x10
KERNEL_DATA: Final = 0x18
USER_DATA: Final = 0x2B
USER_CODE: Final = 0x33
TSS_SELECTOR: Final = 0x40

_FLAT: Final = 0x00CF_9300_0000_FFFF  # base 0, limit 4 GiB, writable data, accessed, DPL 0
_CODE_64: Final = 0x00AF_9B00_0000_FFFF  # the same for code, readable, L
_AVAILABLE_TSS: Final = 0x89 << 40
_GATE: Final = Struct("<HHHHII")


class TableRegister(NamedTuple):
    """GDTR or IDTR: a linear address, and the offset of the last byte."""

    base: int
    limit: int

    def __repr__(self) -> str:
        return f"TableRegister(base={self.base:#x}, limit={self.limit:#x})"


class SystemSegment(NamedTuple):
    """LDTR or TR: the selector, and the segment that was loaded with it."""

    selector: int
    base: int
    limit: int

    def __repr__(self) -> str:
        return f"SystemSegment({self.selector:#x}, base={self.base:#x}, limit={self.limit:#x})"


class Gate(NamedTuple):
    """One entry of the IDT: where a vector leads. IST 0 means no stack of its own."""

    offset: int
    selector: int
    ist: int = 0
    type: int = INTERRUPT_GATE
    dpl: int = 0
    present: bool = True

    def pack(self) -> bytes:
        """Return its 16 bytes; ValueError for what does not fit."""
        for name, width in (("offset", 64), ("selector", 16), ("ist", 3), ("type", 5), ("dpl", 2)):
            value = getattr(self, name)
            if value >> width:
                raise ValueError(f"{name} {value:#x} of a gate: expected {width} bits")
        low, middle, high = self.offset & 0xFFFF, self.offset >> 16 & 0xFFFF, self.offset >> 32
        flags = self.ist | self.type << 8 | self.dpl << 13 | self.present << 15
        return _GATE.pack(low, self.selector, flags, middle, high, 0)

    @classmethod
    def unpack(cls, data: bytes) -> "Gate":
        """Return the gate that 16 bytes describe. `type` has five bits: the fifth must be 0."""
        low, selector, flags, middle, high, _ = _GATE.unpack(data)
        offset = low | middle << 16 | high << 32
        return cls(offset, selector, flags & 7, flags >> 8 & 31, flags >> 13 & 3, bool(flags >> 15))

    def __repr__(self) -> str:
        return (
            f"Gate({self.offset:#x}, selector={self.selector:#x}, ist={self.ist}, "
            f"type={self.type:#x}, dpl={self.dpl}, present={self.present})"
        )


def code_segment(dpl: int = 0) -> bytes:
    """Return the descriptor of 64-bit code."""
    return (_CODE_64 | dpl << SEGMENT_DPL_SHIFT).to_bytes(8, "little")


def data_segment(dpl: int = 0) -> bytes:
    """Return the descriptor of flat, writable data."""
    return (_FLAT | dpl << SEGMENT_DPL_SHIFT).to_bytes(8, "little")


def tss_segment(base: int, limit: int = TSS_SIZE - 1) -> bytes:
    """Return the 16-byte descriptor of a TSS at `base`, for `ltr` to load."""
    low = limit & 0xFFFF | (base & 0xFF_FFFF) << 16 | _AVAILABLE_TSS
    low |= (limit >> 16 & 15) << 48 | (base >> 24 & 0xFF) << 56
    return low.to_bytes(8, "little") + (base >> 32).to_bytes(8, "little")


def tss(rsp0: int = 0, ist: Iterable[int] = ()) -> bytes:
    """Return a TSS with the stack for CPL 0 and those of IST 1 and up; no I/O permission map."""
    pointers = {TSS_RSP0: rsp0} | {TSS_IST1 + 8 * n: pointer for n, pointer in enumerate(ist)}
    if len(pointers) > 1 + ISTS:
        raise ValueError(f"{len(pointers) - 1} IST pointers: expected at most {ISTS}")
    data = bytearray(TSS_SIZE)
    for at, pointer in pointers.items():
        data[at : at + 8] = (pointer & U64).to_bytes(8, "little")
    data[TSS_IO_MAP:] = TSS_SIZE.to_bytes(2, "little")  # beyond the limit: there is none
    return bytes(data)


def flat_gdt(tss_va: int) -> bytes:
    """Return a GDT with flat segments for CPL 0 and 3, and a TSS at `tss_va`."""
    none = bytes(8)
    kernel, user = code_segment() + data_segment(), data_segment(3) + code_segment(3)
    return none + none + kernel + none + user + none + tss_segment(tss_va)
