"""Delivery as a function of state: gates, stacks, frames, and what goes wrong on the way."""

from collections.abc import Iterator

import pytest
from support.guest import CODE
from support.system import IST_STACK, NO_STACK, STACK, TABLES, USER_STACK, System

from emu import OutsideRam, PageFault, Shutdown, Trap, VirtAddr
from emu.descriptors import (
    KERNEL_CODE,
    KERNEL_DATA,
    TRAP_GATE,
    USER_CODE,
    USER_DATA,
    Gate,
    SystemSegment,
    TableRegister,
    code_segment,
    data_segment,
)
from emu.fault import BP, DB, DE, DF, GP, NP, PF, SS, TS, UD
from emu.interrupts import Delivery, Exc, State, deliver
from emu.paging import RFLAGS_AC, RFLAGS_IF, RFLAGS_NT, RFLAGS_RF, RFLAGS_TF, RW, US, A, D, P

HANDLER = CODE + 0x1000
DF_HANDLER = CODE + 0x2000
RIP = VirtAddr(CODE + 0x10)
FAULT = PageFault(VirtAddr(0x1234), 2, RIP)
DIVIDE = Trap(DE, None, RIP)
INT_80 = Trap(0x80, None, VirtAddr(RIP + 2), instruction=RIP)
GDT = TABLES + 0x1000
RFLAGS = 0x202


@pytest.fixture(params=[4, 5], ids=["4-level", "5-level"])
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    built = System(levels=request.param, smap=True)
    built.handle({PF: HANDLER, DE: HANDLER, BP: HANDLER, DF: Gate(DF_HANDLER, KERNEL_CODE, ist=1)})
    with built.machine:
        yield built


def state(system: System, cpl: int = 0, **changes: object) -> State:
    """The CPU in the kernel, on the kernel's stack; or at CPL 3, on the user's."""
    cpu = system.cpu
    assert cpu.idt is not None
    cs, ss, rsp = (USER_CODE, USER_DATA, USER_STACK) if cpl else (KERNEL_CODE, KERNEL_DATA, STACK)
    no_ldt = SystemSegment(0, 0, 0)
    at = State(cpu.paging, cpl, cs, ss, rsp, RFLAGS, cpu.idt, cpu.gdt, no_ldt, cpu.tr)
    return at._replace(**changes)  # type: ignore[arg-type]


def attempt(system: System, exc: Exc, at: State | None = None) -> object:
    return deliver(system.memory.read_u64, at or state(system), exc, {})


def entered(system: System, exc: Exc, at: State | None = None) -> Delivery:
    found = attempt(system, exc, at)
    assert isinstance(found, Delivery), found
    return found


def frame(system: System, found: Delivery) -> list[int]:
    """The words that were pushed, the last one first."""
    words = {system.walk(found.rsp + 8 * n).pa: n for n in range(6)}
    pushed = {words[pa]: value for pa, value in found.stores.items() if pa in words}
    return [pushed[n] for n in sorted(pushed)]


# -- the frame, the stack and the flags


def test_in_the_kernel_the_frame_goes_to_the_same_stack(system: System) -> None:
    found = entered(system, FAULT)

    assert (found.rip, found.cpl, found.cs, found.ss) == (HANDLER, 0, KERNEL_CODE, KERNEL_DATA)
    assert found.rsp == STACK - 48
    assert frame(system, found) == [2, RIP, KERNEL_CODE, RFLAGS | RFLAGS_RF, STACK, KERNEL_DATA]


def test_from_the_user_the_frame_goes_to_rsp0_and_ss_is_null(system: System) -> None:
    found = entered(system, FAULT, state(system, cpl=3))

    assert (found.rip, found.cpl, found.cs, found.ss) == (HANDLER, 0, KERNEL_CODE, 0)
    pushed = [2, RIP, USER_CODE, RFLAGS | RFLAGS_RF, USER_STACK, USER_DATA]
    assert frame(system, found) == pushed
    assert found.rsp == STACK - 48


def test_an_ist_is_used_at_any_cpl_and_leaves_ss_alone_in_the_kernel(system: System) -> None:
    system.handle({PF: Gate(HANDLER, KERNEL_CODE, ist=1)})

    found = entered(system, FAULT)

    assert (found.rsp, found.ss) == (IST_STACK - 48, KERNEL_DATA)


def test_rsp_is_aligned_before_the_pushes(system: System) -> None:
    found = entered(system, FAULT, state(system, rsp=STACK - 3))

    assert found.rsp == STACK - 16 - 48
    assert frame(system, found)[4] == STACK - 3


def test_without_an_error_code_five_words_are_pushed(system: System) -> None:
    found = entered(system, DIVIDE)

    assert found.rsp == STACK - 40
    assert frame(system, found)[0] == RIP


