"""The CPU reports each page fault at the exact instruction, with its own CR2 and error code."""

import pytest

from emu import PageFault, Returned, Trap
from emu.fault import PF_I, PF_P, PF_U, PF_W

DATA = 0xFFFF_8880_0000_0000
USER_DATA = 0x7F00_0000_0000
FAR = DATA + 0x12_3000  # nothing is mapped there

pytestmark = pytest.mark.trace_tail(0)  # what a CPU does that nobody looks at


@pytest.fixture
def run(machine, assemble):
    """Run a routine whose first instruction is called `at`."""

    def run(source, **options):
        return machine.run(assemble(f"at: {source}; ret"), "at", **options)

    return run


@pytest.mark.levels(4, 5)
def test_a_load_from_an_unmapped_page_faults_as_a_read(run, expect_page_fault):
    stop = run("nop; load: mov rax, [rdi + 8]", rdi=FAR)

    expect_page_fault(stop, at=FAR + 8, error="", symbol="load")


@pytest.mark.levels(4, 5)
def test_a_store_to_an_unmapped_page_faults_as_a_write(run, expect_page_fault):
    stop = run("nop; store: mov [rdi + 8], rax", rdi=FAR)

    expect_page_fault(stop, at=FAR + 8, error="W", symbol="store")


@pytest.mark.levels(4, 5)
def test_a_jump_to_an_unmapped_page_faults_as_a_fetch_at_its_target(run):
    stop = run("jmp rdi", rdi=FAR)

    assert stop == PageFault(FAR, PF_I, rip=FAR)


@pytest.mark.cpu_features("nonxe")
def test_without_nxe_and_smep_a_fetch_is_reported_like_a_read(run):
    stop = run("jmp rdi", rdi=FAR)

    assert stop == PageFault(FAR, 0, rip=FAR)


@pytest.mark.parametrize(
    ("source", "error_code"),
    [
        ("mov rax, [rdi]", PF_P | PF_U),
        ("mov [rdi], rax", PF_P | PF_W | PF_U),
        ("jmp rdi", PF_P | PF_I | PF_U),
    ],
)
def test_a_user_may_not_touch_a_supervisor_page(machine, run, source, error_code):
    machine.map(DATA)

    stop = run(source, user=True, rdi=DATA)

    rip = DATA if source == "jmp rdi" else machine.symbol("at")
    assert stop == PageFault(DATA, error_code, rip)
    assert stop.reason == "us"
    assert stop.cpl == 3


def test_a_store_to_a_read_only_page_names_the_rule_that_refused_it(
    machine, run, expect_page_fault
):
    machine.map(DATA, rights="r")

    stop = run("mov [rdi], rax", rdi=DATA)

    assert expect_page_fault(stop, at=DATA, error="P W", symbol="at").reason == "wp"


def test_a_fetch_from_a_page_with_xd_names_the_rule(machine, run):
    machine.map(DATA)

    stop = run("jmp rdi", rdi=DATA)

    assert stop == PageFault(DATA, PF_P | PF_I, rip=DATA)
    assert stop.reason == "xd"


def test_a_reserved_bit_is_reported_with_the_entry_that_holds_it(machine, run, expect_page_fault):
    machine.map(DATA)
    _, entry_pa, entry = machine.walk(DATA).steps[2]
    machine.memory.write_u64(entry_pa, entry | 1 << 45)

    stop = run("mov rax, [rdi]", rdi=DATA)

    fault = expect_page_fault(stop, at=DATA, error="P RSVD", symbol="at", level="PDE")
    assert fault.reason == "rsvd-maxphyaddr"


