"""What the engine does where no correction is made: the names in UNCORRECTED are still true.

A test that fails here is good news; the name goes, and the docs with it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.guest import CODE, DATA, HOLE, USER_DATA, Guest

from emu import EngineError, OutsideRam, PageFault, PhysAddr, Returned, StepLimit, Trap
from emu.deviations import UNCORRECTED
from emu.fault import GP, PF_P, PF_RSVD, PF_W, UD
from emu.paging import CR4_LA57, RW, A

ROOT = Path(__file__).parents[2]
_EFER, _FS_BASE, _GS_BASE = 0xC000_0080, 0xC000_0100, 0xC000_0101
_LOCKED_BT = "f0 0fa3c8"
_ABORTS = """
from support.guest import Guest
from emu import PhysAddr
guest = Guest()
routine = guest.put("nop; nop; nop; nop")
guest.memory.write(guest.walk(routine.rip).pa, bytes.fromhex("{code}"))
guest.call(routine)
"""


def test_each_is_one_line() -> None:
    assert [name for name, what in UNCORRECTED.items() if not what.isprintable()] == []


@pytest.mark.parametrize(
    ("name", "source", "registers"),
    [
        ("unaligned-vector", "movaps xmm0, [rdi]", {"rdi": DATA + 4}),
        ("reserved-cr4", "mov cr4, rax", {"rax": 0x6B0 | 1 << 40}),
        ("efer-lme", "wrmsr", {"rcx": _EFER, "rax": 0xC00, "rdx": 0}),
        ("msr-canonical", "wrmsr", {"rcx": _GS_BASE, "rax": 0, "rdx": 1 << 31}),
        ("msr-canonical", "wrmsr", {"rcx": _FS_BASE, "rax": 0, "rdx": 1 << 31}),
        ("cache-line", "clflush [rdi]", {"rdi": USER_DATA}),
        ("cache-line", "clflushopt [rdi]", {"rdi": USER_DATA}),
        ("cache-line", "clwb [rdi]", {"rdi": USER_DATA}),
    ],
)
def test_it_completes_where_the_sdm_wants_a_fault(
    guest: Guest, name: str, source: str, registers: dict[str, int]
) -> None:
    guest.page(DATA)

    assert isinstance(guest.run(source, **registers), Returned), UNCORRECTED[name]


def test_reserved_cr3(guest: Guest) -> None:
    cr3 = guest.paging.cr3

    assert guest.run("mov cr3, rax", rax=cr3 | 1 << 63) == Returned()
    stop = guest.run("mov cr3, rax; there: nop", rax=cr3 | 1 << 45)
    assert isinstance(stop, OutsideRam)
    assert (stop.pa, stop.what) == (cr3 | 1 << 45, "root")


def test_user_io(guest: Guest) -> None:
    assert guest.call_user(guest.put_user("in al, dx"), rdx=0x60) == Returned()


def test_la57_toggle(guest: Guest) -> None:
    guest.run("mov cr4, rax", rax=guest.paging.cr4 | CR4_LA57)

    assert guest.cpu.paging.levels == 5


@pytest.mark.parametrize("source", ["jmp rdi", "push rdi; ret"])
def test_branch_target(guest: Guest, source: str) -> None:
    guest.page(DATA)

    assert guest.run(source, rdi=1 << 60, rsp=DATA + 8) == Trap(GP, 0, rip=1 << 60)


def test_refused_gigabyte(guest: Guest) -> None:
    entry_pa = guest.map(DATA, 0, 0, level=3)

    stop = guest.run("mov [rdi], rax", rdi=DATA)

    assert stop == PageFault(DATA, PF_P | PF_W, rip=CODE)
    assert (guest.u64(entry_pa) or 0) & A


def test_refused_gigabyte_with_a_crooked_address(guest: Guest) -> None:
    entry_pa = guest.map(DATA, 0, RW, level=3)
    guest.change_entry(DATA, 3, put=1 << 13)

    stop = guest.run("mov rax, [rdi]", rdi=DATA)

    assert stop == PageFault(DATA, PF_P | PF_RSVD, rip=CODE)
    assert (guest.u64(entry_pa) or 0) & A


def test_refused_update(guest: Guest) -> None:
    entry_pa = guest.map(DATA, 0, 0)

    stop = guest.run("lock or [rdi], al", rdi=DATA)

    assert stop == PageFault(DATA, PF_P | PF_W, rip=CODE)
    assert (guest.u64(entry_pa) or 0) & A


def test_torn_store(guest: Guest) -> None:
    pa = guest.page(DATA)

    stop = guest.run("pcmpeqd xmm0, xmm0; there: movups [rdi], xmm0", rdi=DATA + 0xFF8)

    assert stop == PageFault(DATA + 0x1000, PF_W, rip=CODE + 4)
    assert guest.u64(pa + 0xFF8) == (1 << 64) - 1


def test_torn_store_at_the_end_of_ram(guest: Guest) -> None:
    pa = guest.page(DATA)
    guest.map(DATA + 0x1000, HOLE)

    stop = guest.run("mov [rdi], rax", rdi=DATA + 0xFFC, rax=(1 << 64) - 1)

    assert stop == OutsideRam(HOLE, CODE, "leaf")
    assert guest.memory.read(PhysAddr(pa + 0xFFC), 4) == b"\xff" * 4


def test_torn_x87(guest: Guest) -> None:
    guest.page(DATA)
    guest.map(DATA + 0x1000, HOLE)

    stop = guest.run("fstp tbyte ptr [rdi]", rdi=DATA + 0xFFE)

    assert stop != OutsideRam(HOLE, CODE, "leaf")


@pytest.mark.parametrize("source", ["fbld tbyte ptr [rdi]", "fldpi; fbstp tbyte ptr [rdi]"])
def test_state_order(guest: Guest, source: str) -> None:
    with pytest.raises(EngineError, match="the CPU reports #PF"):
        guest.run(source, rdi=DATA)


def test_far_return(guest: Guest) -> None:
    guest.page(DATA)  # the supervisor's: the null selector on it is what stops the return

    stop = guest.call_user(guest.put_user("retfq"), rsp=DATA)

    assert isinstance(stop, Trap)
    assert stop.vector == GP


def test_sysenter(guest: Guest) -> None:
    assert guest.run("sysenter") == Trap(UD, None, rip=CODE)


def test_locked_register() -> None:
    code = _ABORTS.format(code=_LOCKED_BT)
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        check=False,
    )

    assert done.returncode == -6


def test_rewritten_block(guest: Guest) -> None:
    guest.change_entry(CODE, 2, put=RW)

    stop = guest.run("inc byte ptr [rip + there + 1]; there: mov eax, 1", step_limit=1)

    assert stop == StepLimit(CODE, 1)  # the step was the try that was begun again


def test_every_name_has_a_test() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")

    missing = [
        name
        for name in UNCORRECTED
        if f'"{name}"' not in tested and f"test_{name.replace('-', '_')}" not in tested
    ]

    assert missing == []
