"""What the engine would execute and a CPU refuses is refused: as a fault of the instruction."""

import gc
import weakref

import pytest
from support.guest import CODE, CODE_PA, DATA, USER_DATA, Guest
from support.system import STACK, System

from emu import (
    Halted,
    OutsideRam,
    PageFault,
    PhysAddr,
    Returned,
    StepLimit,
    Trap,
    VirtAddr,
    map_page,
)
from emu._unicorn import _MOST_WATCHED
from emu.descriptors import SystemSegment
from emu.events import Executed, Faulted
from emu.fault import DB, GP, PF, PF_P, PF_U, SS, UD
from emu.paging import EFER_SCE, RFLAGS_RF, RW, A
from emu.refusals import Refusals
from emu.trace import Recorder

BAD = 1 << 63  # no CR3
MOV_CR3 = b"\x0f\x22\xd8"  # mov cr3, rax
TSS = DATA + 0x100
SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x174, 0x175, 0x176
IOPL_3 = 0x3002
ELSEWHERE = VirtAddr(0xFFFF_9100_0000_0000)


def gp(rip: int) -> Trap:
    return Trap(GP, 0, rip=VirtAddr(rip))


# -- a refusal is a fault


def test_nothing_of_it_is_executed(guest: Guest) -> None:
    cr3 = guest.cpu.cr3
    routine = guest.put("inc rbx; there: mov cr3, rax; inc rbx")

    stop = guest.call(routine, rax=BAD, rbx=0)

    assert stop == gp(routine["there"])
    assert (guest.cpu.cr3, guest.cpu.registers.rbx) == (cr3, 1)


def test_the_flags_are_those_of_the_instruction_before(guest: Guest) -> None:
    stop = guest.run("cmp rbx, 1; mov cr3, rax", rax=BAD, rbx=0)

    assert isinstance(stop, Trap)
    assert stop.registers is not None
    assert stop.registers.rflags == 0x97  # CF, PF, AF, SF


def test_the_flags_are_those_before_where_the_access_faults(guest: Guest) -> None:
    stop = guest.run("add rdi, 8; movaps xmm0, [rdi]", rdi=8, rflags=2)

    assert isinstance(stop, PageFault)
    assert stop.registers == guest.cpu.registers
    assert guest.cpu.registers.rflags == 0x12  # AF


def test_it_is_executed_again_when_its_registers_are_better(guest: Guest) -> None:
    routine = guest.put("mov cr3, rax")
    cr3 = guest.cpu.cr3

    stops = [guest.call(routine, rax=rax) for rax in (cr3, BAD, cr3, BAD)]

    assert stops == [Returned(), gp(routine.rip)] * 2


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_it_is_a_step(guest: Guest, limit: int) -> None:
    routine = guest.put("nop; mov cr3, rax")

    stop = guest.call(routine, rax=BAD, step_limit=limit)

    assert stop == (StepLimit(VirtAddr(CODE + 1), 1) if limit == 1 else gp(CODE + 1))


def test_a_recorder_takes_it_back(guest: Guest) -> None:
    routine = guest.put("nop; mov cr3, rax")

    with Recorder(guest.cpu) as recorder:
        stops = [guest.call(routine, rax=guest.cpu.cr3), guest.call(routine, rax=BAD)]

    assert stops == [Returned(), gp(CODE + 1)]
    assert [event.rip for event in recorder.events() if isinstance(event, Executed)] == [
        *(CODE, CODE + 1),
        CODE,
    ]
    assert recorder.events()[-1] == Faulted(stops[1], MOV_CR3)


def test_a_refused_page_fault_sets_cr2(guest: Guest) -> None:
    guest.run("clflush [rdi]", rdi=USER_DATA)

    assert guest.cpu.cr2 == USER_DATA


@pytest.mark.parametrize("step_limit", [None, 9])
def test_the_guests_handler_takes_it_and_has_it_tried_again(step_limit: int | None) -> None:
    system = System()
    handler = system.put("add rsp, 8; mov rax, r12; inc r13; iretq")
    system.handle({GP: handler.rip})
    routine = system.put("nop; mov cr3, rax; nop")

    with Recorder(system.cpu) as recorder:
        stop = system.call(
            routine, rax=BAD, r12=system.cpu.cr3, r13=0, rsp=STACK, step_limit=step_limit
        )

    assert stop == Returned()
    assert system.cpu.registers.r13 == 1
    assert (recorder.instructions, recorder.steps) == (7, 8)


