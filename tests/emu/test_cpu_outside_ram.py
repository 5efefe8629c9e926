"""Tables and pages where there is no RAM: an OutsideRam that says which, and never a #PF."""

import pytest
from support.guest import CODE, DATA, HOLE, Guest

from emu import Machine, OutsideRam, PageFault, PhysAddr, Returned, VirtAddr, map_page
from emu.fault import PF_W
from emu.paging import RW, P

ACCESSES = ["mov rax, [rdi]", "mov [rdi], rax", "add [rdi], rax", "push [rdi]"]


@pytest.mark.parametrize("source", ACCESSES)
def test_a_page_outside_ram_is_a_leaf_outside_ram(any_guest: Guest, source: str) -> None:
    any_guest.map(DATA, HOLE + 0x5000)

    stop = any_guest.run(source, rdi=DATA + 0x128)

    assert stop == OutsideRam(PhysAddr(HOLE + 0x5128), CODE, "leaf")


@pytest.mark.parametrize("source", ACCESSES)
@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_table_outside_ram_is_named_with_its_address(
    any_guest: Guest, source: str, level: int
) -> None:
    any_guest.page(DATA)
    any_guest.set_entry(DATA, level, HOLE | P | RW)

    stop = any_guest.run(source, rdi=DATA + 0x128)

    assert stop == OutsideRam(HOLE, CODE, "table")


def test_a_top_level_entry_may_lead_out_of_ram_with_5_levels() -> None:
    guest = Guest(levels=5)
    guest.page(1 << 50)
    guest.set_entry(1 << 50, 5, HOLE | P | RW)

    assert guest.run("mov rax, [rdi]", rdi=1 << 50) == OutsideRam(HOLE, CODE, "table")


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_fetch_through_a_table_outside_ram_is_named_too(any_guest: Guest, level: int) -> None:
    any_guest.page(DATA)
    any_guest.set_entry(DATA, level, HOLE | P)

    assert any_guest.cpu.run(DATA + 5) == OutsideRam(HOLE, VirtAddr(DATA + 5), "table")


def test_a_fetch_from_a_page_outside_ram_is_a_leaf_outside_ram(any_guest: Guest) -> None:
    any_guest.map(DATA, HOLE)

    stop = any_guest.cpu.run(DATA + 5)

    assert stop == OutsideRam(PhysAddr(HOLE + 5), VirtAddr(DATA + 5), "leaf")


def test_a_root_outside_ram_is_named_as_the_root(any_guest: Guest) -> None:
    routine = any_guest.put("nop")
    any_guest.cpu.cr3 = HOLE

    assert any_guest.call(routine) == OutsideRam(HOLE, routine.rip, "root")


def test_a_guest_that_loads_a_root_outside_ram_stops_at_the_next_instruction(guest: Guest) -> None:
    routine = guest.put("mov cr3, rdi; next: nop")

    assert guest.call(routine, rdi=HOLE) == OutsideRam(HOLE, routine["next"], "root")


@pytest.mark.parametrize("source", ["mov rax, [rdi]", "mov [rdi], rax", "add [rdi], rax"])
def test_an_access_across_pages_names_the_page_outside_ram(guest: Guest, source: str) -> None:
    guest.page(DATA)
    guest.map(DATA + 0x1000, HOLE)

    assert guest.run(source, rdi=DATA + 0xFFC) == OutsideRam(HOLE, CODE, "leaf")


def test_an_access_across_the_end_of_ram_names_the_first_address_beyond(guest: Guest) -> None:
    guest.map(DATA, guest.memory.size - 0x1000)
    guest.map(DATA + 0x1000, guest.memory.size)

    stop = guest.run("mov rax, [rdi]", rdi=DATA + 0xFFC)

    assert stop == OutsideRam(PhysAddr(guest.memory.size), CODE, "leaf")


def test_a_copy_out_of_ram_keeps_what_it_has_copied(guest: Guest) -> None:
    guest.page(DATA)
    guest.map(DATA + 0x1000, HOLE)

    stop = guest.run("rep stosb", rdi=DATA + 0xFF0, rcx=100)

    assert stop == OutsideRam(HOLE, CODE, "leaf")
    assert guest.cpu.registers.rcx == 84


def test_the_walk_of_an_access_outside_ram_is_kept(guest: Guest) -> None:
    guest.page(DATA)
    guest.set_entry(DATA, 3, HOLE | P | RW)

    stop = guest.run("mov rax, [rdi]", rdi=DATA)

    assert stop.walk.verdict == "outside-ram"
    assert [step.level for step in stop.walk.steps] == [4, 3]


@pytest.mark.parametrize("what", ["leaf", "table"])
def test_the_cpu_runs_and_faults_as_before_after_leaving_ram(guest: Guest, what: str) -> None:
    guest.map(DATA, HOLE)
    guest.page(DATA + 0x4000_0000)
    guest.set_entry(DATA + 0x4000_0000, 2, HOLE | P | RW)
    routine = guest.put("mov [rdi], rax")
    outside = {"leaf": DATA, "table": DATA + 0x4000_0000}[what]
    fault = PageFault(DATA + 0x1000, PF_W, rip=routine.rip)
    good = guest.page(DATA + 0x2000)

    stops = [
        guest.call(routine, rdi=va, rax=9)
        for va in (outside, DATA + 0x1000, outside, DATA + 0x1000, DATA + 0x1000, DATA + 0x2000)
    ]

    gone = OutsideRam(HOLE, routine.rip, what)
    assert stops == [gone, fault, gone, fault, fault, Returned()]
    assert guest.u64(good) == 9


def test_a_root_in_ram_again_makes_the_cpu_usable(guest: Guest) -> None:
    routine = guest.put("nop")
    root = guest.cpu.cr3
    guest.cpu.cr3 = HOLE
    guest.call(routine)

    guest.cpu.cr3 = root

    assert guest.call(routine) == Returned()


def test_a_hole_between_two_pieces_is_outside_ram() -> None:
    with Machine(ram=[(0, 0x10_0000), (0x20_0000, 0x40_0000)]) as machine:
        cpu = machine.cpu
        where = machine.memory, machine.frames, cpu.paging
        map_page(*where, VirtAddr(0x1000), PhysAddr(0x1000), 0)
        map_page(*where, VirtAddr(0x2000), PhysAddr(0x10_0000), RW)
        map_page(*where, VirtAddr(0x3000), PhysAddr(0x20_0000), RW)
        machine.memory.write(PhysAddr(0x1000), b"\x48\x89\x07\xf4")  # mov [rdi], rax; hlt

        assert cpu.run(0x1000, rdi=0x2000) == OutsideRam(PhysAddr(0x10_0000), 0x1000, "leaf")
        assert cpu.run(0x1000, rdi=0x3000, rax=5, returns_to=0x1003) == Returned()
        assert machine.memory.read_u64(PhysAddr(0x20_0000)) == 5


def test_an_entry_with_bits_above_maxphyaddr_is_a_reserved_bit_and_not_outside_ram(
    guest: Guest,
) -> None:
    guest.page(DATA)
    guest.set_entry(DATA, 2, 1 << 41 | P | RW)

    assert guest.run("mov rax, [rdi]", rdi=DATA) == PageFault(DATA, 9, rip=CODE)
