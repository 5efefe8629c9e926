"""Which of the CPU's page faults the tables explain, and which they do not."""

import pytest
from support.guest import CODE, DATA, HOLE, USER_DATA, Guest

from emu import PageFault, PhysAddr
from emu.descriptors import SystemSegment, TableRegister
from emu.fault import PF_I, PF_P, PF_U, PF_W
from emu.paging import RW, P
from emu.predict import Expected, Predictor, context

ELSEWHERE = DATA + 0x10_0000


def explain(
    guest: Guest, source: str, address: int, error_code: int, *, cpl: int = 0, **registers: int
) -> Expected | None:
    """What makes `source` fault as a CPU would say that reports this."""
    routine = guest.put_user(source) if cpl else guest.put(source)
    values = guest.cpu.registers._replace(rip=routine.rip, **registers)
    who = context(guest.paging, cpl, 2)
    return Predictor(guest.memory).explain(who, values, address, error_code)


def table_into_a_hole(guest: Guest, va: int) -> None:
    """Have the top entry for `va` point to a table where there is no RAM."""
    guest.set_entry(va, guest.paging.levels, HOLE | RW | P)


def test_the_access_explains_its_own_fault_and_no_other(guest: Guest) -> None:
    source = "mov rax, [rdi]"

    assert explain(guest, source, DATA, 0, rdi=DATA).reason == "not-present"
    assert explain(guest, source, DATA, PF_W, rdi=DATA) is None
    assert explain(guest, source, DATA + 1, 0, rdi=DATA) is None


def test_a_page_outside_ram_is_no_page_fault(guest: Guest) -> None:
    guest.map(DATA, HOLE)

    assert explain(guest, "mov rax, [rdi]", DATA, 0, rdi=DATA) is None


def test_an_address_that_is_not_canonical_is_no_page_fault(guest: Guest) -> None:
    assert explain(guest, "mov rax, [rdi]", 1 << 60, 0, rdi=1 << 60) is None


def test_bytes_that_are_no_instruction_are_no_page_fault(guest: Guest) -> None:
    guest.memory.write(PhysAddr(guest.walk(CODE).pa or 0), b"\x06")
    registers = guest.cpu.registers._replace(rip=CODE)
    who = context(guest.paging, 0, 2)

    assert Predictor(guest.memory).stops(who, registers)[0].kind == "invalid"
    assert Predictor(guest.memory).explain(who, registers, CODE, 0) is None


@pytest.mark.parametrize(("source", "code"), [("mov rax, [rdi]", 0), ("mov [rdi], rax", PF_W)])
def test_a_table_outside_ram_is_a_page_fault_of_that_access(
    guest: Guest, source: str, code: int
) -> None:
    table_into_a_hole(guest, DATA)

    stop = explain(guest, source, DATA, code, rdi=DATA)

    assert (stop.kind, stop.what) == ("outside-ram", "table")
    assert explain(guest, source, DATA, code ^ PF_W, rdi=DATA) is None
    assert explain(guest, source, DATA, code | PF_P, rdi=DATA) is None


@pytest.mark.parametrize("code", [0, PF_W])
def test_a_read_modify_write_may_be_reported_as_its_load(guest: Guest, code: int) -> None:
    assert explain(guest, "inc qword ptr [rdi]", DATA, code, rdi=DATA).error_code == PF_W


@pytest.mark.parametrize("code", [0, PF_W])
def test_so_may_one_whose_table_is_outside_ram(guest: Guest, code: int) -> None:
    table_into_a_hole(guest, DATA)

    assert explain(guest, "inc qword ptr [rdi]", DATA, code, rdi=DATA).what == "table"


def test_a_fetch_is_explained(guest: Guest) -> None:
    registers = guest.cpu.registers._replace(rip=DATA)
    who = context(guest.paging, 0, 2)

    assert Predictor(guest.memory).explain(who, registers, DATA, PF_I).access == "fetch"


# -- which of several


@pytest.mark.parametrize(
    ("source", "first", "second", "code"),
    [
        ("movsb", "rsi", "rdi", PF_W),
        ("push [rdi]", "rdi", "rsp", PF_W),
        ("call [rdi]", "rdi", "rsp", PF_W),
        ("pop qword ptr [rdi]", "rsp", "rdi", PF_W),
    ],
)
def test_a_later_access_does_not_fault_before_an_earlier_one(
    guest: Guest, source: str, first: str, second: str, code: int
) -> None:
    where = {first: DATA, second: ELSEWHERE + 8}
    address = ELSEWHERE + 8 * (second != "rsp")

    assert explain(guest, source, DATA, 0, **where)
    assert explain(guest, source, address, code, **where) is None


@pytest.mark.parametrize("address", [DATA, ELSEWHERE])
def test_either_load_of_a_cmps_may_fault_first(guest: Guest, address: int) -> None:
    assert explain(guest, "cmpsq", address, 0, rsi=DATA, rdi=ELSEWHERE).address == address


