"""The engine is the one that we know, and nobody loads it who does not need it."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.guest import DATA, Guest

from emu import EngineError, Machine, PageFault, _layout, _unicorn, deviations
from emu.paging import U64

ROOT = Path(__file__).parents[2]


def test_the_engines_layout_is_where_we_read_it() -> None:
    assert _layout.layout_mismatches() == []


def test_the_engine_is_of_a_version_that_is_known() -> None:
    assert _unicorn.version() in _unicorn.SUPPORTED


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unicorn, "version", lambda: (9, 9, 9))
    _unicorn._refuse_unknown_build.cache_clear()

    with pytest.raises(EngineError, match=r"unicorn 9\.9\.9 is not known: expected 2\.1\.4"):
        Machine()

    _unicorn._refuse_unknown_build.cache_clear()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("AT_GPRS", "the general registers and RIP"),
        ("AT_HFLAGS", "CPL"),
        ("AT_SEGMENTS", "the selectors"),
        ("AT_BASES", "the bases"),
        ("AT_CONTROL", "the control registers, PKRU and the error code"),
        ("AT_PKRU", "PKRU"),
        ("AT_NEXT_RIP", "the RIP behind an int"),
        ("AT_OLD_EXCEPTION", "the last exception"),
        ("AT_COUNTED", "the count of instructions"),
        ("AT_CPU", "the state that a context is a copy of"),
        ("AT_STATE", "the state that a context is a copy of"),
    ],
)
@pytest.mark.parametrize("by", [-8, -4, 4, 8])
def test_every_offset_is_proved(
    monkeypatch: pytest.MonkeyPatch, name: str, what: str, by: int
) -> None:
    monkeypatch.setattr(_layout, name, getattr(_layout, name) + by)

    assert what in _layout.layout_mismatches()


def test_a_deviation_is_corrected_or_it_is_not() -> None:
    assert not deviations.DEVIATIONS.keys() & deviations.UNCORRECTED.keys()


def test_another_layout_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_layout, "AT_OLD_EXCEPTION", _layout.AT_OLD_EXCEPTION - 8)
    _unicorn._refuse_unknown_build.cache_clear()

    with pytest.raises(EngineError, match="keeps the last exception elsewhere"):
        Machine()

    _unicorn._refuse_unknown_build.cache_clear()


@pytest.mark.parametrize(
    "statement",
    [
        "import emu",
        "from emu import PageFault, Paging, refusal",
        "import emu.walk, emu.rights, emu.fault, emu.paging",
        "from emu import PhysMemory, map_page, ranges, read_virtual",
    ],
)
def test_what_needs_no_engine_loads_none(statement: str) -> None:
    check = f"import sys; {statement}; print('unicorn' in sys.modules, 'capstone' in sys.modules)"

    found = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert found.stdout.split() == ["False", "False"]


def test_a_fault_after_a_hook_was_removed_elsewhere_is_no_double_fault() -> None:
    guest = Guest()
    hooked = guest.put("nop")
    handle = guest.cpu.engine.hook_code(lambda *_: None)
    guest.call(hooked)
    guest.cpu.cpl = 3
    guest.cpu.engine.unhook(handle)

    stops = [guest.cpu.run(hooked.rip) for _ in range(3)]

    assert stops == [PageFault(hooked.rip, 21, rip=hooked.rip)] * 3


def test_a_hook_sees_code_that_has_run_before_until_it_is_removed() -> None:
    guest = Guest()
    routine = guest.put("nop; nop")
    guest.call(routine)
    seen: list[int] = []

    handle = guest.cpu.engine.hook_code(lambda _, rip, size, data: seen.append(rip & U64))
    guest.call(routine)
    guest.cpu.engine.unhook(handle)
    guest.call(routine)

    assert seen == [routine.rip, routine.rip + 1, routine.hlt]


def test_a_hook_sees_accesses_of_code_that_has_run_before_until_it_is_removed() -> None:
    guest = Guest()
    guest.page(DATA)
    routine = guest.put("mov [rdi], rax")
    guest.call(routine, rdi=DATA)
    stores: list[bool] = []

    handle = guest.cpu.engine.hook_accesses(
        lambda _, kind, *rest: stores.append(_unicorn.is_store(kind))
    )
    guest.call(routine, rdi=DATA)
    guest.cpu.engine.unhook(handle)
    guest.call(routine, rdi=DATA)

    assert stores == [True]
