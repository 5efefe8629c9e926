"""vmalloc_fault on the CPU, in every variant: what it repairs, what it refuses, what it dies of.

Truth: "Re: [PATCH] x86/mm/vmfault: Make vmalloc_fault() handle large pages" (Toshi Kani,
2016-02-09), f4eafd8bcd52 "x86/mm: Fix vmalloc_fault() to handle large pages properly" and
18a955219bf7 "x86/mm: Fix vmalloc_fault to use pXd_large", whose report had CR2 = ffff8800900003c0.
"""

from typing import Final

import pytest
from support.kernel_44 import CONTENT, DEVICE, Kernel44

from emu import PhysAddr, Returned

VARIANTS: Final = [(leaves, checks) for leaves in (0, 1, 2) for checks in (0, 1, 2)]
CALLEE_SAVED: Final = {"rbx": 0xB0, "rbp": 0xB1, "r12": 0xB2, "r13": 0xB3, "r14": 0xB4, "r15": 0xB5}


# A fault that is handled.


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize(("leaves", "checks"), VARIANTS)
def test_a_missing_top_entry_is_copied_and_the_read_made_again(leaves, checks, levels):
    kernel = Kernel44(leaves, checks, levels=levels)
    source = kernel.map_small()

    stop = kernel.finit_module(source)

    assert stop == Returned(0)
    assert kernel.read(kernel.destination, 64) == CONTENT
    assert kernel.handled_faults == 1


def test_the_entry_that_is_copied_is_that_of_init_mm():
    kernel = Kernel44()
    source = kernel.map_small()
    before = kernel.top_entries(source)

    kernel.finit_module(source)

    mine, reference = kernel.top_entries(source)
    assert before == (0, reference)
    assert mine & ~0x20 == reference  # the CPU has set A


def test_what_a_function_may_not_change_is_unchanged_in_the_end():
    kernel = Kernel44()
    source = kernel.map_small()

    kernel.finit_module(source, **CALLEE_SAVED)

    left = kernel.cpu.registers
    assert {name: getattr(left, name) for name in CALLEE_SAVED} == CALLEE_SAVED
    assert left.rsp == kernel.stack - 0x10


def test_a_handled_fault_changes_no_register_of_who_faulted():
    kernel = Kernel44()
    source = kernel.map_small()
    others = CALLEE_SAVED | {f"r{n}": 0xA0 + n for n in (8, 9, 10, 11)}

    kernel.call("memcpy_erms", rdi=kernel.destination, rsi=source, rdx=64, **others)

    left = kernel.cpu.registers
    expected = others | {"rax": kernel.destination, "rdx": 64, "rcx": 0}
    expected |= {"rdi": kernel.destination + 64, "rsi": source + 64}
    assert {name: getattr(left, name) for name in expected} == expected


def test_a_second_read_does_not_fault():
    kernel = Kernel44()
    source = kernel.map_small()
    kernel.finit_module(source)

    stop = kernel.finit_module(source)

    assert stop == Returned(0)
    assert kernel.handled_faults == 1


# Large pages.


@pytest.mark.parametrize(("leaves", "hugetlbfs"), [(1, 1), (2, 0), (2, 1)])
@pytest.mark.parametrize("checks", [0, 1, 2])
@pytest.mark.parametrize("levels", [4, 5])
def test_a_handler_that_knows_large_pages_ends_there(leaves, hugetlbfs, checks, levels):
    kernel = Kernel44(leaves, checks, hugetlbfs, levels=levels)
    source = kernel.map_leaf()

    stop = kernel.finit_module(source)

    assert stop == Returned(0)
    assert kernel.read(kernel.destination, 64) == CONTENT
    assert kernel.handled_faults == 1


@pytest.mark.parametrize(("leaves", "hugetlbfs"), [(0, 0), (0, 1), (1, 0)])
@pytest.mark.parametrize("checks", [0, 1, 2])
@pytest.mark.parametrize("levels", [4, 5])
def test_a_handler_that_does_not_dies_at_the_same_place(leaves, hugetlbfs, checks, levels):
    kernel = Kernel44(leaves, checks, hugetlbfs, levels=levels)
    source = kernel.map_leaf()

    died = kernel.pt_regs(kernel.finit_module(source))

    assert kernel.image.describe(died["rip"]) == "vmalloc_fault+0x1be/0x300"
    assert kernel.cpu.cr2 == kernel.direct_map + 0x840000FF8


