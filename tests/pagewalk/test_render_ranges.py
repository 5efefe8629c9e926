"""Lines for differences that no scenario has."""

from support.tables import VA, Tables

from emu import ranges, unmap_page
from emu.differences import differences
from emu.paging import RW, US, XD, P
from kernel_model.layout import make_layout
from pagewalk.render_ranges import difference_json, difference_lines, range_lines


def changed(pa, flags):
    """A page at `VA` to 0x5000, and the same page otherwise; how that is shown."""
    tables = Tables()
    tables.map(VA, 0x5000, RW | US)
    before = ranges(tables.memory, tables.paging)
    unmap_page(tables.memory, tables.paging, VA)
    tables.map(VA, pa, flags)
    return differences(before, ranges(tables.memory, tables.paging))


def line(found):
    ((text, first),) = difference_lines(found, make_layout(), ("old", "new"), exact=False)
    assert first == VA
    return text


def test_another_place():
    assert "pa 0x5000 in old, 0x7000 in new  direct map" in line(changed(0x7000, RW | US))


def test_other_rights_and_a_key():
    text = line(changed(0x5000, US | XD | 3 << 59))

    assert "4K PTE pte RW US -- - pa 0x5000 in old" in text
    assert "4K PTE pte -- US XD - key 3 pa 0x5000 in new" in text


def test_a_difference_in_the_document_has_both_sides():
    (one,) = changed(0x7000, RW)

    found = difference_json(one, 4)

    assert (found["first"], found["size"], found["what"]) == (f"{VA:#x}", 4096, "pa-and-rights")
    assert (found["a"]["pa"], found["b"]["pa"]) == ("0x5000", "0x7000")
    assert (found["a"]["user"], found["b"]["user"]) == (True, False)


def test_corruption_is_listed_in_a_word():
    tables = Tables()
    tables.memory.write_u64(tables.paging.root, 1 << 51 | P)
    tables.memory.write_u64(tables.paging.root + 8, 1 << 35 | P)
    found = ranges(tables.memory, tables.paging)

    broken, outside, *_ = range_lines(found, make_layout(), exact=True)

    assert broken == f"{0:016x} - {(1 << 39) - 1:016x}      512G  reserved bit  user space"
    assert outside.endswith("512G  outside RAM  user space")
