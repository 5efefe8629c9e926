"""What one CPU sees of what another one did: each sentence of `emu.machine`'s rule, held."""

import hashlib
import random
from collections.abc import Iterator

import pytest
from support.guest import CODE, CODE_PA, DATA, RAM, USER_DATA, Guest, Routine, entry_at

from emu import Halted, Machine, PageFault, PhysAddr, StepLimit, Stop, Trap, VirtAddr
from emu.fault import PF_P, PF_W
from emu.paging import ADDRESS, FRAME_SIZE, RW, index

# At a place of its own in the TLB, not the code's: a translation stays until it makes room.
PAGE = VirtAddr(DATA + 0x5_5000)
TABLES = VirtAddr(0xFFFF_9000_0000_0000)  # where guests reach a table that they are to change
ALIAS = VirtAddr(0xFFFF_A000_0000_0000)  # all of the code once more, writable


@pytest.fixture(params=[4, 5], ids=["4-level", "5-level"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """Two CPUs under one root."""
    built = Guest(levels=request.param, cpus=2)
    with built.machine:
        yield built


def start(guest: Guest, number: int, source: str, **registers: int) -> Routine:
    """Have a CPU begin with `source` at its next turn."""
    routine = guest.put(source)
    guest.machine.cpus[number].write(rip=routine.rip, **registers)
    return routine


def reach(guest: Guest, entry_pa: int) -> VirtAddr:
    """Map the table that holds the entry, and return the entry's address."""
    guest.map(TABLES, entry_pa & -FRAME_SIZE)
    return VirtAddr(TABLES + entry_pa % FRAME_SIZE)


# -- turns


def test_a_turn_is_so_many_steps_and_the_next_goes_on_from_there(guest: Guest) -> None:
    first = start(guest, 0, ".rept 9\ninc rax\n.endr", rax=0)
    second = start(guest, 1, ".rept 9\ninc rax\n.endr", rax=0)

    stops = guest.machine.interleave([(0, 2), (1, 3), (0, 1), (1, 4)])

    assert stops == [
        StepLimit(first.rip + 6, 2),
        StepLimit(second.rip + 9, 3),
        StepLimit(first.rip + 9, 1),
        StepLimit(second.rip + 21, 4),
    ]
    assert [cpu.registers.rax for cpu in guest.machine.cpus] == [3, 7]


def test_a_turn_after_a_hlt_begins_behind_it(guest: Guest) -> None:
    routine = start(guest, 0, "hlt; behind: inc rax", rax=0)

    stops = guest.machine.interleave([(0, 9), (0, 9)])

    assert stops == [Halted(routine.rip), Halted(routine.hlt)]
    assert guest.cpu.registers.rax == 1


def test_a_turn_after_a_fault_tries_the_instruction_again(guest: Guest) -> None:
    routine = start(guest, 0, "nop; load: mov rax, [rdi]", rdi=PAGE)

    stops = guest.machine.interleave([(0, 9), (0, 1), (0, 1)])

    assert stops == [PageFault(PAGE, 0, rip=routine["load"])] * 3


def test_a_turn_after_a_trap_begins_where_the_trap_left_it(guest: Guest) -> None:
    routine = start(guest, 0, "int3; behind: nop")

    stops = guest.machine.interleave([(0, 9), (0, 9)])

    assert stops == [Trap(3, None, rip=routine["behind"]), Halted(routine.hlt)]


def test_a_turn_between_two_plain_runs_counts_exactly(guest: Guest) -> None:
    routine = guest.put("mov ecx, 0x100; again: inc rbx; dec ecx; jnz again")
    guest.call(routine, rbx=0)
    guest.cpu.write(rip=routine.rip, rbx=0)

    stops = guest.machine.interleave([(0, 1 + 3 * 7)])

    assert stops == [StepLimit(routine["again"], 22)]
    assert guest.cpu.registers.rbx == 7
    guest.call(routine, rbx=0)
    assert guest.cpu.registers.rbx == 0x100


def test_a_schedule_without_turns_runs_nothing(guest: Guest) -> None:
    assert guest.machine.interleave([]) == []


def test_the_schedule_is_asked_for_a_turn_when_it_begins(guest: Guest) -> None:
    routine = start(guest, 0, "mov rax, [rdi]", rdi=PAGE)

    def schedule() -> Iterator[tuple[int, int]]:
        yield 0, 1
        guest.page(PAGE)
        yield 0, 1

    stops = guest.machine.interleave(schedule())

    assert stops == [PageFault(PAGE, 0, rip=routine.rip), StepLimit(routine.hlt, 1)]


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ((0, 0), "turn 1: 0 steps: expected at least 1"),
        ((0, -1), "turn 1: -1 steps: expected at least 1"),
        ((2, 1), "turn 1: CPU 2: expected one of 0 to 1"),
        ((-1, 1), "turn 1: CPU -1: expected one of 0 to 1"),
    ],
)
def test_a_turn_that_cannot_be_given_is_refused_when_it_comes_to_that(
    guest: Guest, turn: tuple[int, int], message: str
) -> None:
    start(guest, 0, "inc rax; inc rax", rax=0)

    with pytest.raises(ValueError, match=message):
        guest.machine.interleave([(0, 1), turn, (0, 1)])

    assert guest.cpu.registers.rax == 1


