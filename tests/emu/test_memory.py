"""Physical memory holds what was written, where there is RAM; frames are handed out once."""

import pytest

from emu import Frames, NoRam, OutOfFrames, PhysAddr, PhysMemory
from emu.memory import MAX_PIECES

PIECES = [(0x1000, 0x3000), (0x8000, 0x9000)]


@pytest.fixture
def memory() -> PhysMemory:
    """Two pieces with a hole, and a hole below."""
    return PhysMemory(PIECES)


@pytest.mark.parametrize("pa", [0x1000, 0x2FF8, 0x8000, 0x8FF8])
def test_ram_is_zero_and_then_what_was_written(memory: PhysMemory, pa: int) -> None:
    assert memory.read_u64(PhysAddr(pa)) == 0

    memory.write_u64(PhysAddr(pa), 0x1122_3344_5566_7788)

    assert memory.read_u64(PhysAddr(pa)) == 0x1122_3344_5566_7788
    assert memory.read(PhysAddr(pa), 2) == b"\x88\x77"


@pytest.mark.parametrize("pa", [0, 0xFF8, 0x3000, 0x7FF8, 0x9000, 1 << 50, -8])
def test_a_word_outside_ram_reads_as_none_and_cannot_be_written(
    memory: PhysMemory, pa: int
) -> None:
    assert memory.read_u64(PhysAddr(pa)) is None
    with pytest.raises(NoRam, match=f"pa {pa:#x} "):
        memory.write_u64(PhysAddr(pa), 1)


@pytest.mark.parametrize(("pa", "size"), [(0x2FFF, 2), (0xFFF, 2), (0x2000, 0x6001), (0x8FFF, 2)])
def test_bytes_must_all_lie_in_ram(memory: PhysMemory, pa: int, size: int) -> None:
    with pytest.raises(NoRam, match=f"pa {pa:#x} "):
        memory.read(PhysAddr(pa), size)
    with pytest.raises(NoRam, match="outside RAM: expected an address in 0x1000-0x3000, 0x8000"):
        memory.write(PhysAddr(pa), bytes(size))
    with pytest.raises(NoRam, match=f"pa {pa:#x} "):
        memory.zero(PhysAddr(pa), size)


def test_zero_clears(memory: PhysMemory) -> None:
    memory.write(PhysAddr(0x1FFE), b"abcd")

    memory.zero(PhysAddr(0x1FFF), 2)

    assert memory.read(PhysAddr(0x1FFE), 4) == b"a\0\0d"


@pytest.mark.parametrize(
    ("pa", "size", "holds"),
    [
        (0x1000, 0x2000, True),
        (0x1000, 0x2001, False),
        (0xFFF, 1, False),
        (0x8FFF, 1, True),
        (0x2000, 0x6800, False),
    ],
)
def test_holds_tells_whether_all_of_a_range_is_ram(
    memory: PhysMemory, pa: int, size: int, holds: bool
) -> None:
    assert memory.holds(pa, size) is holds


def test_words_are_all_of_memory_and_holes_read_as_zero(memory: PhysMemory) -> None:
    memory.write_u64(PhysAddr(0x8000), 5)

    assert memory.words[0x8000 >> 3] == 5
    assert memory.words[0x5000 >> 3] == 0
    assert len(memory.words) == 0x9000 >> 3


@pytest.mark.parametrize("pa", [0x1001, 0x1004])
def test_words_are_aligned(memory: PhysMemory, pa: int) -> None:
    with pytest.raises(ValueError, match=f"pa {pa:#x} is not 8-byte aligned"):
        memory.read_u64(PhysAddr(pa))
    with pytest.raises(ValueError, match=f"pa {pa:#x} is not 8-byte aligned"):
        memory.write_u64(PhysAddr(pa), 0)


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_word_has_64_bits(memory: PhysMemory, value: int) -> None:
    with pytest.raises(ValueError, match=f"{value:#x} for pa 0x1000"):
        memory.write_u64(PhysAddr(0x1000), value)


def test_a_size_is_not_negative(memory: PhysMemory) -> None:
    with pytest.raises(ValueError, match="size -0x1"):
        memory.read(PhysAddr(0x1000), -1)


