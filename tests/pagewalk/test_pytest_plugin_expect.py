"""The fixture `expect_page_fault`: what may be said of a fault, and what is told if it is false."""

import pytest
from support.kernel_facts import FOUR, populate_compound

from asm import UnknownSymbol
from emu import PageFault, Returned
from emu.fault import PF_I, PF_P, PF_PK, PF_RSVD, PF_U, PF_W
from kernel_model import Kernel

STORE = ".type f, @function; f: nop; store: mov [rdi], rax; ret; .size f, . - f"
INIT = "__init_single_page"


@pytest.fixture
def stop(machine, assemble):
    """A store by the supervisor to 0x7f0000001034, under an empty table."""
    return machine.run(assemble(STORE), "f", rdi=0x7F00_0000_1034)


def test_it_returns_the_fault(stop, expect_page_fault):
    fault = expect_page_fault(stop)

    assert (fault.reason, fault.cpl, fault.access) == ("not-present", 0, "write")


@pytest.mark.parametrize("error", ["W", "w", PF_W, 2])
def test_an_error_code_may_be_letters(stop, expect_page_fault, error):
    assert expect_page_fault(stop, error=error) is stop


@pytest.mark.parametrize(
    ("letters", "code"),
    [
        ("", 0),
        ("P W", PF_P | PF_W),
        ("WU", PF_W | PF_U),
        ("p|w|u", PF_P | PF_W | PF_U),
        ("P RSVD", PF_P | PF_RSVD),
        ("P I", PF_P | PF_I),
        ("PK PU", PF_PK | PF_P | PF_U),
    ],
)
def test_letters_are_the_bits_of_the_sdm(expect_page_fault, letters, code):
    stop = PageFault(0x1000, code, rip=0)

    assert expect_page_fault(stop, error=letters) is stop


@pytest.mark.parametrize(("letters", "near"), [("X", ""), ("RSDV", "did you mean RSVD?")])
def test_other_letters_are_refused(stop, expect_page_fault, letters, near):
    with pytest.raises(ValueError, match=f"error '{letters}': expected a number, or .*{near}"):
        expect_page_fault(stop, error=letters)


@pytest.mark.parametrize("symbol", ["f+0x1", "f+1", "f+0x1/0x5", "store", "store+0x0"])
def test_an_instruction_has_several_names(stop, expect_page_fault, symbol):
    assert expect_page_fault(stop, symbol=symbol) is stop


def test_a_symbol_that_is_none_is_refused_with_the_nearest(stop, expect_page_fault):
    with pytest.raises(UnknownSymbol, match="did you mean store"):
        expect_page_fault(stop, symbol="stor")


def test_a_size_that_is_not_the_symbol_s_is_refused(stop, expect_page_fault):
    with pytest.raises(ValueError, match="f has 0x5 bytes"):
        expect_page_fault(stop, symbol="f+0x1/0x6")


@pytest.mark.parametrize("level", ["pgd", "p4d", "PML4E", "pml4e"])
def test_with_four_levels_the_p4d_is_the_pgd(stop, expect_page_fault, level):
    assert expect_page_fault(stop, level=level) is stop


@pytest.mark.levels(5)
@pytest.mark.parametrize("level", ["pgd", "PML5E"])
def test_with_five_levels_the_pgd_is_the_pml5e(stop, expect_page_fault, level):
    assert expect_page_fault(stop, level=level) is stop


@pytest.mark.levels(5)
@pytest.mark.parametrize("level", ["p4d", "PML4E", "pte"])
def test_with_five_levels_the_p4d_is_another(stop, expect_page_fault, level):
    with pytest.raises(AssertionError, match=rf"expected {level}\n +found    pgd \(PML5E\)"):
        expect_page_fault(stop, level=level)


@pytest.mark.parametrize(("level", "near"), [("pgdd", "pgd"), ("PML4", "PML4E"), ("pte2", "pte")])
def test_a_level_that_is_none_is_refused_with_the_nearest(stop, expect_page_fault, level, near):
    with pytest.raises(ValueError, match=f"level '{level}': expected one of .*did you mean {near}"):
        expect_page_fault(stop, level=level)


def refused(expect_page_fault, stop, **expected):
    """Return the lines of the refusal."""
    with pytest.raises(AssertionError) as refusal:
        expect_page_fault(stop, **expected)
    return str(refusal.value).splitlines()


def test_both_addresses_are_shown_with_the_bits_that_differ(stop, expect_page_fault):
    lines = refused(expect_page_fault, stop, at=0x7F00_0020_1038)

    assert lines[1:6] == [
        "  address     expected 0x00007f0000201038",
        "              found    0x00007f0000001034",
        "              differ               ^    ^  bits 21, 3:2",
        "              PDE (pmd) slot 0, not 1",
        "              offset in the page 0x34, not 0x38",
    ]


