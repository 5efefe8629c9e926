"""The guest handles its own exceptions: through its IDT, on its stacks, back with its iretq."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.guest import CODE_PA, DATA, Guest, Routine
from support.system import (
    IST_STACK,
    NO_STACK,
    PER_CPU,
    STACK,
    TABLES,
    USER_STACK,
    System,
)

import asm
from emu import Halted, PageFault, Returned, Shutdown, StepLimit, Trap
from emu.descriptors import KERNEL_CODE, KERNEL_DATA, USER_CODE, Gate, TableRegister
from emu.events import Delivered, Executed
from emu.fault import AC, BP, DB, DE, DF, GP, NP, PF, SS, UD
from emu.paging import RFLAGS_IF, RFLAGS_RF, RFLAGS_TF, RW, US, A, D, P
from emu.system import write_system_tables
from emu.trace import Recorder

ABSENT = DATA + 0x5000
NON_CANONICAL = 1 << 62
# The frame as a handler finds it: RAX error code, RBX RIP, RCX CS, RDX RFLAGS, RSI RSP, RDI SS.
STORY = "; ".join(
    f"mov {name}, [rsp + {8 * n}]" for n, name in enumerate(("rax", "rbx", "rcx", "rdx", "rsi"))
)
TELL = f"{STORY}; mov r15, cr2; hlt"
TELL_WITHOUT_CODE = f"sub rsp, 8; {TELL}"
MEND = "add rsp, 8; mov rdi, r12; inc r13; iretq"
MSR_STAR, MSR_LSTAR, MSR_FMASK, MSR_KERNEL_GS_BASE = (
    0xC000_0081,
    0xC000_0082,
    0xC000_0084,
    0xC000_0102,
)
ENTRY = Path(asm.__file__).parent / "entry"


@pytest.fixture(params=[4, 5], ids=["4-level", "5-level"])
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    built = System(levels=request.param)
    with built.machine:
        yield built


def told(system: System, vector: int, source: str, **registers: int) -> tuple[Routine, object]:
    """Run `source`; return it and what the handler of `vector` found, which must be reached."""
    has_code = vector in (DF, NP, SS, GP, PF)
    handler = system.put(TELL if has_code else TELL_WITHOUT_CODE)
    system.handle({vector: handler.rip})
    routine = system.put(source)
    assert system.call(routine, **registers) == Halted(handler.hlt - 1)
    return routine, system.cpu.registers


# -- whether exceptions are delivered at all


def test_without_an_idt_a_fault_ends_the_run(system: System) -> None:
    routine = system.put("mov [rdi], rax")

    assert system.call(routine, rdi=ABSENT) == PageFault(ABSENT, 2, routine.rip)


def test_once_an_idt_is_loaded_the_handler_is_called_and_the_access_retried(system: System) -> None:
    system.page(DATA)
    system.handle({PF: system.put(MEND).rip})
    before = "mov [rdi], rbx; mov rax, [rdi]"

    stop = system.run(before, rdi=ABSENT, rbx=0x77, r12=DATA, r13=0)

    assert stop == Returned()
    assert stop.value == 0x77
    assert system.cpu.registers.r13 == 1
    assert system.cpu.cr2 == ABSENT


def test_the_guests_own_lidt_turns_delivery_on(system: System) -> None:
    system.handle({PF: system.put(TELL).rip})
    idt = system.cpu.idt
    system.cpu.idt = None
    system.page(DATA)
    system.poke(DATA, idt.limit.to_bytes(2, "little") + idt.base.to_bytes(8, "little"))

    stop = system.run("lidt [rdi]; mov rax, [rsi]", rdi=DATA, rsi=ABSENT)

    assert isinstance(stop, Halted)
    assert system.cpu.registers.r15 == ABSENT
    assert system.cpu.idt == idt


def test_an_idt_of_limit_0_is_the_triple_fault_idiom(system: System) -> None:
    system.page(DATA)
    routine = system.put("lidt [rdi]; at: int3")

    stop = system.call(routine, rdi=DATA)

    assert stop == Shutdown(routine["at"])
    assert [exc.vector for exc in stop.exceptions] == [BP, GP, GP, DF, GP]


def test_taking_the_idt_away_ends_delivery(system: System) -> None:
    system.handle({UD: system.put(TELL_WITHOUT_CODE).rip})
    system.cpu.idt = None
    routine = system.put("ud2")

    assert system.call(routine) == Trap(UD, None, routine.rip)


def test_each_cpu_has_an_idt_of_its_own() -> None:
    guest = Guest(cpus=2)
    first, second = guest.machine.cpus
    first.idt = TableRegister(0, 0)

    assert second.idt is None


@pytest.mark.parametrize("table", [TableRegister(1 << 64, 0), TableRegister(0, 1 << 16)])
def test_a_table_register_that_cannot_be_is_refused(guest: Guest, table: TableRegister) -> None:
    with pytest.raises(ValueError, match="64-bit base and a 16-bit limit"):
        guest.cpu.idt = table


# -- which vector, error code and RIP


@pytest.mark.parametrize(
    ("vector", "source", "code"),
    [
        (PF, "nop; at: mov rax, [rdi]", 0),
        (PF, "nop; at: mov [rdi], rax", 2),
        (PF, "nop; at: add [rdi], rax", 2),
        (PF, "nop; at: movsq", 2),
        (UD, "nop; at: ud2", None),
        (UD, "nop; at: syscall", None),
        (DE, "xor ecx, ecx; at: div ecx", None),
        (GP, "mov eax, 0x28 * 4; at: mov ds, eax", 0xA0),
        (GP, "mov rax, 1 << 62; at: mov rax, [rax]", 0),
        (SS, "mov rbp, 1 << 62; at: mov rax, [rbp]", 0),
    ],
)
def test_a_fault_pushes_the_rip_of_its_instruction_and_its_code(
    system: System, vector: int, source: str, code: int | None
) -> None:
    system.page(DATA)
    routine, found = told(system, vector, source, rdi=ABSENT, rsi=DATA)

    assert found.rbx == routine["at"]
    assert code is None or found.rax == code
    assert found.rcx == KERNEL_CODE


@pytest.mark.parametrize(
    ("vector", "source"), [(BP, "int3"), (BP, ".byte 0xcd, 3"), (0x80, "int 0x80"), (UD, "int 6")]
)
def test_an_int_pushes_the_rip_behind_itself(system: System, vector: int, source: str) -> None:
    routine, found = told(system, vector, f"nop; {source}; behind: nop")

    assert found.rbx == routine["behind"]


@pytest.mark.parametrize("vector", [DF, NP, SS, GP, PF, AC])
def test_an_int_pushes_no_error_code_whatever_the_vector(system: System, vector: int) -> None:
    handler = system.put(TELL_WITHOUT_CODE)
    system.handle({vector: handler.rip})
    routine = system.put(f"int {vector}; behind: nop")

    system.call(routine)

    assert system.cpu.registers.rbx == routine["behind"]


@pytest.mark.parametrize(
    ("source", "size"),
    [("int3", 1), (".byte 0xcd, 3", 2), ("int 0x80", 2), ("int 0xcc", 2)],
)
def test_an_int_without_a_gate_is_a_fault_at_the_int(
    system: System, source: str, size: int
) -> None:
    routine, found = told(system, GP, f"at: {source}; behind: nop")

    assert found.rbx == routine["at"] == routine["behind"] - size


def test_single_step_is_a_trap_behind_each_instruction(system: System) -> None:
    count = system.put("inc r13; iretq")
    system.handle({DB: count.rip})
    flags = f"pushfq; or qword ptr [rsp], {RFLAGS_TF}; popfq; nop; nop"

    assert system.run(f"{flags}; pushfq; and qword ptr [rsp], {~RFLAGS_TF}; popfq") == Returned()
    # nop, nop, pushfq, and, popfq; not the popfq that sets the flag
    assert system.cpu.registers.r13 == 5


def test_flags_survive_the_handler(system: System) -> None:
    system.page(DATA)
    system.handle({PF: system.put(MEND).rip})
    source = "stc; mov rax, [rdi]; setc bl; mov eax, 0; cmp eax, 0; mov rax, [rsi]; setz cl"

    system.run(source, rdi=ABSENT, rsi=DATA, r12=DATA, rbx=0, rcx=0)

    registers = system.cpu.registers
    assert (registers.rbx, registers.rcx) == (1, 1)
    assert not registers.rflags & RFLAGS_RF


@pytest.mark.parametrize(("gate_type", "left"), [(0xE, 0), (0xF, RFLAGS_IF)])
def test_if_follows_the_type_of_the_gate(system: System, gate_type: int, left: int) -> None:
    handler = system.put("pushfq; pop rax; hlt")
    system.handle({UD: Gate(handler.rip, KERNEL_CODE, type=gate_type)})

    system.run("ud2", rflags=RFLAGS_IF | 2)

    assert system.cpu.registers.rax & RFLAGS_IF == left


# -- stacks


def test_the_stack_of_the_frame_is_dirty_and_its_tables_accessed(system: System) -> None:
    told(system, PF, "mov rax, [rdi]", rdi=ABSENT)

    *upper, leaf = system.walk(STACK - 8).steps
    assert all(step.entry & A for step in upper)
    assert leaf.entry & (A | D) == A | D
    assert system.walk(TABLES).steps[-1].entry & (A | D) == A


def test_an_unmapped_stack_is_a_double_fault_on_the_ist(system: System) -> None:
    handler = system.put(TELL)
    system.handle({PF: handler.rip, DF: Gate(handler.rip, KERNEL_CODE, ist=1)})
    routine = system.put("at: push rax")

    stop = system.call(routine, rsp=NO_STACK)

    assert stop == Halted(handler.hlt - 1)
    found = system.cpu.registers
    assert (found.rax, found.rbx, found.rsi) == (0, routine["at"], NO_STACK)
    assert found.r15 == NO_STACK - 8
    assert found.rsp == IST_STACK - 48


def test_an_unmapped_double_fault_stack_is_a_shutdown(system: System) -> None:
    handler = system.put(TELL)
    system.handle({PF: handler.rip, DF: Gate(handler.rip, KERNEL_CODE, ist=1)})
    system.change_entry(IST_STACK - 8, 1, clear=P)
    routine = system.put("at: push rax")

    stop = system.call(routine, rsp=NO_STACK)

    assert stop == Shutdown(routine["at"])
    assert str(stop).endswith("#PF -> #PF -> #DF -> #PF")


def test_a_shutdown_leaves_the_last_page_faults_address_in_cr2(system: System) -> None:
    system.handle({})
    system.cpu.idt = TableRegister(NO_STACK, 0xFFF)

    stop = system.run("ud2")

    assert isinstance(stop, Shutdown)
    assert system.cpu.cr2 == NO_STACK + 16 * DF
    assert {exc.cr3 for exc in stop.exceptions} == {system.cpu.cr3}


def test_system_tables_begin_a_page(system: System) -> None:
    with pytest.raises(ValueError, match="not 4 KiB aligned"):
        write_system_tables(system.memory, system.paging, TABLES + 8, {})


# -- CPL 3


def user(system: System, source: str) -> Routine:
    routine = system.put_user(source)
    system.cpu.cpl = 3
    return routine


@pytest.mark.parametrize(
    ("vector", "source", "code"),
    [
        (PF, "at: mov rax, [rdi]", 4),
        (PF, "at: mov [rdi], rax", 6),
        (GP, "at: hlt", 0),
        (GP, "at: mov rax, cr3", 0),
        (GP, "at: int 0x80", 0x402),
        (UD, "at: ud2", None),
        (DE, "xor ecx, ecx; at: div ecx", None),
    ],
)
def test_a_users_fault_comes_to_cpl_0_on_rsp0(
    system: System, vector: int, source: str, code: int | None
) -> None:
    handler = system.put(TELL if code is not None else TELL_WITHOUT_CODE)
    system.handle({vector: handler.rip})
    routine = user(system, source)

    stop = system.cpu.run(routine.rip, rdi=ABSENT, rsp=USER_STACK)

    found = system.cpu.registers
    assert stop == Halted(handler.hlt - 1)
    assert (system.cpu.cpl, system.cpu.selectors["ss"]) == (0, 0)
    assert (found.rbx, found.rcx, found.rsi) == (routine["at"], USER_CODE, USER_STACK)
    assert code is None or found.rax == code


def test_the_handler_returns_to_cpl_3(system: System) -> None:
    system.page(0x7000_0000, RW | US)
    system.handle({PF: system.put(MEND).rip})
    routine = user(system, "mov [rdi], rbx; mov rax, [rdi]")

    stop = system.call(routine, rdi=ABSENT, rbx=0x77, r12=0x7000_0000, rsp=USER_STACK)

    assert stop == Returned()
    assert stop.value == 0x77
    assert system.cpu.cpl == 3


def test_a_gate_of_dpl_3_can_be_called_from_cpl_3(system: System) -> None:
    system.handle({0x80: Gate(system.put("mov eax, 0x5a; iretq").rip, KERNEL_CODE, dpl=3)})

    stop = system.call(user(system, "int 0x80"), rsp=USER_STACK)

    assert stop == Returned()
    assert stop.value == 0x5A


def link_entry(system: System, *names: str, source: str) -> dict[str, int]:
    """Put routines of asm/entry and `source` into the kernel's code; return all symbols."""
    programs = [asm.assemble(source), *(asm.assemble_file(ENTRY / name) for name in names)]
    base = system.take(0x400)
    image = asm.link(programs, {".text": base})
    system.poke_code(base, image.segments[0].data)
    return {name: image.address(name) for name in image.symbols}