@pytest.mark.parametrize(
    ("ram", "message"),
    [
        (0, "0x0-0x0"),
        (-0x1000, "0x0--0x1000"),
        (0x1001, "0x0-0x1001"),
        ([], "0 pieces"),
        ([(0x1000, 0x1000)], "0x1000-0x1000"),
        ([(0x800, 0x1000)], "0x800-0x1000"),
        ([(0, 0x3000), (0x2000, 0x4000)], "0x2000-0x4000 overlaps"),
        ([(0, (1 << 40) + 0x1000)], "0x0-0x10000001000 exceeds 40"),
        ([(-0x1000, 0x1000)], "-0x1000-0x1000"),
        ([(n << 16, (n << 16) + 0x1000) for n in range(MAX_PIECES + 1)], "65 pieces"),
    ],
)
def test_pieces_that_cannot_be_are_refused(ram: int | list[tuple[int, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhysMemory(ram)


def test_pieces_may_touch_and_come_in_any_order() -> None:
    memory = PhysMemory([(0x2000, 0x3000), (0x1000, 0x2000)])

    assert memory.pieces == ((0x1000, 0x2000), (0x2000, 0x3000))


# -- frames


@pytest.fixture
def frames() -> Frames:
    """16 frames."""
    return Frames(PhysMemory(0x1_0000), 0, 0x1_0000)


def test_frames_come_from_the_top_down(frames: Frames) -> None:
    assert [frames.allocate() for _ in range(3)] == [0xF000, 0xE000, 0xD000]
    assert frames.nr_free == 13


def test_a_frame_comes_zeroed_even_if_it_was_used() -> None:
    memory = PhysMemory(0x1000)
    frames = Frames(memory, 0, 0x1000)
    memory.write(frames.allocate(), b"used")
    frames.free(PhysAddr(0))

    assert memory.read(frames.allocate(), 4096) == bytes(4096)


def test_no_frame_is_handed_out_twice_and_then_none_is_left(frames: Frames) -> None:
    assert len({frames.allocate() for _ in range(16)}) == 16
    assert frames.nr_free == 0
    with pytest.raises(OutOfFrames):
        frames.allocate()


def test_a_block_is_aligned_to_its_size_and_wastes_nothing(frames: Frames) -> None:
    frames.allocate()

    assert frames.allocate_block(0x4000) == 0x8000
    assert frames.nr_free == 16 - 1 - 4
    assert len({frames.allocate() for _ in range(11)}) == 11


@pytest.mark.parametrize("size", [0, 1, 0x800, 0x3000, -0x1000])
def test_a_block_is_a_power_of_two_of_frames(frames: Frames, size: int) -> None:
    with pytest.raises(ValueError, match=f"size {size:#x}"):
        frames.allocate_block(size)


def test_a_block_that_does_not_fit_is_refused(frames: Frames) -> None:
    with pytest.raises(OutOfFrames, match="0x20000"):
        frames.allocate_block(0x2_0000)


def test_what_is_kept_low_is_aligned_and_not_handed_out_until_the_floor_is_back() -> None:
    frames = Frames(PhysMemory(0x1_0000), 0x1000, 0x1_0000)

    assert frames.keep_low(0x4000) == 0x4000
    assert frames.nr_free == 8
    frames.floor = 0x1000
    assert frames.nr_free == 15


@pytest.mark.parametrize("size", [0, 0x800, 0x3000])
def test_what_is_kept_low_is_a_power_of_two_of_frames(frames: Frames, size: int) -> None:
    with pytest.raises(ValueError, match=f"size {size:#x}"):
        frames.keep_low(size)


def test_what_is_kept_low_is_free(frames: Frames) -> None:
    frames.allocate()

    with pytest.raises(OutOfFrames, match="0x10000"):
        frames.keep_low(0x1_0000)


@pytest.mark.parametrize("pa", [0xF800, 0xE000, 0x1_0000, 0x7000, -0x1000])
def test_only_a_frame_that_was_handed_out_comes_back(frames: Frames, pa: int) -> None:
    frames.allocate()

    with pytest.raises(ValueError, match=f"pa {pa:#x}"):
        frames.free(PhysAddr(pa))


def test_a_frame_comes_back_once(frames: Frames) -> None:
    pa = frames.allocate()
    frames.free(pa)

    with pytest.raises(ValueError, match=f"pa {pa:#x}"):
        frames.free(pa)


def test_a_block_that_came_back_goes_out_again_as_one(frames: Frames) -> None:
    first, last = frames.allocate_block(0x4000), frames.allocate_block(0x4000)
    frames.free_block(last, 0x4000)
    frames.free_block(first, 0x4000)

    assert frames.nr_free == 16
    assert [frames.allocate_block(0x4000) for _ in range(2)] == [first, last]


def test_a_block_that_came_back_is_split_only_when_nothing_else_is_left(frames: Frames) -> None:
    block = frames.allocate_block(0x8000)
    frames.free_block(block, 0x8000)

    singles = [frames.allocate() for _ in range(9)]

    assert (block, singles[:8]) == (0x8000, list(range(0x7000, -0x1000, -0x1000)))
    assert (singles[8], frames.nr_free) == (block, 7)
    assert frames.allocate_block(0x4000) == block + 0x4000


def test_all_of_a_split_block_is_handed_out_and_no_more(frames: Frames) -> None:
    frames.free_block(frames.allocate_block(0x1_0000), 0x1_0000)

    assert len({frames.allocate() for _ in range(16)}) == 16
    with pytest.raises(OutOfFrames):
        frames.allocate()


def test_a_block_may_come_back_frame_by_frame(frames: Frames) -> None:
    block = frames.allocate_block(0x2000)

    frames.free(block)
    frames.free_block(PhysAddr(block + 0x1000), 0x1000)

    assert frames.nr_free == 16
    assert frames.allocate() == block + 0x1000


@pytest.mark.parametrize(
    ("pa", "size"),
    [(0xC000, 0x4000), (0xE000, 0x4000), (0x8000, 0x8000), (0x4000, 0x4000), (0x1_0000, 0x4000)],
)
def test_only_a_block_of_which_all_was_handed_out_comes_back(
    frames: Frames, pa: int, size: int
) -> None:
    frames.allocate_block(0x8000)
    frames.free(PhysAddr(0xD000))

    with pytest.raises(ValueError, match=f"pa {pa:#x} "):
        frames.free_block(PhysAddr(pa), size)


def test_a_block_comes_back_once_whole_or_in_parts(frames: Frames) -> None:
    block = frames.allocate_block(0x4000)
    frames.free_block(block, 0x4000)

    with pytest.raises(ValueError, match="no block"):
        frames.free_block(block, 0x4000)
    with pytest.raises(ValueError, match="no frame"):
        frames.free(PhysAddr(block + 0x3000))


@pytest.mark.parametrize("size", [0, 0x800, 0x3000])
def test_a_block_that_comes_back_is_a_power_of_two_of_frames(frames: Frames, size: int) -> None:
    with pytest.raises(ValueError, match=f"size {size:#x}"):
        frames.free_block(PhysAddr(0), size)


def test_a_frame_is_free_before_it_is_handed_out_and_after_it_came_back(frames: Frames) -> None:
    pa, block = frames.allocate(), frames.allocate_block(0x4000)
    in_use = [frames.is_free(at) for at in (pa, block, block + 0x3000)]
    frames.free(pa)
    frames.free_block(block, 0x4000)

    assert in_use == [False, False, False]
    assert all(frames.is_free(at) for at in (0, pa, block, block + 0x3000))
    assert not frames.is_free(0x1_0000)


@pytest.mark.parametrize(
    ("floor", "ceiling"), [(0x800, 0x1_0000), (0, 0x1_0800), (0, 0x1_1000), (0x2000, 0x1000)]
)
def test_frames_lie_in_ram(floor: int, ceiling: int) -> None:
    with pytest.raises(ValueError, match=f"{floor:#x}-{ceiling:#x}"):
        Frames(PhysMemory(0x1_0000), floor, ceiling)
