"""Several CPUs inside modelled functions, under a schedule."""

from collections.abc import Callable

import pytest

from emu import PageFault, Returned, Stop
from kernel_model import Kernel
from kernel_model.interleaving import Interleaved, Step, interleave, one_switch
from kernel_model.vmalloc import vmalloc

VMALLOC = ("vmalloc", "__vmalloc_node_range", "map_kernel_range")
UNMAPPED = 0xFFFF_FFFF_0000_0000


def two(kernel: Kernel, schedule: tuple[int, ...]) -> Interleaved:
    """Have two CPUs map a page each."""
    tasks = [kernel.fork("a"), kernel.fork("b")]
    for task in tasks:
        kernel.stack_of(task)
    return interleave(
        kernel, [lambda task=task: kernel.run(task, vmalloc, 4096) for task in tasks], schedule
    )


def test_without_a_schedule_one_call_follows_the_other(make_kernel: Callable[..., Kernel]) -> None:
    played = two(make_kernel("5.10", cpus=2), ())

    assert played.steps == (
        *(Step(0, name) for name in VMALLOC),
        Step(0, ""),
        *(Step(1, name) for name in VMALLOC),
        Step(1, ""),
    )


def test_a_schedule_says_who_goes_on_after_each_step(make_kernel: Callable[..., Kernel]) -> None:
    played = two(make_kernel("5.10", cpus=2), (0, 1, 0, 1, 0, 1))

    assert [step.cpu for step in played.steps] == [0, 1, 0, 1, 0, 1, 1, 0]


def test_each_call_has_its_own_result(make_kernel: Callable[..., Kernel]) -> None:
    played = two(make_kernel("5.10", cpus=2), (0, 1, 0, 1))

    values = {stop.value for stop in played.stops if isinstance(stop, Returned)}
    assert len(values) == 2


def test_the_same_schedule_gives_the_same_steps(make_kernel: Callable[..., Kernel]) -> None:
    schedule = (1, 0, 1, 1, 0)

    assert two(make_kernel("5.8", cpus=2), schedule) == two(make_kernel("5.8", cpus=2), schedule)


def test_each_cpu_has_its_own_table_in_the_end(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("5.10", cpus=2)

    two(kernel, (0, 1, 0, 1))

    roots = [cpu.cr3 for cpu in kernel.machine.cpus]
    assert roots == [task.mm.pgd for task in kernel.tasks]


def test_a_call_that_dies_leaves_the_other_to_go_on(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("5.10", cpus=2)
    first, second = kernel.fork("a"), kernel.fork("b")

    def dies() -> Stop:
        return kernel.run(first, "read_byte", rdi=UNMAPPED)

    played = interleave(kernel, (dies, lambda: kernel.run(second, vmalloc, 4096)), (1, 0))

    assert [type(stop) for stop in played.stops] == [PageFault, Returned]


def test_an_error_of_the_model_comes_out(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("5.10", cpus=2)

    def wrong() -> Stop:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interleave(kernel, (wrong, wrong), ())


def test_more_calls_than_cpus_are_refused(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("5.10")

    with pytest.raises(ValueError, match="2 calls: expected at most 1"):
        two(kernel, ())


def test_one_switch_interrupts_after_each_number_of_steps() -> None:
    assert list(one_switch(3, first=0, second=1)) == [(0, 1), (0, 0, 1), (0, 0, 0, 1)]
