"""The pytest plugin: fixtures and marks for tests that assert page faults at exact addresses.

Knows pytest's hooks. Loaded in every run of whoever has pagewalk installed, so it loads nothing
itself; refuses to know anything else, which is in `testing`.

    @pytest.mark.levels(4, 5)
    def test_a_page_that_is_not_mapped(machine, assemble, expect_page_fault):
        program = assemble("store: mov [rdi], rax; ret")

        stop = machine.run(program, "store", rdi=0x1034)

        expect_page_fault(stop, at=0x1034, error="W", symbol="store", level="pgd")
"""

import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, get_args

import pytest

if TYPE_CHECKING:
    import os

    from asm import Program
    from pagewalk.testing.expect import ExpectPageFault
    from pagewalk.testing.kernel import WatchedKernel
    from pagewalk.testing.machine import GuestMachine
    from pagewalk.testing.watch import Watching

_WATCHING: "Final[pytest.StashKey[Watching]]" = pytest.StashKey()
_MARKS: Final = (
    "levels(*levels): run the test under 4 and/or 5 levels of paging (default: 4)",
    "release(*names): run the test with these kernel releases, such as '6.8', '6.17'",
    "cpu_features(*sets): run the test on a machine with each set, such as '', 'smep smap', 'nowp'",
    "boot(**parameters): boot the kernel so: arguments of Kernel, such as vmemmap_base=0x…",
    "trace_tail(nr): keep so many events for a failure's report; 0 records nothing (default: 40)",
)
_NO_SYRUPY: Final = (
    "fixture 'walk_snapshot': expected syrupy, which is not installed or not loaded; "
    "pip install 'pagewalk[pytest]' brings it"
)


class _WithoutSyrupy:
    """Stands in for `testing.snapshots`."""

    @pytest.fixture
    def walk_snapshot(self) -> None:
        """Say that syrupy is missing."""
        pytest.fail(_NO_SYRUPY, pytrace=False)


# -- hooks


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and the fixture for snapshots where there is syrupy."""
    config.stash[_WATCHING] = []
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)
    if config.pluginmanager.hasplugin("syrupy"):
        from pagewalk.testing import snapshots

        config.pluginmanager.register(snapshots, "pagewalk-snapshots")
    else:
        config.pluginmanager.register(_WithoutSyrupy(), "pagewalk-snapshots")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test in the variants that its marks name."""
    if "_pagewalk" in metafunc.fixturenames:  # else these names are somebody else's fixtures
        from pagewalk.testing.variants import parametrise

        parametrise(metafunc)


