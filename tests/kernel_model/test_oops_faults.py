"""An oops for each kind of fault: first lines, the page-table line, the Call Trace (facts 5)."""

from collections.abc import Callable

import pytest
from support.kernel_facts import (
    FIVE,
    FOUR,
    GIB,
    MIB,
    PF_P,
    PF_RSVD,
    PF_W,
    Where,
    entries,
    populate_compound,
    put_slot,
)
from support.kernel_oops import DEVICE, INIT, TEXT, lines_with, store

from emu import PageFault, VirtAddr, map_page
from emu.paging import PS, RW, US
from kernel_model import Kernel, Task
from kernel_model.drivers import dax_bus_probe

# -- kinds of fault


@pytest.mark.parametrize("page", [0, 0x800, 0xFCB])
def test_the_first_page_is_a_null_pointer(kernel: Kernel, page: int) -> None:
    line = f"BUG: kernel NULL pointer dereference, address: {page + 0x34:016x}"

    assert store(kernel, page)[0] == line


def test_the_second_page_is_not(kernel: Kernel) -> None:
    lines = store(kernel, 0xFCC)

    assert lines[0] == "BUG: unable to handle page fault for address: 0000000000001000"


def test_a_store_to_text_is_a_permissions_violation(kernel: Kernel) -> None:
    lines = store(kernel, TEXT)

    assert lines[1:3] == [
        "#PF: supervisor write access in kernel mode",
        "#PF: error_code(0x0003) - permissions violation",
    ]
    assert lines[4] == "Oops: 0003 [#1] SMP NOPTI"


def test_a_store_to_a_users_page_is_a_permissions_violation(
    kernel: Kernel, expect_page_fault: Callable[..., PageFault]
) -> None:
    task = kernel.fork("modprobe")
    paging, frame = kernel.paging(task.mm), kernel.frames.allocate()
    map_page(kernel.memory, kernel.frames, paging, VirtAddr(0x40_0000), frame, RW | US)

    stop = kernel.run(task, INIT, rdi=0x40_0000)

    expect_page_fault(stop, at=0x40_0034, error="P W", symbol=f"{INIT}+0x9", level="pte")
    assert "- permissions violation" in kernel.oops(stop)


