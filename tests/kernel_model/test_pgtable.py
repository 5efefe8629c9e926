"""Entries: where they lie, when they are none, and folding (facts of asm/pgtable.h)."""

from collections.abc import Callable

import pytest
from support.kernel_facts import GIB, Where, entries

from emu import PhysAddr
from kernel_model import Kernel
from kernel_model.pgtable import leaf, linux_name, none, present, table

TEXT = 0xFFFF_FFFF_8100_0000


@pytest.mark.parametrize(
    ("levels", "names"),
    [(4, ["pgd", "pud", "pmd", "pte"]), (5, ["pgd", "p4d", "pud", "pmd", "pte"])],
)
def test_linux_names_the_levels_root_first(levels: int, names: list[str]) -> None:
    assert [linux_name(level, levels) for level in range(levels, 0, -1)] == names


@pytest.mark.parametrize(("levels", "same"), [(4, True), (5, False)])
def test_the_p4d_is_the_pgd_where_it_is_folded(
    make_kernel: Callable[..., Kernel], levels: int, same: bool
) -> None:
    kernel = make_kernel(levels=levels)
    pgdp = kernel.pgtable.pgd_offset(kernel.init_mm.pgd, TEXT)

    p4dp = kernel.pgtable.p4d_offset(pgdp, TEXT)

    assert (p4dp == pgdp) is same


def test_the_offsets_are_where_the_machine_walks(plain: Kernel) -> None:
    pgtable = plain.pgtable
    pgdp = pgtable.pgd_offset(plain.init_mm.pgd, TEXT)
    p4dp = pgtable.p4d_offset(pgdp, TEXT)
    pudp = pgtable.pud_offset(p4dp, TEXT)

    pmdp = pgtable.pmd_offset(pudp, TEXT)

    assert sorted({pgdp, p4dp, pudp, pmdp}) == sorted(s.entry_pa for s in plain.walk(TEXT).steps)


@pytest.mark.parametrize("entry", [0, 0x20, 0x40, 0x60])
def test_stray_accessed_and_dirty_bits_leave_an_entry_none(entry: int) -> None:
    assert none(entry)


@pytest.mark.parametrize("entry", [1, 2, 0x61, 0x80, 0x1000, 1 << 63])
def test_any_other_bit_does_not(entry: int) -> None:
    assert not none(entry)


@pytest.mark.parametrize("entry", [0, 0x20, 0x1067])
def test_a_folded_pgd_is_never_none_and_always_present(
    make_kernel: Callable[..., Kernel], entry: int
) -> None:
    pgtable = make_kernel(levels=4).pgtable

    assert (pgtable.pgd_none(entry), pgtable.pgd_present(entry)) == (False, True)


@pytest.mark.parametrize(
    ("entry", "is_none", "is_present"), [(0, True, False), (0x20, False, False), (1, False, True)]
)
def test_a_real_pgd_is_none_only_if_it_is_zero(
    make_kernel: Callable[..., Kernel], entry: int, is_none: bool, is_present: bool
) -> None:
    pgtable = make_kernel(levels=5).pgtable

    assert (pgtable.pgd_none(entry), pgtable.pgd_present(entry)) == (is_none, is_present)


@pytest.mark.parametrize(("levels", "empty"), [(4, True), (5, False)])
def test_a_top_entry_with_a_stray_bit_is_empty_only_at_four_levels(
    make_kernel: Callable[..., Kernel], levels: int, empty: bool
) -> None:
    assert make_kernel(levels=levels).pgtable.top_none(0x20) is empty


@pytest.mark.parametrize(("entry", "is_leaf"), [(0x1E3, True), (0x80, False), (0x67, False)])
def test_a_leaf_is_present_and_has_ps(entry: int, is_leaf: bool) -> None:
    assert leaf(entry) is is_leaf


def test_a_table_address_is_bits_12_to_51() -> None:
    assert (table(0x800F_FFFF_FFFF_F067), present(0x66)) == (0xF_FFFF_FFFF_F000, False)


def test_runs_of_empty_entries_end_at_the_table(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel()
    above, below = kernel.frames.allocate(), kernel.frames.allocate()

    assert above == below + 0x1000
    assert kernel.pgtable.nr_none(PhysAddr(below + 8 * 510), 100) == 2


def test_runs_of_empty_entries_end_at_one_that_is_not(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel()
    frame = kernel.frames.allocate()
    kernel.pgtable.set(PhysAddr(frame + 8 * 3), 0x1067)
    kernel.pgtable.set(frame, 0x60)

    assert kernel.pgtable.nr_none(frame, 100) == 3


def test_top_level_entries_are_written_with_page_table_flags(plain: Kernel) -> None:
    assert entries(plain, plain.layout.vmemmap_base)[0] & 0xFFF == 0x067


def test_the_direct_map_has_page_kernel_large_flags(plain: Kernel) -> None:
    assert entries(plain, plain.layout.va(GIB))[-1] == GIB | 0x8000_0000_0000_01E3


def test_boot_struct_pages_lie_in_two_mib_blocks(plain: Kernel) -> None:
    assert (
        entries(plain, plain.layout.vmemmap_base)[-1] & 0xFFF0_0000_0000_0FFF == 0x80000000000001E3
    )


def test_text_is_mapped_read_only_and_executable(plain: Kernel) -> None:
    assert entries(plain, TEXT)[-1] == 0x1000000 | 0x1E1


@pytest.mark.parametrize("slot", [508, 510, 511])
def test_the_slots_of_entry_area_espfix_and_text_exist_from_boot(kernel: Kernel, slot: int) -> None:
    assert entries(kernel, kernel.layout.slot_base(slot))[0] & 1


@pytest.mark.parametrize(("levels", "first", "last"), [(4, 402, 465), (5, 416, 465)])
def test_all_slots_of_vmalloc_exist_from_boot(
    make_kernel: Callable[..., Kernel], levels: int, first: int, last: int
) -> None:
    kernel = make_kernel(levels=levels)

    tops = [entries(kernel, kernel.layout.slot_base(slot))[0] for slot in range(first, last + 1)]

    assert all(tops)


@pytest.mark.levels(4, 5)
def test_a_slot_of_vmemmap_beyond_ram_does_not(kernel: Kernel, where: Where) -> None:
    assert entries(kernel, where.boundary) == [0]