def test_the_handler_of_a_refused_page_fault_finds_cr2() -> None:
    system = System()
    handler = system.put("mov r15, cr2; hlt")
    system.handle({PF: handler.rip})

    system.run("clflush [rdi]", rdi=USER_DATA, rsp=STACK)

    assert system.cpu.registers.r15 == USER_DATA


def test_the_handler_of_int1_returns_behind_it() -> None:
    system = System()
    handler = system.put("mov r14, [rsp + 16]; iretq")
    system.handle({DB: handler.rip})
    routine = system.put("nop; inc rbx")
    system.memory.write(PhysAddr(CODE_PA + routine.rip - CODE), b"\xf1")

    stop = system.call(routine, rbx=0, rsp=STACK, rflags=2)

    assert stop == Returned()
    assert (system.cpu.registers.rbx, system.cpu.registers.r14 & RFLAGS_RF) == (1, 0)


# -- whatever way the CPU comes to it


@pytest.mark.parametrize("way", ["jmp there", "push rbx; ret", "call there", "jmp rbx"])
def test_it_is_refused_by_every_way(guest: Guest, way: str) -> None:
    guest.page(DATA)
    routine = guest.put(f"{way}; nop; there: mov cr3, rax")

    stop = guest.call(routine, rax=BAD, rbx=routine["there"], rsp=DATA + 0x800)

    assert stop == gp(routine["there"])


def test_it_is_refused_inside_another_instruction(guest: Guest) -> None:
    routine = guest.put("mov ebx, 0x90d8220f")

    stops = [guest.call(routine, rax=BAD), guest.cpu.run(routine.rip + 1, rax=BAD)]

    assert stops == [Returned(), gp(routine.rip + 1)]


@pytest.mark.parametrize("via", [0, 0xFFFF_9000_0000_0000 - CODE])
@pytest.mark.parametrize("between", ["", "jmp there; nop"])
def test_it_is_refused_where_a_store_has_just_made_it(guest: Guest, via: int, between: str) -> None:
    guest.change_entry(CODE, 2, put=RW)
    guest.map(0xFFFF_9000_0000_0000, CODE_PA, RW, level=2)
    routine = guest.put(f"mov dword ptr [rdi], 0x90d8220f; {between}; there: nop; nop; nop; nop")
    guest.cpu.run(routine["there"], returns_to=routine.hlt)

    stop = guest.call(routine, rax=BAD, rdi=routine["there"] + via)

    assert stop == gp(routine["there"])


def test_it_is_refused_across_two_frames(guest: Guest) -> None:
    first = guest.page(ELSEWHERE)
    guest.frames.allocate()
    second = guest.page(ELSEWHERE + 0x1000)
    guest.memory.write(PhysAddr(first + 0xFFF), MOV_CR3[:1])
    guest.memory.write(second, MOV_CR3[1:] + b"\xf4")

    stops = [guest.cpu.run(ELSEWHERE + 0xFFF, rax=rax) for rax in (guest.cpu.cr3, BAD)]

    assert stops == [Halted(VirtAddr(ELSEWHERE + 0x1002)), gp(ELSEWHERE + 0xFFF)]


def test_under_each_root_it_is_what_stands_there(guest: Guest) -> None:
    guest.memory.write(guest.page(ELSEWHERE), b"\x90\x90\x90\xf4")
    other = guest.frames.allocate()
    table = guest.memory.read(guest.paging.root, 0x1000)
    guest.memory.write(other, table)
    guest.memory.write_u64(PhysAddr(other + 8 * (ELSEWHERE >> 39 & 511)), 0)
    frame = guest.frames.allocate()
    guest.memory.write(frame, MOV_CR3 + b"\xf4")
    map_page(guest.memory, guest.frames, guest.paging.with_root(other), ELSEWHERE, frame, RW)
    stops = []

    for root in (guest.paging.root, other, guest.paging.root, other):
        guest.cpu.cr3 = root
        stops.append(guest.cpu.run(ELSEWHERE, rax=BAD))

    assert stops == [Halted(VirtAddr(ELSEWHERE + 3)), gp(ELSEWHERE)] * 2