@pytest.mark.parametrize(("gate_type", "left"), [(0xE, 0), (TRAP_GATE, RFLAGS_IF)])
def test_an_interrupt_gate_clears_if_and_a_trap_gate_does_not(
    system: System, gate_type: int, left: int
) -> None:
    system.handle({PF: Gate(HANDLER, KERNEL_CODE, type=gate_type)})

    assert entered(system, FAULT).rflags & RFLAGS_IF == left


def test_tf_nt_and_rf_are_cleared_and_ac_is_kept(system: System) -> None:
    flags = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_AC | 2

    assert entered(system, FAULT, state(system, rflags=flags)).rflags == RFLAGS_AC | 2


@pytest.mark.parametrize(
    ("exc", "pushed"),
    [(FAULT, RFLAGS_RF), (DIVIDE, RFLAGS_RF), (Trap(DB, None, RIP), 0), (INT_80, 0)],
    ids=["#PF", "#DE", "#DB", "int"],
)
def test_rf_is_set_in_the_pushed_flags_of_a_fault_and_of_nothing_else(
    system: System, exc: Exc, pushed: int
) -> None:
    system.handle(dict.fromkeys((PF, DE, DB, 128), HANDLER))
    found = entered(system, exc)

    assert frame(system, found)[-3] & RFLAGS_RF == pushed


def test_the_cpu_sets_a_and_d_of_the_stack_and_a_of_the_tables(system: System) -> None:
    stores = entered(system, FAULT).stores

    entries = [system.entry_pa(va, 1) for va in (STACK - 8, TABLES, GDT)]
    assert [stores[pa] & (A | D) for pa in entries] == [A | D, A, A]


def test_a_frame_across_two_pages_dirties_both(system: System) -> None:
    found = entered(system, FAULT, state(system, rsp=STACK - 0x1000 + 16))

    leaves = [system.entry_pa(va, 1) for va in (STACK - 0x1000, STACK - 0x1008)]
    assert all(found.stores[pa] & D for pa in leaves)
    assert len(frame(system, found)) == 6


def test_the_descriptor_is_marked_as_accessed(system: System) -> None:
    fresh = int.from_bytes(code_segment(), "little") & ~(1 << 40)
    system.poke(GDT + KERNEL_CODE, fresh.to_bytes(8, "little"))

    found = entered(system, FAULT)

    pa = system.walk(GDT + KERNEL_CODE).pa
    assert found.stores[pa] == fresh | 1 << 40


# -- gates and segments that are no good


NO_GATE = {PF: Gate(HANDLER, KERNEL_CODE, present=False)}


@pytest.mark.parametrize(
    ("gates", "raised"),
    [
        ({BP: HANDLER}, Trap(GP, 0x73, RIP)),  # all zeros: no gate of 64-bit mode
        (NO_GATE, Trap(NP, 0x73, RIP)),
        ({PF: Gate(HANDLER, KERNEL_CODE, type=0xC)}, Trap(GP, 0x73, RIP)),
        ({PF: Gate(HANDLER, KERNEL_CODE, type=0x1E)}, Trap(GP, 0x73, RIP)),
        ({PF: Gate(HANDLER, 0)}, Trap(GP, 1, RIP)),
        ({PF: Gate(HANDLER, KERNEL_DATA)}, Trap(GP, KERNEL_DATA | 1, RIP)),
        ({PF: Gate(HANDLER, USER_CODE)}, Trap(GP, 0x30 | 1, RIP)),
        ({PF: Gate(HANDLER, 0x100)}, Trap(GP, 0x101, RIP)),
        ({PF: Gate(HANDLER, KERNEL_CODE | 4)}, Trap(GP, 0x15, RIP)),
        ({PF: Gate(1 << 62, KERNEL_CODE)}, Trap(GP, 1, RIP)),
        ({PF: Gate(HANDLER, KERNEL_CODE, ist=7)}, Trap(SS, 1, RIP)),
    ],
    ids=[
        "absent",
        "P=0",
        "32-bit gate",
        "S=1",
        "null selector",
        "data segment",
        "DPL 3 code",
        "beyond the GDT",
        "in the LDT",
        "no canonical handler",
        "IST of zeros",
    ],
)
def test_a_bad_gate_is_an_exception_of_its_own_and_then_a_double_fault(
    system: System, gates: dict[int, int | Gate], raised: Trap
) -> None:
    system.handle({DF: Gate(DF_HANDLER, KERNEL_CODE, ist=1), **gates})
    system.poke(system.tr.base + 84, (1 << 62).to_bytes(8, "little"))  # IST 7

    found = entered(system, FAULT)

    assert found.exceptions == (FAULT, raised, Trap(DF, 0, RIP))
    assert (found.rip, found.rsp) == (DF_HANDLER, IST_STACK - 48)


