"""Snapshots of walks and oopses with syrupy."""

import pytest
import syrupy
from support.inner import run_tests

WALKS = """
    def test_it(machine, assemble, walk_snapshot):
        machine.map(0x1000, {pa}, rights="r")
        stop = machine.run(assemble("store: mov [rdi], rax"), "store", rdi=0x1034)

        assert machine.walk(0x1034) == walk_snapshot
        assert stop == walk_snapshot
        assert {{"unmapped": machine.walk(0x2000)}} == walk_snapshot
"""
OOPS = """
    def test_it(kernel, walk_snapshot):
        stop = kernel.run(kernel.fork("modprobe"), "__init_single_page", rdi=0xFFFF_E700_0000_0000)

        assert kernel.oops(stop) == walk_snapshot
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run a module of tests with syrupy, which keeps the session in a global."""
    monkeypatch.setattr(syrupy, "_syrupy", None)

    def run(source, *arguments):
        return run_tests(pytester, source, *arguments, beside="syrupy")

    return run


def written(pytester):
    """Return what syrupy has written."""
    lines = (pytester.path / "__snapshots__" / "test_it.ambr").read_text().splitlines()
    return [line.strip() for line in lines]


def test_a_walk_is_written_as_people_are_shown_it(run, pytester):
    run(WALKS.format(pa=0x5000), "--snapshot-update").assert_outcomes(passed=1)

    lines = written(pytester)
    assert "The walk for 0000000000001034" in lines
    assert "CR3 = 0x3bff000, 4 levels" in lines
    assert "-> pa 0x5034, in the 4K page at 0x5000" in lines
    assert "refused by wp: a supervisor write, and CR0.WP is set: RW is clear in the PTE" in lines
    assert "-> not present: the walk stops here" in lines


def test_a_walk_that_is_as_it_was_passes(run, pytester):
    run(WALKS.format(pa=0x5000), "--snapshot-update")

    run(WALKS.format(pa=0x5000)).assert_outcomes(passed=1)


def test_a_walk_that_is_another_fails_with_the_line(run, pytester):
    run(WALKS.format(pa=0x5000), "--snapshot-update")

    result = run(WALKS.format(pa=0x6_0000))

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *- *PTE   pte     [[]  1] at 0x*: 0x8000000000005001  P XD"])
    result.stdout.fnmatch_lines(["E *+ *PTE   pte     [[]  1] at 0x*: 0x8000000000060001  P XD"])


def test_an_oops_is_written_line_by_line(run, pytester):
    run(OOPS, "--snapshot-update").assert_outcomes(passed=1)

    lines = written(pytester)
    assert "BUG: unable to handle page fault for address: ffffe70000000034" in lines
    assert "#PF: supervisor write access in kernel mode" in lines


def test_without_syrupy_the_fixture_says_what_is_missing(pytester):
    result = run_tests(pytester, "def test_it(walk_snapshot): ...")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["fixture 'walk_snapshot': expected syrupy, *pagewalk[[]pytest[]]*"]
    )
