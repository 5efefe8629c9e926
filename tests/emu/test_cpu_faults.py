"""The CPU reports each page fault at the exact instruction, with its own CR2 and error code."""

import pytest
from support.guest import CODE, DATA, USER_DATA, Guest

from emu import PageFault, Returned, Trap
from emu.fault import PF_I, PF_P, PF_RSVD, PF_U, PF_W
from emu.paging import RW, US, XD

FAR = DATA + 0x12_3000  # nothing is mapped there


def test_a_load_from_an_unmapped_page_faults_as_a_read(any_guest: Guest) -> None:
    routine = any_guest.put("nop; load: mov rax, [rdi + 8]")

    stop = any_guest.call(routine, rdi=FAR)

    assert stop == PageFault(FAR + 8, 0, rip=routine["load"])


def test_a_store_to_an_unmapped_page_faults_as_a_write(any_guest: Guest) -> None:
    routine = any_guest.put("nop; store: mov [rdi + 8], rax")

    stop = any_guest.call(routine, rdi=FAR)

    assert stop == PageFault(FAR + 8, PF_W, rip=routine["store"])


def test_a_jump_to_an_unmapped_page_faults_as_a_fetch_at_its_target(any_guest: Guest) -> None:
    stop = any_guest.run("jmp rdi", rdi=FAR)

    assert stop == PageFault(FAR, PF_I, rip=FAR)


def test_without_nxe_and_smep_a_fetch_is_reported_like_a_read() -> None:
    guest = Guest(nxe=False)

    stop = guest.run("jmp rdi", rdi=FAR)

    assert stop == PageFault(FAR, 0, rip=FAR)


@pytest.mark.parametrize(
    ("source", "error_code"),
    [
        ("mov rax, [rdi]", PF_P | PF_U),
        ("mov [rdi], rax", PF_P | PF_W | PF_U),
        ("jmp rdi", PF_P | PF_I | PF_U),
    ],
)
def test_a_user_may_not_touch_a_supervisor_page(guest: Guest, source: str, error_code: int) -> None:
    guest.page(DATA)
    routine = guest.put_user(source)

    stop = guest.call_user(routine, rdi=DATA)

    assert stop == PageFault(DATA, error_code, rip=DATA if source == "jmp rdi" else routine.rip)
    assert stop.reason == "us"
    assert stop.cpl == 3


def test_a_store_to_a_read_only_page_names_the_rule_that_refused_it(guest: Guest) -> None:
    guest.page(DATA, flags=0)

    stop = guest.run("mov [rdi], rax", rdi=DATA)

    assert stop == PageFault(DATA, PF_P | PF_W, rip=CODE)
    assert stop.reason == "wp"


def test_a_fetch_from_a_page_with_xd_names_the_rule(guest: Guest) -> None:
    guest.page(DATA, flags=XD)

    stop = guest.run("jmp rdi", rdi=DATA)

    assert stop == PageFault(DATA, PF_P | PF_I, rip=DATA)
    assert stop.reason == "xd"


def test_a_reserved_bit_is_reported_with_the_entry_that_holds_it(guest: Guest) -> None:
    guest.page(DATA)
    guest.change_entry(DATA, 2, put=1 << 45)

    stop = guest.run("mov rax, [rdi]", rdi=DATA)

    assert stop == PageFault(DATA, PF_P | PF_RSVD, rip=CODE)
    assert stop.reason == "rsvd-maxphyaddr"
    assert stop.walk.level == 2


def test_thousands_of_faults_in_a_row_are_each_reported_as_themselves(guest: Guest) -> None:
    store = guest.put("nop; at: mov [rdi], al")["at"]
    load = guest.put("nop; at: mov al, [rdi]")["at"]
    pages = range(FAR, FAR + 3000 * 0x1000, 0x1000)

    stops = [
        stop
        for va in pages
        for stop in (
            guest.cpu.run(store, rdi=va + 1),
            guest.cpu.run(load, rdi=va + 2),
            guest.cpu.run(va + 3),
        )
    ]

    assert stops == [
        fault
        for va in pages
        for fault in (
            PageFault(va + 1, PF_W, rip=store),
            PageFault(va + 2, 0, rip=load),
            PageFault(va + 3, PF_I, rip=va + 3),
        )
    ]


