"""What a recorder saw: against sources whose effects are written down here, access by access."""

import struct

import pytest
from support.guest import CODE, CODE_PA, CODE_SIZE, DATA, HOLE, USER_DATA, Guest, Routine

from emu import OutsideRam, PageFault, PhysAddr, StepLimit, Trap, VirtAddr, translate
from emu.events import Accessed, Cr3Switch, Event, Executed, Faulted, Invalidated, Walked
from emu.fault import PF_W
from emu.paging import RW, US
from emu.trace import Recorder

STACK = DATA + 0x1000


def record(guest: Guest, routine: Routine, **options: int) -> list[Event]:
    """Run a routine with one page of data at RDI, and RSP at its end; return all events."""
    with Recorder(guest.cpu) as recorder:
        guest.call(routine, **{"rdi": DATA, "rsp": STACK, **options})
    return events_of(recorder)


def events_of(recorder: Recorder) -> list[Event]:
    """The events but those that are about the TLB: these have tests of their own."""
    return [e for e in recorder.events() if not isinstance(e, Walked | Invalidated)]


def trace(guest: Guest, source: str, **options: int) -> list[Event]:
    return record(guest, guest.put(source), **options)


def accesses(events: list[Event]) -> list[tuple[int | None, int, int, str]]:
    """The accesses without their physical addresses."""
    return [(e.va, e.size, e.value, e.kind) for e in events if isinstance(e, Accessed)]


def codes(events: list[Event]) -> list[bytes]:
    return [e.code for e in events if isinstance(e, Executed)]


