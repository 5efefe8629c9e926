"""The fixtures `machine` and `assemble`: programs, pages and runs."""

from pathlib import Path

import pytest
from support.inner import run_tests

from asm import AssemblyError, UnknownSymbol
from emu import PageFault, Returned, StepLimit, Trap
from emu.fault import GP, PF_I, PF_P, PF_U, PF_W
from emu.paging import CR4_SMAP, CR4_SMEP

STORE = "nop; store: mov [rdi], rax; ret"


def test_a_store_to_a_page_that_is_not_mapped_faults(machine, assemble):
    stop = machine.run(assemble(STORE), "store", rdi=0x1034)

    assert stop == PageFault(0x1034, PF_W, rip=machine.symbol("store"))


@pytest.mark.levels(4, 5)
def test_a_store_to_a_page_that_is_mapped_returns(machine, assemble):
    machine.map(0x1000)

    stop = machine.run(assemble(STORE), "store", rdi=0x1034, rax=7)

    assert stop == Returned()
    assert machine.read(0x1034, 8) == b"\7" + bytes(7)


def test_levels_are_the_cpu_s(levels, machine):
    assert (levels, machine.paging.levels) == (4, 4)


def test_a_run_may_begin_in_the_middle_of_a_routine(machine, assemble):
    program = assemble("start: mov eax, 1; mov eax, 2; ret")

    assert machine.run(program, "start+0xa").value == 0


def test_a_fault_has_the_name_of_its_function(machine, assemble):
    program = assemble(".type f, @function; f: nop; mov [rdi], rax; ret; .size f, . - f")

    assert machine.run(program, "f", rdi=0x1034).symbol == "f+0x1/0x5"


def test_a_fault_outside_functions_has_the_name_of_the_label_before_it(machine, assemble):
    assert machine.run(assemble("f: nop; mov [rdi], rax"), "f", rdi=0x1034).symbol == "f+0x1"


def test_a_trap_has_a_name_too(machine, assemble):
    stop = machine.run(assemble(STORE), "store", rdi=1 << 60)

    assert stop == Trap(GP, 0, rip=machine.symbol("store"))
    assert stop.symbol == "store+0x0"


def test_a_user_s_code_and_stack_are_the_user_s(machine, assemble):
    program = assemble("store: push rax; mov [rdi], rax; ret")

    stop = machine.run(program, "store", user=True, rdi=0x1034)

    assert stop == PageFault(0x1034, PF_U | PF_W, rip=machine.symbol("store+1"))
    assert stop.cpl == 3


def test_a_user_s_routine_returns(machine, assemble):
    machine.map(0x1000, rights="rwu")

    assert machine.run(assemble(STORE), "store", user=True, rdi=0x1034) == Returned()


def test_a_routine_that_does_not_return_is_stopped(machine, assemble):
    program = assemble("forever: jmp forever")

    assert machine.run(program, "forever", step_limit=100) == StepLimit(
        machine.symbol("forever"), 100
    )


@pytest.mark.trace_tail(0)
def test_it_is_stopped_without_a_trace_too(machine, assemble):
    stop = machine.run(assemble("forever: jmp forever"), "forever", step_limit=100)

    assert isinstance(stop, StepLimit)


def test_unless_somebody_says_after_ten_million_steps(machine, assemble):
    assert machine.run(assemble("forever: jmp forever"), "forever").steps == 10_000_000


@pytest.mark.parametrize(
    ("rights", "source", "code"),
    [
        ("r", "f: mov [rdi], rax; ret", PF_P | PF_W),
        ("rw", "f: jmp rdi", PF_P | PF_I),
        ("rwx", "f: mov rax, [rdi]; ret", PF_P | PF_U),
    ],
)
def test_rights_are_the_page_s(machine, assemble, rights, source, code):
    machine.map(0x1000, rights=rights)

    stop = machine.run(assemble(source), "f", user=bool(code & PF_U), rdi=0x1000)

    assert (stop.address, stop.error_code) == (0x1000, code)


@pytest.mark.parametrize("rights", ["", "w z", "rwX"])
def test_other_letters_are_no_rights(machine, rights):
    with pytest.raises(ValueError, match=f"rights '{rights}': expected r and any of w, x, u"):
        machine.map(0x1000, rights=rights)