READ_MODIFY_WRITES = """
    add [rdi], eax
    sub dword ptr [rdi], 1
    and [rdi], rax
    inc qword ptr [rdi]
    neg byte ptr [rdi]
    not word ptr [rdi]
    shl dword ptr [rdi], 3
    rcr qword ptr [rdi], cl
    xchg [rdi], rax
    xadd [rdi], eax
    cmpxchg [rdi], rcx
    lock add [rdi], eax
    lock cmpxchg [rdi], rcx
    lock xadd [rdi], rax
    lock btr dword ptr [rdi], 3
    bts dword ptr [rdi], 3
    lock cmpxchg8b [rdi]
    lock cmpxchg16b [rdi]
    shld [rdi], eax, 3
""".strip().splitlines()


@pytest.mark.parametrize("source", [line.strip() for line in READ_MODIFY_WRITES])
def test_a_read_modify_write_of_an_unmapped_page_faults_as_a_write(
    guest: Guest, source: str
) -> None:
    stop = guest.run(source, rdi=FAR)

    assert stop == PageFault(FAR, PF_W, rip=CODE)


@pytest.mark.parametrize("source", ["add [rdi], eax", "xchg [rdi], rax", "lock cmpxchg [rdi], rcx"])
def test_a_read_modify_write_of_a_user_page_by_a_user_reports_all_of_w_and_u(
    guest: Guest, source: str
) -> None:
    guest.page(USER_DATA, flags=US)
    routine = guest.put_user(source)

    stop = guest.call_user(routine, rdi=USER_DATA)

    assert stop == PageFault(USER_DATA, PF_P | PF_W | PF_U, rip=routine.rip)
    assert stop.reason == "rw"


@pytest.mark.parametrize(
    "source", ["cmp [rdi], eax", "test [rdi], eax", "bt dword ptr [rdi], 3", "add eax, [rdi]"]
)
def test_an_instruction_that_only_reads_its_operand_faults_as_a_read(
    guest: Guest, source: str
) -> None:
    stop = guest.run(source, rdi=FAR)

    assert stop == PageFault(FAR, 0, rip=CODE)


@pytest.mark.parametrize(
    ("source", "address", "error_code"),
    [
        ("push rax", FAR - 8, PF_W),
        ("pop rax", FAR, 0),
        ("call rip_relative; rip_relative: nop", FAR - 8, PF_W),
        ("ret", FAR, 0),
        ("pushfq", FAR - 8, PF_W),
    ],
)
def test_a_fault_on_the_stack_leaves_the_stack_pointer_alone(
    guest: Guest, source: str, address: int, error_code: int
) -> None:
    stop = guest.run(source, rsp=FAR)

    assert stop == PageFault(address, error_code, rip=CODE)
    assert stop.registers.rsp == FAR


def test_registers_are_those_that_the_faulting_instruction_found(guest: Guest) -> None:
    routine = guest.put("mov rbx, 5; inc rbx; stc; store: mov [rdi], rbx; mov rbx, 9")

    stop = guest.call(routine, rdi=FAR)

    assert stop.registers.rbx == 6
    assert stop.registers.rflags & 1
    assert stop.registers.rip == routine["store"]


def test_a_repeated_store_faults_in_the_iteration_that_leaves_the_page(guest: Guest) -> None:
    guest.page(DATA)

    stop = guest.run("rep stosq", rdi=DATA + 0xFE0, rcx=16)

    assert stop == PageFault(DATA + 0x1000, PF_W, rip=CODE)
    assert stop.registers.rcx == 12


def test_a_copy_faults_on_its_source_before_its_destination(guest: Guest) -> None:
    stop = guest.run("movsq", rsi=FAR, rdi=FAR + 0x1000)

    assert stop == PageFault(FAR, 0, rip=CODE)