@pytest.fixture(autouse=True, params=[True, False], ids=["native", "python"])
def recorder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is for both recorders."""
    monkeypatch.setattr("emu._native.runs_here", lambda: request.param)


@pytest.fixture
def page(guest: Guest) -> PhysAddr:
    """The frame of the page at DATA."""
    return guest.page(DATA)


def test_instructions_come_in_program_order_with_their_bytes(guest: Guest) -> None:
    routine = guest.put("inc eax; jmp 1f; ud2; 1: nop")

    events = record(guest, routine)

    rip = routine.rip
    assert events == [
        Executed(rip, b"\xff\xc0"),
        Executed(VirtAddr(rip + 2), b"\xeb\x02"),
        Executed(VirtAddr(rip + 6), b"\x90"),
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("mov rax, [rdi+8]", [(DATA + 8, 8, 0x1122334455667788, "read")]),
        ("mov ax, [rdi+8]", [(DATA + 8, 2, 0x7788, "read")]),
        ("mov [rdi], rcx", [(DATA, 8, 0xFFFF_FFFF_FFFF_FFFE, "write")]),
        ("mov [rdi+rsi*4], cl", [(DATA + 12, 1, 0xFE, "write")]),
        ("add qword ptr [rdi+8], 1", [
            (DATA + 8, 8, 0x1122334455667788, "read"),
            (DATA + 8, 8, 0x1122334455667789, "write"),
        ]),
        ("push rcx; pop [rdi]", [
            (STACK - 8, 8, 0xFFFF_FFFF_FFFF_FFFE, "write"),
            (STACK - 8, 8, 0xFFFF_FFFF_FFFF_FFFE, "read"),
            (DATA, 8, 0xFFFF_FFFF_FFFF_FFFE, "write"),
        ]),
        ("mov rax, gs:[rsi]", [(DATA + 8, 8, 0x1122334455667788, "read")]),
        ("movdqu xmm0, [rdi+8]", [
            (DATA + 8, 8, 0x1122334455667788, "read"),
            (DATA + 16, 8, 0, "read"),
        ]),
        ("lea rax, [rdi]; nop dword ptr [rdi]", []),
    ],
)  # fmt: skip
def test_an_access_has_its_address_size_and_value(
    guest: Guest, page: PhysAddr, source: str, expected: list[tuple[int, int, int, str]]
) -> None:
    guest.memory.write(PhysAddr(page + 8), struct.pack("<Q", 0x1122334455667788))
    source = source.replace("pop [rdi]", "pop qword ptr [rdi]")

    events = trace(guest, source, rcx=-2, rsi=3, gs_base=DATA + 5)

    assert accesses(events) == expected


def test_an_access_has_the_physical_address_that_the_cpu_used(guest: Guest, page: PhysAddr) -> None:
    events = trace(guest, "mov [rdi+0x10], rax", rax=7)

    assert events[1] == Accessed(VirtAddr(DATA + 0x10), PhysAddr(page + 0x10), 8, 7, "write")


@pytest.mark.parametrize(
    ("source", "kind"), [("mov rax, [rdi+0xffd]", "read"), ("mov [rdi+0xffd], rax", "write")]
)
def test_an_access_across_pages_is_shown_in_each_frame(
    guest: Guest, page: PhysAddr, source: str, kind: str
) -> None:
    next_page = guest.page(DATA + 0x1000)
    guest.memory.write(PhysAddr(page + 0xFFD), b"\x88\x77\x66")
    guest.memory.write(next_page, b"\x55\x44\x33\x22\x11")

    events = trace(guest, source, rax=0x1122334455667788)

    assert events[1:] == [
        (DATA + 0xFFD, page + 0xFFD, 3, 0x667788, kind),
        (DATA + 0x1000, next_page, 5, 0x1122334455, kind),
    ]


def test_a_store_that_faults_on_its_second_page_leaves_no_access(
    guest: Guest, page: PhysAddr
) -> None:
    routine = guest.put("nop; fault: mov [rdi+0xffd], rax")

    events = record(guest, routine)

    fault = PageFault(VirtAddr(DATA + 0x1000), PF_W, rip=routine["fault"])
    code = bytes.fromhex("488987fd0f0000")
    assert events == [Executed(routine.rip, b"\x90"), Faulted(fault, code)]


def test_a_push_whose_stack_faults_leaves_no_load(guest: Guest, page: PhysAddr) -> None:
    events = trace(guest, "push [rdi]", rsp=DATA)

    assert [type(event) for event in events] == [Faulted]


def test_a_rep_is_one_instruction_an_iteration(guest: Guest, page: PhysAddr) -> None:
    guest.memory.write(page, b"abc")

    events = trace(guest, "rep movsb", rsi=DATA, rdi=DATA + 0x100, rcx=3)

    assert accesses(events) == [
        (DATA, 1, ord("a"), "read"),
        (DATA + 0x100, 1, ord("a"), "write"),
        (DATA + 1, 1, ord("b"), "read"),
        (DATA + 0x101, 1, ord("b"), "write"),
        (DATA + 2, 1, ord("c"), "read"),
        (DATA + 0x102, 1, ord("c"), "write"),
    ]
    assert codes(events) == [b"\xf3\xa4"] * 3


@pytest.mark.parametrize("source", ["repe cmpsb", "repne scasb", "rep lodsb", "rep stosb"])
def test_the_last_look_of_a_rep_is_no_instruction(
    guest: Guest, page: PhysAddr, source: str
) -> None:
    events = trace(guest, f"{source}; nop", rsi=DATA + 0x100, rcx=3, rax=source == "repne scasb")

    assert len(codes(events)) == 3 + 1


def test_a_rep_that_has_nothing_to_do_is_one_instruction(guest: Guest) -> None:
    events = trace(guest, "rep movsb; rep movsb", rcx=0)

    assert codes(events) == [b"\xf3\xa4"] * 2


def test_a_rep_that_faults_keeps_the_iterations_before(guest: Guest, page: PhysAddr) -> None:
    events = trace(guest, "rep movsq", rsi=DATA, rdi=DATA + 0xFF0, rcx=4)

    assert accesses(events) == [
        (DATA, 8, 0, "read"),
        (DATA + 0xFF0, 8, 0, "write"),
        (DATA + 8, 8, 0, "read"),
        (DATA + 0xFF8, 8, 0, "write"),
    ]
    assert isinstance(events[-1], Faulted)


def test_a_cr3_switch_comes_after_the_instruction_that_makes_it(guest: Guest) -> None:
    cr3 = guest.cpu.cr3

    events = trace(guest, "mov cr3, rax; nop", rax=cr3 | 8)

    assert events[1] == Cr3Switch(cr3, cr3 | 8)
    assert codes(events) == [b"\x0f\x22\xd8", b"\x90"]


def test_a_cr3_switch_into_nothing_comes_before_the_fault(guest: Guest) -> None:
    empty = guest.frames.allocate()

    events = trace(guest, "mov cr3, rax; nop", rax=empty)

    assert [type(event) for event in events] == [Executed, Cr3Switch, Faulted]
    assert events[-1][1] == b""


def test_a_cr3_switch_between_runs_is_seen(guest: Guest) -> None:
    routine, cr3 = guest.put("nop"), guest.cpu.cr3

    with Recorder(guest.cpu) as recorder:
        guest.cpu.cr3 = cr3 | 8
        guest.call(routine)

    assert events_of(recorder) == [Cr3Switch(cr3, cr3 | 8), Executed(routine.rip, b"\x90")]


@pytest.mark.parametrize(
    ("source", "stop"),
    [
        ("ud2", Trap(6, None, rip=CODE)),
        ("syscall", Trap(6, None, rip=CODE)),
        ("mov ds, eax", Trap(13, 0x1230, rip=CODE)),
        ("mov al, [rsi]", OutsideRam(HOLE, CODE, "leaf")),
    ],
)
def test_an_instruction_that_faults_is_not_executed(
    guest: Guest, source: str, stop: Trap | OutsideRam
) -> None:
    guest.map(DATA + 0x5000, HOLE, RW)

    events = trace(guest, source, rsi=DATA + 0x5000, rax=0x1230)

    assert [(type(event), event[0]) for event in events] == [(Faulted, stop)]


def test_a_breakpoint_is_executed_before_it_traps(guest: Guest) -> None:
    events = trace(guest, "int3")

    assert [type(event) for event in events] == [Executed, Faulted]


def test_code_changed_through_another_mapping_is_shown_as_it_was_executed(guest: Guest) -> None:
    guest.map(DATA, CODE_PA, RW)
    source = "mov ecx, 2; 1: nop; mov byte ptr [rdi+5], 0xf8; dec ecx; jnz 1b"

    events = trace(guest, source)

    assert [code for code in codes(events) if len(code) == 1] == [b"\x90", b"\xf8"]


def test_code_that_python_changed_between_runs_is_read_anew(guest: Guest) -> None:
    routine = guest.put("nop")

    with Recorder(guest.cpu) as recorder:
        guest.call(routine)
        guest.memory.write(CODE_PA, b"\xf8")
        guest.cpu.invalidate_code()
        guest.call(routine)

    assert codes(recorder.events()) == [b"\x90", b"\xf8"]


@pytest.mark.parametrize("left", range(1, 12))
def test_code_that_runs_off_its_page_is_recorded_up_to_there(guest: Guest, left: int) -> None:
    guest.memory.write(PhysAddr(CODE_PA + CODE_SIZE - left), b"\x90" * left)

    with Recorder(guest.cpu) as recorder:
        guest.cpu.run(CODE + CODE_SIZE - left)

    assert codes(recorder.events()) == [b"\x90"] * left
    assert recorder.instructions == left


def test_code_across_two_pages_is_read_from_both(guest: Guest) -> None:
    code = bytes.fromhex("48b8 8877665544332211")
    at = CODE + 0xFFC
    guest.memory.write(PhysAddr(CODE_PA + 0xFFC), code + b"\xf4")

    with Recorder(guest.cpu) as recorder:
        guest.cpu.run(at, returns_to=at + 10)

    assert codes(recorder.events()) == [code]


def test_user_code_is_recorded(guest: Guest) -> None:
    guest.page(USER_DATA, RW | US)
    routine = guest.put_user("mov [rdi], al; hlt")

    with Recorder(guest.cpu) as recorder:
        guest.call_user(routine, rdi=USER_DATA, rax=5)

    assert accesses(recorder.events()) == [(USER_DATA, 1, 5, "write")]


def run_in_slices(guest: Guest, routine: Routine, steps: int) -> None:
    """Run to the end, `steps` at a time."""
    stop = guest.call(routine, rdi=DATA, rsp=STACK, step_limit=steps)
    while isinstance(stop, StepLimit):
        stop = guest.cpu.run(stop.rip, returns_to=routine.hlt, step_limit=steps)


LOOP = "mov ecx, 5; 1: mov [rdi], ecx; push rcx; pop rdx; rep stosb; mov ecx, edx; loop 1b"


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_a_run_in_slices_is_recorded_like_one_run(guest: Guest, page: PhysAddr, steps: int) -> None:
    routine = guest.put(LOOP)
    whole = record(guest, routine)

    with Recorder(guest.cpu) as recorder:
        run_in_slices(guest, routine, steps)

    assert events_of(recorder) == whole


def test_only_the_last_events_are_kept(guest: Guest, page: PhysAddr) -> None:
    routine = guest.put("mov ecx, 10000; 1: mov [rdi], ecx; loop 1b")
    whole = record(guest, routine)

    with Recorder(guest.cpu, keep=100) as recorder:
        guest.call(routine, rdi=DATA)

    assert recorder.events() == whole[-100:]
    assert recorder.instructions == 20001


def test_draining_forgets(guest: Guest) -> None:
    routine = guest.put("nop")

    with Recorder(guest.cpu) as recorder:
        guest.call(routine)
        first = list(recorder.drain())
        guest.call(routine)

    assert first[-1:] == list(recorder.drain()) == [Executed(routine.rip, b"\x90")]
    assert recorder.instructions == 2


def test_code_that_has_run_before_is_recorded(guest: Guest, page: PhysAddr) -> None:
    routine = guest.put("mov [rdi], rax")
    guest.call(routine, rdi=DATA)

    events = record(guest, routine)

    assert [type(event) for event in events] == [Executed, Accessed]


def test_nothing_is_recorded_afterwards(guest: Guest) -> None:
    routine = guest.put("nop")
    with Recorder(guest.cpu) as recorder:
        pass

    guest.call(routine)

    assert recorder.events() == []


def test_a_cpu_has_one_recorder_at_a_time(guest: Guest) -> None:
    with Recorder(guest.cpu), pytest.raises(ValueError, match="already"):
        Recorder(guest.cpu).__enter__()


def test_nothing_to_keep_is_refused(guest: Guest) -> None:
    with pytest.raises(ValueError, match="keep=0"):
        Recorder(guest.cpu, keep=0)


@pytest.mark.parametrize(
    "source",
    [
        "enter 16, 3", "call 1f; 1: ret", "cmpsb", "lodsq", "xlatb", "bts [rdi], rcx",
        "lock cmpxchg16b [rdi]", "xchg [rdi], rax", "fxsave [rdi]", "pushfq; popfq",
        "movsb", "mov rax, [rip]", "sgdt [rdi]", "leave", "stosw", "sidt [rsp]",
    ],
)  # fmt: skip
def test_every_linear_address_translates_to_the_physical_one(
    guest: Guest, page: PhysAddr, source: str
) -> None:
    events = trace(
        guest, source, rsi=DATA + 0x40, rbp=DATA + 0x400, rsp=DATA + 0x800, rbx=DATA, rcx=0x99,
        step_limit=3,
    )  # fmt: skip

    found = [e for e in events if isinstance(e, Accessed)]
    assert found
    assert [translate(guest.memory, guest.paging, e.va) for e in found] == [e.pa for e in found]


def test_a_descriptor_has_no_operand_and_so_no_linear_address(guest: Guest, page: PhysAddr) -> None:
    data_segment = 0x00CF_9300_0000_FFFF
    guest.memory.write(page, struct.pack("<HQ", 0x1F, DATA + 0x100))
    guest.memory.write_u64(PhysAddr(page + 0x108), data_segment)

    events = trace(guest, "lgdt [rdi]; mov ds, eax", rax=8)

    found = [(e.va, e.pa) for e in events[-2:] if isinstance(e, Accessed)]
    assert found == [(None, page + 0x108), (None, page + 0x10C)]