def test_two_addresses_may_have_one_page(machine):
    pa = machine.map(0x1000)

    machine.map(0x5000, pa)
    machine.write(0x5010, b"here")

    assert machine.read(0x1010, 4) == b"here"


def test_a_large_page_is_one_entry(machine):
    machine.map(0x4000_0000, level=2)

    assert [step.level for step in machine.walk(0x401F_FFFF).steps] == [4, 3, 2]


def test_a_page_that_was_unmapped_is_forgotten(machine, assemble, expect_page_fault):
    program = assemble(STORE)
    machine.map(0x1000)
    machine.run(program, "store", rdi=0x1000)

    machine.unmap(0x1000)

    expect_page_fault(machine.run(program, "store", rdi=0x1000), at=0x1000, level="pte")


def test_programs_lie_beside_each_other(machine, assemble):
    first, second = assemble("one: mov eax, 1; ret"), assemble("two: mov eax, 2; ret")

    values = [machine.run(first, "one").value, machine.run(second, "two").value]

    assert values == [1, 2]
    assert machine.symbol("one") != machine.symbol("two")


def test_a_program_s_data_is_writable_and_zeros_are_zeros(machine, assemble):
    program = assemble("f: inc qword ptr [rip + n]; mov rax, [rip + n]; ret; .bss; n: .skip 8")

    values = [machine.run(program, "f").value, machine.run(program, "f").value]

    assert values == [1, 2]


def test_a_program_s_own_text_is_read_only(machine, assemble, expect_page_fault):
    stop = machine.run(assemble("f: mov byte ptr [rip + f], 0x90; ret"), "f")

    expect_page_fault(stop, at=machine.symbol("f"), error="P W")


def test_a_symbol_that_is_none_is_named_with_the_nearest(machine, assemble):
    with pytest.raises(UnknownSymbol, match="no symbol is called stor: did you mean store"):
        machine.run(assemble(STORE), "stor")


def test_before_a_program_is_loaded_there_are_no_symbols(machine):
    with pytest.raises(UnknownSymbol, match="no program is loaded"):
        machine.symbol("store")


def test_a_program_that_is_loaded_has_its_addresses(machine, assemble):
    image = machine.load(assemble("store: mov [rdi], rax; .data; n: .quad 0"))

    assert machine.symbol("n+0x4") == image.address("n") + 4


@pytest.mark.cpu_features("", "smep smap", "nowp")
def test_features_are_the_cpu_s(machine, cpu_features):
    cr4 = machine.paging.cr4

    assert [bool(cr4 & CR4_SMEP), bool(cr4 & CR4_SMAP)] == [
        cpu_features["smep"],
        cpu_features["smap"],
    ]


@pytest.mark.cpu_features("nowp")
def test_without_wp_the_supervisor_writes_what_is_read_only(machine, assemble):
    machine.map(0x1000, rights="r")

    assert machine.run(assemble(STORE), "store", rdi=0x1000) == Returned()


@pytest.mark.cpu_features("nonxe")
def test_without_nxe_every_page_is_executable(machine, assemble):
    machine.map(0x1000)
    machine.write(0x1000, b"\xc3")

    assert machine.run(assemble("f: jmp rdi"), "f", rdi=0x1000) == Returned()


def test_a_source_is_assembled_once(assemble):
    assert assemble("nop; nop; ret") is assemble("nop; nop; ret")


def test_constants_make_another_program(assemble):
    source = ".if N == 1; a: nop; .else; b: nop; .endif"

    names = [set(assemble(source, constants={"N": n}).symbols) - {"N"} for n in (1, 2)]

    assert names == [{"a"}, {"b"}]


def test_a_line_that_cannot_be_assembled_is_named(assemble):
    with pytest.raises(AssemblyError, match="<asm>:2: `mov` has two memory operands"):
        assemble("nop\nmov a, b")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_looked_for_beside_the_test(pytester, kind):
    pytester.makefile(".S", store="store: mov [rdi], rax; ret")
    result = run_tests(
        pytester,
        f"""
        from pathlib import {kind.__name__}, Path

        def test_it(machine, assemble, expect_page_fault):
            program = assemble({kind.__name__}("store.S"))

            expect_page_fault(machine.run(program, "store", rdi=0x1000), symbol="store")
        """.replace("import str, ", "import "),
    )

    result.assert_outcomes(passed=1)
