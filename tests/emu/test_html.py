"""What a notebook shows of a value: well-formed, escaped HTML that says what the value says."""

import subprocess
import sys

import numpy as np
import pytest
from support.guest import Guest
from support.html import Page, page
from support.tables import VA, Tables

from emu import (
    OutsideRam,
    PageFault,
    PhysAddr,
    Ranges,
    Registers,
    Shutdown,
    Step,
    Trap,
    Verdict,
    VirtAddr,
    Walk,
    markup,
    ranges,
    unmap_page,
    walk_many,
)
from emu.differences import differences
from emu.fault import ERROR_BITS, GP, PF
from emu.paging import RW, XD, A, P
from emu.walk import walk


def found(*entries: int, verdict: str = "not-present") -> Walk:
    """A walk of 4 levels that read these."""
    steps = [Step(4 - n, PhysAddr(0x1000 * (n + 1)), entry) for n, entry in enumerate(entries)]
    return Walk(VirtAddr(0x1234), tuple(steps), verdict, PhysAddr(0x1000))  # type: ignore[arg-type]


def test_a_walk_is_a_table_of_the_entries_that_were_read(tables: Tables) -> None:
    tables.map(VA, 0x5000, RW | XD)
    seen = walk(tables.memory.read_u64, tables.paging, VA)

    head, *rows, foot = page(seen).rows

    assert head == ["entry", "index", "at pa", "value", "flags"]
    assert [row[2:4] for row in rows] == [[f"{s.entry_pa:#x}", f"{s.entry:#x}"] for s in seen.steps]
    assert rows[-1][0] == "PTE"
    assert rows[-1][4].split() == ["P", "RW", "XD"]
    assert foot == [f"→ pa {seen.pa:#x}, in the 4K page at 0x5000"]


def test_its_last_row_says_where_it_stops_and_why() -> None:
    assert page(found(0x2003, 0)).rows[-2:] == [
        ["PDPTE", "0", "0x2000", "0x0", "-"],
        ["→ not present: the walk stops here"],
    ]


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        ("reserved-bit", "a reserved bit is set"),
        ("outside-ram", "points outside RAM"),
        ("non-canonical", "not canonical"),
    ],
)
def test_each_other_end_has_a_reason(verdict: str, why: str) -> None:
    assert why in page(found(0x2003, verdict=verdict)).text


def test_it_takes_another_vocabulary_for_the_entries() -> None:
    html = found(0x2003, 0).html({4: "pgd", 3: "pud"}, "init_mm's table")

    assert [row[0] for row in Page(html).rows[1:3]] == ["pgd", "pud"]
    assert "walk for 0x1234 under init_mm's table" in Page(html).text


def test_a_page_fault_has_its_sentence_its_walk_its_error_code_and_its_registers(
    guest: Guest,
) -> None:
    fault = guest.run("mov rdi, 0x12345000; mov [rdi], rax")
    assert isinstance(fault, PageFault)
    assert fault.walk is not None

    shown = page(fault)

    assert str(fault) in shown.text
    assert ["W", "1", "a write"] in shown.rows
    assert ["P", "0", "an entry on the way was not present"] in shown.rows
    assert [f"→ {fault.walk.end}"] in shown.rows
    assert ["rdi", "0x12345000"] in shown.rows


def test_a_page_fault_that_is_only_expected_has_neither_walk_nor_registers() -> None:
    shown = page(PageFault(VirtAddr(0x1000), 0x2, VirtAddr(0x400000)))

    assert len(shown.rows) == 1 + len(ERROR_BITS)
    assert "registers" not in shown.text


def test_a_trap_has_its_sentence_and_what_the_cpu_was_set_to() -> None:
    trap = Trap(GP, 0, VirtAddr(0x400000), cpl=3, cr3=0x2000, registers=Registers(*range(20)))

    shown = page(trap)

    assert str(trap) in shown.text
    assert "CPL 3, CR3 0x2000, CR2 0x0" in shown.text
    assert ["rip", "0x10"] in shown.rows


