"""The memory that hooks record into: columns of fixed size, and a few words that say how full.

Knows where everything lies, so that machine code (`_native`) and Python's hooks (`trace`) can write
the same tape. Refuses to know what is recorded, and reads nothing back.
"""

import ctypes
import mmap
from enum import IntEnum
from struct import Struct
from typing import Final

CAPACITY: Final = 1 << 14  # instructions, and accesses: what the host's caches hold
WALKS: Final = 1 << 10
SLACK: Final = 1 << 12  # accesses that one instruction may make, and walks that it may need
MASKS: Final = tuple((1 << 8 * size) - 1 for size in range(9))
NOBODY: Final = (1 << 64) - 1  # no instruction's number

WALK: Final = Struct("<Q6I15QQ")
"""A walk: the address; instructions and accesses before it; 0 for a read, 1 for a write, 2 for a
fetch; the engine's mode; how many entries were read; how it ended (see below); five times
where an entry lies, what it held, and what it held afterwards; EFER."""
REFUSED: Final = 0  # how a walk ended: not in a page, ...
LED_TO_A_PAGE: Final = 1
LOOKED_AFTER: Final = 2  # ... not in a page either, and what it left in the entries was read
USER_MODE: Final = 1  # of the engine's modes
ACCESS: Final = Struct("<QQQIB??x")
"""An access, as `chunks.ACCESS` has it."""
REGISTERS_SIZE: Final = 16 * 8

SHAPES: Final = 1 << 14  # what is known by heart of instructions: see `_native`
SHAPE_SIZE: Final = 128
FRAMES: Final = 1 << 16  # of which it is known whether a store matters: by frame number, modulo


class Word(IntEnum):
    """The words of a tape, by index."""

    HEAD = 0  # instructions
    LIMIT = 1  # the number of instructions at which Python wants to be asked
    ACCESSES = 2
    ACCESSES_FULL = 3
    ACCESSES_END = 4
    WALKS = 5
    WALKS_FULL = 6
    WALKS_END = 7
    LOST = 8  # accesses and walks that there was no room for
    LAST = 9  # the number of the last instruction
    GENERATION = 10  # what is known by heart holds for one
    READ_VA = 11  # where the last instruction reads, ...
    WRITE_VA = 12  # ... and writes, ...
    READ_SIZE = 13  # ... and how many bytes from there on
    WRITE_SIZE = 14
    # Constants, of which the addresses are the host's.
    INSTRUCTIONS_AT = 15
    ACCESSES_AT = 16
    WALKS_AT = 17
    REGISTERS_AT = 18
    SHAPES_AT = 19
    FRAMES_AT = 20
    STATE_AT = 21  # the CPU's registers
    RAM_AT = 22
    RAM_SIZE = 23
    ADDRESS = 24  # the mask
    ZERO = 25
    ON_CODE = 26  # Python's hooks
    ON_ACCESS = 27
    FILL = 28  # the engine's own
    MASKS = 29  # the bits of a value, by its size: 0 to 8 bytes


class Tape:
    """Columns for one CPU; nothing is touched until it is used."""

    def __init__(self, *, registers: bool) -> None:
        sizes = {
            "words": 8 * (Word.MASKS + len(MASKS)),
            "instructions": 4 * CAPACITY,
            "accesses": ACCESS.size * (CAPACITY + SLACK),
            "walks": WALK.size * (WALKS + SLACK),
            "registers": REGISTERS_SIZE * CAPACITY if registers else 0,
            "shapes": SHAPE_SIZE * SHAPES,
            "frames": 4 * FRAMES,
        }
        self._map: Final = mmap.mmap(-1, sum(map(_whole, sizes.values())))
        self.address: Final = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        whole = memoryview(self._map)
        at = 0
        parts, addresses = {}, {}
        for name, size in sizes.items():
            parts[name], addresses[name] = whole[at : at + size], self.address + at
            at += _whole(size)
        self.words: Final = parts["words"].cast("Q")
        self.instructions: Final = parts["instructions"].cast("I")
        self.accesses: Final = parts["accesses"]
        self.walks: Final = parts["walks"]
        self.registers: Final = parts["registers"] if registers else None
        self.shapes: Final = parts["shapes"]
        self.frames: Final = parts["frames"].cast("I")
        words = self.words
        words[Word.ACCESSES_FULL], words[Word.ACCESSES_END] = CAPACITY, CAPACITY + SLACK
        words[Word.WALKS_FULL], words[Word.WALKS_END] = WALKS, WALKS + SLACK
        words[Word.LAST], words[Word.GENERATION] = NOBODY, 1
        for size, mask in enumerate(MASKS):
            words[Word.MASKS + size] = mask
        for word, name in (
            (Word.INSTRUCTIONS_AT, "instructions"),
            (Word.ACCESSES_AT, "accesses"),
            (Word.WALKS_AT, "walks"),
            (Word.REGISTERS_AT, "registers"),
            (Word.SHAPES_AT, "shapes"),
            (Word.FRAMES_AT, "frames"),
        ):
            words[word] = addresses[name]


def _whole(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
