"""What entry helpers make of the bits (asm/pgtable_types.h, asm/pgtable_64.h, pgprot.c)."""

from collections.abc import Callable

import pytest

from emu import PhysAddr
from kernel_model import Kernel, inplace, pgalloc, swapops
from kernel_model.entries import PROTECTION_MAP, Entries, entry_pfn, pfn_entry
from kernel_model.inplace import Place
from kernel_model.swapops import SwpEntry

NX, SAVED_DIRTY = 1 << 63, 1 << 58
NEW, OLD = Entries(SAVED_DIRTY), Entries(0)
BOTH = pytest.mark.parametrize("entries", [NEW, OLD], ids=["saved-dirty", "before it"])
FRAME = PhysAddr(0x4000_0000)


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        (0b0000, 0x120),  # none: P is clear, PROTNONE and A are set
        (0b0001, NX | 0x25),  # read
        (0b0010, NX | 0x25),  # write, private: the first write is to fault
        (0b0011, NX | 0x25),
        (0b0100, 0x25),  # exec
        (0b0101, 0x25),
        (0b0110, 0x25),
        (0b0111, 0x25),
        (0b1000, 0x120),  # shared
        (0b1001, NX | 0x25),
        (0b1010, NX | 0x27),
        (0b1011, NX | 0x27),
        (0b1100, 0x25),
        (0b1101, 0x25),
        (0b1110, 0x27),
        (0b1111, 0x27),
    ],
)
def test_a_protection_is_these_bits(flags: int, bits: int) -> None:
    assert PROTECTION_MAP[flags] == bits


@BOTH
@pytest.mark.parametrize(
    ("helper", "before", "after"),
    [
        ("mkyoung", 0x7, 0x27),
        ("mkold", 0x67, 0x47),
        ("mkdirty", 0x27, 0x867),  # and soft-dirty
        ("mkclean", 0x67, 0x27),
        ("mkwrite", 0x25, 0x27),
        ("wrprotect", 0x27, 0x25),
        ("mkhuge", 0x25, 0xA5),
        ("mkspecial", 0x25, 0x225),
        ("mksoft_dirty", 0x25, 0x825),
        ("clear_soft_dirty", 0x867, 0x67),
    ],
)
def test_a_helper_changes_its_bits_and_no_others(
    entries: Entries, helper: str, before: int, after: int
) -> None:
    assert getattr(entries, helper)(FRAME | before) == FRAME | after


@pytest.mark.parametrize(
    ("helper", "before", "after"),
    [
        ("wrprotect", 0x67, SAVED_DIRTY | 0x25),
        ("mkdirty", 0x25, SAVED_DIRTY | 0x825),
        ("mkwrite", SAVED_DIRTY | 0x25, 0x67),
        ("mkclean", SAVED_DIRTY | 0x25, 0x25),
    ],
)
def test_an_entry_that_is_not_writable_keeps_its_dirty_bit_elsewhere(
    helper: str, before: int, after: int
) -> None:
    assert getattr(NEW, helper)(before) == after


@pytest.mark.parametrize(
    ("helper", "before", "after"),
    [("wrprotect", 0x67, 0x65), ("mkdirty", 0x25, 0x865), ("mkwrite", 0x65, 0x67)],
)
def test_before_that_bit_it_kept_it_in_place(helper: str, before: int, after: int) -> None:
    assert getattr(OLD, helper)(before) == after


