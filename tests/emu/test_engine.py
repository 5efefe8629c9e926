"""The engine is the one that we know, and nobody loads it who does not need it."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.guest import DATA, Guest

from emu import EngineError, Machine, PageFault, _unicorn
from emu.paging import U64

ROOT = Path(__file__).parents[2]


def test_the_engines_layout_is_where_we_read_it() -> None:
    assert _unicorn.layout_mismatches() == []


def test_the_engine_is_of_a_version_that_is_known() -> None:
    assert _unicorn.version() in _unicorn.SUPPORTED


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unicorn, "version", lambda: (9, 9, 9))
    _unicorn._refuse_unknown_build.cache_clear()

    with pytest.raises(EngineError, match=r"unicorn 9\.9\.9 is not known: expected 2\.1\.4"):
        Machine()

    _unicorn._refuse_unknown_build.cache_clear()


def test_another_layout_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unicorn, "_AT_OLD_EXCEPTION", _unicorn._AT_OLD_EXCEPTION - 8)
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


def test_a_hook_sees_code_that_has_run_before() -> None:
    guest = Guest()
    guest.page(DATA)
    routine = guest.put("mov [rdi], rax; nop")
    guest.call(routine, rdi=DATA)
    seen: list[int] = []
    touched: list[bool] = []
    engine = guest.cpu.engine

    handles = [
        engine.hook_code(lambda _, rip, size, data: seen.append(rip)),
        engine.hook_accesses(lambda _, kind, *rest: touched.append(_unicorn.is_store(kind))),
    ]
    guest.call(routine, rdi=DATA)
    for handle in handles:
        engine.unhook(handle)
    guest.call(routine, rdi=DATA)

    assert [rip & U64 for rip in seen] == [routine.rip, routine.rip + 3, routine.hlt]
    assert touched == [True]