def test_iretq_goes_to_cpl_3_and_a_syscall_comes_back(system: System) -> None:
    at = link_entry(
        system,
        "user.S",
        "syscall.S",
        source=".globl do_syscall\ndo_syscall: lea rax, [rdi + 1]\nret",
    )
    cpu = system.cpu
    system.handle({})
    cpu.paging = cpu.paging.__class__(
        cpu.paging.cr0, cpu.paging.cr3, cpu.paging.cr4, cpu.paging.efer | 1
    )
    cpu.write_msr(MSR_STAR, KERNEL_CODE << 32 | (KERNEL_DATA + 8) << 48)
    cpu.write_msr(MSR_LSTAR, at["entry_syscall"])
    cpu.write_msr(MSR_FMASK, RFLAGS_IF)
    system.poke(PER_CPU + 8, STACK.to_bytes(8, "little"))
    routine = system.put_user("mov edi, 0x41; stc; syscall; after: setc bl; swapgs_at: nop")
    cpu.write(gs_base=PER_CPU, rbx=0)

    stop = cpu.run(at["enter_user"], returns_to=routine.hlt, rdi=routine.rip, rsi=USER_STACK)

    found = cpu.registers
    assert stop == Returned()
    assert (stop.value, found.rbx, found.rcx) == (0x42, 1, routine["after"])
    assert (cpu.cpl, found.rsp, found.gs_base) == (3, USER_STACK, 0)
    assert cpu.read_msr(MSR_KERNEL_GS_BASE) == PER_CPU


