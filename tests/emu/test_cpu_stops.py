"""How a run ends other than by a page fault or a limit: return, halt, traps."""

import pytest
from support.guest import CODE, DATA, Guest

from emu import Halted, PageFault, Returned, Trap


def test_arriving_at_the_given_hlt_is_a_return_with_rax(guest: Guest) -> None:
    stop = guest.run("mov eax, 0x1234")

    assert stop == Returned()
    assert stop.value == 0x1234


def test_any_other_hlt_is_a_halt(guest: Guest) -> None:
    routine = guest.put("nop; early: hlt; nop")

    assert guest.call(routine) == Halted(routine["early"])


def test_without_a_place_to_return_to_every_hlt_is_a_halt(guest: Guest) -> None:
    routine = guest.put("nop")

    assert guest.cpu.run(routine.rip) == Halted(routine.hlt)


@pytest.mark.parametrize(
    ("source", "vector", "error_code"),
    [
        ("at: ud2", 6, None),
        ("xor ecx, ecx; at: div ecx", 0, None),
        ("mov eax, 0x28; at: mov ds, eax", 13, 0x28),
        ("mov rax, 0x1000000000000000; at: mov rax, [rax]", 13, 0),
        ("at: syscall", 6, None),
    ],
)
def test_an_exception_is_a_trap_at_its_instruction(
    guest: Guest, source: str, vector: int, error_code: int | None
) -> None:
    routine = guest.put(f"nop; {source}")

    assert guest.call(routine) == Trap(vector, error_code, rip=routine["at"])


@pytest.mark.parametrize(
    ("source", "vector"),
    [("int3", 3), ("int 0x3", 3), ("int 0x80", 0x80)]
    + [(f"int {vector:#x}", vector) for vector in (0, 6, 8, 13, 14, 255)],
)
def test_an_interrupt_instruction_is_a_trap_behind_it_without_error_code(
    guest: Guest, source: str, vector: int
) -> None:
    routine = guest.put(f"nop; {source}; behind: nop")

    assert guest.call(routine) == Trap(vector, None, rip=routine["behind"])


def test_int_14_after_a_real_page_fault_is_still_a_trap(guest: Guest) -> None:
    fault = guest.run("mov [rdi], rax", rdi=DATA)

    stop = guest.run("int 0xe; mov [rdi], rax", rdi=DATA)

    assert fault == PageFault(DATA, 2, rip=CODE)
    assert isinstance(stop, Trap)


def test_traps_carry_the_registers(guest: Guest) -> None:
    stop = guest.run("mov ebx, 7; ud2")

    assert stop.registers.rbx == 7


def test_traps_in_a_row_are_each_reported(guest: Guest) -> None:
    routines = [guest.put(source) for source in ("ud2", "xor ecx, ecx; div ecx", "mov rax, [rdi]")]

    stops = [guest.call(routine, rdi=DATA) for _ in range(300) for routine in routines]

    assert stops == 300 * [
        Trap(6, None, rip=routines[0].rip),
        Trap(0, None, rip=routines[1].rip + 2),
        PageFault(DATA, 0, rip=routines[2].rip),
    ]


@pytest.mark.parametrize(
    ("source", "vector"),
    [
        ("push rax", 12),
        ("pop rax", 12),
        ("ret", 12),
        ("mov rax, [rsp]", 12),
        ("mov [rbp], rax", 12),
        ("mov rax, [rdi]", 13),
        ("mov rax, [rdi + rbp]", 13),
    ],
)
def test_an_address_that_is_not_canonical_is_a_stack_fault_on_the_stack(
    guest: Guest, source: str, vector: int
) -> None:
    stop = guest.run(source, rsp=1 << 60, rbp=1 << 60, rdi=1 << 60)

    assert stop == Trap(vector, 0, rip=CODE)


def test_a_trap_says_under_which_cpl_cr3_and_cr2_it_came(guest: Guest) -> None:
    guest.run("mov [rdi], rax", rdi=DATA)
    routine = guest.put_user("ud2")

    stop = guest.call_user(routine)

    assert stop == Trap(6, None, rip=routine.rip)
    assert (stop.cpl, stop.cr3, stop.cr2) == (3, guest.paging.cr3, DATA)
