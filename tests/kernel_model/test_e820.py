"""The map of physical memory."""

import pytest

from kernel_model import Kernel
from kernel_model.e820 import E820

GIB = 1 << 30


@pytest.mark.parametrize(
    ("ram", "devices", "message"),
    [
        ((), (), "no RAM at physical 0"),
        (((GIB, 2 * GIB),), (), "no RAM at physical 0"),
        (((0, 4097),), (), "range 0x0-0x1001: expected whole pages"),
        (((0, GIB), (GIB, GIB)), (), "range 0x40000000-0x40000000: expected whole pages"),
        (((0, GIB),), ((GIB - 4096, 2 * GIB),), "overlaps the one below it"),
        (((0, 1 << 41),), (), "range 0x0-0x20000000000: expected at most 1 TiB"),
    ],
)
def test_a_map_that_cannot_be_is_refused(
    ram: tuple[tuple[int, int], ...], devices: tuple[tuple[int, int], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        E820(ram, devices)


def test_neighbours_are_one_piece_of_storage() -> None:
    e820 = E820(((0, GIB), (2 * GIB, 3 * GIB)), ((GIB, 2 * GIB), (4 * GIB, 5 * GIB)))

    assert e820.pieces() == [(0, 3 * GIB), (4 * GIB, 5 * GIB)]


def test_a_section_that_is_ram_in_part_counts() -> None:
    assert E820(((0, GIB + 4096),)).sections() == list(range(9))


def test_a_device_has_no_direct_map_and_no_struct_pages() -> None:
    with Kernel("5.10", ram=E820(((0, GIB), (2 * GIB, 3 * GIB)), ((GIB, 2 * GIB),))) as kernel:
        assert kernel.walk(kernel.layout.va(GIB)).verdict == "not-present"
        assert kernel.walk(kernel.layout.va(2 * GIB)).pa == 2 * GIB
        assert not kernel.sections.pfn_valid(GIB >> 12)


def test_frames_come_from_the_end_of_the_last_ram() -> None:
    with Kernel("5.10", ram=E820(((0, GIB), (2 * GIB, 3 * GIB - 4096)))) as kernel:
        pud = kernel.walk(kernel.layout.va(0)).steps[0].entry

        assert pud & ~0xFFF == 3 * GIB - 8192
