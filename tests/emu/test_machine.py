"""A machine is created and freed as a whole, and costs what it uses."""

import dataclasses
import gc
from collections.abc import Iterator

import pytest
from support.guest import CODE, DATA, Guest

from emu import (
    EngineError,
    Machine,
    NoRam,
    PageFault,
    Paging,
    PhysAddr,
    Returned,
    VirtAddr,
    map_page,
)
from emu.fault import PF_W
from emu.paging import RW

TIB = 1 << 40


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Only reference counts free."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def status(field: str) -> int:
    """A size of this process in bytes, as the kernel of the host reports it."""
    with open("/proc/self/status") as lines:
        found = next(line for line in lines if line.startswith(f"{field}:"))
    return int(found.split()[1]) << 10


def create_and_drop(number: int) -> None:
    for _ in range(number):
        Machine(ram=TIB)


def run_and_fault(number: int) -> None:
    for _ in range(number):
        guest = Guest()
        guest.run("mov [rdi], rax", rdi=DATA)
        guest.run("nop", step_limit=1)


@pytest.mark.usefixtures("no_gc")
def test_two_thousand_dropped_machines_of_a_tebibyte_leave_nothing_behind() -> None:
    create_and_drop(300)
    address_space, resident = status("VmSize"), status("VmRSS")

    create_and_drop(2000)

    assert status("VmSize") - address_space < 128 << 20
    assert status("VmRSS") - resident < 8 << 20


@pytest.mark.usefixtures("no_gc")
def test_machines_that_ran_and_faulted_are_freed_by_their_reference_count_too() -> None:
    run_and_fault(1)
    address_space = status("VmSize")

    run_and_fault(30)

    assert status("VmSize") - address_space < 64 << 20


def test_a_tebibyte_untouched_is_not_resident() -> None:
    before = status("VmRSS")

    with Machine(ram=TIB):
        assert status("VmRSS") - before < 16 << 20


def test_a_closed_machine_refuses_to_run() -> None:
    guest = Guest()
    routine = guest.put("nop")
    guest.machine.close()

    with pytest.raises(EngineError, match=f"{routine.rip:#x}: the machine is closed"):
        guest.call(routine)


def test_paging_is_on_from_an_empty_root() -> None:
    with Machine() as machine:
        root = machine.cpu.paging.root
        assert machine.memory.read(root, 4096) == bytes(4096)
        assert machine.cpu.run(0x1000) == PageFault(0x1000, 16, rip=0x1000)


@pytest.mark.parametrize("levels", [4, 5])
def test_it_has_the_levels_that_were_asked_for(levels: int) -> None:
    with Machine(levels=levels) as machine:
        assert machine.cpu.paging.levels == levels


def test_the_levels_cannot_change_afterwards() -> None:
    with Machine(levels=4) as machine, pytest.raises(ValueError, match="5 levels"):
        machine.cpu.paging = Paging.long_mode(machine.cpu.paging.root, levels=5)


def test_a_given_paging_is_taken_as_it_is() -> None:
    paging = Paging.long_mode(0x5000, smep=True, smap=True, pke=True, pkru=0xC)

    with Machine(paging=paging) as machine:
        assert machine.cpu.paging == paging


def test_two_cpus_see_each_others_stores_and_have_their_own_registers() -> None:
    guest = Guest(cpus=2)
    first, second = guest.machine.cpus
    guest.page(DATA)
    store = guest.put("mov [rdi], rax")
    load = guest.put("mov rax, [rdi]")

    first.run(store.rip, returns_to=store.hlt, rdi=DATA, rax=0x77)
    stop = second.run(load.rip, returns_to=load.hlt, rdi=DATA)

    assert stop.value == 0x77
    assert second.registers.rip == load.hlt + 1
    assert first.registers.rip == store.hlt + 1


