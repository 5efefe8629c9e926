"""The flags that a fault leaves are those from before it, whether anybody looks on or not."""

import pytest
from support.guest import DATA, Guest
from support.system import System

from emu import Returned
from emu._flags import before
from emu.fault import PF
from emu.trace import Recorder

ABSENT = DATA + 0x5000
CHANGES = [
    "stc",
    "cmp eax, eax",
    "mov eax, 5; cmp eax, 7",
    "mov al, 0x7f; add al, 1",
    "mov eax, 1; shl eax, 31",
    "mov ecx, 3; shr ecx, 1",
    "stc; inc rbx",
    "clc; dec rbx",
    "stc; adc ax, 1",
    "stc; sbb rbx, rbx",
    "xor eax, eax",
    "mul rbx",
    "neg cx",
    "bt ecx, 0",
    "mov ecx, 3; cmp ecx, 1; jmp 1f; 1:",
]
FAULTS = ["mov rax, [rdi]", "mov [rdi], rax", "add [rdi], rax", "rep movsb", "push [rdi]"]


def flags(source: str, *, step_limit: int | None = None, recorded: bool = False) -> int:
    """Run a source whose last instruction faults, on a machine of its own; return RFLAGS."""
    guest = Guest()
    source = source.replace("push [", "push qword ptr [")
    options = {"rdi": ABSENT, "rbx": 5, "rcx": 7, "rflags": 2}
    if step_limit is not None:
        options["step_limit"] = step_limit
    if not recorded:
        return guest.run(source, **options).registers.rflags
    with Recorder(guest.cpu):
        return guest.run(source, **options).registers.rflags


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("change", CHANGES)
def test_counting_steps_changes_no_flags(change: str, fault: str) -> None:
    source = f"{change}; {fault}"

    assert flags(source, step_limit=99) == flags(source)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_recorder_changes_no_flags(change: str, fault: str) -> None:
    source = f"{change}; {fault}"

    assert flags(source, recorded=True) == flags(source)


@pytest.mark.parametrize("step_limit", [None, 1000])
def test_a_branch_behind_a_fault_that_is_handled_goes_where_it_should(
    step_limit: int | None,
) -> None:
    system = System()
    system.page(DATA)
    system.handle({PF: system.put("add rsp, 8; mov rdi, r12; iretq").rip})
    source = "mov al, 0x7f; add al, 1; mov rcx, [rdi]; mov eax, 1; jo 1f; mov eax, 2; 1:"
    options = {} if step_limit is None else {"step_limit": step_limit}

    stop = system.run(source, rdi=ABSENT, r12=DATA, **options)

    assert stop == Returned()
    assert stop.value == 1


SUB_32, LOGIC_32, WORKED_OUT = 16, 24, 1


@pytest.mark.parametrize(
    ("result", "operand", "operation", "expected"),
    [
        (0xFFFF_FFFF_FFFF_FFFE, 0x91, SUB_32, 0x91),
        (0, 0x44, SUB_32, 0x44),
        (0x1_0000_0000, 0x44, SUB_32, 0x44),  # four bytes of it count
        (0xFFFF_FFFF_FFFF_FFFE, 7, SUB_32, None),  # an operand, by its sign
        (5, 0x10_0000, SUB_32, None),  # an operand, by bits that are no flags
        (0, 0x44, LOGIC_32, None),
        (0, 0x44, WORKED_OUT, None),
    ],
)
def test_flags_are_told_from_an_operand_by_the_result(
    result: int, operand: int, operation: int, expected: int | None
) -> None:
    assert before(result, operand, operation) == expected