def test_stop_on_the_cpu_whose_turn_it_is_ends_the_schedule(guest: Guest) -> None:
    routine = start(guest, 1, "again: jmp again")

    guest.machine.cpus[1].stop()
    stops = guest.machine.interleave((1, 1) for _ in iter(int, 1))

    assert stops == [StepLimit(routine.rip, None)]


def outcome(seed: int, turns: int) -> tuple[list[Stop], object, str]:
    """Race two CPUs for one page under a random schedule, on a machine of its own."""
    rng = random.Random(seed)
    guest = Guest(cpus=2)
    guest.page(PAGE)
    source = "again: add rax, [rdi]; imul rax, rsi; mov [rdi], rax; inc byte ptr [rdi+3]; jmp again"
    start(guest, 0, source, rdi=PAGE, rsi=3, rax=1)
    start(guest, 1, source, rdi=PAGE, rsi=5, rax=2)
    stops = guest.machine.interleave((rng.randrange(2), rng.randrange(1, 9)) for _ in range(turns))
    ram = hashlib.sha256(guest.memory.read(PhysAddr(0), RAM)).hexdigest()
    return stops, [cpu.registers for cpu in guest.machine.cpus], ram


def test_the_same_schedule_twice_gives_the_same_stops_registers_and_ram() -> None:
    assert outcome(1, turns=500) == outcome(1, turns=500)


def test_another_schedule_gives_something_else() -> None:
    assert outcome(1, turns=500)[2] != outcome(2, turns=500)[2]


# -- tables


def test_a_cleared_entry_stays_usable_for_the_other_cpu_until_its_own_invlpg(guest: Guest) -> None:
    guest.page(PAGE)
    entry = reach(guest, guest.entry_pa(PAGE, 1))
    clear = "mov rax, [rdi]; mov qword ptr [rsi], 0; invlpg [rdi]; load: mov rax, [rdi]"
    cleared = start(guest, 0, clear, rdi=PAGE, rsi=entry)
    again = "mov rax, [rdi]; mov rax, [rdi]; invlpg [rdi]; load: mov rax, [rdi]"
    stale = start(guest, 1, again, rdi=PAGE)

    stops = guest.machine.interleave([(1, 1), (0, 4), (1, 1), (1, 2)])

    assert stops[1] == PageFault(PAGE, 0, rip=cleared["load"])
    assert isinstance(stops[2], StepLimit)
    assert stops[3] == PageFault(PAGE, 0, rip=stale["load"])


def test_a_right_that_is_taken_away_is_kept_by_the_other_cpu_until_it_writes_cr3(
    guest: Guest,
) -> None:
    guest.page(PAGE)
    entry = reach(guest, guest.entry_pa(PAGE, 1))
    start(guest, 0, "btr qword ptr [rsi], 1; invlpg [rdi]", rdi=PAGE, rsi=entry)
    source = "mov [rdi], rax; mov [rdi], rax; mov rax, cr3; mov cr3, rax; store: mov [rdi], rax"
    stale = start(guest, 1, source, rdi=PAGE)

    stops = guest.machine.interleave([(1, 1), (0, 2), (1, 1), (1, 9)])

    assert isinstance(stops[2], StepLimit)
    assert stops[3] == PageFault(PAGE, PF_P | PF_W, rip=stale["store"])


def test_python_invalidates_one_tlb_and_not_the_other(guest: Guest) -> None:
    guest.page(PAGE)
    loads = [start(guest, n, "mov rax, [rdi]; load: mov rax, [rdi]", rdi=PAGE) for n in (0, 1)]

    def schedule() -> Iterator[tuple[int, int]]:
        yield from [(0, 1), (1, 1)]
        guest.set_entry(PAGE, 1, 0)
        guest.machine.cpus[1].invalidate_tlb()
        yield from [(0, 1), (1, 1)]

    stops = guest.machine.interleave(schedule())

    assert stops[2:] == [StepLimit(loads[0].hlt, 1), PageFault(PAGE, 0, rip=loads[1]["load"])]


