"""Privilege, registers and CR3, as Python sets and reads them."""

import pytest
from support.guest import CODE, DATA, USER_DATA, Guest

from emu import Halted, PageFault, PhysAddr, Returned, Trap
from emu.paging import RW, US


def test_code_runs_at_cpl_3_and_returns_at_a_hlt_that_it_may_not_execute(guest: Guest) -> None:
    guest.page(USER_DATA, RW | US)
    routine = guest.put_user("mov [rdi], rax; mov ax, cs")

    stop = guest.call_user(routine, rdi=USER_DATA)

    assert stop == Returned()
    assert stop.value & 3 == 3


@pytest.mark.parametrize("source", ["hlt", "cli", "mov rax, cr3", "invlpg [rdi]", "wrmsr"])
def test_a_privileged_instruction_at_cpl_3_is_a_general_protection_fault(
    guest: Guest, source: str
) -> None:
    routine = guest.put_user(f"nop; {source}")

    assert guest.call_user(routine) == Trap(13, 0, rip=routine.rip + 1)


def test_back_at_cpl_0_supervisor_pages_are_there_again(guest: Guest) -> None:
    guest.call_user(guest.put_user("nop"))

    guest.cpu.cpl = 0

    assert guest.cpu.cpl == 0
    assert guest.run("mov rax, cr3") == Returned()


def test_setting_the_cpl_brings_64_bit_code_back_from_a_32_bit_segment(guest: Guest) -> None:
    gdt = guest.page(DATA)
    guest.page(USER_DATA)
    guest.memory.write(gdt, (0x0F).to_bytes(2, "little") + DATA.to_bytes(8, "little"))
    guest.memory.write_u64(PhysAddr(gdt + 8), 0x00CF_9B00_0000_FFFF)
    leave = guest.put("lgdt [rdi]; push 8; push rsi; .byte 0x48, 0xcb")  # retfq
    inc_or_rex = guest.put_user(".byte 0x40, 0x90")  # inc eax to 32-bit code

    compatible = guest.cpu.run(leave.rip, rdi=DATA, rsi=inc_or_rex.rip, rsp=USER_DATA + 0x800)
    value = guest.cpu.registers.rax
    guest.cpu.cpl = 0
    again = guest.cpu.run(inc_or_rex.rip)

    assert compatible == again == Halted(inc_or_rex.hlt)
    assert value == 1
    assert guest.cpu.registers.rax == 1


@pytest.mark.parametrize("cpl", [1, 2, 4, -1])
def test_only_cpl_0_and_3_exist(guest: Guest, cpl: int) -> None:
    with pytest.raises(ValueError, match=f"CPL {cpl}"):
        guest.cpu.cpl = cpl


# -- registers


def test_registers_are_read_as_they_were_written(guest: Guest) -> None:
    values = {f"r{n}": 0x1111 * n for n in range(8, 16)} | {"rax": 1 << 63, "rsp": 8, "rbp": 9}

    guest.cpu.write(**values, fs_base=0x7000, gs_base=DATA)

    assert guest.cpu.registers._asdict().items() >= values.items()
    assert guest.cpu.registers.fs_base == 0x7000
    assert guest.cpu.registers.gs_base == DATA


def test_a_negative_register_is_two_s_complement(guest: Guest) -> None:
    guest.cpu.write(rax=-1)

    assert guest.cpu.registers.rax == (1 << 64) - 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("rzx", 1, "rzx is no register"), ("rax", 1 << 64, "rax=0x1"), ("rax", -1 << 64, "rax=-0x1")],
)
def test_a_register_that_is_none_and_a_value_that_does_not_fit_are_refused(
    guest: Guest, name: str, value: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        guest.cpu.run(CODE, **{name: value})


@pytest.mark.parametrize("rip", [-1, 1 << 64])
def test_a_rip_that_is_no_address_is_refused(guest: Guest, rip: int) -> None:
    with pytest.raises(ValueError, match=f"rip {rip:#x}"):
        guest.cpu.run(rip)


@pytest.mark.parametrize("cr3", [-1, 1 << 40, 1 << 64])
def test_a_cr3_beyond_physical_memory_is_refused(guest: Guest, cr3: int) -> None:
    with pytest.raises(ValueError, match=f"cr3 {cr3:#x}"):
        guest.cpu.cr3 = cr3


def test_a_cr3_write_switches_address_spaces(guest: Guest) -> None:
    other = guest.frames.allocate()
    top = guest.memory.words[guest.paging.root // 8 + 511]
    guest.memory.write_u64(other + 511 * 8, top)
    guest.page(DATA)
    routine = guest.put("mov rax, [rdi]")
    here = guest.call(routine, rdi=DATA)

    guest.cpu.cr3 = other

    fault = guest.call(routine, rdi=DATA)
    assert here == Returned()
    assert fault == PageFault(DATA, 0, rip=routine.rip)
    assert fault.cr3 == other == guest.cpu.paging.root