def test_a_users_page_fault_goes_through_the_shipped_entry(system: System) -> None:
    at = link_entry(
        system,
        "page_fault.S",
        source=".globl do_page_fault\ndo_page_fault: mov r14, rdi; mov r15, rsi; mov r12, [r13]\n"
        "mov [rbp], r12; invlpg [rdi]; ret",
    )
    system.handle({PF: at["entry_page_fault"]})
    va = 0x7000_0000
    entry_pa = system.map(va, system.frames.allocate(), RW | US)
    entry = system.u64(entry_pa)
    system.memory.write_u64(entry_pa, 0)
    window = DATA + (entry_pa & 0xFFF)
    system.map(DATA, entry_pa & -0x1000)
    system.page(DATA + 0x1000)
    system.poke(DATA + 0x1000, entry.to_bytes(8, "little"))
    routine = user(system, "mov [rdi], rbx; mov rax, [rdi]")

    stop = system.call(routine, rdi=va, rbx=9, rbp=window, r13=DATA + 0x1000, rsp=USER_STACK)

    assert stop == Returned()
    assert stop.value == 9
    assert (system.cpu.registers.r14, system.cpu.registers.r15) == (va, 6)


# -- limits, and what is recorded


def test_an_exception_is_a_step_in_place_of_its_instruction(system: System) -> None:
    system.page(DATA)
    system.handle({PF: system.put(MEND).rip})
    routine = system.put("nop; mov rax, [rdi]; nop")
    registers = {"rdi": ABSENT, "r12": DATA}
    enough = 1 + 1 + 4 + 3  # nop, the fault, the handler, the load, nop and hlt

    assert system.call(routine, step_limit=enough, **registers) == Returned()
    short = system.call(routine, step_limit=enough - 1, **registers)
    assert short == StepLimit(routine.hlt, enough - 1)