@pytest.mark.parametrize(
    ("descriptor", "vector"),
    [
        (code_segment(3), GP),
        (data_segment(), GP),
        ((0x00CF_9B00_0000_FFFF).to_bytes(8, "little"), GP),  # 32-bit code
        ((0x00EF_9B00_0000_FFFF).to_bytes(8, "little"), GP),  # L and D
        ((0x00AF_1B00_0000_FFFF).to_bytes(8, "little"), NP),
    ],
    ids=["DPL 3", "data", "32-bit", "L and D", "P=0"],
)
def test_a_bad_code_segment_is_an_exception_that_names_it(
    system: System, descriptor: bytes, vector: int
) -> None:
    system.handle({UD: Gate(HANDLER, 0x20), GP: HANDLER, NP: HANDLER})
    system.poke(GDT + 0x20, descriptor)

    found = entered(system, Trap(UD, None, RIP))

    assert found.exceptions[1:] == (Trap(vector, 0x21, RIP),)


def test_conforming_code_runs_at_the_cpl_of_its_caller(system: System) -> None:
    conforming = int.from_bytes(code_segment(), "little") | 1 << 42
    system.handle({UD: Gate(CODE, 0x20)})
    system.poke(GDT + 0x20, conforming.to_bytes(8, "little"))

    found = entered(system, Trap(UD, None, RIP), state(system, cpl=3))

    assert (found.cpl, found.cs, found.ss, found.rsp) == (3, 0x23, USER_DATA, USER_STACK - 40)


def test_a_tss_that_is_too_short_is_an_invalid_tss(system: System) -> None:
    system.handle({UD: HANDLER, TS: Gate(DF_HANDLER, KERNEL_CODE)})
    short = system.tr._replace(limit=10)

    found = attempt(system, Trap(UD, None, RIP), state(system, cpl=3, tr=short))

    assert isinstance(found, Shutdown)  # no handler can get a stack
    assert found.exceptions[1] == Trap(TS, 0x41, RIP)


# -- faults on the way


def test_a_fault_on_a_page_faults_way_is_a_double_fault(system: System) -> None:
    found = entered(system, FAULT, state(system, rsp=NO_STACK))

    second = PageFault(VirtAddr(NO_STACK - 8), 2, RIP)
    assert found.exceptions == (FAULT, second, Trap(DF, 0, RIP))
    assert (found.rip, found.rsp, found.cr2) == (DF_HANDLER, IST_STACK - 48, NO_STACK - 8)
    assert frame(system, found)[:2] == [0, RIP]


def test_a_page_fault_on_the_way_of_a_divide_error_is_served_instead(system: System) -> None:
    system.handle({DE: HANDLER, PF: Gate(DF_HANDLER, KERNEL_CODE, ist=1)})

    found = entered(system, DIVIDE, state(system, rsp=NO_STACK))

    assert found.exceptions == (DIVIDE, PageFault(VirtAddr(NO_STACK - 8), 2, RIP))
    assert (found.rip, found.cr2) == (DF_HANDLER, NO_STACK - 8)


def test_two_contributory_exceptions_are_a_double_fault(system: System) -> None:
    system.handle({DF: HANDLER})

    assert entered(system, DIVIDE).exceptions == (DIVIDE, Trap(GP, 3, RIP), Trap(DF, 0, RIP))


def test_what_stops_an_invalid_opcode_is_served_after_it(system: System) -> None:
    system.handle({GP: HANDLER})
    exc = Trap(UD, None, RIP)

    assert entered(system, exc).exceptions == (exc, Trap(GP, 0x33, RIP))


def test_what_stops_an_int_comes_back_to_it_and_is_the_programs_own_doing(system: System) -> None:
    system.handle({GP: HANDLER})

    found = entered(system, INT_80)

    assert found.exceptions == (INT_80, Trap(GP, 0x402, RIP))


def test_what_stops_an_int_8_is_no_shutdown(system: System) -> None:
    system.handle({GP: HANDLER})
    int_8 = Trap(DF, None, VirtAddr(RIP + 2), instruction=RIP)

    assert entered(system, int_8).exceptions == (int_8, Trap(GP, 0x42, RIP))


def test_software_must_be_let_through_the_gate(system: System) -> None:
    system.handle({0x80: HANDLER, GP: HANDLER})

    found = entered(system, INT_80, state(system, cpl=3))

    assert found.exceptions[-1] == Trap(GP, 0x402, RIP)


def test_a_gate_of_dpl_3_lets_it_through(system: System) -> None:
    system.handle({0x80: Gate(HANDLER, KERNEL_CODE, dpl=3)})

    found = entered(system, INT_80, state(system, cpl=3))

    assert found.exceptions == (INT_80,)
    assert frame(system, found)[0] == RIP + 2


