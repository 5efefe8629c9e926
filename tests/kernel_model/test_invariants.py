"""What holds whatever is added, in whichever order, by whomever (facts 11)."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kernel_facts import EXPLICIT, FIVE, FOUR, GIB, MIB, SYNCING, TIB, Where, boot, slots

from emu import PageFault, Returned, Stop
from kernel_model import Kernel
from kernel_model.drivers import dax_bus_probe, xe_device_probe


class Device(NamedTuple):
    """What one task adds."""

    private: bool
    section: int
    nr_sections: int


# Around the boundary at each size of struct page, low, and at the end of a large direct map.
PLACES = [48 * GIB, 51 * GIB, 64 * GIB, 80 * GIB, 512 * GIB, 10 * TIB]
devices = st.builds(
    Device,
    private=st.booleans(),
    section=st.builds(
        lambda place, offset: place // (128 * MIB) + offset,
        st.sampled_from(PLACES),
        st.integers(-3, 3),
    ),
    nr_sections=st.integers(1, 3),
)


def play(kernel: Kernel, device: Device) -> Stop:
    """Have a new task add a device."""
    start, size = device.section * 128 * MIB, device.nr_sections * 128 * MIB
    task = kernel.fork("modprobe")
    if device.private:
        return kernel.run(task, xe_device_probe, start, size)
    return kernel.run(task, dax_bus_probe, start, size, 2 * MIB)


def play_all(kernel: Kernel, added: list[Device]) -> list[Stop]:
    """Have a new task add each device, after one that does nothing was forked."""
    kernel.fork("early")
    return [play(kernel, device) for device in added]


def disagreements(kernel: Kernel, *, empty_is_fine: bool) -> list[tuple[str, int]]:
    """(task, slot) where a task's table differs from init_mm's, in the slots that fork copies."""
    reference = slots(kernel, kernel.init_mm)
    return [
        (task.comm, slot)
        for task in kernel.tasks
        for slot, entry in enumerate(slots(kernel, task.mm)[273:], 273)
        if entry != reference[slot] and not (empty_is_fine and entry == 0)
    ]


def whatever_is_added(test: Callable[..., None]) -> Callable[..., None]:
    """Play the test with some vmemmaps, sizes of struct page and devices."""
    return settings(max_examples=12, deadline=None)(
        given(
            where=st.sampled_from([FOUR, FIVE]),
            struct_page=st.sampled_from([64, 80]),
            added=st.lists(devices, max_size=4),
        )(test)
    )


@pytest.mark.parametrize("release", SYNCING)
@whatever_is_added
def test_with_the_fix_all_tables_agree_and_nobody_faults(
    release: str, where: Where, struct_page: int, added: list[Device]
) -> None:
    with boot(where, release, struct_page=struct_page) as kernel:
        stops = play_all(kernel, added)

        assert disagreements(kernel, empty_is_fine=False) == []
        assert all(isinstance(stop, Returned) for stop in stops)


@pytest.mark.parametrize("release", EXPLICIT)
@whatever_is_added
def test_without_it_tables_only_lack_entries_and_faults_are_at_the_top(
    release: str, where: Where, struct_page: int, added: list[Device]
) -> None:
    with boot(where, release, struct_page=struct_page) as kernel:
        stops = play_all(kernel, added)

        faults = [stop for stop in stops if isinstance(stop, PageFault)]
        assert disagreements(kernel, empty_is_fine=True) == []
        assert all(isinstance(stop, Returned | PageFault) for stop in stops)
        assert all(fault.walk and fault.walk.steps[-1].entry == 0 for fault in faults)
        assert all(kernel.walk(fault.address).verdict == "mapped" for fault in faults)