def test_what_is_outside_ram_has_the_walk_that_led_there() -> None:
    stop = OutsideRam(PhysAddr(1 << 39), VirtAddr(0x400000), "table", found(0x2003))

    assert ["PML4E", "0", "0x1000", "0x2003", "P RW"] in page(stop).rows


def test_a_shutdown_has_every_exception_on_the_way() -> None:
    fault = PageFault(VirtAddr(0x1000), 0x2, VirtAddr(0x400000), found(0))
    stop = Shutdown(VirtAddr(0x400000), (fault, Trap(8, 0, VirtAddr(0x400000))))

    shown = page(stop)

    assert str(fault) in shown.text
    assert "#DF with error code 0x0" in shown.text
    assert ["PML4E", "0", "0x1000", "0x0", "-"] in shown.rows


def test_ranges_are_a_row_each(tables: Tables) -> None:
    tables.map(VA, 0x5000, RW)

    rows = page(ranges(tables.memory, tables.paging)).rows

    assert rows[0] == ["first", "last", "kind", "pages", "rights", "pa"]
    assert [f"{VA:#x}", f"{VA + 0xFFF:#x}", "mapped", "4K PTE", "RW", "0x5000"] in rows


def test_of_a_thousand_ranges_the_middle_is_left_out(tables: Tables) -> None:
    some = ranges(tables.memory, tables.paging)
    many = some.only(np.zeros(1000, np.int64))

    shown = page(many)

    assert isinstance(many, Ranges)
    assert len(shown.rows) == 1 + 40 + 1
    assert ["… 960 more …"] in shown.rows


def test_differences_have_both_sides(tables: Tables) -> None:
    tables.map(VA, 0x5000, RW)
    before = ranges(tables.memory, tables.paging)
    unmap_page(tables.memory, tables.paging, VA)

    rows = page(differences(before, ranges(tables.memory, tables.paging))).rows

    assert rows[1][2:] == [
        *("only-a", "mapped", "4K PTE", "RW", "0x5000"),
        *("not-present", "", "", ""),
    ]


def test_walks_in_bulk_are_a_row_each(tables: Tables) -> None:
    tables.map(VA, 0x5000, RW)

    rows = page(walk_many(tables.memory, tables.paging, [VA, 0])).rows

    assert rows[1][:3] == ["0", "mapped", "1 PTE"]
    assert rows[1][-1] == "0x5000"
    assert rows[2][1] == "not-present"


def test_a_verdict_has_the_rule_the_error_code_and_the_entries_after() -> None:
    refused = Verdict(PF, 0x3, VirtAddr(0x1234), "wp", (0x2023, 0x4025))
    allowed = Verdict(None, None, None, None, (0x2023, 0x4067))

    assert "#PF 0x3 at 0x1234: wp" in page(refused).text
    assert ["P", "1", "all entries were present"] in page(refused).rows
    assert ["1", "0x4025"] in page(refused).rows
    assert "no exception" in page(allowed).text
    assert "error code" not in page(allowed).text


def test_text_is_escaped() -> None:
    fault = PageFault(VirtAddr(0), 0, VirtAddr(0), found(P | A), symbol="<b>&\"'+0x9")

    shown = page(fault)

    assert fault.symbol in shown.text
    assert "b" not in {tag for tag, _, _ in shown.attributes}


def test_no_colour_is_set_that_a_dark_notebook_would_swallow() -> None:
    shown = page(PageFault(VirtAddr(0), 0, VirtAddr(0), found(0), registers=Registers(*range(20))))

    styles = {value for _, name, value in shown.attributes if name == "style"}

    assert styles == {"text-align: left"}


def test_every_row_and_every_column_has_a_header() -> None:
    shown = Page(markup.table("caption", ("a", "b"), [("1", "2"), ("3", "4")]))

    scopes = [value for tag, name, value in shown.attributes if (tag, name) == ("th", "scope")]

    assert scopes == ["col", "col", "row", "row"]


def test_who_shows_nothing_loads_no_html() -> None:
    check = "import sys; from emu import PageFault; print('html' in sys.modules)"

    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert ran.stdout == "False\n"
