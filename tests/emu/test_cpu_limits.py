"""A run ends after exactly the steps that it was given, or when another thread says so."""

import threading
import time
from collections.abc import Callable

import pytest
from support.guest import CODE, DATA, Guest

from emu import Halted, PageFault, Returned, StepLimit, Stop, Trap


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 100])
def test_a_step_limit_stops_after_exactly_so_many_instructions(guest: Guest, limit: int) -> None:
    routine = guest.put(".rept 100\ninc rbx\n.endr\nnop")

    stop = guest.call(routine, step_limit=limit, rbx=0)

    assert stop == StepLimit(routine.rip + 3 * limit, limit)
    assert guest.cpu.registers.rbx == limit


@pytest.mark.parametrize("limit", [1, 2, 777])
def test_it_is_exact_in_a_loop_that_has_run_without_one(guest: Guest, limit: int) -> None:
    routine = guest.put("mov ecx, 0x400; again: inc rbx; dec ecx; jnz again")
    guest.call(routine)

    guest.call(routine, step_limit=3 * limit + 1, rbx=0)

    assert guest.cpu.registers.rbx == limit


def test_a_run_without_limit_after_one_with_a_limit_has_none(guest: Guest) -> None:
    routine = guest.put("mov ecx, 0x400; again: inc rbx; dec ecx; jnz again")
    guest.call(routine, step_limit=5)

    assert guest.call(routine, rbx=0) == Returned()
    assert guest.cpu.registers.rbx == 0x400


def test_a_fault_after_a_counted_run_elsewhere_is_no_double_fault(guest: Guest) -> None:
    counted = guest.put("nop")
    guest.call(counted, step_limit=9)
    guest.cpu.cpl = 3  # who may not even read what was counted

    stops = [guest.cpu.run(counted.rip) for _ in range(3)]

    assert stops == [PageFault(counted.rip, 21, rip=counted.rip)] * 3


def test_what_ends_counting_executes_nothing(guest: Guest) -> None:
    guest.page(DATA)
    again = guest.put("again: inc qword ptr [rdi]; jmp again")
    guest.call(again, step_limit=10, rdi=DATA)

    guest.run("nop")

    assert guest.u64(guest.walk(DATA).pa) == 5


def test_one_iteration_of_a_rep_is_one_step(guest: Guest) -> None:
    guest.page(DATA)
    routine = guest.put("nop; at: rep stosb")

    stop = guest.call(routine, step_limit=6, rdi=DATA, rcx=50)

    assert stop == StepLimit(routine["at"], 6)
    assert guest.cpu.registers.rcx == 45


def test_a_hlt_just_at_the_limit_is_reached(guest: Guest) -> None:
    routine = guest.put("nop; nop")

    assert guest.call(routine, step_limit=3) == Returned()
    assert guest.call(routine, step_limit=2) == StepLimit(routine.hlt, 2)
    assert guest.cpu.run(routine.rip, step_limit=3) == Halted(routine.hlt)


def test_an_instruction_that_ends_like_a_hlt_is_none(guest: Guest) -> None:
    routine = guest.put("mov al, 0xf4; behind: nop")

    assert guest.call(routine, step_limit=1) == StepLimit(routine["behind"], 1)


def test_a_jump_to_behind_a_hlt_is_no_return(guest: Guest) -> None:
    routine = guest.put("jmp behind; early: hlt; behind: nop")

    stop = guest.cpu.run(routine.rip, returns_to=routine["early"], step_limit=1)

    assert stop == StepLimit(routine["behind"], 1)


@pytest.mark.parametrize(
    ("source", "stop"),
    [
        ("nop; mov [rdi], rax", PageFault(DATA, 2, rip=CODE + 1)),
        ("nop; ud2", Trap(6, None, rip=CODE + 1)),
        ("nop; int3", Trap(3, None, rip=CODE + 2)),
    ],
)
def test_the_last_step_may_fault_and_the_one_behind_it_does_not(
    guest: Guest, source: str, stop: PageFault | Trap
) -> None:
    routine = guest.put(source)

    assert guest.call(routine, step_limit=1, rdi=DATA) == StepLimit(CODE + 1, 1)
    assert guest.call(routine, step_limit=2, rdi=DATA) == stop


def test_a_fetch_behind_the_last_step_does_not_fault(guest: Guest) -> None:
    routine = guest.put("jmp rdi")

    assert guest.call(routine, step_limit=1, rdi=DATA) == StepLimit(DATA, 1)
    assert guest.call(routine, step_limit=2, rdi=DATA) == PageFault(DATA, 16, rip=DATA)


@pytest.mark.parametrize("limit", [0, -1, 1 << 64])
def test_a_step_limit_below_one_is_refused(guest: Guest, limit: int) -> None:
    with pytest.raises(ValueError, match=f"step limit {limit}"):
        guest.run("nop", step_limit=limit)


# -- stop()


def test_stop_from_another_thread_ends_an_endless_run(guest: Guest) -> None:
    routine = guest.put("again: inc rax; jmp again")
    timer = threading.Timer(0.05, guest.cpu.stop)
    timer.start()

    stop = guest.call(routine)

    timer.join()
    assert stop == StepLimit(stop.rip, None)
    assert routine.rip <= stop.rip < routine.hlt


def race(ready: Callable[[], int], stop: Callable[[], None], run: Callable[[], Stop]) -> list[Stop]:
    """Begin to run and to stop at the same moment, 200 times."""

    def stopper() -> None:
        for _ in range(200):
            ready()
            stop()

    thread = threading.Thread(target=stopper)
    thread.start()
    stops = [(ready(), run())[1] for _ in range(200)]
    thread.join()
    return stops


def test_stop_is_heard_however_it_falls_into_the_start_of_a_run(guest: Guest) -> None:
    routine = guest.put("again: jmp again")
    ready = threading.Barrier(2)

    stops = race(ready.wait, guest.cpu.stop, lambda: guest.call(routine))

    assert {type(stop) for stop in stops} == {StepLimit}


def test_stop_without_a_run_ends_the_next_one_at_once_and_no_other(guest: Guest) -> None:
    routine = guest.put("nop")

    guest.cpu.stop()

    assert guest.call(routine) == StepLimit(routine.rip, None)
    assert guest.call(routine) == Returned()


def test_stop_is_quick(guest: Guest) -> None:
    begin = time.perf_counter()

    guest.cpu.stop()

    assert time.perf_counter() - begin < 1
