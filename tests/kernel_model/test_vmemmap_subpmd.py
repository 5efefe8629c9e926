"""Sections that share a 2 MiB block of vmemmap: what marks the parts in use (facts 3.2, 3.4).

80 bytes: a section's struct pages are 2.5 MiB. That of the second oops begins on a block.
"""

from collections.abc import Callable

import pytest
from support.kernel_facts import SECTION, VRAM_PFN, frames

from emu import PageFault, Returned
from kernel_model import Kernel
from kernel_model.vmemmap import populate_section_memmap

START = 0xFFFF_EB3F_F100_0000
BLOCK = 0x20_0000
UNUSED = b"\xfd"


def section(kernel: Kernel, number: int) -> int:
    """Populate the number-th section from the one of the second oops on."""
    pfn = VRAM_PFN + number * SECTION
    return populate_section_memmap(kernel, pfn, SECTION, 0, None, None)


def unused_pmd_start(kernel: Kernel) -> int:
    """The kernel's variable."""
    return int.from_bytes(kernel.read(kernel.symbol("unused_pmd_start"), 8), "little")


# The marks that are written into struct pages of 80 bytes do not fault.
pytestmark = [pytest.mark.release("6.17"), pytest.mark.boot(struct_page=80)]


def test_a_section_takes_one_block_and_a_part_of_the_next(kernel: Kernel) -> None:
    section(kernel, 0)

    assert kernel.walk(START).steps[-1].level == 2
    assert kernel.walk(START + BLOCK).steps[-1].level == 2
    assert kernel.walk(START + 2 * BLOCK).verdict == "not-present"


def test_the_rest_of_the_last_block_is_remembered(kernel: Kernel) -> None:
    section(kernel, 0)

    assert unused_pmd_start(kernel) == 0xFFFF_EB3F_F128_0000


def test_the_next_section_shares_the_block(kernel: Kernel) -> None:
    section(kernel, 0)
    before = frames(kernel, START + BLOCK, 4096)

    section(kernel, 1)

    assert frames(kernel, START + BLOCK, 4096) == before
    assert unused_pmd_start(kernel) == 0xFFFF_EB3F_F150_0000


def test_going_on_where_the_last_one_ended_marks_nothing(kernel: Kernel) -> None:
    section(kernel, 0)
    before = kernel.read(START + BLOCK, BLOCK)

    section(kernel, 1)

    assert kernel.read(START + BLOCK, BLOCK) == before


def test_sections_that_end_on_a_block_leave_no_rest(kernel: Kernel) -> None:
    errors = [section(kernel, number) for number in range(4)]  # 10 MiB

    assert (errors, unused_pmd_start(kernel)) == ([0, 0, 0, 0], 0)


def test_a_section_elsewhere_has_the_rest_filled_with_fd(kernel: Kernel) -> None:
    section(kernel, 0)

    section(kernel, -4)

    assert kernel.read(START + 0x28_0000, 0x18_0000) == UNUSED * 0x18_0000
    assert unused_pmd_start(kernel) == START - 0x78_0000


def test_a_section_that_begins_inside_a_block_has_what_lies_before_filled(kernel: Kernel) -> None:
    section(kernel, 1)

    assert kernel.read(START + BLOCK, 0x8_0000) == UNUSED * 0x8_0000
    assert kernel.read(START + 0x28_0000, 80) == bytes(80)


def test_a_section_in_front_of_it_marks_its_own_part(kernel: Kernel) -> None:
    section(kernel, 1)

    section(kernel, 0)

    assert kernel.read(START + BLOCK, 80) == bytes(80)
    assert kernel.read(START + BLOCK + 80, 0x8_0000 - 80) == UNUSED * (0x8_0000 - 80)


def test_a_block_is_unused_when_the_last_of_its_parts_is_given_back(kernel: Kernel) -> None:
    section(kernel, 0)
    section(kernel, 1)
    task = kernel.fork("a")
    first = {"rdi": START + BLOCK, "rsi": START + 0x28_0000}
    second = {"rdi": START + 0x28_0000, "rsi": START + 2 * BLOCK}

    stops = [kernel.run(task, "vmemmap_pmd_is_unused", **part) for part in (first, second)]

    assert [stop.value for stop in stops if isinstance(stop, Returned)] == [0, 1]


@pytest.mark.parametrize(
    ("struct_page", "number", "address"),
    [
        (80, 0, 0xFFFF_EB3F_F120_0000),
        (80, 1, 0xFFFF_EB3F_F128_0000),  # begins inside a block: at its first struct page
        (80, 2, 0xFFFF_EB3F_F150_0000),
        (80, 3, 0xFFFF_EB3F_F178_0000),
        (96, 0, 0xFFFF_EB7F_EE20_0000),
        (96, 1, 0xFFFF_EB7F_EE30_0000),
    ],
)
def test_before_the_fix_the_first_mark_faults(
    make_kernel: Callable[..., Kernel],
    struct_page: int,
    number: int,
    address: int,
    expect_page_fault: Callable[..., PageFault],
) -> None:
    kernel = make_kernel("6.13", struct_page=struct_page)
    task = kernel.fork("modprobe")

    stop = kernel.run(task, section, number)

    expect_page_fault(stop, at=address, error="W", symbol="vmemmap_set_pmd+0xff")


def test_struct_pages_of_64_bytes_fill_whole_blocks_and_need_no_mark(
    make_kernel: Callable[..., Kernel],
) -> None:
    kernel = make_kernel("6.13")
    task = kernel.fork("modprobe")

    stop = kernel.run(task, section, 0)

    assert (stop, unused_pmd_start(kernel)) == (Returned(), 0)


def test_init_mm_marks_without_a_fault(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.13", struct_page=80)
    thread = kernel.kthread("kworker/0:1")

    assert kernel.run(thread, section, 0) == Returned()