def test_two_cpus_run_under_their_own_roots() -> None:
    guest = Guest(cpus=2)
    first, second = guest.machine.cpus
    other = guest.frames.allocate()
    guest.memory.write_u64(other + 511 * 8, guest.memory.words[guest.paging.root // 8 + 511])
    guest.page(DATA)
    store = guest.put("mov [rdi], rax")
    second.cr3 = other

    stops = [cpu.run(store.rip, returns_to=store.hlt, rdi=DATA) for cpu in (first, second)]

    assert stops == [Returned(), PageFault(DATA, PF_W, rip=store.rip)]


@pytest.mark.parametrize("cpus", [0, -1])
def test_a_machine_has_at_least_one_cpu(cpus: int) -> None:
    with pytest.raises(ValueError, match=f"{cpus} CPUs"):
        Machine(cpus=cpus)


@pytest.mark.parametrize("code", [(0x2000, 0x1000), (0x1000, 0x1000), (-0x1000, 0x1000)])
def test_a_range_of_code_has_a_start_below_its_end(code: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{code[0]:#x}-{code[1]:#x}"):
        Machine(code=[code])


def test_ram_may_come_in_64_pieces() -> None:
    pieces = [(n << 20, (n << 20) + 0x8000) for n in range(64)]

    with Machine(ram=pieces) as machine:
        where = machine.memory, machine.frames, machine.cpu.paging
        map_page(*where, VirtAddr(0x1000), PhysAddr(0), RW)
        map_page(*where, VirtAddr(0x2000), PhysAddr(62 << 20), RW)
        machine.memory.write(PhysAddr(0), b"\x48\x89\x07\xf4")  # mov [rdi], rax; hlt

        assert machine.cpu.run(0x1000, returns_to=0x1003, rdi=0x2000, rax=6) == Returned()
        assert machine.memory.read_u64(PhysAddr(62 << 20)) == 6


def test_a_fault_says_the_same_in_each_way_of_printing() -> None:
    stop = Guest().run("mov [rdi], rax", rdi=DATA)

    assert repr(stop) == (f"PageFault({DATA:#x}, 0x2, rip={CODE:#x}, reason='not-present')")
    assert str(stop) == (
        f"#PF at {DATA:#x}: supervisor write, not-present, error code 0x2, rip {CODE:#x}"
    )


@pytest.mark.parametrize("levels", [3, 6])
def test_a_machine_has_4_levels_or_5(levels: int) -> None:
    with pytest.raises(ValueError, match=f"{levels} levels"):
        Machine(levels=levels)


def test_a_paging_of_another_physical_width_than_the_engines_is_refused() -> None:
    paging = dataclasses.replace(Paging.long_mode(0x1000), maxphyaddr=46)

    with pytest.raises(ValueError, match="MAXPHYADDR 46: the engine has 40"):
        Machine(paging=paging)


def test_frames_come_from_the_last_piece_of_ram_and_above_the_floor() -> None:
    pieces = [(0, 0x10_0000), (0x20_0000, 0x30_0000)]

    with Machine(ram=pieces) as whole, Machine(ram=pieces, frames=(0x2F_0000, 0x30_0000)) as part:
        assert (whole.frames.floor, whole.frames.nr_free) == (0x20_0000, 0xFF)
        assert (part.frames.floor, part.frames.nr_free) == (0x2F_0000, 0xF)


def test_a_floor_outside_the_last_piece_is_refused() -> None:
    with pytest.raises(NoRam, match="frames 0x1000-0x300000 are not all RAM"):
        Machine(ram=[(0, 0x10_0000), (0x20_0000, 0x30_0000)], frames=(0x1000, 0x30_0000))


def test_a_cr3_above_maxphyaddr_is_refused_from_the_start_and_later() -> None:
    with pytest.raises(ValueError, match="cr3 0x200000000000: expected"):
        Machine(paging=Paging.long_mode(1 << 45))
    with Machine() as machine, pytest.raises(ValueError, match="cr3 0x200000000000: expected"):
        machine.cpu.cr3 = 1 << 45
