"""The routines that make one access: which, and what they do where it cannot be made."""

import pytest
from support.kernel_44 import CONTENT, Kernel44

from emu import Returned

ROUTINES = ["read_byte", "write_qword", "prepare_switch_to"]
SHADOW_OF_NOTHING = 0xDFFFFC0000000000


def test_a_byte_is_read_and_nothing_beside_it():
    kernel = Kernel44()
    source = kernel.map_small()

    assert kernel.call("read_byte", rdi=source + 63, rax=-1) == Returned(CONTENT[63])


def test_eight_bytes_are_written():
    kernel = Kernel44()

    kernel.call("write_qword", rdi=kernel.destination, rsi=0x1122334455667788)

    assert kernel.word(kernel.destination) == 0x1122334455667788


def test_a_switch_reads_the_stack_that_it_goes_to():
    kernel = Kernel44()
    stack = kernel.map_small()

    kernel.call("prepare_switch_to", rdi=stack)

    assert kernel.handled_faults == 1


@pytest.mark.parametrize("shadow", [0, 5, 0xFF])
def test_a_checked_load_reads_the_shadow_of_its_address(shadow):
    kernel = Kernel44()
    source = kernel.destination + 0x18
    page = kernel.page()
    kernel.memory.write(kernel.pa(page + 3), bytes([shadow]))
    kernel.poke(kernel.image.address("kasan_shadow_offset"), page - (kernel.destination >> 3))

    assert kernel.call("__asan_load8", rdi=source) == Returned(shadow)


@pytest.mark.parametrize(
    ("address", "shadow"),
    [
        (0xFFFF800000000000, 0xFFFFEC0000000000),
        (0xFFFF888000000000, 0xFFFFED1000000000),
        (0xFF00000000000000, 0xFFDFFC0000000000),
    ],
)
def test_the_shadow_of_an_address_is_where_linux_has_it(address, shadow):
    kernel = Kernel44()

    offset = kernel.word(kernel.image.address("kasan_shadow_offset"))

    assert (address >> 3) + offset == shadow


def test_a_checked_load_faults_where_there_is_no_shadow():
    kernel = Kernel44()

    kernel.pt_regs(kernel.call("__asan_load8", rdi=kernel.destination))

    assert kernel.cpu.cr2 == SHADOW_OF_NOTHING + (kernel.destination >> 3)


@pytest.mark.parametrize("routine", ROUTINES)
def test_an_access_to_nothing_is_the_fault_at_that_address(routine):
    kernel = Kernel44()
    label = {"read_byte": "load", "write_qword": "store", "prepare_switch_to": "probe"}[routine]

    died = kernel.pt_regs(kernel.call(routine, rdi=kernel.slot))

    assert kernel.cpu.cr2 == kernel.slot
    assert died["rip"] == kernel.image.address(f"{routine}_{label}")
