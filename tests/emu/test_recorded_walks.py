"""Which walks the CPU makes, what they read, and which bits it sets on the way."""

import gc
import weakref

import pytest
from support.guest import CODE, DATA, HOLE, USER_DATA, Guest

from emu import Machine, Paging, PhysAddr
from emu.events import Accessed, Cr3Switch, Edited, Event, Executed, Faulted, Invalidated, Walked
from emu.paging import RW, US, XD, A, D
from emu.trace import MachineRecorder, Recorder


@pytest.fixture(autouse=True, params=[True, False], ids=["native", "python"])
def recorder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is for both recorders."""
    monkeypatch.setattr("emu._native.runs_here", lambda: request.param)


def events(guest: Guest, source: str, **options: int) -> list[Event]:
    routine = guest.put(source)
    with Recorder(guest.cpu) as recorder:
        guest.call(routine, **{"rdi": DATA, **options})
    return recorder.events()


def walks(guest: Guest, source: str, **options: int) -> list[Walked]:
    """The walks for data."""
    found = events(guest, source, **options)
    return [e for e in found if isinstance(e, Walked) and e.kind != "fetch"]


def newly_set(walked: Walked) -> list[int]:
    """The bits that the CPU set, in each entry."""
    return [step.before ^ step.after for step in walked.steps]


@pytest.mark.parametrize("levels", [4, 5])
def test_a_walk_reads_the_entries_that_the_tables_have(levels: int) -> None:
    guest = Guest(levels=levels)
    guest.page(DATA)
    expected = guest.walk(DATA)

    (walked,) = walks(guest, "mov rax, [rdi+0x123]")

    found = tuple((step.level, step.entry_pa, step.before & ~A) for step in walked.steps)
    assert (walked.va, walked.kind, walked.user) == (DATA, "read", False)
    assert found == expected.steps


def test_a_load_sets_a_and_a_store_d_besides(guest: Guest) -> None:
    guest.page(DATA)
    guest.page(DATA + 0x1000)

    load, store = walks(guest, "mov rax, [rdi]; mov [rdi+0x1000], rax")

    assert newly_set(load) == [A, A, A, A]
    assert newly_set(store) == [0, 0, 0, A | D]


def test_the_first_store_to_a_page_that_was_read_walks_again_for_d(guest: Guest) -> None:
    guest.page(DATA)

    read, written = walks(guest, "mov rax, [rdi]; mov [rdi], rax; mov [rdi+8], rax")

    assert (read.kind, written.kind) == ("read", "write")
    assert newly_set(written) == [0, 0, 0, D]


def test_a_page_that_is_in_the_tlb_is_not_walked_for(guest: Guest) -> None:
    guest.page(DATA)

    assert len(walks(guest, "mov rax, [rdi]; mov rbx, [rdi+8]; mov rcx, [rdi+0xff8]")) == 1


@pytest.mark.parametrize(
    "between",
    ["mov rbx, cr3; mov cr3, rbx", "invlpg [rdi]", "mov rbx, cr4; xor rbx, 0x80; mov cr4, rbx"],
)
def test_what_invalidates_has_the_page_walked_for_again(guest: Guest, between: str) -> None:
    guest.page(DATA)

    first, second = walks(guest, f"mov rax, [rdi]; {between}; mov rax, [rdi]")

    assert newly_set(first) == [A, A, A, A]
    assert newly_set(second) == [0, 0, 0, 0]


def test_an_access_across_pages_walks_for_both(guest: Guest) -> None:
    guest.page(DATA)
    guest.page(DATA + 0x1000)

    assert [w.va for w in walks(guest, "mov rax, [rdi+0xffc]")] == [DATA, DATA + 0x1000]


def test_a_large_page_has_a_short_walk(guest: Guest) -> None:
    guest.page(DATA, level=2)

    (walked,) = walks(guest, "mov rax, [rdi+0x1234]")

    assert walked.va == DATA + 0x1000
    assert [step.level for step in walked.steps] == [4, 3, 2]


def test_code_is_walked_for_before_it_is_executed(guest: Guest) -> None:
    first, second = events(guest, "nop")

    assert isinstance(second, Executed)
    assert (first.va, first.kind, newly_set(first)) == (CODE, "fetch", [A, A, A])


def test_a_walk_comes_between_its_instruction_and_the_access(guest: Guest) -> None:
    guest.page(DATA)

    kinds = [type(event) for event in events(guest, "nop; mov rax, [rdi]")]

    assert kinds == [Walked, Executed, Executed, Walked, Accessed]


def test_a_users_walk_is_called_so(guest: Guest) -> None:
    guest.page(USER_DATA, RW | US)
    routine = guest.put_user("mov al, [rdi]; hlt")

    with Recorder(guest.cpu) as recorder:
        guest.call_user(routine, rdi=USER_DATA)

    assert [w.user for w in recorder.events() if isinstance(w, Walked)] == [True, True]


def test_a_walk_that_finds_nothing_comes_before_the_fault(guest: Guest) -> None:
    guest.page(DATA)

    *_, walked, faulted = events(guest, "mov rax, [rdi+0x1000]")

    assert isinstance(faulted, Faulted)
    assert newly_set(walked) == [A, A, A, 0]
    assert walked.steps[-1].before == 0


def test_a_walk_that_is_refused_sets_no_bit_in_the_leaf(guest: Guest) -> None:
    guest.page(DATA, 0)

    (walked,) = walks(guest, "mov [rdi], rax")

    assert newly_set(walked) == [A, A, A, 0]


def test_a_walk_ends_at_a_reserved_bit(guest: Guest) -> None:
    guest.page(DATA)
    guest.change_entry(DATA, 2, put=1 << 45)

    (walked,) = walks(guest, "mov rax, [rdi]")

    assert [step.level for step in walked.steps] == [4, 3, 2]


def test_a_walk_ends_where_there_is_no_ram(guest: Guest) -> None:
    guest.page(DATA)
    guest.set_entry(DATA, 2, HOLE | 7)

    (walked,) = walks(guest, "mov rax, [rdi]")

    assert [step.level for step in walked.steps] == [4, 3, 2]


def test_a_stale_translation_makes_no_walk(guest: Guest) -> None:
    """An entry that is gone from the tables is still in the TLB."""
    guest.page(DATA)
    entry_pa = guest.entry_pa(DATA, 1)
    guest.map(DATA + 0x10_0000, entry_pa & -0x1000)

    clear = "mov qword ptr [rsi], 0"
    source = f"mov rax, [rdi]; {clear}; mov rbx, [rdi]; invlpg [rdi]; mov rcx, [rdi]"

    found = walks(guest, source, rsi=DATA + 0x10_0000 + entry_pa % 0x1000)

    assert [(w.va, w.steps[-1].before & 1) for w in found if w.va == DATA] == [(DATA, 1), (DATA, 0)]


@pytest.mark.parametrize(
    ("source", "what", "value"),
    [
        ("mov cr3, rax", "cr3", None),
        ("invlpg [rdi+rcx*8+5]", "invlpg", DATA + 3 * 8 + 5),
        ("mov rax, cr4; mov cr4, rax", "cr4", 0x6B0),
        ("mov rax, cr0; mov cr0, rax", "cr0", 0x8001_0033),
        ("mov ecx, 0xc0000080; rdmsr; wrmsr", "efer", 0xD00),
    ],
)
def test_what_concerns_the_tlb_is_an_event(
    guest: Guest, source: str, what: str, value: int | None
) -> None:
    found = events(guest, source, rax=guest.cpu.cr3, rcx=3)

    (event,) = (e for e in found if isinstance(e, Invalidated))
    assert event == Invalidated(what, guest.cpu.cr3 if value is None else value)


def test_an_invalidation_that_faults_did_not_happen(guest: Guest) -> None:
    found = events(guest, "mov cr3, rax", rax=1 << 63)

    assert [type(e) for e in found if not isinstance(e, Walked)] == [Faulted]


def test_a_switch_of_cr3_comes_behind_its_invalidation(guest: Guest) -> None:
    cr3 = guest.cpu.cr3

    found = events(guest, "mov cr3, rax; nop", rax=cr3 | 8)

    kinds = [type(e) for e in found]
    assert kinds == [Walked, Executed, Invalidated, Cr3Switch, Walked, Executed]


def test_registers_are_those_before_the_instruction(guest: Guest) -> None:
    routine = guest.put("mov eax, 7; mov ecx, eax; nop")

    with Recorder(guest.cpu, registers=True) as recorder:
        guest.call(routine, rax=1, rcx=2)

    found = [e.registers[:2] for e in recorder.events() if isinstance(e, Executed)]
    assert found == [(1, 2), (7, 2), (7, 7)]


def test_a_long_run_is_handed_on_in_chunks(guest: Guest) -> None:
    guest.page(DATA)
    routine = guest.put("mov ecx, 100000; 1: mov [rdi], ecx; loop 1b")
    sizes = []

    with Recorder(guest.cpu, sink=lambda chunk: sizes.append(len(chunk.instructions))) as recorder:
        guest.call(routine, rdi=DATA)

    assert len(sizes) > 2
    assert sum(sizes) == recorder.instructions == 200_001


def test_what_a_sink_raises_ends_the_run(guest: Guest) -> None:
    routine = guest.put("1: jmp 1b")

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), Recorder(guest.cpu, sink=full):
        guest.call(routine)


def test_the_cpus_of_a_machine_are_one_stream() -> None:
    guest = Guest(cpus=2)
    routine = guest.put("nop")
    chunks = []

    with MachineRecorder(guest.machine, sink=chunks.append) as recorder:
        for nr in (0, 1, 0):
            guest.machine.cpus[nr].run(routine.rip, returns_to=routine.hlt)

    found = [(chunk.cpu, chunk.first, len(chunk.instructions)) for chunk in chunks]
    assert found == [(0, 0, 1), (1, 1, 1), (0, 2, 1)]
    assert recorder.instructions == 3


def test_a_recorder_of_several_cpus_can_be_used_again() -> None:
    guest = Guest(cpus=2)
    routine = guest.put("nop")
    chunks = []
    recorder = MachineRecorder(guest.machine, sink=chunks.append)

    for _ in range(2):
        with recorder:
            for cpu in guest.machine.cpus:
                cpu.run(routine.rip, returns_to=routine.hlt)

    assert [chunk.cpu for chunk in chunks] == [0, 1, 0, 1]


def test_what_is_written_from_outside_is_handed_on_as_it_grows() -> None:
    chunks = []

    with MachineRecorder(Machine(ram=1 << 20), sink=chunks.append) as recorder:
        for _ in range(3000):
            recorder.edited(0x1000, 512, "vmemmap_populate")

    assert len(chunks) == 3


def test_what_is_written_from_outside_has_a_cpus_place_in_the_stream() -> None:
    guest = Guest(cpus=2)
    routine = guest.put("nop")
    chunks = []

    with MachineRecorder(guest.machine, sink=chunks.append) as recorder:
        guest.machine.cpus[1].run(routine.rip, returns_to=routine.hlt)
        recorder.edited(0x1000, 1, "sync_global_pgds", cpu=0)

    assert [(chunk.cpu, len(chunk.instructions)) for chunk in chunks] == [(1, 1), (0, 0)]


def test_entries_written_from_outside_are_an_event() -> None:
    machine = Machine(ram=1 << 20)

    with MachineRecorder(machine) as recorder:
        machine.memory.write_u64(PhysAddr(0x1000), 0x67)
        machine.memory.write_u64(PhysAddr(0x1008), 0x2067)
        recorder.edited(0x1000, 2, "pgd_ctor")

    assert recorder.events() == [Edited(PhysAddr(0x1000), (0x67, 0x2067), "pgd_ctor")]


def test_nothing_is_lost_where_nothing_is_executed(guest: Guest) -> None:
    with Recorder(guest.cpu) as recorder:
        for _ in range(6000):
            guest.cpu.run(DATA)

    found = [type(event) for event in recorder.events()]
    assert found == [Walked, Faulted] * 6000


STALE = DATA + 0x10_0000


def stale(guest: Guest, va: int) -> tuple[str, PhysAddr]:
    """Have the guest map another frame at `va` without an invlpg: how, and which it was."""
    entry_pa, old, new = guest.entry_pa(va, 1), guest.walk(va).pa, guest.frames.allocate()
    guest.map(STALE, entry_pa & -0x1000)
    assert old is not None
    offset = STALE + entry_pa % 0x1000 - DATA
    return f"mov rax, {new | 3:#x}; mov [rdi+{offset:#x}], rax", old


def test_an_access_across_pages_lies_where_the_tlb_has_them(guest: Guest) -> None:
    guest.page(DATA)
    guest.page(DATA + 0x1000)
    change, old = stale(guest, DATA + 0x1000)

    found = events(guest, f"mov [rdi+0x1000], rbx; {change}; mov [rdi+0xffc], rbx", rbx=-1)

    assert found[-1] == Accessed(DATA + 0x1000, old, 4, 0xFFFF_FFFF, "write")


def test_code_is_what_the_cpu_executes_while_its_table_says_otherwise(guest: Guest) -> None:
    page = guest.page(DATA)
    change, _ = stale(guest, DATA)
    guest.memory.write(page, b"\x90\xc3")  # nop; ret
    guest.page(DATA + 0x1000)

    found = events(guest, f"call rdi; {change}; call rdi", rsp=DATA + 0x2000)

    assert [e.code for e in found if isinstance(e, Executed) and e.rip == DATA] == [b"\x90"] * 2


def test_a_walk_is_judged_by_efer_as_it_was(guest: Guest) -> None:
    guest.page(DATA)
    guest.change_entry(DATA, 2, put=XD)
    routine = guest.put("mov rax, [rdi]")
    with_nxe = guest.cpu.paging

    with Recorder(guest.cpu) as recorder:
        guest.cpu.paging = Paging.long_mode(guest.paging.root, nxe=False)
        guest.call(routine, rdi=DATA)
        guest.cpu.paging = with_nxe

    *_, walked = (event for event in recorder.events() if isinstance(event, Walked))
    assert [step.level for step in walked.steps] == [4, 3, 2]


def test_a_machine_that_was_recorded_is_freed_by_its_last_reference(guest: Guest) -> None:
    machine = Machine(ram=1 << 20)
    memory = weakref.ref(machine.memory)
    gc.disable()
    try:
        with MachineRecorder(machine) as recorder:
            machine.cpu.run(0x1000)
        assert recorder.events()
        del machine, recorder
        assert memory() is None
    finally:
        gc.enable()