def test_a_handler_that_cannot_be_fetched_runs_into_the_limit(system: System) -> None:
    system.handle({PF: Gate(ABSENT, KERNEL_CODE, ist=1)})

    assert system.run("mov rax, [rdi]", rdi=ABSENT, step_limit=1000) == StepLimit(ABSENT, 1000)


def test_a_recording_has_the_delivery_in_place_of_the_instruction(system: System) -> None:
    system.page(DATA)
    system.handle({PF: system.put(MEND).rip})
    routine = system.put("nop; at: mov rax, [rdi]")

    with Recorder(system.cpu) as recorder:
        system.call(routine, rdi=ABSENT, r12=DATA)

    events = [event for event in recorder.events() if isinstance(event, (Executed, Delivered))]
    kinds = [type(event) for event in events]
    assert kinds == [Executed, Delivered] + 4 * [Executed] + [Executed]
    assert events[1].delivery.exceptions == (PageFault(ABSENT, 0, routine["at"]),)
    assert events[1].code == bytes.fromhex("488b07")
    assert recorder.instructions == 6
    assert recorder.steps == 7


def test_a_recording_keeps_the_int_that_called_the_handler(system: System) -> None:
    system.handle({BP: system.put("iretq").rip})

    with Recorder(system.cpu) as recorder:
        system.run("int3; nop")

    events = [event for event in recorder.events() if isinstance(event, (Executed, Delivered))]
    assert [type(event) for event in events][:2] == [Executed, Delivered]
    assert recorder.instructions == recorder.steps == 3


def test_a_frame_that_overwrites_code_is_seen_by_the_cpu(system: System) -> None:
    system.page(DATA)
    system.handle({PF: system.put("hlt").rip})
    code = system.take(0x100)
    system.map(NO_STACK, CODE_PA + (code & 0x1F_F000))
    system.poke_code(code, b"\xf4")
    assert system.cpu.run(code) == Halted(code)

    system.run("mov rax, [rdi]", rdi=ABSENT, rsp=NO_STACK + (code & 0xFFF) + 48)

    assert system.words(code, 1) == [0]  # the error code
    assert system.cpu.run(code) != Halted(code)