def test_all_that_differs_is_told_at_once(stop, expect_page_fault):
    lines = refused(expect_page_fault, stop, at=0, error="P W", symbol="f", level="pte")

    assert [line.split()[0] for line in lines if "expected" in line] == [
        *("address", "error", "rip", "level")
    ]
    assert "  error code  expected 0x3 (P W)" in lines
    assert "              found    0x2 (W)" in lines
    assert f"  rip         expected {stop.rip - 1:#x} (f)" in lines
    assert f"              found    {stop.rip:#x} (f+0x1/0x5)" in lines


def test_what_is_as_expected_is_not_told(stop, expect_page_fault):
    lines = refused(expect_page_fault, stop, at=stop.address, error="W", level="pte")

    assert [line for line in lines if "expected" in line] == ["  level       expected pte"]


def test_the_walk_and_the_last_instructions_follow(stop, expect_page_fault):
    lines = refused(expect_page_fault, stop, at=0)

    assert lines[-6:-3] == [
        f"  CR3 = {stop.cr3:#x}, 4 levels",
        f"    PML4E pgd=p4d [254] at {stop.cr3 + 8 * 254:#x}: 0x0  -",
        "    -> not present: the walk stops here",
    ]
    assert [line.partition("  ")[2].split()[1] for line in lines[-2:]] == ["f+0x0/0x5", "f+0x1/0x5"]
    assert lines[-1].endswith("mov qword ptr [rdi], rax   <-- faults")


def test_which_rule_refused_is_told(machine, assemble, expect_page_fault):
    machine.map(0x1000, rights="r")
    stop = machine.run(assemble(STORE), "f", rdi=0x1000)

    lines = refused(expect_page_fault, stop, error="W")

    assert "  refused by wp: a supervisor write, and CR0.WP is set: RW is clear in the PTE" in lines


def test_a_run_that_returned_is_no_fault(machine, assemble, expect_page_fault):
    machine.map(0x1000)
    stop = machine.run(assemble(STORE), "f", rdi=0x1000, rax=7)

    lines = refused(expect_page_fault, stop, at=0x1000)

    assert lines[:3] == [
        *("returned 0x7", "  expected a page fault at 0x1000", "The walk for 0000000000001000")
    ]
    assert lines[7].startswith("    PTE   pte     [  1]")
    assert lines[-1].endswith("ret")


@pytest.mark.trace_tail(0)
def test_without_a_trace_the_rest_is_told(stop, expect_page_fault):
    lines = refused(expect_page_fault, stop, at=0)

    assert lines[-1] == "    -> not present: the walk stops here"


def test_of_an_earlier_run_the_last_instructions_are_not_told(
    machine, assemble, stop, expect_page_fault
):
    machine.run(assemble("g: ret"), "g")

    lines = refused(expect_page_fault, stop, at=0)

    assert lines[-1] == "    -> not present: the walk stops here"


@pytest.mark.boot(vmemmap_base=FOUR.vmemmap_base)
def test_it_is_told_where_init_mm_s_walk_differs(kernel, expect_page_fault):
    early = kernel.fork("modprobe")
    kernel.run(kernel.init_task, lambda kernel: populate_compound(kernel, FOUR.pfn))
    stop = kernel.run(early, INIT, rdi=FOUR.boundary)

    fault = expect_page_fault(
        stop, at=FOUR.boundary + 0x34, error="W", symbol=f"{INIT}+0x9", level="pgd"
    )
    lines = refused(expect_page_fault, stop, level="pmd")

    slot = kernel.walk(fault.address).steps[0].entry
    assert any(line.startswith("  init_mm's: pa 0x") for line in lines)
    assert (
        f"  they differ at the PML4E (pgd) slot 462: modprobe has 0x0, init_mm has {slot:#x}"
    ) in lines


@pytest.mark.release("4.4", "5.4")
def test_what_a_kernel_s_handler_did_with_the_fault_is_left_out(kernel, expect_page_fault):
    stop = kernel.run(kernel.fork("early"), "__init_single_page", rdi=0x1000)

    with pytest.raises(AssertionError) as failure:
        expect_page_fault(stop, at=0x1035)

    last = str(failure.value).splitlines()[-1]
    assert "__init_single_page+0x9/0x6d c7 47 34" in last
    assert last.endswith("<-- faults")


def test_a_fault_of_a_kernel_of_one_s_own_is_told_without_names(expect_page_fault):
    with Kernel() as kernel:
        stop = kernel.run(kernel.fork("a"), INIT, rdi=0x1000)

    lines = refused(expect_page_fault, stop, symbol=f"{INIT}+0xa")

    assert lines[1:3] == [
        f"  symbol      expected {INIT}+0xa",
        f"              found    {INIT}+0x9/0x6d",
    ]
    assert lines[-1] == "    -> not present: the walk stops here"


@pytest.mark.parametrize("symbol", [f"{INIT}+0x9", f"{INIT}+0x9/0x6d"])
def test_its_symbols_are_compared_as_text(expect_page_fault, symbol):
    stop = PageFault(0x1034, PF_W, rip=0, symbol=f"{INIT}+0x9/0x6d")

    assert expect_page_fault(stop, symbol=symbol) is stop


def test_a_stop_without_a_machine_is_told_alone(expect_page_fault):
    assert refused(expect_page_fault, Returned(5)) == ["returned 0x5", "  expected a page fault"]
