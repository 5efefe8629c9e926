"""Running tests inside of tests, with the plugin as whoever installs pagewalk has it.

What an inner run imports first is gone afterwards, and NumPy cannot be imported twice; so all that
the plugin loads is loaded here.
"""

from importlib import import_module

from asm import assemble

for _name in (
    *("emu.chunks", "emu.trace", "pagewalk.recording", "pagewalk.render_trace", "pagewalk.story"),
    *("pagewalk.testing.expect", "pagewalk.testing.kernel", "pagewalk.testing.machine"),
    *("pagewalk.testing.programs", "pagewalk.testing.report", "pagewalk.testing.variants"),
):
    import_module(_name)
assemble("nop")  # which loads keystone and capstone

_OTHERS = ("syrupy", "xdist", "hypothesispytest", "cacheprovider")


def run_tests(pytester, source, *arguments, beside=""):
    """Run a module of tests in this process, warnings being errors, with no plugin beside ours."""
    without = [f"-pno:{name}" for name in _OTHERS if name != beside]
    pytester.makepyfile(test_it=source)
    return pytester.runpytest_inprocess(*without, "-Werror", "--strict-markers", *arguments)


def collected(pytester, source):
    """Return the ids of the tests in a module."""
    result = run_tests(pytester, source, "--collect-only", "-q")
    return [line.partition("::")[2] for line in result.outlines if "::" in line]