def test_thousands_of_faults_in_a_row_are_each_reported_as_themselves(machine, assemble):
    image = machine.load(assemble("store: mov [rdi], al; load: mov al, [rdi]"))
    store, load, cpu = image.address("store"), image.address("load"), machine.cpu
    pages = range(FAR, FAR + 3000 * 0x1000, 0x1000)

    stops = [
        stop
        for va in pages
        for stop in (
            cpu.run(store, rdi=va + 1),
            cpu.run(load, rdi=va + 2),
            cpu.run(va + 3),
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
def test_a_read_modify_write_of_an_unmapped_page_faults_as_a_write(run, expect_page_fault, source):
    stop = run(source, rdi=FAR)

    expect_page_fault(stop, at=FAR, error="W", symbol="at")


@pytest.mark.parametrize("source", ["add [rdi], eax", "xchg [rdi], rax", "lock cmpxchg [rdi], rcx"])
def test_a_read_modify_write_of_a_user_page_by_a_user_reports_all_of_w_and_u(
    machine, run, expect_page_fault, source
):
    machine.map(USER_DATA, rights="rxu")

    stop = run(source, user=True, rdi=USER_DATA)

    assert expect_page_fault(stop, at=USER_DATA, error="P W U", symbol="at").reason == "rw"


@pytest.mark.parametrize(
    "source", ["cmp [rdi], eax", "test [rdi], eax", "bt dword ptr [rdi], 3", "add eax, [rdi]"]
)
def test_an_instruction_that_only_reads_its_operand_faults_as_a_read(
    run, expect_page_fault, source
):
    stop = run(source, rdi=FAR)

    expect_page_fault(stop, at=FAR, error="", symbol="at")


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
    run, expect_page_fault, source, address, error_code
):
    stop = run(source, rsp=FAR)

    fault = expect_page_fault(stop, at=address, error=error_code, symbol="at")
    assert fault.registers.rsp == FAR


def test_registers_are_those_that_the_faulting_instruction_found(machine, run):
    stop = run("mov rbx, 5; inc rbx; stc; store: mov [rdi], rbx; mov rbx, 9", rdi=FAR)

    assert stop.registers.rbx == 6
    assert stop.registers.rflags & 1
    assert stop.registers.rip == machine.symbol("store")


def test_a_repeated_store_faults_in_the_iteration_that_leaves_the_page(
    machine, run, expect_page_fault
):
    machine.map(DATA)

    stop = run("rep stosq", rdi=DATA + 0xFE0, rcx=16)

    fault = expect_page_fault(stop, at=DATA + 0x1000, error="W", symbol="at", level="pte")
    assert fault.registers.rcx == 12


def test_a_copy_faults_on_its_source_before_its_destination(run, expect_page_fault):
    stop = run("movsq", rsi=FAR, rdi=FAR + 0x1000)

    expect_page_fault(stop, at=FAR, error="", symbol="at")


@pytest.mark.parametrize(
    ("source", "error_code"),
    [("mov rax, [rdi]", 0), ("mov [rdi], rax", PF_W), ("add [rdi], rax", PF_W)],
)
def test_an_access_across_pages_faults_on_the_first_page_if_that_is_missing(
    machine, run, expect_page_fault, source, error_code
):
    machine.map(DATA + 0x1000)

    stop = run(source, rdi=DATA + 0xFFC)

    expect_page_fault(stop, at=DATA + 0xFFC, error=error_code, symbol="at", level="pte")


@pytest.mark.parametrize(
    ("source", "error_code"),
    [("mov rax, [rdi]", 0), ("mov [rdi], rax", PF_W), ("add [rdi], rax", PF_W)],
)
def test_an_access_across_pages_faults_on_the_second_page_at_its_first_byte(
    machine, run, expect_page_fault, source, error_code
):
    machine.map(DATA)

    stop = run(source, rdi=DATA + 0xFFC)

    expect_page_fault(stop, at=DATA + 0x1000, error=error_code, symbol="at", level="pte")


def test_a_store_across_pages_that_faults_stores_nothing(machine, run):
    machine.map(DATA)

    run("mov [rdi], rax", rdi=DATA + 0xFFC, rax=0x1122_3344_5566_7788)

    assert machine.read(DATA + 0xFF8, 8) == bytes(8)


@pytest.mark.levels(4, 5)
@pytest.mark.parametrize("source", ["mov rax, [rdi]", "mov [rdi], rax", "jmp rdi"])
def test_an_address_that_is_not_canonical_is_a_general_protection_fault(run, source):
    stop = run(source, rdi=1 << 60)

    assert isinstance(stop, Trap)
    assert (stop.vector, stop.error_code) == (13, 0)


@pytest.mark.levels(5)
def test_an_address_of_57_bits_is_canonical_with_5_levels(run, expect_page_fault):
    stop = run("mov rax, [rdi]", rdi=1 << 50)

    expect_page_fault(stop, at=1 << 50, error="", symbol="at")


@pytest.mark.levels(4)
def test_with_4_levels_it_is_not(machine, run):
    stop = run("mov rax, [rdi]", rdi=1 << 50)

    assert stop == Trap(13, 0, rip=machine.symbol("at"))


@pytest.mark.levels(4, 5)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_pages_of_each_size_are_read_and_written(machine, run, level):
    pa = {1: 0x40_5000, 2: 0x40_0000, 3: 0}[level]
    machine.map(DATA + 0x4000_0000, pa, level=level)
    offset = 0x40_5128 - pa if level > 1 else 0x128

    stop = run("mov [rdi], rax", rdi=DATA + 0x4000_0000 + offset, rax=77)

    assert stop == Returned()
    assert machine.memory.read_u64(0x40_5128) == 77


def test_the_cpu_sets_accessed_and_dirty(machine, run):
    machine.map(DATA)

    run("mov [rdi], rax", rdi=DATA)

    assert [step.entry >> 5 & 3 for step in machine.walk(DATA).steps] == [1, 1, 1, 3]


def test_a_fault_that_is_repaired_lets_the_run_go_on_where_it_was(machine, assemble):
    program = assemble("f: mov rbx, 5; store: mov [rdi], rbx; mov rax, [rdi]; ret")
    fault = machine.run(program, "f", rdi=DATA)
    machine.map(DATA)

    stop = machine.run(program, "store")

    assert fault.rip == machine.symbol("store")
    assert (stop, stop.value) == (Returned(), 5)


def test_a_descriptor_read_from_an_unmapped_table_is_explained_as_the_cpus_own(
    machine, run, expect_page_fault
):
    machine.map(DATA)
    machine.write(DATA, (0xFF).to_bytes(2, "little") + FAR.to_bytes(8, "little"))

    stop = run("lgdt [rdi]; mov eax, 0x28; load: mov ds, eax", rdi=DATA)

    expect_page_fault(stop, at=FAR + 0x28, error="", symbol="load")


def test_a_fault_compares_by_address_code_and_rip_only(machine, run):
    stop = run("mov [rdi], rax", rdi=FAR)

    at = machine.symbol("at")
    assert stop != PageFault(FAR, PF_W, rip=at + 1)
    assert stop != PageFault(FAR + 1, PF_W, rip=at)
    assert stop != PageFault(FAR, 0, rip=at)
    assert hash(stop) == hash(PageFault(FAR, PF_W, rip=at))
