"""What a failing test shows: its assertion's own report, and the sections behind it."""

from pathlib import Path

from support.inner import run_tests

STORE = """
    from emu import PageFault, Returned, Trap

    def store(machine, assemble, to):
        program = assemble("nop; store: mov [rdi], rax; ret")
        return machine.run(program, "store", rdi=to)
"""
KERNEL = """
    import pytest
    from emu import PageFault

    INIT = "__init_single_page"

    def populate(kernel):
        from kernel_model.vmemmap import populate_section_memmap
        from kernel_model.memremap import DevPagemap

        device = DevPagemap(4, 64 << 30, 128 << 20, vmemmap_shift=9)
        return populate_section_memmap(kernel, (64 << 30) >> 12, 32768, 0, None, device)

    pytestmark = pytest.mark.boot(vmemmap_base=0xFFFF_E6FF_C000_0000)
"""


def test_an_expectation_that_fails_shows_the_test_and_no_more_of_the_code(pytester):
    result = run_tests(
        pytester,
        STORE
        + """
    def test_it(machine, assemble, expect_page_fault):
        stop = store(machine, assemble, 0x1034)

        expect_page_fault(stop, at=0x1038)
    """,
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       expect_page_fault(stop, at=0x1038)",
            "E         address     expected 0x0000000000001038",
            "E                     found    0x0000000000001034",
            "E                     differ                    ^  bits 3:2",
            "test_it.py:*: AssertionError",
        ]
    )
    result.stdout.no_fnmatch_line("*def __call__*")
    assert "pagewalk/testing" not in result.stdout.str()


def test_plain_equality_shows_what_differs_first(pytester):
    result = run_tests(
        pytester,
        STORE
        + """
    def test_it(machine, assemble):
        stop = store(machine, assemble, 0x1034)

        assert stop == PageFault(0x1038, 0x3, rip=machine.symbol("store") + 3)
    """,
    )

    result.stdout.fnmatch_lines(
        [
            "E       AssertionError: assert PageFault(0x1034, *) == PageFault(0x1038, 0x3, *)",
            "E         #PF at 0x1034: supervisor write, not-present, error code 0x2, *",
            "E           address     expected 0x0000000000001038",
            "E                       found    0x0000000000001034",
            "E                       differ                    ^  bits 3:2",
        ]
    )


def test_in_full_it_is_the_report_of_an_expectation(pytester):
    result = run_tests(
        pytester,
        STORE
        + """
    def test_it(machine, assemble):
        stop = store(machine, assemble, 0x1034)

        assert PageFault(0x1034, 0x3, rip=machine.symbol("store") + 3) == stop
    """,
        "-vv",
    )

    result.stdout.fnmatch_lines(
        [
            "E           error code  expected 0x3 (P W)",
            "E                       found    0x2 (W)",
            "E           rip         expected 0xffffffff81000004 (store+0x3)",
            "E                       found    0xffffffff81000001 (store+0x0)",
            "E         The walk for 0000000000001034",
            "E             PML4E pgd=p4d [[]  0] at 0x*: 0x0  -",
            "E             -> not present: the walk stops here",
            "E         The last instructions",
            "E           ffffffff81000001 store+0x0 *mov qword ptr [[]rdi], rax   <-- faults",
        ]
    )


def test_stops_of_two_kinds_are_told_apart(pytester):
    result = run_tests(
        pytester,
        STORE
        + """
    def test_it(machine, assemble):
        assert store(machine, assemble, 0x1034) == Returned()
    """,
    )

    result.stdout.fnmatch_lines(
        [
            "E         #PF at 0x1034: supervisor write, *",
            "E           expected returned 0x0",
            "E         The walk for 0000000000001034",
        ]
    )


def test_the_walk_and_the_trace_are_sections_of_any_test_that_fails(pytester):
    result = run_tests(
        pytester,
        STORE
        + """
    def test_it(machine, assemble):
        machine.map(0x5000)
        store(machine, assemble, 0x5000)
        store(machine, assemble, 0x1034)

        assert 1 + 1 == 3
    """,
    )

    result.stdout.fnmatch_lines(
        [
            "*- pagewalk: walk (machine) -*",
            "The walk for 0000000000001034",
            "    PTE   pte     [[]  1] at 0x*: 0x0  -",
            "    -> not present: the walk stops here",
            "*- pagewalk: last instructions (machine) -*",
            "ffffffff81000001 store+0x0 *mov qword ptr [[]rdi], rax",
            "    write 8 at 0000000000005000 pa 0x*",
            "ffffffff81000004 store+0x3 *ret",
            "ffffffff81000001 store+0x0 *mov qword ptr [[]rdi], rax   <-- faults",
            "#PF at 0x1034: *",
        ]
    )


