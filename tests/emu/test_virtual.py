"""Bytes by linear address: through the tables, across pages, without rights."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tables import RAM, VA, Tables

from emu import (
    NotMapped,
    PhysAddr,
    VirtAddr,
    read_virtual,
    write_virtual,
)
from emu.paging import U64, US, XD


def map_in_a_row(tables: Tables, frames: list[int]) -> None:
    """Map these frames from VA on."""
    for n, frame in enumerate(frames):
        tables.map(VA + n * 0x1000, frame << 12)


@settings(max_examples=60, deadline=None)
@given(
    frames=st.permutations(range(16, 21)),
    offset=st.integers(0, 0x2000),
    data=st.binary(min_size=1, max_size=0x2800),
)
def test_what_is_written_across_pages_is_read_back(
    frames: list[int], offset: int, data: bytes
) -> None:
    tables = Tables()
    with tables.machine:
        map_in_a_row(tables, frames)
        va = VirtAddr(VA + offset)

        write_virtual(tables.memory, tables.paging, va, data)

        assert read_virtual(tables.memory, tables.paging, va, len(data)) == data
        first = PhysAddr((frames[offset >> 12] << 12) + offset % 0x1000)
        assert tables.memory.read(first, 1) == data[:1]


def test_a_write_that_reaches_an_unmapped_page_stores_nothing(tables: Tables) -> None:
    tables.map(VA, 0x5000)

    with pytest.raises(NotMapped, match=f"va {VA + 0x1000:#x}"):
        write_virtual(tables.memory, tables.paging, VirtAddr(VA + 0xFFE), b"abcd")

    assert tables.memory.read(PhysAddr(0x5FFE), 2) == bytes(2)


def test_a_page_outside_ram_cannot_be_read(tables: Tables) -> None:
    tables.map(VA, RAM)

    with pytest.raises(NotMapped, match=f"va {VA:#x}") as caught:
        read_virtual(tables.memory, tables.paging, VA, 1)

    assert caught.value.walk.verdict == "mapped"


def test_the_last_byte_of_all_can_be_read_and_no_more(tables: Tables) -> None:
    top = VirtAddr(U64 + 1 - 0x1000)
    tables.map(top, 0x5000)

    assert read_virtual(tables.memory, tables.paging, top, 0x1000) == bytes(0x1000)
    with pytest.raises(NotMapped):
        read_virtual(tables.memory, tables.paging, top, 0x1001)


def test_rights_do_not_bind_python(tables: Tables) -> None:
    tables.map(VA, 0x5000, flags=US | XD)

    write_virtual(tables.memory, tables.paging, VA, b"x")

    assert read_virtual(tables.memory, tables.paging, VA, 1) == b"x"


def test_nothing_is_read_of_no_bytes_and_less_is_refused(tables: Tables) -> None:
    assert read_virtual(tables.memory, tables.paging, VA, 0) == b""
    with pytest.raises(ValueError, match="size -0x1"):
        read_virtual(tables.memory, tables.paging, VA, -1)