@pytest.mark.parametrize(
    ("helper", "entry", "answer"),
    [
        ("young", 0x20, True),
        ("young", 0xDF, False),
        ("dirty", 0x40, True),
        ("dirty", SAVED_DIRTY, True),
        ("dirty", 0xBF, False),
        ("write", 0x2, True),
        ("write", 0x65, False),  # D alone: no shadow stacks here
        ("leaf", 0x80, True),  # while it is invalid
        ("leaf", 0x67, False),
        ("pte_huge", 0x80, True),
        ("trans_huge", 0xA5, True),
        ("trans_huge", 1 << 57 | 0xA5, False),  # device memory
        ("protnone", 0x120, True),
        ("protnone", 0x125, False),
        ("pte_present", 0x120, True),
        ("pte_present", 0x80, False),
        ("pmd_present", 0x80, True),
        ("pmd_present", 0x100, True),
        ("pmd_present", 0x7E, False),
        ("pud_present", 0x1, True),
        ("pud_present", 0x80, False),
        ("special", 0x200, True),
        ("soft_dirty", 0x800, True),
        ("pmd_bad", 0x1067, False),
        ("pmd_bad", 0x1063, False),
        ("pmd_bad", 0x1047, False),  # A does not matter
        ("pmd_bad", 0x1027, True),  # D does
        ("pmd_bad", 0x2000E7, True),
        ("pmd_bad", 0, True),
        ("pud_bad", 0x1067, False),
        ("pud_bad", 0x400000E7, True),
        ("pud_bad", NX | 0x1067, True),
        ("p4d_bad", 0x1067, False),
        ("p4d_bad", 0x10E7, True),
    ],
)
def test_a_predicate_looks_at_its_bits(helper: str, entry: int, answer: bool) -> None:
    assert getattr(NEW, helper)(entry) is answer


@pytest.mark.parametrize(("levels", "bad"), [(4, False), (5, True)])
@pytest.mark.parametrize("pgd", [0, 0x1027, 0x10E7, NX | 0x1067])
def test_a_pgd_is_bad_only_if_it_is_one(
    make_kernel: Callable[..., Kernel], levels: int, bad: bool, pgd: int
) -> None:
    assert make_kernel(levels=levels).pgtable.pgd_bad(pgd) is bad


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("pgd", [0x1067, 0x1063])
def test_a_pgd_with_a_table_is_never_bad(
    make_kernel: Callable[..., Kernel], levels: int, pgd: int
) -> None:
    assert not make_kernel(levels=levels).pgtable.pgd_bad(pgd)


def test_an_entry_that_is_present_has_its_address_as_it_is() -> None:
    assert pfn_entry(5, 0x25) == 0x5025


def test_one_that_is_not_has_it_inverted() -> None:
    assert pfn_entry(5, 0x120) == 0x000F_FFFF_FFFF_A120


@pytest.mark.parametrize("entry", [0x5025, 0x000F_FFFF_FFFF_A120])
def test_its_frame_is_the_same_either_way(entry: int) -> None:
    assert entry_pfn(entry, 1) == 5


def test_a_huge_page_has_fewer_address_bits() -> None:
    assert entry_pfn(0x4000_1000 | 0xE7, 2) == 0x40000  # bit 12 is PAT


def test_invalid_a_huge_page_loses_p_alone_and_keeps_its_frame() -> None:
    entry = NEW.mkinvalid(0x4000_00E7)

    assert (entry & 0xFFF, entry_pfn(entry, 2)) == (0xE6, 0x40000)


@pytest.mark.parametrize(
    ("entry", "pte"),
    [
        (SwpEntry(0, 0), 0x07FF_FFFF_FFFF_FE00),
        (SwpEntry(31, 0), 0xFFFF_FFFF_FFFF_FE00),
        (SwpEntry(31, (1 << 50) - 1), 0xF800_0000_0000_0000),
        (SwpEntry(2, 0x1234), 0x17FF_FFFF_FFDB_9600),
    ],
)
def test_a_swap_entry_has_its_type_on_top_and_its_offset_inverted(
    entry: SwpEntry, pte: int
) -> None:
    assert swapops.swp_entry_to_pte(entry) == pte
    assert swapops.pte_to_swp_entry(pte) == entry


@pytest.mark.parametrize("flag", [0x2, 0x8, 0xA])
def test_its_flags_are_no_part_of_it(flag: int) -> None:
    pte = swapops.swp_entry_to_pte(SwpEntry(2, 0x1234)) | flag

    assert swapops.is_swap_pte(pte)
    assert swapops.pte_to_swp_entry(pte) == SwpEntry(2, 0x1234)


@pytest.mark.parametrize("pte", [0, 0x60, 0x25, 0x120, 0x80])
def test_what_is_none_or_present_is_not_swapped_out(pte: int) -> None:
    assert not swapops.is_swap_pte(pte)