def test_a_reserved_bit_is_a_reserved_bit_violation(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")
    put_slot(kernel, task.mm, 462, 0x1067 | 1 << 51)

    lines = store(kernel, FOUR.boundary, task)

    code = PF_P | PF_W | PF_RSVD
    assert lines[2] == f"#PF: error_code(0x{code:04x}) - reserved bit violation"


def test_a_read_is_a_read(kernel: Kernel) -> None:
    stop = kernel.run(kernel.fork("a"), "memmap_init_zone_device", rdi=FOUR.boundary, rdx=1)

    assert kernel.oops(stop).splitlines()[1:3] == [
        "#PF: supervisor read access in kernel mode",
        "#PF: error_code(0x0000) - not-present page",
    ]


def call(kernel: Kernel, address: int, task: Task | None = None) -> list[str]:
    """Call an address, and return the lines of the oops."""
    stop = kernel.run(task or kernel.fork("modprobe"), "call_once", rax=address)
    return kernel.oops(stop).splitlines()


def test_a_call_of_null_has_no_code_to_show(kernel: Kernel) -> None:
    lines = call(kernel, 0)

    assert lines[:3] == [
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "#PF: supervisor instruction fetch in kernel mode",
        "#PF: error_code(0x0010) - not-present page",
    ]
    assert lines_with("RIP", lines)[0] == "RIP: 0010:0x0"
    assert lines_with("Code", lines)[0] == (
        "Code: Unable to access opcode bytes at 0xffffffffffffffd6."
    )


def test_the_caller_of_a_bad_pointer_is_not_certain(kernel: Kernel) -> None:
    lines = call(kernel, 0)

    assert set(lines_with(" ? ", lines)) == {" ? call_once+0xb/0x10"}
    assert " call_once+0xb/0x10" not in lines


def test_a_call_into_data_is_an_exploit_attempt(kernel: Kernel) -> None:
    lines = call(kernel, 0xFFFF_FFFF_8200_0000)

    assert lines[0] == "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)"
    assert lines[3] == "#PF: error_code(0x0011) - permissions violation"


def test_a_call_into_user_space_is_stopped_by_smep(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")
    paging, frame = kernel.paging(task.mm), kernel.frames.allocate()
    map_page(kernel.memory, kernel.frames, paging, VirtAddr(0x40_0000), frame, RW | US)

    lines = call(kernel, 0x40_0100, task)

    assert lines[0] == "unable to execute userspace code (SMEP?) (uid: 0)"
    assert lines_with("Code", lines)[0] == "Code: Unable to access opcode bytes at 0x4000d6."


# -- the page-table line


@pytest.mark.parametrize(("levels", "line"), [(4, "PGD 0 P4D 0 "), (5, "PGD 0 ")])
def test_a_missing_top_entry(kernel: Kernel, where: Where, line: str) -> None:
    assert store(kernel, where.boundary)[3] == line


def test_a_missing_pud_at_four_levels(kernel: Kernel) -> None:
    populate_compound(kernel, FOUR.pfn)
    addr = FOUR.boundary + GIB

    top, pud = entries(kernel, addr)

    assert (store(kernel, addr)[3], pud) == (f"PGD {top:x} P4D {top:x} PUD 0 ", 0)


@pytest.mark.levels(5)
def test_a_missing_p4d_at_five_levels(kernel: Kernel) -> None:
    populate_compound(kernel, FIVE.pfn)
    addr = FIVE.boundary + (512 << 30)

    top, p4d = entries(kernel, addr)

    assert (store(kernel, addr)[3], p4d) == (f"PGD {top:x} P4D 0 ", 0)


@pytest.mark.levels(5)
def test_a_missing_pmd_at_five_levels(kernel: Kernel) -> None:
    populate_compound(kernel, FIVE.pfn)
    addr = FIVE.boundary + 2 * MIB

    top, p4d, pud, pmd = entries(kernel, addr)

    assert (store(kernel, addr)[3], pmd) == (f"PGD {top:x} P4D {p4d:x} PUD {pud:x} PMD 0 ", 0)


def test_a_missing_pte_ends_the_line_without_a_blank(kernel: Kernel) -> None:
    task = kernel.fork("a")
    guard = kernel.stack_of(task).base - 0x1000

    top, pud, pmd, _ = entries(kernel, guard)

    assert store(kernel, guard, task)[3] == f"PGD {top:x} P4D {top:x} PUD {pud:x} PMD {pmd:x} PTE 0"


def test_a_large_page_ends_the_line(kernel: Kernel) -> None:
    top, pud, _ = entries(kernel, TEXT)

    assert store(kernel, TEXT)[3] == f"PGD {top:x} P4D {top:x} PUD {pud:x} PMD 10001e1 "


def test_linux_reads_on_where_a_reserved_bit_stops_the_cpu(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")
    put_slot(kernel, task.mm, 462, 0x1067 | PS)

    line = store(kernel, FOUR.boundary, task)[3]

    assert line == "PGD 10e7 P4D 10e7 PUD 0 "


def test_a_table_outside_ram_is_bad(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")
    put_slot(kernel, task.mm, 462, 0x1067 | 1 << 51)

    lines = store(kernel, FOUR.boundary, task)

    assert lines[3:5] == ["PGD 8000000001067 P4D 8000000001067 ", "BAD"]


def test_the_line_is_what_it_was_at_the_death(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")
    stop = kernel.run(task, INIT, rdi=FOUR.boundary)

    put_slot(kernel, task.mm, 462, 0x1067)

    assert kernel.oops(stop).splitlines()[3] == "PGD 0 P4D 0 "


def test_the_line_is_of_the_tasks_table_and_not_of_init_mms(kernel: Kernel) -> None:
    task = kernel.fork("early")
    populate_compound(kernel, FOUR.pfn)

    assert store(kernel, FOUR.boundary, task)[3] == "PGD 0 P4D 0 "
    assert entries(kernel, FOUR.boundary)[0] & 0xFFF == 0x067


# -- the Call Trace


def trace_with(kernel: Kernel, word: int) -> list[str]:
    """The Call Trace of a death with `word` lying where dax_bus_probe saves a register."""
    task = kernel.fork("modprobe")
    stack = kernel.stack_of(task)
    kernel.memory.write_u64(stack.pa_of(stack.top - 0x10), word)
    lines = kernel.oops(kernel.run(task, dax_bus_probe, *DEVICE)).splitlines()
    return lines[lines.index(" <TASK>") + 8 : lines.index(" </TASK>")]


@pytest.mark.parametrize(
    ("symbol", "line"),
    [
        ("memremap_pages+0x10b", " ? memremap_pages+0x10b/0x2f0"),
        ("vmemmap_set_pmd+0x21", " ? vmemmap_set_pmd+0x21/0x230"),
        ("memmap_init_zone_device", " ? memmap_init_zone_device+0x0/0x1bb"),
        ("dev_dax_probe+0x10", " ? dev_dax_probe+0x10/0x2ec [device_dax]"),
    ],
)
def test_a_stray_address_of_text_is_not_certain(kernel: Kernel, symbol: str, line: str) -> None:
    assert trace_with(kernel, kernel.symbol(symbol)) == [line]


@pytest.mark.parametrize(
    "word", [0, 1, 0xFFFF_FFFF_8200_0000, 0xFFFF_E700_0000_0000, (1 << 64) - 1]
)
def test_any_other_word_is_not_mentioned(kernel: Kernel, word: int) -> None:
    assert trace_with(kernel, word) == []


def test_a_bare_run_was_called_by_call_once(kernel: Kernel) -> None:
    lines = store(kernel, FOUR.boundary)

    start = lines.index(" <TASK>")
    assert lines[start : start + 3] == [" <TASK>", " call_once+0xb/0x10", " </TASK>"]