@pytest.mark.parametrize(
    ("source", "error_code"),
    [("mov rax, [rdi]", 0), ("mov [rdi], rax", PF_W), ("add [rdi], rax", PF_W)],
)
def test_an_access_across_pages_faults_on_the_first_page_if_that_is_missing(
    guest: Guest, source: str, error_code: int
) -> None:
    guest.page(DATA + 0x1000)

    stop = guest.run(source, rdi=DATA + 0xFFC)

    assert stop == PageFault(DATA + 0xFFC, error_code, rip=CODE)


@pytest.mark.parametrize(
    ("source", "error_code"),
    [("mov rax, [rdi]", 0), ("mov [rdi], rax", PF_W), ("add [rdi], rax", PF_W)],
)
def test_an_access_across_pages_faults_on_the_second_page_at_its_first_byte(
    guest: Guest, source: str, error_code: int
) -> None:
    guest.page(DATA)

    stop = guest.run(source, rdi=DATA + 0xFFC)

    assert stop == PageFault(DATA + 0x1000, error_code, rip=CODE)


def test_a_store_across_pages_that_faults_stores_nothing(guest: Guest) -> None:
    pa = guest.page(DATA)

    guest.run("mov [rdi], rax", rdi=DATA + 0xFFC, rax=0x1122_3344_5566_7788)

    assert guest.u64(pa + 0xFF8) == 0


@pytest.mark.parametrize("source", ["mov rax, [rdi]", "mov [rdi], rax", "jmp rdi"])
def test_an_address_that_is_not_canonical_is_a_general_protection_fault(
    any_guest: Guest, source: str
) -> None:
    stop = any_guest.run(source, rdi=1 << 60)

    assert isinstance(stop, Trap)
    assert (stop.vector, stop.error_code) == (13, 0)


def test_an_address_of_57_bits_is_canonical_with_5_levels_only() -> None:
    va = 1 << 50

    assert Guest(levels=5).run("mov rax, [rdi]", rdi=va) == PageFault(va, 0, rip=CODE)
    assert Guest(levels=4).run("mov rax, [rdi]", rdi=va) == Trap(13, 0, rip=CODE)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_pages_of_each_size_are_read_and_written(any_guest: Guest, level: int) -> None:
    pa = {1: 0x40_5000, 2: 0x40_0000, 3: 0}[level]
    any_guest.map(DATA + 0x4000_0000, pa, RW, level)
    offset = 0x40_5128 - pa if level > 1 else 0x128

    stop = any_guest.run("mov [rdi], rax", rdi=DATA + 0x4000_0000 + offset, rax=77)

    assert stop == Returned()
    assert any_guest.u64(0x40_5128) == 77


def test_the_cpu_sets_accessed_and_dirty(guest: Guest) -> None:
    guest.page(DATA)

    guest.run("mov [rdi], rax", rdi=DATA)

    assert [step.entry >> 5 & 3 for step in guest.walk(DATA).steps] == [1, 1, 1, 3]


def test_a_fault_that_is_repaired_lets_the_run_go_on_where_it_was(guest: Guest) -> None:
    routine = guest.put("mov rbx, 5; store: mov [rdi], rbx; mov rax, [rdi]")
    fault = guest.call(routine, rdi=DATA)
    guest.page(DATA)

    stop = guest.cpu.run(fault.rip, returns_to=routine.hlt)

    assert stop == Returned()
    assert stop.value == 5


def test_a_descriptor_read_from_an_unmapped_table_is_explained_as_the_cpus_own(
    guest: Guest,
) -> None:
    pa = guest.page(DATA)
    guest.memory.write(pa, (0xFF).to_bytes(2, "little") + FAR.to_bytes(8, "little"))
    routine = guest.put("lgdt [rdi]; mov eax, 0x28; load: mov ds, eax")

    stop = guest.call(routine, rdi=DATA)

    assert stop == PageFault(FAR + 0x28, 0, rip=routine["load"])


def test_a_fault_compares_by_address_code_and_rip_only(guest: Guest) -> None:
    stop = guest.run("mov [rdi], rax", rdi=FAR)

    assert stop != PageFault(FAR, PF_W, rip=CODE + 1)
    assert stop != PageFault(FAR + 1, PF_W, rip=CODE)
    assert stop != PageFault(FAR, 0, rip=CODE)
    assert hash(stop) == hash(PageFault(FAR, PF_W, rip=CODE))
