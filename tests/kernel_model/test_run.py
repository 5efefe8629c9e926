"""Kernel.run and Kernel.call: who runs where, and how a death unwinds."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support.kernel_facts import FOUR, GIB, MIB, Where, errno, put_slot, slots

from emu import Halted, NotMapped, OutOfFrames, OutsideRam, PageFault, Returned, StepLimit, Trap
from emu.fault import DF
from kernel_model import Kernel, KernelError, TaskDied
from kernel_model.drivers import dax_bus_probe
from kernel_model.history import Forked, Mapped, Populated, Refused, Switched, Synced
from kernel_model.hotplug import add_pages
from kernel_model.vmemmap import vmemmap_populate

DEVICE = (64 * GIB - 256 * MIB, 512 * MIB, 2 * MIB)
INIT = "__init_single_page"
PAGE = FOUR.vmemmap_base  # a struct page of RAM


def value(stop: object) -> int:
    """What a run returned."""
    assert isinstance(stop, Returned)
    return stop.value


# -- running


def test_a_routine_runs_under_the_tasks_table(kernel: Kernel) -> None:
    task = kernel.fork("a")

    kernel.run(task, INIT, rdi=PAGE)

    assert kernel.cpu.cr3 == task.mm.pgd


def test_a_routine_returns_rax(kernel: Kernel) -> None:
    task = kernel.fork("a")
    here, end = PAGE + 0x1000, PAGE + 0x2000

    assert value(kernel.run(task, "vmemmap_pmd_is_unused", rdi=here, rsi=end)) == 0


@pytest.mark.parametrize(
    ("result", "rax"), [(None, 0), (0, 0), (5, 5), (-12, errno(12)), (-1, 0xFFFF_FFFF_FFFF_FFFF)]
)
def test_a_modelled_function_returns_its_result_as_rax(
    kernel: Kernel, result: int | None, rax: int
) -> None:
    assert value(kernel.run(kernel.fork("a"), lambda kernel: result)) == rax


def test_a_modelled_function_is_given_the_kernel_and_its_arguments(kernel: Kernel) -> None:
    seen: list[Any] = []

    kernel.run(kernel.fork("a"), lambda *args, **options: seen.extend([args, options]), 1, key=2)

    assert seen == [(kernel, 1), {"key": 2}]


def test_the_running_task_is_current(kernel: Kernel) -> None:
    task = kernel.fork("a")
    seen: list[Any] = []

    kernel.run(task, lambda kernel: seen.append(kernel.current))

    assert seen == [task]


def test_modelled_functions_lie_on_the_tasks_stack(kernel: Kernel) -> None:
    task = kernel.fork("a")
    kernel.before["memmap_init_zone_device"] = lambda k: names.extend(f[0] for f in task.frames)
    names: list[str] = []

    kernel.run(task, dax_bus_probe, 32 * GIB, 2 * MIB, 2 * MIB)

    assert names == [
        *("dax_bus_probe", "dev_dax_probe", "devm_memremap_pages"),
        *("memremap_pages", "pagemap_range"),
    ]


def test_a_function_that_the_build_inlines_has_no_frame(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.13")
    task = kernel.fork("a")
    kernel.before["memmap_init_zone_device"] = lambda k: names.extend(f[0] for f in task.frames)
    names: list[str] = []

    kernel.run(task, dax_bus_probe, 32 * GIB, 2 * MIB, 2 * MIB)

    assert names[-2:] == ["devm_memremap_pages", "memremap_pages"]


def test_a_return_address_on_the_stack_is_that_of_the_call(kernel: Kernel) -> None:
    task = kernel.fork("a")
    words: list[int] = []
    kernel.before["memmap_init_zone_device"] = lambda k: words.extend(
        int.from_bytes(k.read(rsp, 8), "little") for _, rsp in task.frames
    )

    kernel.run(task, dax_bus_probe, 32 * GIB, 2 * MIB, 2 * MIB)

    assert words[:2] == [0, kernel.symbol("dax_bus_probe+0x6d/0xc9")]
    assert words[-1] == kernel.symbol("memremap_pages+0x10b/0x2f0")


# -- dying


def test_a_task_that_dies_is_in_no_function_any_more(kernel: Kernel) -> None:
    task = kernel.fork("a")

    stop = kernel.run(task, dax_bus_probe, *DEVICE)

    assert (type(stop), task.frames) == (PageFault, [])


def test_the_same_task_can_run_again(kernel: Kernel) -> None:
    task = kernel.fork("a")
    kernel.run(task, dax_bus_probe, *DEVICE)

    assert kernel.run(task, dax_bus_probe, 32 * GIB, 128 * MIB, 2 * MIB) == Returned()


def test_so_can_another(kernel: Kernel) -> None:
    kernel.run(kernel.fork("a"), dax_bus_probe, *DEVICE)

    assert kernel.run(kernel.fork("b"), INIT, rdi=FOUR.boundary) == Returned()


def test_nothing_happens_after_a_death(kernel: Kernel) -> None:
    seen: list[str] = []

    def probe(kernel: Kernel) -> None:
        dax_bus_probe(kernel, *DEVICE)
        seen.append("after")

    kernel.run(kernel.fork("a"), probe)

    assert seen == []


def test_without_a_run_a_death_is_an_exception_with_the_stop(kernel: Kernel) -> None:
    kernel.switch_mm(kernel.fork("a").mm)

    with pytest.raises(TaskDied, match="the running task died: #PF at 0xffffe70000000034") as died:
        dax_bus_probe(kernel, *DEVICE)

    assert kernel.oops(died.value.stop).startswith("BUG: unable to handle page fault")


def test_without_a_run_a_death_leaves_no_frames_either(kernel: Kernel) -> None:
    kernel.switch_mm(kernel.fork("a").mm)

    with pytest.raises(TaskDied):
        dax_bus_probe(kernel, *DEVICE)

    assert kernel.current.frames == []


def test_a_table_without_text_kills_at_the_switch(kernel: Kernel) -> None:
    task = kernel.fork("a")
    kernel.run(kernel.fork("before"), INIT, rdi=PAGE)
    put_slot(kernel, task.mm, 511, 0)

    stop = kernel.run(task, INIT, rdi=PAGE)

    assert isinstance(stop, PageFault)
    assert (stop.symbol, stop.cr3) == ("switch_mm+0xc/0x10", task.mm.pgd)


def test_a_table_without_the_stack_of_the_switch_is_a_double_fault(kernel: Kernel) -> None:
    task = kernel.fork("a")
    kernel.stack_of(task)
    kernel.run(kernel.fork("before"), INIT, rdi=PAGE)  # whose stack is in vmalloc: slot 397
    put_slot(kernel, task.mm, 397, 0)

    stop = kernel.run(task, INIT, rdi=PAGE)

    assert stop == Trap(DF, 0, rip=kernel.symbol("switch_mm+0xc"))
    assert isinstance(stop, Trap)
    assert (stop.symbol, stop.cr3) == ("switch_mm+0xc/0x10", task.mm.pgd)


def test_the_cpu_goes_on_with_the_table_that_it_had(kernel: Kernel) -> None:
    broken = kernel.fork("a")
    put_slot(kernel, broken.mm, 511, 0)
    kernel.run(broken, INIT, rdi=PAGE)

    assert kernel.run(kernel.fork("b"), INIT, rdi=PAGE) == Returned()


def test_a_switch_inside_a_function_spares_its_frame(kernel: Kernel) -> None:
    task, other = kernel.fork("a"), kernel.fork("b")
    found: list[bytes] = []

    def switch(kernel: Kernel) -> None:
        stack, (function, entered_at) = kernel.stack_of(task), task.frames[-1]
        depth = kernel.image.stack_depth(kernel.symbol(f"{function}+0x2e0") - 5)
        assert depth
        frame = stack.pa_of(entered_at - depth)
        kernel.memory.write(frame, b"\xaa" * depth)
        kernel.switch_mm(other.mm)
        found.append(kernel.memory.read(frame, depth).strip(b"\xaa"))

    kernel.before["memmap_init_zone_device"] = switch
    kernel.run(task, dax_bus_probe, 32 * GIB, 2 * MIB, 2 * MIB)

    assert found == [b""]


# -- misuse


def test_a_run_inside_a_run_is_refused(kernel: Kernel) -> None:
    task, other = kernel.fork("a"), kernel.fork("b")
    kernel.before["memmap_init_zone_device"] = lambda k: k.run(other, INIT, rdi=PAGE)

    with pytest.raises(KernelError, match=r"<Task a .*> is running: <Task b .*> cannot run inside"):
        kernel.run(task, dax_bus_probe, 32 * GIB, 2 * MIB, 2 * MIB)


def test_and_the_kernel_is_none_the_worse_for_it(kernel: Kernel) -> None:
    task = kernel.fork("a")
    kernel.before["memmap_init_zone_device"] = lambda k: k.run(task, INIT, rdi=PAGE)
    with pytest.raises(KernelError):
        kernel.run(task, dax_bus_probe, 32 * GIB, 2 * MIB, 2 * MIB)

    assert kernel.run(task, INIT, rdi=PAGE) == Returned()


def test_a_call_that_the_build_has_not_is_refused(kernel: Kernel) -> None:
    kernel.before["memmap_init_zone_device"] = lambda k: vmemmap_populate(k, PAGE, PAGE, 0, None)

    with pytest.raises(KernelError, match="pagemap_range calls vmemmap_populate at 0 places"):
        kernel.run(kernel.fork("a"), dax_bus_probe, 32 * GIB, 2 * MIB, 2 * MIB)


@pytest.mark.parametrize(
    ("args", "registers", "message"),
    [
        ((PAGE,), {}, "__init_single_page: .* expected registers by name"),
        ((), {"rsp": 0}, "__init_single_page: rsp is the run's own"),
        ((), {"rip": 0}, "__init_single_page: rip is the run's own"),
        ((), {"returns_to": 0}, "__init_single_page: returns_to is the run's own"),
        ((), {"rdj": 0}, "rdj is no register"),
        ((), {"rdi": 1 << 64}, "rdi=0x10000000000000000 does not fit into 64 bits"),
    ],
)
def test_arguments_that_a_routine_cannot_take_are_refused(
    kernel: Kernel, args: tuple[int, ...], registers: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kernel.run(kernel.fork("a"), INIT, *args, **registers)


def test_an_unknown_routine_is_refused_with_the_nearest(kernel: Kernel) -> None:
    with pytest.raises(ValueError, match="did you mean __init_single_page"):
        kernel.run(kernel.fork("a"), "__init_singel_page")


@pytest.mark.parametrize("name", ["dax_bus_probe", "vmemmap_populate", "sync_global_pgds"])
def test_a_function_that_runs_in_python_is_no_routine(kernel: Kernel, name: str) -> None:
    with pytest.raises(
        ValueError, match=f"^{name} runs in Python here: expected a routine: .*{INIT}"
    ):
        kernel.run(kernel.fork("a"), name)


def test_a_label_is_no_routine_either(kernel: Kernel) -> None:
    with pytest.raises(ValueError, match=r"^vmemmap_set_pmd_store is no function: expected "):
        kernel.run(kernel.fork("a"), "vmemmap_set_pmd_store")


def test_a_page_without_struct_page_cannot_be_read(kernel: Kernel) -> None:
    with pytest.raises(NotMapped):
        kernel.page(FOUR.pfn)


# -- other ends


def test_a_step_limit_ends_a_run(kernel: Kernel) -> None:
    stop = kernel.run(kernel.fork("a"), INIT, rdi=PAGE, step_limit=3)

    assert stop == StepLimit(kernel.symbol(f"{INIT}+0x10"), steps=3)


def test_a_hlt_of_somebody_else_is_halted(kernel: Kernel) -> None:
    task, elsewhere = kernel.fork("a"), kernel.symbol("pagemap_range+0x2e0")  # behind a call

    assert kernel.run(task, "call_once", rax=elsewhere) == Halted(elsewhere)


def test_a_store_outside_ram_is_no_oops(kernel: Kernel) -> None:
    device = kernel.layout.va(64 * GIB)
    add_pages(kernel, 0, 32 * GIB >> 12, 512, None, None)
    dax_bus_probe(kernel, 64 * GIB - 2 * GIB, 4 * GIB, GIB)

    stop = kernel.run(kernel.init_task, INIT, rdi=device)

    assert stop == OutsideRam(pa=64 * GIB + 0x34, rip=kernel.symbol(f"{INIT}+9"), what="leaf")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is not how the last task died"):
        kernel.oops(stop)


# -- without memory


def exhaust(kernel: Kernel) -> int:
    """Take all frames; return the lowest, the start of 16 KiB."""
    lowest = kernel.frames.allocate_block(0x4000)
    kernel.frames.floor = lowest
    while kernel.frames.nr_free:
        kernel.frames.allocate()
    return lowest


def test_a_run_without_memory_for_a_stack_returns_enomem(kernel: Kernel) -> None:
    task = kernel.fork("a")
    exhaust(kernel)

    stop = kernel.run(task, INIT, rdi=PAGE)

    assert (value(stop), task.stack) == (errno(12), None)
    assert kernel.history[-1] == Refused(
        "alloc_thread_stack_node", 12, "no memory for the stack of a"
    )


def test_a_stack_that_does_not_fit_gives_its_frames_back(kernel: Kernel) -> None:
    task = kernel.fork("a")
    kernel.frames.floor = exhaust(kernel) - 0x3000  # room for three of its four pages

    stop = kernel.run(task, INIT, rdi=PAGE)

    assert (value(stop), task.stack, kernel.frames.nr_free) == (errno(12), None, 3)


def test_a_fork_without_memory_inside_a_run_returns_enomem(kernel: Kernel) -> None:
    task = kernel.fork("a")
    kernel.stack_of(task)
    exhaust(kernel)

    stop = kernel.run(task, lambda kernel: kernel.fork("b").pid)

    assert (value(stop), task.frames) == (errno(12), [])
    assert kernel.history[-1] == Refused("fork", 12, "no frame is left for the top table of b")


def test_a_fork_without_memory_outside_a_run_raises(kernel: Kernel) -> None:
    exhaust(kernel)

    with pytest.raises(OutOfFrames):
        kernel.fork("b")


# -- the history


def test_the_history_tells_the_story_in_order(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")

    kernel.run(task, dax_bus_probe, *DEVICE)

    events = kernel.history[kernel.nr_boot_events :]
    assert [type(event) for event in events] == [
        *(Forked, Switched, Mapped),  # the direct map
        *(Mapped, Mapped, Populated, Mapped, Mapped),  # four sections; the third needs a new slot
    ]


@pytest.mark.levels(4, 5)
def test_a_populated_slot_is_told_with_its_path(kernel: Kernel, where: Where) -> None:
    kernel.run(kernel.kthread("k"), dax_bus_probe, *DEVICE)

    (event,) = [e for e in kernel.history[kernel.nr_boot_events :] if type(e) is Populated]

    assert (event.addr, event.slot) == (where.boundary, where.slot)
    assert event.path == "vmemmap_populate_compound_pages"
    assert event.name == {4: "p4d", 5: "pgd"}[where.levels]
    assert event.entry == slots(kernel, kernel.init_mm)[where.slot]


def test_what_boot_did_is_told_apart(kernel: Kernel) -> None:
    assert len(kernel.history) == kernel.nr_boot_events
    assert not any(isinstance(event, Forked | Switched) for event in kernel.history)
    assert any(isinstance(event, Synced) for event in kernel.history)


# -- lifetime


def test_a_kernel_is_freed_by_dropping_it() -> None:
    gc.disable()
    kernel = Kernel(vmemmap_base=FOUR.vmemmap_base)
    kernel.oops(kernel.run(kernel.fork("a"), INIT, rdi=FOUR.boundary))
    machine = weakref.ref(kernel.machine)

    del kernel

    gc.enable()
    assert machine() is None


def test_a_run_inside_a_run_is_refused_even_without_frames(kernel: Kernel) -> None:
    a = kernel.fork("a")

    with pytest.raises(KernelError, match="cannot run inside it"):
        kernel.run(a, lambda kernel: value(kernel.run(a, INIT, rdi=PAGE)))


def test_after_a_refused_run_the_kernel_runs_on(kernel: Kernel) -> None:
    a = kernel.fork("a")
    with pytest.raises(ZeroDivisionError):
        kernel.run(a, lambda kernel: 1 // 0)

    assert isinstance(kernel.run(a, INIT, rdi=PAGE), Returned)


def test_a_task_of_another_kernel_is_refused(make_kernel: Callable[..., Kernel]) -> None:
    stranger = make_kernel("6.8").fork("stranger")

    with pytest.raises(ValueError, match="is no task of this kernel"):
        make_kernel("6.8").run(stranger, INIT, rdi=PAGE)