@pytest.mark.parametrize("address", [DATA + 0xFFC, DATA + 0x1000])
def test_either_page_of_one_access_may_fault_first(guest: Guest, address: int) -> None:
    assert explain(guest, "mov rax, [rdi]", address, 0, rdi=DATA + 0xFFC).address == address


# -- descriptors


def test_a_descriptor_may_be_anywhere(guest: Guest) -> None:
    guest.page(DATA)

    assert explain(guest, "mov ds, [rdi]", ELSEWHERE, 0, rdi=DATA).reason == "not-present"
    assert explain(guest, "mov rax, [rdi]", ELSEWHERE, 0, rdi=DATA) is None


def test_a_descriptor_outside_ram_is_no_page_fault(guest: Guest) -> None:
    guest.map(ELSEWHERE, HOLE)

    assert explain(guest, "mov ds, eax", ELSEWHERE, 0) is None
    assert explain(guest, "mov ds, eax", 1 << 60, 0) is None


def test_a_descriptor_is_not_read_before_its_selector(guest: Guest) -> None:
    assert explain(guest, "mov ds, [rdi]", ELSEWHERE, 0, rdi=DATA) is None


def test_a_port_is_checked_before_memory_is_touched(guest: Guest) -> None:
    assert explain(guest, "outsb", ELSEWHERE, 0, rsi=DATA).address == ELSEWHERE


@pytest.mark.parametrize("source", ["retfq", "iretq"])
def test_a_far_return_of_the_user_may_be_reported_as_the_supervisors(
    guest: Guest, source: str
) -> None:
    assert explain(guest, source, USER_DATA, 0, cpl=3, rsp=USER_DATA).error_code == PF_U
    assert explain(guest, "pop rax", USER_DATA, 0, cpl=3, rsp=USER_DATA) is None


def test_a_far_return_to_a_missing_stack_is_the_users_fault(guest: Guest) -> None:
    routine = guest.put_user("iretq")

    stop = guest.call_user(routine, rsp=USER_DATA)

    assert stop == PageFault(USER_DATA, PF_U, rip=routine.rip)


@pytest.mark.parametrize(
    ("source", "offset"),
    [
        ("mov ds, eax", 0x18),
        ("mov es, [rdi]", 0x20),
        ("pop fs", 0x28),
        ("lss rax, [rdi + 16]", 0x30),
        ("verr r8w", 0x38),
        ("lldt ax", 0x18),
        ("ltr ax", 0x18),
        (".byte 0xcb", 0x30),  # retf, 32-bit
        ("retfq", 0x38),
        ("iretq", 0x38),
        (".byte 0xff, 0x2f", 0x10),  # jmp far [rdi]
        (".byte 0x48, 0xff, 0x5f, 0x10", 0x30),  # call far [rdi + 16], 64-bit
    ],
)
def test_a_descriptor_outside_ram_is_found_by_the_selector(
    guest: Guest, source: str, offset: int
) -> None:
    guest.page(DATA)
    guest.map(ELSEWHERE, HOLE)
    words = {0: 0x10_0000_0020, 16: 0x40, 24: 0x30, 0x100: 0x30_0000_0028, 0x108: 0x38}
    for at, word in words.items():
        guest.memory.write_u64(PhysAddr((guest.walk(DATA).pa or 0) + at), word)
    registers = {"rax": 0x1B, "r8": 0xFFFF_0038, "rdi": DATA, "rsp": DATA + 0x100}

    found = descriptor(guest, source, **registers)

    assert (found.kind, found.what, found.pa) == ("outside-ram", "leaf", HOLE + offset)


@pytest.mark.parametrize("selector", [0, 3, 0x1B | 4, 0x80])
def test_a_selector_that_is_not_looked_up_leads_nowhere(guest: Guest, selector: int) -> None:
    guest.map(ELSEWHERE, HOLE)

    assert descriptor(guest, "mov ds, eax", rax=selector) is None


def test_the_second_half_of_a_systems_descriptor_may_be_outside_ram(guest: Guest) -> None:
    guest.page(ELSEWHERE)
    guest.map(ELSEWHERE + 0x1000, HOLE)

    found = descriptor(guest, "ltr ax", gdt=ELSEWHERE + 0xFE0, rax=0x18)

    assert found.pa == HOLE


def descriptor(
    guest: Guest, source: str, *, gdt: int = ELSEWHERE, **registers: int
) -> Expected | None:
    """Where `source` looks a descriptor up outside RAM; there is no LDT."""
    values = guest.cpu.registers._replace(rip=guest.put(source).rip, **registers)
    who, tables = context(guest.paging, 0, 2), (TableRegister(gdt, 0x7F), SystemSegment(0, 0, 0))
    return Predictor(guest.memory).descriptor_outside_ram(who, values, *tables)
