"""Rows of `bench.py` about the pytest plugin: what a test that asserts a page fault costs.

That is from the beginning of the test to its end: pytest's own share, the fixtures, a machine or a
kernel that is made and freed, the recorder, the run, the assertion. The shortest of many tests.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

from measuring import Row

TESTS = {
    "nothing": "def test_it(n): ...",
    "machine": """
        def test_it(machine, assemble, expect_page_fault, n):
            program = assemble("store: mov [rdi], rax; ret")
            stop = machine.run(program, "store", rdi=0x1034)
            expect_page_fault(stop, at=0x1034, error="W", symbol="store", level="pgd")
    """,
    "kernel": """
        def test_it(kernel, expect_page_fault, n):
            stop = kernel.run(kernel.fork("a"), "__init_single_page", rdi=0x1000)
            expect_page_fault(stop, at=0x1034, error="W", symbol="__init_single_page+0x9")
    """,
}
CLOCK = """
from time import perf_counter

import pytest

times = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    begin = perf_counter()
    yield
    times.append(perf_counter() - begin)
    return True


def pytest_terminal_summary(terminalreporter):
    assert not terminalreporter.stats.get("failed")
    terminalreporter.write_line(f"shortest {min(times)}")


@pytest.fixture(params=range(300))
def n(request): ...
"""


def shortest(kind: str) -> float:
    """Return how long the shortest of 300 tests of a kind takes, in milliseconds."""
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "conftest.py").write_text(CLOCK)
        (folder / "test_it.py").write_text(dedent(TESTS[kind]))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", directory]
        output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    found = next(line for line in output.stdout.splitlines() if line.startswith("shortest "))
    return float(found.split()[1]) * 1e3


ROWS = (
    Row("a test that does nothing, in pytest", 2, "ms", lambda: shortest("nothing")),
    Row("a test that asserts a fault of a machine", 5, "ms", lambda: shortest("machine")),
    Row("a test that asserts a fault of a kernel", 5, "ms", lambda: shortest("kernel")),
)
