"""The marks of the pytest plugin: variants, how a kernel is booted, and what cannot be."""

import pytest
from support.inner import collected, run_tests

from emu.paging import CR4_LA57


@pytest.mark.release("6.8", "6.17")
@pytest.mark.levels(4, 5)
def test_a_kernel_is_of_the_variant_s_release_and_levels(kernel, release, levels):
    assert (kernel.release.name, kernel.layout.levels) == (release, levels)


@pytest.mark.levels(5)
def test_one_level_is_one_variant(machine):
    assert machine.paging.cr4 & CR4_LA57


def test_without_marks_it_is_the_project_s_own_default(kernel, levels, release):
    assert (release, levels, kernel.ram) == ("6.8", 4, 512 << 20)


@pytest.mark.boot(vmemmap_base=0xFFFF_E6FF_C000_0000, ram=1 << 30)
def test_boot_parameters_are_the_kernel_s(kernel):
    assert (kernel.layout.vmemmap_base, kernel.ram) == (0xFFFF_E6FF_C000_0000, 1 << 30)


@pytest.mark.parametrize("levels", [4, 5])
def test_levels_may_be_parametrised_without_the_mark(kernel, levels):
    assert kernel.layout.levels == levels


def test_several_kernels_are_made_by_hand(make_kernel):
    old, new = make_kernel("5.4"), make_kernel("6.17", levels=5)

    assert [old.release.name, new.layout.levels] == ["5.4", 5]


@pytest.mark.levels(5)
@pytest.mark.release("6.17")
class TestNearness:
    """What is nearer to a test counts."""

    def test_a_class_s_marks_are_its_tests_(self, kernel):
        assert (kernel.release.name, kernel.layout.levels) == ("6.17", 5)

    @pytest.mark.levels(4)
    def test_the_test_s_own_come_first(self, kernel):
        assert (kernel.release.name, kernel.layout.levels) == ("6.17", 4)

    @pytest.mark.parametrize("levels", [4, 5])
    def test_and_so_do_the_parameters(self, kernel, levels):
        assert (kernel.release.name, kernel.layout.levels) == ("6.17", levels)


IDS = """
    import pytest

    @pytest.mark.levels(4, 5)
    @pytest.mark.release("6.8", "6.17")
    def test_kernel(kernel): ...

    @pytest.mark.levels(4, 5)
    @pytest.mark.cpu_features("", "smep smap", "nowp")
    @pytest.mark.parametrize("way", ["in", "out"])
    def test_machine(machine, way): ...

    def test_plain(machine, kernel): ...
"""


def test_the_ids_of_variants_read_well(pytester):
    ids = collected(pytester, IDS)

    assert ids[:4] == [
        *("test_kernel[6.8-4lvl]", "test_kernel[6.8-5lvl]"),
        *("test_kernel[6.17-4lvl]", "test_kernel[6.17-5lvl]"),
    ]
    assert ids[4:6] == ["test_machine[4lvl-plain-in]", "test_machine[4lvl-plain-out]"]
    assert ids[-2:] == ["test_machine[5lvl-nowp-out]", "test_plain"]


def test_a_mark_of_a_module_is_for_those_that_heed_it(pytester):
    ids = collected(
        pytester,
        """
        import pytest
        pytestmark = [pytest.mark.release("6.16"), pytest.mark.cpu_features("smep")]

        def test_kernel(kernel): ...
        def test_machine(machine): ...
        def test_neither(): ...
        """,
    )

    assert ids == ["test_kernel[6.16]", "test_machine[smep]", "test_neither"]


