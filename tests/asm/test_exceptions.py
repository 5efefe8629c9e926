"""Exceptions in kernel code, taken through the IDT: what __die is given."""

from typing import Final

import pytest
from support.kernel_44 import ABSENT, DEVICE, SCRATCH, Kernel44

READ_ONLY: Final = 0xFFFFFFFF84000000


@pytest.mark.parametrize(
    ("vector", "error_code", "code", "registers"),
    [
        (0, 0, "f7f1", {"rcx": 0}),  # div ecx
        (6, 0, "0f0b", {}),  # ud2
        (8, 0, "50", {"rsp": 0xFFFFC90000001000}),  # push rax, where there is no stack
        (11, ABSENT << 3 | 2, f"cd{ABSENT:02x}", {}),  # int ABSENT
        (12, 0, "488b4500", {"rbp": 1 << 63}),  # mov rax, [rbp]
        (13, 0, "488b00", {"rax": 1 << 63}),  # mov rax, [rax]
        (14, 3, "488900", {"rax": READ_ONLY}),  # mov [rax], rax, read-only
        (14, 0, "488b00", {"rax": 0x1000}),  # mov rax, [rax], a user address
    ],
)
def test_an_exception_ends_with_its_vector_its_error_code_and_the_registers(
    vector, error_code, code, registers
):
    kernel = Kernel44()
    kernel.map(READ_ONLY, DEVICE[0], 0)
    interrupted = {"rdi": 0xD1, "rsi": 0x51, "r15": 0xF5, "r8": 0x88} | registers

    died = kernel.pt_regs(kernel.execute(bytes.fromhex(code), **interrupted))

    assert (kernel.cpu.registers.rsi, kernel.cpu.registers.rdx) == (vector, error_code)
    assert {name: died[name] for name in interrupted} == interrupted
    assert (died["rip"], died["cs"]) == (SCRATCH, 0x10)


def test_a_double_fault_is_taken_on_a_stack_of_its_own():
    kernel = Kernel44()

    stop = kernel.execute(b"\x50", rsp=0xFFFFC90000001000)

    assert kernel.pt_regs(stop)["rsp"] == 0xFFFFC90000001000
    assert kernel.ist - 0x200 < kernel.cpu.registers.rsp < kernel.ist