def test_more_of_them_than_are_watched_at_a_time_are_refused(guest: Guest) -> None:
    nr = 2 * _MOST_WATCHED + 1
    lines = (f"mov cr3, rax; jmp after{n}; after{n}: nop" for n in range(nr))
    routine = guest.put("; ".join(lines) + "; there: mov cr3, rdx")
    cr3 = guest.cpu.cr3

    stops = [guest.call(routine, rax=cr3, rdx=rdx) for rdx in (cr3, BAD, cr3)]

    assert stops == [Returned(), gp(routine["there"]), Returned()]


@pytest.mark.parametrize("nr", [_MOST_WATCHED // 2 + 2, _MOST_WATCHED + 44])
def test_blocks_that_are_full_of_them_come_to_their_ends(guest: Guest, nr: int) -> None:
    routines = [guest.put_user("in al, dx; " * nr) for _ in range(2)]

    stops = [guest.call_user(routine, rflags=IOPL_3) for routine in 2 * routines]

    assert stops == 4 * [Returned()]


def test_a_block_that_runs_off_its_page_is_watched_up_to_there(guest: Guest) -> None:
    frame = guest.page(ELSEWHERE)
    guest.memory.write(PhysAddr(frame + 0xFF0), MOV_CR3 + b"\x90" * 12 + b"\x48")

    stops = [guest.cpu.run(ELSEWHERE + 0xFF0, rax=rax) for rax in (guest.cpu.cr3, BAD)]

    assert stops == [
        PageFault(ELSEWHERE + 0x1000, 0x10, rip=ELSEWHERE + 0xFFF),
        gp(ELSEWHERE + 0xFF0),
    ]


# -- by the tables


@pytest.mark.parametrize("name", ["clflush", "clflushopt", "clwb"])
def test_a_cache_line_is_accessed_as_by_a_load(guest: Guest, name: str) -> None:
    guest.page(DATA)
    routine = guest.put(f"{name} [rdi]")

    stops = [guest.call(routine, rdi=va) for va in (DATA, USER_DATA, 1 << 60)]

    assert stops == [Returned(), PageFault(USER_DATA, 0, rip=CODE), gp(CODE)]
    assert all(step.entry & A for step in guest.walk(DATA).steps)


def test_a_cache_line_on_the_stack_segment_is_no_address_of_the_stack(guest: Guest) -> None:
    assert guest.run("clflush [rsp]", rsp=1 << 60) == Trap(SS, 0, rip=CODE)


@pytest.mark.parametrize("source", ["retfq", "iretq"])
def test_a_far_return_of_the_user_reads_as_the_user(guest: Guest, source: str) -> None:
    guest.page(DATA)

    stop = guest.call_user(guest.put_user(source), rsp=DATA)

    assert isinstance(stop, PageFault)
    assert (stop.address, stop.error_code, stop.reason) == (DATA, PF_P | PF_U, "us")


# -- ports


@pytest.fixture
def ports(guest: Guest) -> Guest:
    """A guest whose TSS permits ports 0 and 8 to 15."""
    tss = guest.page(DATA) + TSS - DATA
    guest.memory.write(PhysAddr(tss + 102), b"\x68\x00" + b"\xfe\x00" + b"\xff" * 6)
    guest.cpu.tr = SystemSegment(0x40, TSS, 0x68 + 7)
    return guest


@pytest.mark.parametrize(
    ("source", "port", "passes"),
    [
        ("in al, dx", 0, True),
        ("in al, dx", 1, False),
        ("out dx, al", 8, True),
        ("out dx, ax", 8, True),
        ("out dx, eax", 12, True),
        ("out dx, eax", 13, False),
        ("in ax, dx", 0, False),
        ("in al, 0x0f", 0, True),
        ("in al, 0x10", 0, False),
        ("in al, dx", 0x1_0000, True),  # DX is 16 bits
        ("in al, dx", 0x38, False),  # behind the limit
    ],
)
def test_the_tss_permits_ports_to_the_user(
    ports: Guest, source: str, port: int, passes: bool
) -> None:
    routine = ports.put_user(source)

    stop = ports.call_user(routine, rdx=port, rax=0)

    assert stop == (Returned() if passes else gp(routine.rip))


@pytest.mark.parametrize("source", ["in al, dx", "outsb", "rep insb"])
def test_without_a_tss_no_port_is_the_users(guest: Guest, source: str) -> None:
    routine = guest.put_user(source)

    assert guest.call_user(routine, rcx=1) == gp(routine.rip)


def test_a_rep_of_nothing_uses_no_port(guest: Guest) -> None:
    assert guest.call_user(guest.put_user("rep outsb"), rcx=0) == Returned()


def test_iopl_permits_every_port(guest: Guest) -> None:
    assert guest.call_user(guest.put_user("in al, dx"), rflags=IOPL_3) == Returned()


def test_the_same_code_is_asked_about_at_cpl_3_only(guest: Guest) -> None:
    routine = guest.put_user("in al, dx")
    stops = []

    for cpl in (0, 3, 0, 3):
        guest.cpu.cpl = cpl
        stops.append(guest.call(routine))

    assert stops == [Returned(), gp(routine.rip)] * 2


def test_the_tss_is_read_through_the_tables_as_the_supervisor(ports: Guest) -> None:
    routine = ports.put_user("in al, dx")
    ports.set_entry(DATA, 1, 0)

    assert ports.call_user(routine) == PageFault(TSS + 102, 0, rip=routine.rip)


def test_a_tss_outside_ram_is_told(ports: Guest) -> None:
    routine = ports.put_user("in al, dx")
    ports.set_entry(DATA, 2, 0x8000_0000 | RW | 1)

    stop = ports.call_user(routine)

    assert isinstance(stop, OutsideRam)
    assert (stop.rip, stop.what) == (routine.rip, "table")


# -- instructions that the engine does not know


@pytest.mark.parametrize(("code", "size"), [("f1", 1), ("48f1", 2)])
def test_int1_is_a_debug_trap(guest: Guest, code: str, size: int) -> None:
    routine = guest.put("nop; nop")
    guest.memory.write(CODE_PA, bytes.fromhex(code))

    assert guest.call(routine) == Trap(DB, None, rip=VirtAddr(CODE + size))


def test_sysenter_enters_the_kernel(guest: Guest) -> None:
    kernel = guest.put("mov rbx, 7")
    guest.cpu.write_msr(SYSENTER_CS, 0x13)
    guest.cpu.write_msr(SYSENTER_ESP, DATA)
    guest.cpu.write_msr(SYSENTER_EIP, kernel.rip)

    stop = guest.call_user(guest.put_user("sysenter"), rflags=0x2_0287 & ~0x2_0000)

    assert stop == Halted(kernel.hlt)
    assert (guest.cpu.registers.rbx, guest.cpu.registers.rsp, guest.cpu.cpl) == (7, DATA, 0)
    assert (guest.cpu.selectors["cs"], guest.cpu.selectors["ss"]) == (0x10, 0x18)
    assert guest.cpu.registers.rflags == 0x87  # IF is cleared


@pytest.mark.parametrize("cs", [0, 3, 0x1_0000])
def test_sysenter_without_a_selector_is_refused(guest: Guest, cs: int) -> None:
    guest.cpu.write_msr(SYSENTER_CS, cs)

    assert guest.run("sysenter") == gp(CODE)


@pytest.mark.parametrize("cpl", [0, 3])
def test_sysret_to_no_address_is_refused_where_it_stands(guest: Guest, cpl: int) -> None:
    guest.cpu.engine.write_efer(guest.paging.efer | EFER_SCE)
    routine = guest.put_user("sysretq")
    guest.cpu.cpl = cpl

    assert guest.call(routine, rcx=1 << 60) == gp(routine.rip)
    assert guest.cpu.cpl == cpl


def test_sysret_is_undefined_before_it_is_refused(guest: Guest) -> None:
    assert guest.run("sysretq", rcx=1 << 60) == Trap(UD, None, rip=CODE)


# -- the machinery


def test_a_cpu_is_freed_without_the_garbage_collector() -> None:
    guest = Guest()
    guest.run("mov cr3, rax", rax=guest.cpu.cr3)
    freed = weakref.ref(guest.cpu.engine)
    gc.disable()

    del guest

    gc.enable()
    assert freed() is None


@pytest.mark.parametrize("cause", [KeyboardInterrupt, ValueError])
def test_what_goes_wrong_in_the_decision_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, cause: type[BaseException]
) -> None:
    def decide(self: Refusals) -> bool:
        raise cause

    monkeypatch.setattr(Refusals, "passes", decide)
    guest = Guest()

    with pytest.raises(cause):
        guest.run("mov cr4, rax", rax=guest.paging.cr4)


def test_what_goes_wrong_in_the_search_ends_the_run(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emu.sensitive.rule_of", lambda _: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        guest.run("mov cr4, rax", rax=guest.paging.cr4)