@pytest.mark.parametrize(
    ("mark", "fixture", "line"),
    [
        ("levels(6)", "machine", "levels: 6: expected 4 or 5"),
        ("levels('5')", "machine", "levels: '5': expected 4 or 5"),
        ("levels()", "machine", "levels: (): expected one value or more, one for each variant"),
        ("levels(4, 4)", "machine", "levels: 4: expected each variant once"),
        ("levels(5)", "old_kernel", "levels: 5: expected 4, as release 4.4 has no other"),
        (
            "release('6.71')",
            "kernel",
            "release: '6.71': expected one of 4.4, *; did you mean 6.17?",
        ),
        (
            "release('6.8')",
            "machine",
            "release: '6.8': expected a test that uses the fixture kernel",
        ),
        ("cpu_features('smeep')", "machine", "cpu_features: 'smeep': expected wp, *mean smep?"),
        ("cpu_features('nosmapp')", "machine", "cpu_features: 'nosmapp': expected *mean nosmap?"),
        ("cpu_features(5)", "machine", "cpu_features: 5: expected names in one string, *"),
        ("cpu_features('smep')", "kernel", "cpu_features: 'smep': expected *the fixture machine"),
        ("boot(vmemap_base=1)", "kernel", "boot: 'vmemap_base': expected *mean vmemmap_base?"),
        ("boot(levels=5)", "kernel", "boot: 'levels': expected the mark levels to say that"),
        ("boot('x')", "kernel", "boot: 'x': expected arguments of Kernel by name, *"),
        ("trace_tail(-1)", "machine", "trace_tail: -1: expected a number of events; 0 for none"),
    ],
)
def test_a_mark_that_cannot_be_ends_the_collection_with_one_line(pytester, mark, fixture, line):
    source = f"import pytest\n@pytest.mark.{mark}\n{PARAMETERS[fixture]}"

    result = run_tests(pytester, source)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR collecting*", f"test_it.py::test_it: mark {line}", "=*"], consecutive=True
    )


PARAMETERS = {
    "machine": "def test_it(machine): ...",
    "kernel": "def test_it(kernel): ...",
    "old_kernel": "@pytest.mark.release('4.4')\ndef test_it(kernel): ...",
}


def test_a_kernel_that_cannot_be_booted_says_why(pytester):
    result = run_tests(
        pytester,
        """
        import pytest

        @pytest.mark.boot(vmemmap_base=0x1000)
        def test_it(kernel): ...
        """,
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["the kernel cannot be booted so: vmemmap_base*0x1000*"])


def test_a_directory_may_boot_its_kernels_its_own_way(pytester):
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def boot_parameters(boot_parameters, levels):
            return {**boot_parameters, "ram": levels << 28}
        """
    )
    result = run_tests(
        pytester,
        """
        import pytest

        @pytest.mark.levels(4, 5)
        @pytest.mark.boot(struct_page=80)
        def test_it(kernel, levels):
            assert (kernel.ram, kernel.layout.sizeof_page) == (levels << 28, 80)
        """,
    )

    result.assert_outcomes(passed=2)


def test_a_mark_counts_more_than_a_directory_s_own_fixture(pytester):
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def release():
            return "6.17"
        """
    )
    result = run_tests(
        pytester,
        """
        import pytest

        def test_without(kernel):
            assert kernel.release.name == "6.17"

        @pytest.mark.release("5.4")
        def test_with(kernel, release):
            assert (kernel.release.name, release) == ("5.4", "5.4")
        """,
    )

    result.assert_outcomes(passed=2)


def test_a_unittest_heeds_a_mark_of_one_value_and_refuses_others(pytester):
    result = run_tests(
        pytester,
        """
        import unittest
        import pytest

        class Tests(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _with(self, machine, levels):
                self.seen = (machine.walk(0).steps[0].level, levels)

            @pytest.mark.levels(5)
            def test_one(self):
                self.assertEqual(self.seen, (5, 5))

            @pytest.mark.levels(4, 5)
            def test_two(self): ...

            @pytest.mark.levels(6)
            def test_bad(self): ...
        """,
    )

    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines_random(
        [
            "mark levels: (4, 5): expected one value: a test of unittest,*is run once",
            "mark levels: 6: expected 4 or 5",
        ]
    )


def test_what_a_test_asks_for_while_it_runs_heeds_its_module_s_mark(pytester):
    result = run_tests(
        pytester,
        """
        import pytest

        pytestmark = pytest.mark.levels(5)

        def test_it(request):
            assert request.getfixturevalue("machine").walk(0).steps[0].level == 5
        """,
    )

    result.assert_outcomes(passed=1)


def test_fixtures_and_marks_of_the_same_names_are_left_alone(pytester):
    result = run_tests(
        pytester,
        """
        import pytest

        @pytest.fixture
        def machine():
            return "a lathe"

        @pytest.mark.levels("ground", "first")
        @pytest.mark.release("yesterday's")
        def test_it(machine):
            assert machine == "a lathe"
        """,
    )

    result.assert_outcomes(passed=1)


def test_the_marks_are_registered(pytester):
    result = run_tests(pytester, "", "--markers")

    result.stdout.fnmatch_lines([f"@pytest.mark.{name}(*" for name in MARKS])


MARKS = ("levels", "release", "cpu_features", "boot", "trace_tail")
