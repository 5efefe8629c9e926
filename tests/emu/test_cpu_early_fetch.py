"""Code that runs off its page: the fetch faults at the instruction that does, and not before.

The engine translates blocks, and reports the next page's fault before any of the block has run
(deviation "early-fetch").
"""

import pytest
from support.guest import CODE, CODE_PA, CODE_SIZE, DATA, HOLE, Guest

from emu import Halted, OutsideRam, PageFault, PhysAddr, Returned, StepLimit, Trap
from emu.fault import PF_I, PF_W

END = CODE + CODE_SIZE  # the window's last page ends here, and nothing follows it
NOP = b"\x90"
MOVABS = bytes.fromhex("48b8 8877665544332211")  # mov rax, imm64: 10 bytes


def put_bytes(guest: Guest, code: bytes, left: int) -> int:
    """Put raw bytes `left` bytes before the end of the window, cut off there."""
    offset = CODE_SIZE - left
    guest.memory.write(PhysAddr(CODE_PA + offset), code[:left])
    return CODE + offset


@pytest.mark.parametrize("left", range(1, 33))
def test_the_fault_is_at_the_page_end_after_all_instructions_before_it(
    guest: Guest, left: int
) -> None:
    rip = put_bytes(guest, b"\xff\xc3" * (left // 2) + NOP * (left % 2), left)  # inc ebx

    stop = guest.cpu.run(rip, rbx=0)

    assert stop == PageFault(END, PF_I, rip=END)
    assert stop.registers.rbx == left // 2


@pytest.mark.parametrize("inside", range(1, 10))
@pytest.mark.parametrize("before", [0, 1, 7])
def test_the_fault_is_at_the_instruction_that_straddles_the_page_end(
    guest: Guest, inside: int, before: int
) -> None:
    rip = put_bytes(guest, NOP * before + MOVABS, before + inside)

    stop = guest.cpu.run(rip)

    assert stop == PageFault(END, PF_I, rip=rip + before)


@pytest.mark.parametrize("left", range(4, 24))
def test_a_data_fault_before_the_page_end_comes_first(guest: Guest, left: int) -> None:
    rip = put_bytes(guest, b"\xff\xc3" + b"\x89\x07" + NOP * 20, left)  # mov [rdi], eax

    stop = guest.cpu.run(rip, rdi=DATA, rbx=0)

    assert stop == PageFault(DATA, PF_W, rip=rip + 2)
    assert stop.registers.rbx == 1


def test_each_of_several_data_faults_comes_before_the_page_end(guest: Guest) -> None:
    rip = put_bytes(guest, (b"\x89\x07" + b"\x89\x06" + NOP * 3 + MOVABS), 12)
    first = guest.cpu.run(rip, rdi=DATA, rsi=DATA + 0x1000)
    guest.page(DATA)

    second = guest.cpu.run(first.rip)
    guest.page(DATA + 0x1000)
    third = guest.cpu.run(second.rip)

    assert first == PageFault(DATA, PF_W, rip=rip)
    assert second == PageFault(DATA + 0x1000, PF_W, rip=rip + 2)
    assert third == PageFault(END, PF_I, rip=rip + 7)


@pytest.mark.parametrize("left", range(4, 24))
def test_an_invalid_opcode_before_the_page_end_comes_first(guest: Guest, left: int) -> None:
    rip = put_bytes(guest, NOP * 2 + b"\x0f\x0b" + NOP * 20, left)

    stop = guest.cpu.run(rip)

    assert stop == Trap(6, None, rip=rip + 2)


def test_a_division_by_zero_before_the_page_end_comes_first(guest: Guest) -> None:
    rip = put_bytes(guest, NOP + b"\xf7\xf1" + NOP * 9, 12)

    stop = guest.cpu.run(rip, rcx=0)

    assert stop == Trap(0, None, rip=rip + 1)


def test_a_privileged_instruction_before_the_page_end_comes_first(guest: Guest) -> None:
    guest.change_entry(CODE, 4, put=4)
    guest.change_entry(CODE, 3, put=4)
    guest.change_entry(CODE, 2, put=4)
    rip = put_bytes(guest, NOP + b"\xfa" + NOP * 9, 11)  # cli
    guest.cpu.cpl = 3

    stop = guest.cpu.run(rip)

    assert stop == Trap(13, 0, rip=rip + 1)


@pytest.mark.parametrize("left", range(2, 12))
def test_an_access_outside_ram_before_the_page_end_comes_first(guest: Guest, left: int) -> None:
    guest.map(DATA, HOLE)
    rip = put_bytes(guest, b"\x89\x07" + NOP * 20, left)

    stop = guest.cpu.run(rip, rdi=DATA)

    assert stop == OutsideRam(HOLE, rip, "leaf")


@pytest.mark.parametrize("left", range(2, 12))
def test_a_jump_before_the_page_end_is_taken(guest: Guest, left: int) -> None:
    routine = guest.put("nop")
    rip = put_bytes(guest, b"\xff\xe7" + NOP * 20, left)

    stop = guest.cpu.run(rip, rdi=routine.rip, returns_to=routine.hlt)

    assert stop == Returned()


@pytest.mark.parametrize("left", range(1, 12))
def test_a_halt_before_the_page_end_ends_the_run(guest: Guest, left: int) -> None:
    rip = put_bytes(guest, b"\xf4" + NOP * 20, left)

    assert guest.cpu.run(rip) == Halted(rip)


@pytest.mark.parametrize("inside", range(1, 10))
def test_a_straddler_whose_second_page_lies_outside_ram_leaves_ram(
    guest: Guest, inside: int
) -> None:
    guest.map(END, HOLE, 0)
    rip = put_bytes(guest, b"\xff\xc3" + MOVABS, 2 + inside)

    stop = guest.cpu.run(rip, rbx=0)

    assert stop == OutsideRam(HOLE, rip + 2, "leaf")
    assert guest.cpu.registers.rbx == 1


@pytest.mark.parametrize("left", range(1, 12))
def test_code_that_runs_into_a_page_outside_ram_leaves_ram_there(guest: Guest, left: int) -> None:
    guest.map(END, HOLE, 0)
    rip = put_bytes(guest, NOP * left, left)

    assert guest.cpu.run(rip) == OutsideRam(HOLE, END, "leaf")


@pytest.mark.parametrize("inside", [1, 9])
def test_a_straddler_whose_second_page_has_its_table_outside_ram_leaves_ram(
    guest: Guest, inside: int
) -> None:
    guest.map(END, CODE_PA, 0)
    guest.set_entry(END, 2, HOLE | 3)
    rip = put_bytes(guest, NOP * 3 + MOVABS, 3 + inside)

    assert guest.cpu.run(rip) == OutsideRam(HOLE, rip + 3, "table")


def test_a_straddler_runs_once_its_second_page_is_mapped(guest: Guest) -> None:
    rip = put_bytes(guest, b"\xff\xc3" + MOVABS, 6)
    fault = guest.cpu.run(rip, rbx=0)
    frame = guest.page(END, flags=0)
    guest.memory.write(frame, MOVABS[4:] + b"\xf4")

    stop = guest.cpu.run(fault.rip, returns_to=END + 6)

    assert stop == Returned()
    assert stop.value == 0x1122_3344_5566_7788
    assert guest.cpu.registers.rbx == 1


def test_code_that_runs_off_the_last_page_of_all_wraps_to_address_zero(guest: Guest) -> None:
    top = (1 << 64) - 0x1000
    frame = guest.page(top, flags=0)
    guest.memory.write(frame, NOP * 0x1000)

    stop = guest.cpu.run(top + 0xFF0)

    assert stop == PageFault(0, PF_I, rip=0)


@pytest.mark.parametrize("limit", range(1, 8))
def test_a_step_limit_is_exact_before_the_page_end(guest: Guest, limit: int) -> None:
    rip = put_bytes(guest, b"\xff\xc3" * 7 + MOVABS, 16)

    stop = guest.cpu.run(rip, step_limit=limit, rbx=0)

    assert stop == StepLimit(rip + 2 * limit, limit)
    assert guest.cpu.registers.rbx == limit


def test_a_step_limit_beyond_the_page_end_leaves_the_fault(guest: Guest) -> None:
    rip = put_bytes(guest, b"\xff\xc3" * 7 + MOVABS, 16)

    assert guest.cpu.run(rip, step_limit=8) == PageFault(END, PF_I, rip=rip + 14)


def test_a_fetch_that_comes_too_early_leaves_no_cr2_behind(guest: Guest) -> None:
    read_cr2, straddler = "0f20d0", "48b8"
    at = CODE + CODE_SIZE - 5
    guest.memory.write(PhysAddr(CODE_PA + CODE_SIZE - 5), bytes.fromhex(read_cr2 + straddler))

    stop = guest.cpu.run(at, cr2=0x1234, rax=0)

    assert stop == PageFault(CODE + CODE_SIZE, 0x10, rip=at + 3)
    assert stop.registers.rax == 0x1234
    assert guest.cpu.cr2 == CODE + CODE_SIZE


def test_a_limit_that_comes_before_a_fetch_leaves_no_cr2_behind(guest: Guest) -> None:
    routine = guest.put("jmp rax")

    stop = guest.call(routine, rax=0x5000, cr2=0x1234, step_limit=1)

    assert stop == StepLimit(0x5000, 1)
    assert guest.cpu.cr2 == 0x1234
