"""The pytest plugin as it is loaded: cheaply, not at all, by several workers."""

import subprocess
import sys

import pytest
from support.inner import collected, run_tests

FAULTS = """
    import pytest

    @pytest.mark.levels(4, 5)
    @pytest.mark.release("6.8", "6.17")
    def test_kernel(kernel, expect_page_fault):
        stop = kernel.run(kernel.fork("a"), "__init_single_page", rdi=0x1000)
        expect_page_fault(stop, at=0x1034)

    @pytest.mark.cpu_features("", "smep")
    def test_machine(machine, assemble, expect_page_fault):
        stop = machine.run(assemble("f: mov rax, [rdi]"), "f", rdi=0x1000)
        expect_page_fault(stop, at=0x1008)
"""


def test_to_load_it_loads_nothing_else_of_ours():
    program = "import pytest, sys; old = set(sys.modules); import pagewalk.pytest_plugin; "
    program += "print(*sorted(set(sys.modules) - old))"

    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert output.stdout.split() == [b"pagewalk", b"pagewalk.pytest_plugin"]


def test_to_collect_tests_that_have_marks_loads_no_engine_and_no_numpy(pytester):
    pytester.makepyfile(FAULTS)
    pytester.makeconftest(
        """
        import sys

        def pytest_collection_finish(session):
            assert len(session.items) == 6
            assert not {"numpy", "rich", "unicorn", "keystone", "capstone"} & set(sys.modules)
        """
    )

    result = pytester.runpytest_subprocess("--collect-only", "-p", "no:hypothesispytest")

    assert result.ret == 0


def test_without_the_plugin_nothing_of_it_is_there(pytester):
    result = run_tests(
        pytester,
        "def test_it(machine): ...",
        *("-p", "no:pagewalk", "-p", "no:pagewalk.pytest_plugin"),
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E       fixture 'machine' not found"])


def test_workers_run_the_variants_and_send_the_sections(pytester):
    pytester.makepyfile(FAULTS)

    result = pytester.runpytest_subprocess("-n", "2", "-p", "no:hypothesispytest", "-Werror")

    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        ["*differ *^  bit 3", "*pagewalk: last instructions (machine)*", "*<-- faults"]
    )


def test_the_variants_come_in_the_same_order_each_time(pytester):
    assert collected(pytester, FAULTS) == collected(pytester, FAULTS)


@pytest.mark.parametrize("n", range(200))
def test_machines_are_freed_behind_each_test(machine, n):
    assert machine.memory.size == 64 << 20