# What vmalloc_fault refuses, and what it dies of.


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("checks", [0, 1, 2])
def test_an_address_that_nothing_maps_is_refused(checks, levels):
    kernel = Kernel44(2, checks, levels=levels)

    stop = kernel.call("vmalloc_fault", rdi=kernel.slot)

    assert stop == Returned(0xFFFFFFFF)


@pytest.mark.parametrize("below", [1 << 30, 1 << 21, 1 << 12])
@pytest.mark.parametrize(("leaves", "checks"), VARIANTS)
def test_a_neighbour_of_a_mapped_page_is_refused_at_each_level(leaves, checks, below):
    kernel = Kernel44(leaves, checks)
    source = kernel.map_small()

    stop = kernel.call("vmalloc_fault", rdi=source ^ below)

    assert stop == Returned(0xFFFFFFFF)


@pytest.mark.parametrize("level", [2, 3])
@pytest.mark.parametrize("checks", [0, 1, 2])
def test_an_entry_of_nothing_but_a_and_d_is_none(checks, level):
    kernel = Kernel44(2, checks)
    source = kernel.map_small() ^ (1 << 30 if level == 3 else 1 << 21)
    steps = kernel.walk(source).steps
    kernel.memory.write_u64(steps[-1].entry_pa, 0x60)

    stop = kernel.call("vmalloc_fault", rdi=source)

    assert [step.level for step in steps][-1] == level
    assert stop == Returned(0xFFFFFFFF)


@pytest.mark.parametrize("offset", [-0x1000, 32 << 40])
def test_an_address_outside_the_vmalloc_area_is_refused(offset):
    kernel = Kernel44()
    kernel.map(0xFFFFC90000000000 + offset, DEVICE[0])

    stop = kernel.call("vmalloc_fault", rdi=0xFFFFC90000000000 + offset)

    assert stop == Returned(0xFFFFFFFF)


def test_a_2_mib_page_is_taken_for_a_table_too():
    kernel = Kernel44()
    kernel.map(kernel.leaf, 0x9000_0000, level=2)

    kernel.call("vmalloc_fault", rdi=kernel.leaf + 0x7_8000)

    assert kernel.cpu.cr2 == 0xFFFF8800900003C0


@pytest.mark.parametrize(("leaves", "hugetlbfs"), [(1, 1), (2, 0)])
def test_a_2_mib_page_is_left_alone_by_a_handler_that_knows_large_pages(leaves, hugetlbfs):
    kernel = Kernel44(leaves, 1, hugetlbfs)
    kernel.map(kernel.leaf, 0x9000_0000, level=2)

    stop = kernel.call("vmalloc_fault", rdi=kernel.leaf + 0x7_8000)

    assert stop == Returned(0)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("checks", [0, 1, 2])
def test_a_task_whose_entry_points_to_another_table_is_a_bug(checks, levels):
    kernel = Kernel44(0, checks, levels=levels)
    source = kernel.map_small()
    at = kernel.top_entry_pa(source)
    kernel.memory.write_u64(at, kernel.frames.allocate() | 3)

    died = kernel.pt_regs(kernel.call("vmalloc_fault", rdi=source))

    assert kernel.cpu.registers.rsi == 6
    assert died["rip"] == kernel.image.address("vmalloc_fault_bug")
    assert died["orig_rax"] == 2**64 - 1


def test_with_5_levels_the_p4d_entries_must_agree():
    kernel = Kernel44(levels=5)
    source = kernel.map_small()
    _, reference = kernel.top_entries(source)
    other = kernel.frames.allocate()
    kernel.memory.write(other, kernel.memory.read(PhysAddr(reference & ~0xFFF), 0x1000))
    kernel.memory.write_u64(other, kernel.frames.allocate() | 3)
    kernel.memory.write_u64(kernel.top_entry_pa(source), other | 3)

    kernel.call("vmalloc_fault", rdi=source)

    assert kernel.cpu.registers.rsi == 6