@pytest.mark.parametrize(
    ("make_entry", "is_writable"),
    [
        (swapops.make_readable_migration_entry, False),
        (swapops.make_writable_migration_entry, True),
    ],
)
def test_a_migration_entry_keeps_how_its_frame_was_mapped(
    make_entry: Callable[[int], SwpEntry], is_writable: bool
) -> None:
    entry = make_entry(0x1234)

    assert (swapops.is_migration_entry(entry), entry.offset) == (True, 0x1234)
    assert swapops.is_writable_migration_entry(entry) is is_writable


def test_no_swap_file_is_a_migration() -> None:
    assert not swapops.is_migration_entry(SwpEntry(3, 0x1234))


# -- in place


@pytest.fixture
def place(make_kernel: Callable[..., Kernel]) -> Place:
    """An entry of an empty table."""
    kernel = make_kernel()
    return Place(kernel.pgtable, NEW, kernel.frames.allocate())


def test_a_huge_page_is_refused_where_there_is_a_table(place: Place) -> None:
    inplace.set_at(place, 0x1067)

    assert (inplace.set_huge(place, 0x40000, 0x25), place.entry) == (False, 0x1067)


@pytest.mark.parametrize("before", [0, 0x2000E7])
def test_a_huge_page_is_set_where_there_is_none(place: Place, before: int) -> None:
    inplace.set_at(place, before)

    assert (inplace.set_huge(place, 0x40000, 0x25), place.entry) == (True, 0x4000_00A5)


@pytest.mark.parametrize(("before", "cleared", "after"), [(0xE7, True, 0), (0x1067, False, 0x1067)])
def test_clearing_a_huge_page_spares_a_table(
    place: Place, before: int, cleared: bool, after: int
) -> None:
    inplace.set_at(place, before)

    assert (inplace.clear_huge(place), place.entry) == (cleared, after)


@pytest.mark.parametrize(
    ("entry", "changed", "after"), [(0x67, True, 0x67), (0x27, True, 0x25), (0x25, False, 0x25)]
)
def test_access_flags_are_written_only_if_the_entry_becomes_dirty(
    place: Place, entry: int, changed: bool, after: int
) -> None:
    inplace.set_at(place, 0x25)

    assert (inplace.set_access_flags(place, entry), place.entry) == (changed, after)


@pytest.mark.parametrize(("before", "was", "after"), [(0x27, True, 0x7), (0x7, False, 0x7)])
def test_ageing_an_entry_tells_what_it_was(
    place: Place, before: int, was: bool, after: int
) -> None:
    inplace.set_at(place, before)

    assert (inplace.test_and_clear_young(place), place.entry) == (was, after)


def test_clearing_returns_what_was_there(place: Place) -> None:
    inplace.set_at(place, 0x67)

    assert (inplace.get_and_clear(place), place.entry) == (0x67, 0)


@pytest.mark.parametrize(("levels", "after"), [(4, 0x1067), (5, 0)])
def test_clearing_a_pgd_spares_a_folded_p4d(
    make_kernel: Callable[..., Kernel], levels: int, after: int
) -> None:
    kernel = make_kernel(levels=levels)
    pgd = Place(kernel.pgtable, NEW, kernel.frames.allocate())
    inplace.set_at(pgd, 0x1067)

    inplace.pgd_clear(pgd)

    assert pgd.entry == after


@pytest.mark.parametrize(("levels", "freed"), [(4, 0), (5, 1)])
def test_a_folded_p4d_has_no_table_to_free(
    make_kernel: Callable[..., Kernel], levels: int, freed: int
) -> None:
    kernel = make_kernel(levels=levels)
    table = kernel.frames.allocate()
    before = kernel.frames.nr_free

    pgalloc.p4d_free(kernel, table)

    assert kernel.frames.nr_free - before == freed


def test_the_table_deposited_first_is_withdrawn_first() -> None:
    deposits = pgalloc.Deposits()
    deposits.deposit(PhysAddr(0x5000), PhysAddr(0x1000))
    deposits.deposit(PhysAddr(0x5008), PhysAddr(0x2000))

    assert [deposits.withdraw(PhysAddr(pa)) for pa in (0x5010, 0x6000, 0x5000, 0x5000)] == [
        0x1000,
        None,
        0x2000,
        None,
    ]