def test_an_exception_ignores_the_gates_dpl(system: System) -> None:
    assert entered(system, FAULT, state(system, cpl=3)).exceptions == (FAULT,)


def test_an_unmapped_double_fault_stack_is_a_shutdown(system: System) -> None:
    system.change_entry(IST_STACK - 8, 1, clear=P)

    found = attempt(system, FAULT, state(system, rsp=NO_STACK))

    assert found == Shutdown(RIP)
    assert [exc.vector for exc in found.exceptions] == [PF, PF, DF, PF]


def test_an_idt_of_limit_0_is_a_shutdown(system: System) -> None:
    found = attempt(system, INT_80, state(system, idt=TableRegister(0, 0)))

    assert isinstance(found, Shutdown)
    assert [exc.vector for exc in found.exceptions] == [0x80, GP, GP, DF, GP]


def test_an_unmapped_idt_is_a_page_fault_of_the_supervisor(system: System) -> None:
    system.change_entry(TABLES, 1, clear=P)

    found = attempt(system, INT_80, state(system, cpl=3))

    assert isinstance(found, Shutdown)
    assert found.exceptions[1] == PageFault(VirtAddr(TABLES + 0x800), 0, RIP)


def test_a_table_outside_ram_ends_it(system: System) -> None:
    outside = VirtAddr(0xFFFF_C100_0000_0000)
    system.map(outside, 0x8000_0000)

    found = attempt(system, FAULT, state(system, idt=TableRegister(outside, 0xFFF)))

    assert found == OutsideRam(0x8000_0000 + 16 * PF, RIP, "leaf")


def test_a_stack_that_is_not_canonical_is_a_stack_fault(system: System) -> None:
    system.handle({UD: HANDLER, SS: Gate(DF_HANDLER, KERNEL_CODE, ist=1)})

    found = entered(system, Trap(UD, None, RIP), state(system, rsp=1 << 62))

    assert found.exceptions[1] == Trap(SS, 1, RIP)


@pytest.mark.parametrize(("flags", "vector"), [(2, DF), (2 | RFLAGS_AC, PF)])
def test_smap_forbids_a_users_page_as_the_kernels_stack_without_ac(
    system: System, flags: int, vector: int
) -> None:
    at = state(system, rsp=USER_STACK, rflags=flags)

    assert entered(system, FAULT, at).exceptions[-1].vector == vector


def test_ac_does_not_help_a_table_in_a_users_page(system: System) -> None:
    idt = 0x7000_0000_0000
    system.page(idt, RW | US)
    at = state(system, rflags=2 | RFLAGS_AC, idt=TableRegister(idt, 0xFFF))

    found = attempt(system, FAULT, at)

    assert found.exceptions[1] == PageFault(VirtAddr(idt + 16 * PF), 1, RIP)
    assert found.exceptions[1].reason == "smap"


def test_a_stack_that_is_not_canonical_comes_before_a_handler_that_is_not(system: System) -> None:
    system.handle({UD: Gate(1 << 62, KERNEL_CODE), SS: Gate(DF_HANDLER, KERNEL_CODE, ist=1)})

    found = entered(system, Trap(UD, None, RIP), state(system, rsp=1 << 62))

    assert found.exceptions[1] == Trap(SS, 1, RIP)


def test_a_table_beyond_the_canonical_addresses_is_named_by_the_error_code(system: System) -> None:
    beyond = TableRegister(1 << 62, 0xFFF)

    no_idt = attempt(system, FAULT, state(system, idt=beyond))
    no_gdt = attempt(system, FAULT, state(system, gdt=beyond))

    assert no_idt.exceptions[1] == Trap(GP, 0x73, RIP)
    assert no_gdt.exceptions[1] == Trap(GP, KERNEL_CODE | 1, RIP)


def test_a_tss_beyond_the_canonical_addresses_is_an_invalid_tss(system: System) -> None:
    beyond = system.tr._replace(base=1 << 62)

    found = attempt(system, FAULT, state(system, cpl=3, tr=beyond))

    assert found.exceptions[1] == Trap(TS, 0x41, RIP)


def test_what_was_remembered_is_not_believed_when_a_table_has_changed(system: System) -> None:
    known: dict[object, object] = {}
    at = state(system)
    for _ in range(3):
        found = deliver(system.memory.read_u64, at, FAULT, known)
        for pa, value in found.stores.items():
            system.memory.write_u64(pa, value)
    system.change_entry(STACK - 8, 1, clear=P)

    found = deliver(system.memory.read_u64, at, FAULT, known)

    assert known
    assert found.exceptions[1] == PageFault(VirtAddr(STACK - 8), 2, RIP)
