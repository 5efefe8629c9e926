"""What the marks on a test say: in which variants it runs, and how a kernel is booted for it.

Knows which values a mark takes, and which go together; what is wrong with one ends the
collection with one line. Refuses to know fixtures' insides. Loads no engine, unless a test is
marked `boot`.
"""

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any, Final, NoReturn

import pytest

from emu import Paging
from kernel_model.releases import DEFAULT_RELEASE as DEFAULT_RELEASE
from kernel_model.releases import RELEASES
from kernel_model.words import did_you_mean

DEFAULT_LEVELS: Final = 4
DEFAULT_RAM: Final = 512 << 20
"""Bytes, of the fixture `kernel`; with Kernel's own default it takes half as long again to boot."""
DEFAULT_TAIL: Final = 40
"""Events: about as many as twenty instructions that access memory."""
_LEVELS: Final = (4, 5)
_NOT_OF_BOOT: Final = ("release", "levels", "progress")
_HEEDED_BY: Final = {
    "levels": ("levels", "machine or kernel"),
    "release": ("release", "kernel"),
    "cpu_features": ("cpu_features", "machine"),
    "boot": ("boot_parameters", "kernel"),
}
"""The fixture that heeds a mark, and those that a test uses to have it heeded."""

FEATURES: Final = {
    name: parameter.default
    for name, parameter in signature(Paging.long_mode).parameters.items()
    if isinstance(parameter.default, bool)
}
"""The features of the CPU, and whether a machine has them unless somebody says."""


class BadMark(ValueError):
    """A mark says what cannot be."""


def parametrise(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each variant that its marks name. Fails the collection for a bad one."""
    test = metafunc.definition
    try:
        _check_place(metafunc)
        levels, releases, features = (
            _values(test, name, _READ[name]) for name in ("levels", "release", "cpu_features")
        )
        if "release" in metafunc.fixturenames:
            _check_together(releases, levels)
        boot_parameters(test)
        trace_tail(test)
    except BadMark as error:
        raise pytest.fail.Exception(f"{test.nodeid}: {error}", pytrace=False) from None
    for name, values, show in (
        ("release", releases, str),
        ("levels", levels, "{}lvl".format),
        ("cpu_features", features, _features_id),
    ):
        if values and name in metafunc.fixturenames:
            ids: list[str] = [show(value) for value in values]
            metafunc.parametrize(name, values, ids=ids)


def chosen(request: pytest.FixtureRequest, name: str, default: object) -> Any:
    """Return what one of the fixtures `levels`, `release`, `cpu_features` gives a test.

    That is the fixture's own parameter, or the mark's one value where pytest could not know
    before that it is heeded: in a unittest.TestCase, and by request.getfixturevalue(). There a
    test runs once, and fails for a mark of several values.
    """
    if hasattr(request, "param"):
        return request.param
    try:
        values = _values(request.node, name, _READ[name])
        if len(values) > 1:
            given = request.node.get_closest_marker(name).args
            once = "a test of unittest, or one that calls getfixturevalue, is run once"
            _bad(name, given, f"one value: {once}")
    except BadMark as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    return values[0] if values else default


def read_features(text: object) -> dict[str, bool]:
    """Return all features, changed by names: "smep smap" sets two, "nowp" clears one."""
    if not isinstance(text, str):
        _bad("cpu_features", text, "names in one string, such as 'smep smap', for each variant")
    chosen = dict(FEATURES)
    for word in text.split():
        name = word if word in FEATURES else word.removeprefix("no")
        if name not in FEATURES:
            known = f"{', '.join(FEATURES)}, or one of them behind no, such as nowp"
            _bad("cpu_features", word, known, [*FEATURES, *(f"no{name}" for name in FEATURES)])
        chosen[name] = name == word
    return chosen


def boot_parameters(test: pytest.Item) -> dict[str, Any]:
    """Return what the closest mark `boot` says: arguments of Kernel. BadMark for others."""
    mark = test.get_closest_marker("boot")
    if mark is None:
        return {}
    if mark.args:
        _bad("boot", mark.args[0], "arguments of Kernel by name, such as boot(vmemmap_base=0x…)")
    from kernel_model import Kernel

    known = [name for name in signature(Kernel).parameters if name not in _NOT_OF_BOOT]
    for name in mark.kwargs:
        if name in _HEEDED_BY:
            _bad("boot", name, f"the mark {name} to say that")
        if name not in known:
            _bad("boot", name, f"one of {', '.join(known)}", known)
    return dict(mark.kwargs)


def trace_tail(test: pytest.Item) -> int:
    """Return how many events the closest mark `trace_tail` keeps; BadMark if that is no number."""
    mark = test.get_closest_marker("trace_tail")
    if mark is None:
        return DEFAULT_TAIL
    values = (*mark.args, *mark.kwargs.values())
    if len(values) != 1 or not isinstance(values[0], int) or values[0] < 0:
        _bad("trace_tail", values[0] if values else values, "a number of events; 0 for none")
    return int(values[0])


def _values(test: pytest.Item, name: str, read: Callable[[object], Any]) -> list[Any]:
    """Return what the closest mark of a name says, read; nothing if there is none."""
    mark = test.get_closest_marker(name)
    if mark is None or (mark not in test.own_markers and name in _parametrised(test)):
        return []
    if mark.kwargs or not mark.args:
        _bad(name, mark.kwargs or mark.args, "one value or more, one for each variant")
    values = [read(value) for value in mark.args]
    for value, given in zip(values, mark.args, strict=True):
        if values.count(value) > 1:
            _bad(name, given, "each variant once")
    return values


def _parametrised(test: pytest.Item) -> set[str]:
    """Return the names that `parametrize` gives values to: it is nearer than a module's mark."""
    names = [mark.args[0] for mark in test.iter_markers("parametrize") if mark.args]
    return {word.strip() for n in names for word in (n.split(",") if isinstance(n, str) else n)}


def _level(value: object) -> int:
    if value not in _LEVELS or not isinstance(value, int):
        _bad("levels", value, "4 or 5")
    return value


def _release(value: object) -> str:
    if value not in RELEASES or not isinstance(value, str):
        _bad("release", value, f"one of {', '.join(RELEASES)}", RELEASES)
    return value


def _check_together(releases: list[str], levels: list[int]) -> None:
    """Refuse levels that a release does not have."""
    for release in releases or [DEFAULT_RELEASE]:
        for nr in levels:
            if nr not in RELEASES[release].levels:
                _bad("levels", nr, f"4, as release {release} has no other")


def _check_place(metafunc: pytest.Metafunc) -> None:
    """Refuse a mark on the test itself that nothing in it heeds; a module's may be for others."""
    for mark in metafunc.definition.own_markers:
        fixture, users = _HEEDED_BY.get(mark.name, (None, ""))
        if fixture and fixture not in metafunc.fixturenames:
            what = mark.args[0] if mark.args else mark.kwargs
            _bad(mark.name, what, f"a test that uses the fixture {users}")


def _features_id(features: dict[str, bool]) -> str:
    changed = [
        name if is_set else f"no{name}"
        for name, is_set in features.items()
        if is_set != FEATURES[name]
    ]
    return "+".join(changed) or "plain"


def _bad(mark: str, value: object, expected: str, known: Iterable[str] = ()) -> NoReturn:
    near = did_you_mean(str(value), known)
    raise BadMark(f"mark {mark}: {value!r}: expected {expected}{near}")


_READ: Final[dict[str, Callable[[object], Any]]] = {
    "levels": _level,
    "release": _release,
    "cpu_features": read_features,
}
"""The marks that make variants, and what reads one of their values."""