def pytest_assertrepr_compare(
    config: pytest.Config, op: str, left: object, right: object
) -> list[str] | None:
    """Tell two stops that are not equal apart."""
    if op != "==" or "emu.fault" not in sys.modules:
        return None
    from emu import Stop

    kinds = get_args(Stop)
    if not (isinstance(left, kinds) and isinstance(right, kinds)):
        return None
    from pagewalk.testing.report import comparison_lines

    return [f"{left!r} == {right!r}", *comparison_lines(config.stash[_WATCHING], left, right)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the walk and the last instructions of a test that failed."""
    report = yield
    watching = item.config.stash[_WATCHING]
    if watching and report.failed and call.when != "teardown":
        from pagewalk.testing.report import sections

        report.sections += [(f"pagewalk: {title}", text) for title, text in sections(watching)]
    return report


# -- fixtures


@pytest.fixture
def _pagewalk(request: pytest.FixtureRequest) -> "Watching":
    """What is watched in this test. All fixtures here that heed a mark lead to this one."""
    return request.config.stash[_WATCHING]


@pytest.fixture
def levels(request: pytest.FixtureRequest, _pagewalk: object) -> int:
    """Levels of paging: 4, or each that the mark `levels` names."""
    from pagewalk.testing.variants import DEFAULT_LEVELS, chosen

    return int(chosen(request, "levels", DEFAULT_LEVELS))


@pytest.fixture
def release(request: pytest.FixtureRequest, _pagewalk: object) -> str:
    """The kernel's release: the default one, or each that the mark `release` names."""
    from pagewalk.testing.variants import DEFAULT_RELEASE, chosen

    return str(chosen(request, "release", DEFAULT_RELEASE))


@pytest.fixture
def cpu_features(request: pytest.FixtureRequest, _pagewalk: object) -> dict[str, bool]:
    """What the machine's CPU has: wp and nxe, or each set that the mark `cpu_features` names."""
    from pagewalk.testing.variants import FEATURES, chosen

    return dict(chosen(request, "cpu_features", FEATURES))


@pytest.fixture
def boot_parameters(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How `kernel` is booted: arguments of Kernel, from the mark `boot`.

    A conftest.py may have one of its own, for all tests of a directory.
    """
    from pagewalk.testing.variants import boot_parameters

    return boot_parameters(request.node)


@pytest.fixture
def machine(
    request: pytest.FixtureRequest,
    _pagewalk: "Watching",
    levels: int,
    cpu_features: dict[str, bool],
) -> "Iterator[GuestMachine]":
    """A machine with one CPU and nothing on it: see `testing.machine.GuestMachine`."""
    from pagewalk.testing.variants import trace_tail
    from pagewalk.testing.watch import watched_machine

    keep = trace_tail(request.node)
    with watched_machine(_pagewalk, keep=keep, levels=levels, features=cpu_features) as made:
        yield made


@pytest.fixture
def make_kernel(
    request: pytest.FixtureRequest, _pagewalk: "Watching"
) -> "Iterator[Callable[..., WatchedKernel]]":
    """Boot kernels as a test wants them, with the arguments of Kernel; freed behind it.

    For a test that needs several, or one that is booted its own way; else there is `kernel`.
    """
    from pagewalk.testing.variants import DEFAULT_RELEASE, trace_tail
    from pagewalk.testing.watch import watched_kernel

    keep = trace_tail(request.node)
    with ExitStack() as stack:

        def make(release: str = DEFAULT_RELEASE, **options: Any) -> "WatchedKernel":
            return stack.enter_context(watched_kernel(_pagewalk, release, keep=keep, **options))

        yield make


@pytest.fixture
def kernel(
    make_kernel: "Callable[..., WatchedKernel]",
    release: str,
    levels: int,
    boot_parameters: dict[str, Any],
) -> "WatchedKernel":
    """A booted kernel_model.Kernel, of the release and levels that the marks name.

    It has 512 MiB of RAM, unless the mark `boot` says: `@pytest.mark.boot(ram=4 << 30)`.
    """
    from pagewalk.testing.variants import DEFAULT_RAM

    try:
        return make_kernel(release, **{"levels": levels, "ram": DEFAULT_RAM, **boot_parameters})
    except ValueError as error:
        why = f"the kernel cannot be booted so: {error}"
        raise pytest.fail.Exception(why, pytrace=False) from None


@pytest.fixture
def assemble(
    request: pytest.FixtureRequest,
) -> "Callable[..., Program]":
    """Assemble Intel syntax: `assemble("store: mov [rdi], rax; ret")`, `assemble("store.S")`.

    A path, or a string that ends in .S or .s, is a file, from the test's directory on; other
    strings are the source itself. `constants` are for its `.if`. What has been assembled once
    is not assembled again. Raises AssemblyError with the line that is wrong, and OSError.
    """
    from pagewalk.testing.programs import assemble

    def assemble_here(
        source: "str | os.PathLike[str]", *, constants: Mapping[str, int] | None = None
    ) -> "Program":
        __tracebackhide__ = True
        return assemble(source, request.path.parent, constants or {})

    return assemble_here


@pytest.fixture
def expect_page_fault(_pagewalk: "Watching") -> "ExpectPageFault":
    """Assert that a run ended in a page fault, and return it: see `testing.expect`."""
    from pagewalk.testing.expect import ExpectPageFault

    return ExpectPageFault(_pagewalk)
