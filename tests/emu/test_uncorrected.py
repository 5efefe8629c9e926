"""What the engine does where no correction is made: the names in UNCORRECTED are still true.

A test that fails here is good news; the name goes, and the docs with it.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.guest import CODE, CODE_PA, DATA, HOLE, USER_CODE, USER_DATA, Guest
from support.system import System

from emu import EngineError, OutsideRam, PageFault, PhysAddr, Returned, StepLimit, Trap, VirtAddr
from emu.descriptors import TableRegister, code_segment, data_segment
from emu.deviations import UNCORRECTED
from emu.events import Delivered
from emu.fault import GP, PF_P, PF_RSVD, PF_W
from emu.paging import RFLAGS_AC, RW, US, A
from emu.trace import Recorder

ROOT = Path(__file__).parents[2]
_CR0_AM = 1 << 18
_CODE_64, _DATA_SEGMENT = code_segment(), data_segment()
_CODE_32 = (0x00CF_9B00_0000_FFFF).to_bytes(8, "little")
_MOV_ABSOLUTE = "a1 00005000"  # mov eax, [0x500000] in 32-bit code; longer in 64-bit code
_VEX_NO_INSTRUCTION = "c5f80107"
_PFADD = "0f0f079e"  # pfadd mm0, [rdi]
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
        ("unknown-msr", "wrmsr", {"rcx": 0x1234_5678}),
        ("unknown-msr", "rdmsr", {"rcx": 0x1234_5678}),
        ("debug-registers", "mov dr6, rax", {"rax": 1 << 63}),
        ("debug-registers", "mov dr7, rax", {"rax": 1 << 63}),
        ("ltr-memory", "ltr word ptr [rdi]", {"rdi": DATA}),
        ("undecodable-bytes", "vmovaps xmm0, [rdi]", {"rdi": DATA}),
    ],
)
def test_it_completes_where_the_sdm_wants_a_fault(
    guest: Guest, name: str, source: str, registers: dict[str, int]
) -> None:
    guest.page(DATA)

    assert isinstance(guest.run(source, **registers), Returned), UNCORRECTED[name]


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


def test_consumed_flags(guest: Guest) -> None:
    guest.run("add rdi, 8; seto byte ptr [rdi]", rdi=8, rflags=2)

    assert guest.cpu.registers.rflags != 0x12  # AF


@pytest.mark.parametrize("code", ["cf", "cb"])
def test_narrow_return(guest: Guest, code: str) -> None:
    guest.page(DATA)
    routine = guest.put("nop")
    guest.memory.write(CODE_PA, bytes.fromhex(code))

    stop = guest.call(routine, rsp=DATA + 0x800)

    assert stop == PageFault(VirtAddr(0x800), 0, rip=CODE)


def test_alignment_check(guest: Guest) -> None:
    guest.page(USER_DATA, RW | US)
    guest.cpu.paging = replace(guest.paging, cr0=guest.paging.cr0 | _CR0_AM)

    stop = guest.call_user(guest.put_user("mov rax, [rdi]"), rdi=USER_DATA + 1, rflags=RFLAGS_AC)

    assert stop == Returned()


def test_undecodable_bytes(guest: Guest) -> None:
    routine = guest.put("nop; nop; nop; nop")
    guest.memory.write(CODE_PA, bytes.fromhex(_VEX_NO_INSTRUCTION))

    with pytest.raises(EngineError, match="'invalid'"):
        guest.call(routine, rdi=DATA)


def test_undecodable_bytes_of_3dnow(guest: Guest) -> None:
    routine = guest.put("nop; nop; nop; nop")
    guest.memory.write(CODE_PA, bytes.fromhex(_PFADD))

    assert guest.call(routine, rdi=DATA) == PageFault(DATA, 0, rip=CODE)


def test_compatibility_mode(guest: Guest) -> None:
    gdt = guest.page(DATA)
    guest.memory.write(gdt, bytes(8) + _CODE_64 + _DATA_SEGMENT + _CODE_32)
    guest.cpu.gdt = TableRegister(DATA, 31)
    narrow = guest.put_user("nop; nop; nop; nop; nop")
    guest.memory.write(PhysAddr(CODE_PA + narrow.rip - USER_CODE), bytes.fromhex(_MOV_ABSOLUTE))
    far_return = guest.put("push 0x18; push rax; retfq")

    with pytest.raises(EngineError, match=r"compatibility mode, .*: CS 0x18 has L=0"):
        guest.call(far_return, rax=narrow.rip, rsp=DATA + 0x800)


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


def test_written_cr2(guest: Guest) -> None:
    nop, straddler = "90", "48b8"
    guest.memory.write(PhysAddr(CODE_PA + 0x1F_FFFD), bytes.fromhex(nop + straddler))
    entry = guest.put(f"mov cr2, rax; mov rdi, {CODE + 0x1F_FFFD}; jmp rdi")

    guest.call(entry, rax=0x1234, step_limit=4)

    assert guest.cpu.cr2 == 0  # and not 0x1234


def test_code_base() -> None:
    system = System()
    based = bytearray(code_segment())
    based[2] = 0x40  # the base
    system.handle({})
    system.poke(system.gdt.base + 0x20, bytes(based))
    system.put("mov eax, 2", at=CODE + 0x1040)
    target = system.put("mov eax, 1", at=CODE + 0x1000)

    system.run("push 0x20; push rdi; retfq", rdi=target.rip)

    assert system.cpu.registers.rax == 2  # and not 1


def test_prefixed_call() -> None:
    system = System()
    system.handle({GP: system.put("hlt").rip})
    routine = system.put("at: .byte 0x48, 0xcc")

    with Recorder(system.cpu) as recorder:
        system.call(routine)

    (delivered,) = (event for event in recorder.events() if isinstance(event, Delivered))
    assert delivered.delivery.exceptions[1].rip == routine["at"] + 1


def test_every_name_has_a_test() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")

    missing = [
        name
        for name in UNCORRECTED
        if f'"{name}"' not in tested and f"test_{name.replace('-', '_')}" not in tested
    ]

    assert missing == []