def test_an_entry_that_another_cpu_makes_present_is_seen_at_once(guest: Guest) -> None:
    entry_pa = guest.page(PAGE) and guest.entry_pa(PAGE, 1)
    present = guest.u64(entry_pa)
    guest.set_entry(PAGE, 1, 0)
    start(guest, 0, "mov [rsi], rax", rsi=reach(guest, entry_pa), rax=present)
    load = start(guest, 1, "mov rax, [rdi]", rdi=PAGE)

    stops = guest.machine.interleave([(1, 1), (0, 1), (1, 1)])

    assert stops[0] == PageFault(PAGE, 0, rip=load.rip)
    assert stops[2] == StepLimit(load.hlt, 1)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_right_that_another_cpu_adds_is_seen_at_once(guest: Guest, level: int) -> None:
    guest.page(PAGE)
    guest.change_entry(PAGE, level, clear=RW)
    entry = reach(guest, guest.entry_pa(PAGE, level))
    start(guest, 0, "bts qword ptr [rsi], 1", rsi=entry)
    store = start(guest, 1, "mov rax, [rdi]; store: mov [rdi], rax", rdi=PAGE)

    stops = guest.machine.interleave([(1, 9), (0, 1), (1, 1)])

    assert stops[0] == PageFault(PAGE, PF_P | PF_W, rip=store["store"])
    assert stops[2] == StepLimit(store.hlt, 1)


def unlinked(guest: Guest, level: int) -> tuple[PhysAddr, int]:
    """Map PAGE, then take the table below its entry of `level` away: return entry and value."""
    entry_pa = guest.page(PAGE) and guest.entry_pa(PAGE, level)
    value = guest.u64(entry_pa) or 0
    guest.memory.write_u64(entry_pa, 0)
    return entry_pa, value


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_table_that_is_linked_before_it_is_filled_faults_one_level_further_down(
    guest: Guest, level: int
) -> None:
    link, table = unlinked(guest, level)
    below = entry_at(table & ADDRESS, index(PAGE, level - 1))
    filling = guest.u64(below)
    guest.memory.write_u64(below, 0)
    guest.map(TABLES + 0x1000, below & -FRAME_SIZE)
    fill = TABLES + 0x1000 + below % FRAME_SIZE
    source = "mov [rsi], rax; mov [rdi], rbx"
    start(guest, 0, source, rsi=reach(guest, link), rax=table, rdi=fill, rbx=filling)
    load = start(guest, 1, "mov rax, [rdi]", rdi=PAGE)

    before, _, between, _, after = guest.machine.interleave([(1, 1), (0, 1)] * 2 + [(1, 1)])

    assert before == between == PageFault(PAGE, 0, rip=load.rip)
    assert (before.walk.level, between.walk.level) == (level, level - 1)
    assert after == StepLimit(load.hlt, 1)


def test_a_recycled_table_that_is_linked_before_it_is_cleared_leaves_a_stale_translation(
    guest: Guest,
) -> None:
    link, table = unlinked(guest, 2)
    left_behind = entry_at(table & ADDRESS, index(PAGE, 1))
    guest.map(TABLES + 0x1000, left_behind & -FRAME_SIZE)
    clear = TABLES + 0x1000 + left_behind % FRAME_SIZE
    source = "mov [rsi], rax; mov qword ptr [rdi], 0"
    start(guest, 0, source, rsi=reach(guest, link), rax=table, rdi=clear)
    load = start(guest, 1, "mov rax, [rdi]; mov rax, [rdi]", rdi=PAGE)

    stops = guest.machine.interleave([(0, 1), (1, 1), (0, 1), (1, 1)])

    assert guest.walk(PAGE).verdict == "not-present"
    assert stops[3] == StepLimit(load.hlt, 1)


def test_each_cpu_has_a_cr3_of_its_own(guest: Guest) -> None:
    first, second = guest.machine.cpus
    other = guest.frames.allocate()
    code = index(CODE, guest.paging.levels)
    guest.memory.write_u64(entry_at(other, code), guest.u64(entry_at(guest.paging.root, code)))
    guest.page(USER_DATA)
    second.cr3 = other
    start(guest, 0, "mov [rdi], rax", rdi=USER_DATA)
    store = start(guest, 1, "mov [rdi], rax", rdi=USER_DATA)

    stops = guest.machine.interleave([(0, 1), (1, 1), (0, 1)])

    assert stops[1] == PageFault(USER_DATA, PF_W, rip=store.rip)
    assert stops[1].cr3 == other
    assert (first.cr3, second.cr3) == (guest.paging.root, other)


