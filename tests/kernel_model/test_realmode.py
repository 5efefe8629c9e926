"""The trampoline's table: filled once, with what (facts 9; 51523ed1c267)."""

from collections.abc import Callable, Iterator

import pytest
from support.kernel_facts import MIB, entries, slots
from support.kernel_outside import ADDED, BASE, DEPTHS, SECOND, filled, named

from emu import PageFault, Returned, Trap
from emu.fault import DF
from kernel_model import Kernel
from kernel_model.drivers import dax_bus_probe
from kernel_model.e820 import E820
from kernel_model.realmode import native_machine_emergency_restart
from kernel_model.vmalloc import __vmalloc_node_range as vmalloc_node_range

FEW, ALL = ("5.8", "5.10"), ("6.8", "6.13", "6.16", "rfc-v1", "6.17")


@pytest.fixture(params=DEPTHS, ids=["4-level", "5-level"])
def old(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """5.10 without handlers, so that the first fault is seen as it is: two entries."""
    with Kernel("5.10", levels=request.param, build="6.8", firmware="bios") as booted:
        yield booted


@pytest.fixture(params=DEPTHS, ids=["4-level", "5-level"])
def new(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """6.8: all that boot had, and a device whose memory opens a slot."""
    ram = E820(((0, 4 << 30),), ((ADDED, ADDED + 128 * MIB),))
    base = BASE[request.param]
    with Kernel(
        "6.8", levels=request.param, ram=ram, page_offset_base=base, firmware="bios"
    ) as booted:
        yield booted


def restart(kernel: Kernel, variable: int) -> object:
    """Have a new task reboot, with a variable that is needed."""
    return kernel.run(kernel.fork("reboot"), native_machine_emergency_restart, variable)


def variable(kernel: Kernel) -> int:
    """A variable in the vmalloc area."""
    area = vmalloc_node_range(kernel, 0x1000, 0x1000, "vmalloc")
    assert area is not None
    return area.start


@pytest.mark.parametrize("release", FEW)
def test_before_5_16_it_has_two_entries(make_kernel: Callable[..., Kernel], release: str) -> None:
    kernel = make_kernel(release, firmware="bios")

    table = slots(kernel, named(kernel, "trampoline_pgd"))
    ours = slots(kernel, kernel.init_mm)
    assert {slot for slot, entry in enumerate(table) if entry} == {0, 511}
    assert (table[0], table[511]) == (ours[273], ours[511])


@pytest.mark.parametrize("release", ALL)
def test_since_then_it_has_all_slots_of_the_kernel(
    make_kernel: Callable[..., Kernel], release: str
) -> None:
    kernel = make_kernel(release, firmware="bios")

    table = slots(kernel, named(kernel, "trampoline_pgd"))
    assert table[273:] == slots(kernel, kernel.init_mm)[273:]
    assert (table[1:273], table[0]) == ([0] * 272, table[273])


def test_physical_memory_lies_at_address_0_wherever_the_direct_map_begins(new: Kernel) -> None:
    trampoline = named(new, "trampoline_pgd")

    assert new.walk(0x9_8000, trampoline).pa == 0x9_8000
    assert new.walk(1 << 30, trampoline).verdict == "not-present"


def test_the_stack_is_not_there_before_5_16(old: Kernel) -> None:
    stop = restart(old, old.symbol("page_offset_base"))

    task = old.task("reboot")
    assert task.stack is not None
    rip = old.symbol("machine_real_restart_call")
    assert isinstance(stop, Trap)
    assert stop == Trap(DF, 0, rip)
    assert task.stack.base <= old.cpu.cr2 < task.stack.top
    assert stop.cr3 == named(old, "trampoline_pgd").pgd


def test_nor_is_the_vmalloc_area(old: Kernel) -> None:
    at = variable(old)

    stop = restart(old, at)

    assert stop == Trap(DF, 0, rip=old.symbol("machine_real_restart_read"))
    assert old.cpu.cr2 == at


def test_nor_is_the_direct_map(old: Kernel) -> None:
    at = old.kmalloc(b"real_mode_header")

    stop = restart(old, at)

    assert stop == Trap(DF, 0, rip=old.symbol("machine_real_restart_read"))
    assert old.cpu.cr2 == at


@pytest.mark.parametrize(
    ("place", "label"),
    [
        (lambda kernel: kernel.symbol("page_offset_base"), "machine_real_restart_call"),
        (variable, "machine_real_restart_read"),
    ],
)
def test_with_handlers_there_is_no_stack_to_enter_one(
    make_kernel: Callable[..., Kernel], place: Callable[[Kernel], int], label: str
) -> None:
    kernel = make_kernel("5.10", firmware="bios")

    stop = restart(kernel, place(kernel))

    assert isinstance(stop, Trap)
    assert (stop.vector, stop.error_code, stop.rip) == (DF, 0, kernel.symbol(label))


@pytest.mark.parametrize("place", [variable, lambda kernel: kernel.kmalloc(b"real_mode_header")])
def test_all_of_it_is_since_then(new: Kernel, place: Callable[[Kernel], int]) -> None:
    assert restart(new, place(new)) == Returned()


def test_a_slot_that_is_new_after_boot_never_gets_there(new: Kernel) -> None:
    new.fork("early")
    device = (ADDED, 128 * MIB, 2 * MIB)
    assert new.run(new.kthread("kworker"), dax_bus_probe, *device) == Returned()
    at = SECOND[new.layout.levels]

    stop = restart(new, at)

    assert stop == PageFault(at, 0, rip=new.symbol("machine_real_restart_read"))  # type: ignore[arg-type]
    assert entries(new, at, new.task("early").mm)[0] != 0


def test_the_task_that_comes_through_goes_on_with_its_own_table(new: Kernel) -> None:
    restart(new, new.symbol("page_offset_base"))

    assert new.cpu.cr3 == new.task("reboot").mm.pgd


def test_the_table_lies_below_1_mib(new: Kernel) -> None:
    pgd = named(new, "trampoline_pgd").pgd

    assert pgd < MIB
    assert 511 in filled(new, pgd)