def test_a_routine_that_returned_has_instructions_and_no_walk(pytester):
    result = run_tests(
        pytester,
        STORE
        + """
    def test_it(machine, assemble):
        machine.map(0x1000)
        store(machine, assemble, 0x1034)

        assert False
    """,
    )

    result.stdout.fnmatch_lines(["*last instructions (machine)*", "*ret", "returned 0x0"])
    result.stdout.no_fnmatch_line("*pagewalk: walk*")


def test_a_fault_that_was_handled_is_its_instruction(pytester):
    handler = Path(__file__).parents[2] / "docs/examples/handler.S"
    result = run_tests(
        pytester,
        f"""
        from pathlib import Path

        def test_it(machine, assemble):
            machine.run(assemble(Path({str(handler)!r})), "main")
            assert 0
        """,
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*pagewalk: last instructions (machine)*",
            "* main+0x35/0x39 * <-- faults",
            "* page_fault+0x0/0x10 *",
            "returned 0x600df00d",
        ]
    )


def test_a_test_that_passes_shows_nothing(pytester):
    result = run_tests(
        pytester,
        STORE
        + """
    def test_it(machine, assemble):
        store(machine, assemble, 0x1034)
    """,
        "-rA",
    )

    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*pagewalk: *")


def test_what_has_run_nothing_shows_nothing(pytester):
    result = run_tests(pytester, "def test_it(machine, kernel): assert False")

    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*pagewalk: *")


def test_a_test_that_failed_leaves_nothing_to_the_next(pytester):
    result = run_tests(
        pytester,
        STORE
        + """
    def test_one(machine, assemble):
        store(machine, assemble, 0x1034)
        assert False

    def test_two():
        assert False, "two"
    """,
    )

    assert "pagewalk: " not in result.stdout.str().partition("_ test_two _")[2]


def test_a_kernel_s_walk_stands_beside_init_mm_s(pytester):
    result = run_tests(
        pytester,
        KERNEL
        + """
    def test_it(kernel, expect_page_fault):
        early = kernel.fork("modprobe")
        kernel.run(kernel.init_task, populate)
        stop = kernel.run(early, INIT, rdi=0xFFFF_E700_0000_0000)

        expect_page_fault(stop, symbol=INIT + "+0x9", level="pud")
    """,
    )

    result.stdout.fnmatch_lines(
        [
            "E         level       expected pud",
            "E                     found    pgd (PML4E)",
            "E         init_mm's: pa 0x*, in the 4K page at 0x*",
            "E         they differ at the PML4E (pgd) slot 462: modprobe has 0x0, init_mm has 0x*",
            "E         ffffffff810*9 __init_single_page+0x9/0x6d *   <-- faults",
            "*- pagewalk: walk (kernel 6.8, 4 levels) -*",
            "ffffe70000000034, under modprobe's table and under init_mm's",
            "modprobe *|  init_mm",
            "they differ at the PML4E (pgd) slot 462: *",
            "*- pagewalk: last instructions (kernel 6.8, 4 levels) -*",
            "    CR3 0x2100000 -> 0x*",
            "ffffffff810*9 __init_single_page+0x9/0x6d *   <-- faults",
        ]
    )


def test_a_task_on_init_mm_s_own_table_has_one_walk(pytester):
    result = run_tests(
        pytester,
        KERNEL
        + """
    def test_it(kernel):
        kernel.run(kernel.init_task, INIT, rdi=0xFFFF_E700_0000_0000)
        assert False
    """,
    )

    result.stdout.fnmatch_lines(["*walk (kernel*", "The walk for ffffe70000000034"])
    result.stdout.no_fnmatch_line("*init_mm's*")


def test_a_walk_is_shown_of_a_fault_whose_machine_is_gone(pytester):
    result = run_tests(
        pytester,
        """
    from emu import PageFault
    from kernel_model import Kernel

    def test_it():
        with Kernel(levels=5) as kernel:
            stop = kernel.run(kernel.fork("a"), "__init_single_page", rdi=0x1000)

        assert stop == PageFault(0x1034, 2, rip=0)
    """,
        "-vv",
    )

    result.stdout.fnmatch_lines(["*CR3 = 0x*, 5 levels", "*PML5E pgd     [[]  0] at 0x*: 0x0  -"])


def test_comparisons_of_other_things_are_left_alone(pytester):
    result = run_tests(
        pytester,
        """
    def test_it(machine):
        assert [machine.levels if False else 1] == [2]
    """,
    )

    result.stdout.fnmatch_lines(["E       assert [[]1] == [[]2]"])
    assert "#PF" not in result.stdout.str()


def test_a_machine_that_the_test_has_freed_itself_is_told_without_its_tables(pytester):
    result = run_tests(
        pytester,
        KERNEL
        + """
    def test_it(machine, assemble, kernel, expect_page_fault):
        stop = kernel.run(kernel.fork("a"), INIT, rdi=0xFFFF_E700_0000_0000)
        machine.run(assemble("f: ret"), "f")
        kernel.close()
        machine.close()

        expect_page_fault(stop, at=0)
    """,
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E         address     expected 0x0000000000000000"])