# -- code


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("mapping", [CODE, ALIAS], ids=["same mapping", "alias"])
@pytest.mark.parametrize(
    "poke",
    [
        "inc byte ptr [rdi + 1]; jmp again",
        "mov rbx, [rdi]; add rbx, 0x100; mov [rdi], rbx; jmp again",
        "mov al, [rdi + 1]; inc al; lea rdi, [rdi + 1]; stosb; lea rdi, [rdi - 2]; jmp again",
    ],
)
def test_code_that_another_cpu_changes_is_seen_at_the_next_turn(
    guest: Guest, poke: str, mapping: VirtAddr, times: int
) -> None:
    guest.change_entry(CODE, 2, put=RW)
    guest.map(ALIAS, CODE_PA, RW, 2)
    target = start(guest, 1, "again: mov eax, 1; jmp again")
    start(guest, 0, f"again: {poke}", rdi=target.rip - CODE + mapping)
    steps = poke.count(";") + 1
    values = []

    def schedule() -> Iterator[tuple[int, int]]:
        yield 1, 2
        for _ in range(times):
            yield from [(0, steps), (1, 2)]
            values.append(guest.machine.cpus[1].registers.rax)

    guest.machine.interleave(schedule())

    assert values == [2, 3, 4][:times]


def test_a_store_that_runs_into_a_page_of_code_is_seen_at_the_next_turn(guest: Guest) -> None:
    guest.page(ALIAS)
    code_pa = CODE_PA + 0x10_0000  # a frame of code behind one of data, by address only
    guest.memory.write(PhysAddr(code_pa), b"\xb8\x01\x00\x00\x00\xeb\xf9")  # mov eax, 1; jmp back
    guest.map(ALIAS + FRAME_SIZE, code_pa)
    start(guest, 0, "mov [rdi], rax", rdi=ALIAS + FRAME_SIZE - 6, rax=0x02B8_0000_0000_0000)
    guest.machine.cpus[1].write(rip=CODE + 0x10_0000)

    guest.machine.interleave([(1, 2), (0, 1), (1, 1)])

    assert guest.machine.cpus[1].registers.rax == 2


def test_code_that_python_changes_between_turns_is_seen_at_the_next(guest: Guest) -> None:
    target = start(guest, 1, "again: mov eax, 1; jmp again")

    def schedule() -> Iterator[tuple[int, int]]:
        yield 1, 2
        guest.memory.write(PhysAddr(CODE_PA + target.rip - CODE + 1), b"\x02")
        yield 1, 1

    guest.machine.interleave(schedule())

    assert guest.machine.cpus[1].registers.rax == 2


# -- atomicity

SPLIT = "mov rax, [rdi]; inc rax; mov [rdi], rax"
LOCKED = "lock inc qword ptr [rdi]"


def count_together(guest: Guest, source: str, schedule: list[tuple[int, int]]) -> int | None:
    """Have both CPUs increment one counter, and return what it has come to."""
    pa = guest.page(PAGE)
    start(guest, 0, f"again: {source}; jmp again", rdi=PAGE)
    start(guest, 1, f"again: {source}; jmp again", rdi=PAGE)
    guest.machine.interleave(schedule)
    return guest.u64(pa)


@pytest.mark.parametrize(
    ("schedule", "counted"),
    [
        pytest.param([(0, 3), (1, 3)], 2, id="one after the other"),
        pytest.param([(0, 1), (1, 3), (0, 2)], 1, id="between load and increment"),
        pytest.param([(0, 2), (1, 3), (0, 1)], 1, id="between increment and store"),
        pytest.param([(0, 1), (1, 1), (0, 2), (1, 2)], 1, id="both load first"),
        pytest.param([(0, 1), (1, 4 * 9 + 3), (0, 2)], 1, id="ten are lost"),
    ],
)
def test_an_increment_in_three_instructions_may_be_lost(
    guest: Guest, schedule: list[tuple[int, int]], counted: int
) -> None:
    assert count_together(guest, SPLIT, schedule) == counted


@pytest.mark.parametrize("seed", range(5))
def test_an_increment_in_one_instruction_is_never_lost(guest: Guest, seed: int) -> None:
    rng = random.Random(seed)
    schedule = [(rng.randrange(2), 2 * rng.randrange(1, 5)) for _ in range(100)]

    counted = count_together(guest, LOCKED, schedule)

    assert counted == sum(steps for _, steps in schedule) // 2


def test_a_rep_may_be_left_half_done(guest: Guest) -> None:
    guest.page(PAGE)
    start(guest, 0, "rep stosb", rdi=PAGE, rcx=8, rax=0xFF)
    start(guest, 1, "mov rax, [rdi]", rdi=PAGE)

    guest.machine.interleave([(0, 3), (1, 1)])

    assert guest.machine.cpus[1].registers.rax == 0xFF_FFFF


def test_four_cpus_take_turns() -> None:
    with Machine(cpus=4) as machine:
        stops = machine.interleave([(3, 1), (0, 1), (2, 1), (1, 1)])

    assert stops == [PageFault(0, 16, rip=0)] * 4
