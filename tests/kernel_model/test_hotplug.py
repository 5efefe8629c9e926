"""Adding memory: what is mapped, in which order, and what is refused (facts 2.1, 3.2)."""

from collections.abc import Callable
from typing import Any

import pytest
from support.kernel_facts import (
    DEVICE_PRIVATE,
    EEXIST,
    EINVAL,
    ENOMEM,
    ERANGE,
    FOUR,
    GIB,
    MIB,
    SECTION,
    TIB,
    boot,
    entries,
    errno,
)

from emu import PhysAddr, Returned
from kernel_model import Kernel
from kernel_model.drivers import dax_bus_probe, xe_device_probe
from kernel_model.history import Refused
from kernel_model.hotplug import add_pages, arch_add_memory
from kernel_model.memremap import DevPagemap, devm_memremap_pages
from kernel_model.vmemmap import VmemAltmap

PFN = 64 * GIB >> 12
DIRECT = 0xFFFF_8880_0000_0000


def dax(kernel: Kernel, start: int, size: int, align: int = 2 * MIB) -> int:
    """Probe a device-dax range in the boot task; return the error, positive."""
    stop = kernel.run(kernel.init_task, dax_bus_probe, start, size, align)
    assert isinstance(stop, Returned)
    return -stop.value % (1 << 64)


# There is no KASLR.
pytestmark = [pytest.mark.release("6.17"), pytest.mark.boot(vmemmap_base=None)]


# -- the direct map


@pytest.mark.parametrize(
    ("start", "size", "level"),
    [(64 * GIB, GIB, 3), (64 * GIB, 128 * MIB, 2), (64 * GIB + 2 * MIB, 2 * MIB, 2)],
)
def test_device_memory_is_mapped_by_the_largest_pages_that_fit(
    kernel: Kernel, start: int, size: int, level: int
) -> None:
    dax(kernel, start, size)

    walk = kernel.walk(DIRECT + start)
    assert (walk.pa, walk.steps[-1].level) == (start, level)


def test_a_gib_page_is_not_used_where_only_a_part_is_added(kernel: Kernel) -> None:
    dax(kernel, 64 * GIB + 512 * MIB, GIB)

    assert kernel.walk(DIRECT + 65 * GIB).steps[-1].level == 2
    assert kernel.walk(DIRECT + 64 * GIB).verdict == "not-present"


def test_what_is_left_below_two_mib_is_mapped_by_base_pages(kernel: Kernel) -> None:
    arch_add_memory(kernel, 0, 64 * GIB, 2 * MIB + 0x3000, None, None)

    assert kernel.walk(DIRECT + 64 * GIB + 2 * MIB + 0x2000).pa == 64 * GIB + 2 * MIB + 0x2000
    assert kernel.walk(DIRECT + 64 * GIB + 2 * MIB + 0x3000).verdict == "not-present"


def test_device_private_memory_is_not_in_the_direct_map(kernel: Kernel) -> None:
    kernel.run(kernel.kthread("kworker/0:1"), xe_device_probe, 64 * GIB, 128 * MIB)

    assert kernel.walk(DIRECT + 64 * GIB).verdict == "not-present"
    assert kernel.sections.pfn_valid(PFN)


@pytest.mark.release("6.8", "rfc-v1", "6.17")
@pytest.mark.boot(vmemmap_base=FOUR.vmemmap_base)
def test_a_new_slot_of_the_direct_map_reaches_every_task(kernel: Kernel) -> None:
    task = kernel.fork("early")

    dax(kernel, 512 * GIB, GIB)

    assert kernel.walk(DIRECT + 512 * GIB, task.mm).pa == 512 * GIB


def test_memory_that_is_mapped_already_stays_as_it_is(kernel: Kernel) -> None:
    dax(kernel, 64 * GIB, 2 * GIB)
    before = entries(kernel, DIRECT + 64 * GIB)

    arch_add_memory(kernel, 0, 64 * GIB, 2 * GIB, None, None)

    assert entries(kernel, DIRECT + 64 * GIB) == before


@pytest.mark.parametrize("start", [0, GIB, GIB + 128 * MIB, 3 * GIB])
def test_adding_ram_again_writes_nothing_into_it(kernel: Kernel, start: int) -> None:
    before = kernel.memory.read(PhysAddr(start), 0x1000)

    error = dax(kernel, start, 128 * MIB)

    assert (error, kernel.memory.read(PhysAddr(start), 0x1000)) == (EEXIST, before)


# -- what is refused


@pytest.mark.parametrize(
    ("pfn", "nr"), [(PFN + 1, 512), (PFN, 511), (PFN + 256, 512), (PFN, 0), (PFN, 1)]
)
def test_pages_come_by_whole_subsections(kernel: Kernel, pfn: int, nr: int) -> None:
    assert add_pages(kernel, 0, pfn, nr, None, None) == -EINVAL


def test_a_section_cannot_be_added_twice(kernel: Kernel) -> None:
    errors = [dax(kernel, 64 * GIB, 128 * MIB) for _ in range(2)]

    assert errors == [0, EEXIST]


def test_what_was_added_before_the_section_that_exists_stays(kernel: Kernel) -> None:
    dax(kernel, 64 * GIB + 128 * MIB, 128 * MIB)

    error = dax(kernel, 64 * GIB, 256 * MIB)

    assert (error, kernel.sections.pfn_valid(PFN)) == (EEXIST, True)


def test_subsections_of_one_section_can_be_added_one_by_one(kernel: Kernel) -> None:
    errors = [dax(kernel, 64 * GIB + n * 2 * MIB, 2 * MIB) for n in (0, 2, 1, 1)]

    assert errors == [0, 0, 0, EEXIST]


@pytest.mark.parametrize(
    ("start", "size", "align"),
    [
        (64 * GIB, 0, 2 * MIB),
        (64 * GIB, 3 * MIB, 2 * MIB),
        (64 * GIB + MIB, 2 * MIB, 2 * MIB),
        (64 * GIB, 128 * MIB, GIB),
        (64 * GIB, 6 * MIB, 3 * MIB),
        (64 * GIB, 0x3000, 0x1000),
        (64 * GIB + 1, 2 * MIB, 1),
    ],
)
def test_a_dax_range_that_its_alignment_does_not_divide_is_refused(
    kernel: Kernel, start: int, size: int, align: int
) -> None:
    assert dax(kernel, start, size, align) == EINVAL


@pytest.mark.parametrize(("release", "error"), [("6.8", 0), ("6.13", -ERANGE), ("6.17", -ERANGE)])
def test_add_pages_refuses_what_the_trimmed_direct_map_cannot_hold_from_6_11_on(
    release: str, error: int
) -> None:
    with boot(FOUR, release) as kernel:
        assert add_pages(kernel, 0, 11 * TIB >> 12, SECTION, None, None) == error


@pytest.mark.parametrize(("release", "error"), [("6.8", 0), ("6.13", EINVAL), ("6.17", EINVAL)])
def test_a_device_there_is_refused_before_anything_is_mapped(release: str, error: int) -> None:
    with boot(FOUR, release) as kernel:
        assert dax(kernel, 11 * TIB, 128 * MIB) == error
        assert entries(kernel, DIRECT + 11 * TIB)[-1] == 0


@pytest.mark.release("6.8")
@pytest.mark.boot(vmemmap_base=FOUR.vmemmap_base)
def test_where_nobody_checks_the_direct_map_ends_all_the_same_and_the_pages_are_there(
    kernel: Kernel,
) -> None:
    assert dax(kernel, 11 * TIB - 128 * MIB, 256 * MIB) == 0

    assert entries(kernel, DIRECT + 11 * TIB - 2 * MIB)[-1] != 0
    assert entries(kernel, DIRECT + 11 * TIB)[-1] == 0
    assert kernel.page(11 * TIB >> 12).head


@pytest.mark.parametrize(
    ("levels", "start", "error"),
    [
        (4, (1 << 46) - 128 * MIB, 0),
        (4, 1 << 46, EINVAL),
        (4, 1 << 60, EINVAL),
        (5, 1 << 46, 0),
        (5, (1 << 52) - 128 * MIB, 0),
        (5, 1 << 52, EINVAL),
    ],
)
def test_physical_memory_ends_at_max_physmem_bits(
    make_kernel: Callable[..., Kernel], levels: int, start: int, error: int
) -> None:
    assert dax(make_kernel("6.17", levels=levels), start, 128 * MIB) == error


def test_a_refused_device_costs_no_memory(kernel: Kernel) -> None:
    dax(kernel, 64 * GIB, 128 * MIB)
    free = kernel.frames.nr_free

    errors = {dax(kernel, 1 << 46, 128 * MIB) for _ in range(65)}  # one frame holds 64

    assert (errors, kernel.frames.nr_free) == ({EINVAL}, free)


# -- who refuses, and why


@pytest.mark.parametrize(
    ("device", "refused"),
    [
        (
            (64 * GIB, 6 * MIB, 3 * MIB),
            Refused("dev_dax_probe", EINVAL, "no level maps pages of 0x300000 bytes"),
        ),
        (
            (64 * GIB, 3 * MIB, 2 * MIB),
            Refused(
                "dev_dax_probe",
                EINVAL,
                "0x1000000000 (+0x300000) is not a multiple of 0x200000",
            ),
        ),
        ((64 * GIB, 0, 2 * MIB), Refused("pagemap_range", EINVAL, "the range is empty")),
        (
            (1 << 46, 2 * MIB, 2 * MIB),
            Refused(
                "pagemap_range",
                EINVAL,
                "the range ends at 0x400000200000, beyond 46 physical address bits",
            ),
        ),
        (
            (GIB, 2 * MIB, 2 * MIB),
            Refused("sparse_add_section", EEXIST, "pfn 0x40000 (+512) has struct pages already"),
        ),
        (
            (64 * GIB, 0x3000, 0x1000),
            Refused(
                "__add_pages",
                EINVAL,
                "pfn 0x1000000 (+3) is not a range of whole 2 MiB subsections",
            ),
        ),
    ],
)
def test_the_history_says_who_refuses_a_device_and_why(
    kernel: Kernel, device: tuple[int, int, int], refused: Refused
) -> None:
    dax(kernel, *device)

    assert [event for event in kernel.history if isinstance(event, Refused)] == [refused]


@pytest.mark.release("6.17")
@pytest.mark.boot(vmemmap_base=FOUR.vmemmap_base)
def test_the_history_names_the_end_of_a_trimmed_direct_map(kernel: Kernel) -> None:
    add_pages(kernel, 0, 11 * TIB >> 12, SECTION, None, None)

    assert kernel.history[-1] == Refused(
        "add_pages",
        ERANGE,
        "the range ends at 0xb0008000000, beyond the direct map's end 0xb0000000000",
    )


# -- running out of memory


@pytest.fixture
def starved(make_kernel: Callable[..., Kernel]) -> Kernel:
    """A machine of 128 MiB of which the struct pages of a large device took all."""
    kernel = make_kernel("6.17", ram=128 * MIB)
    kernel.run(kernel.kthread("kworker/0:1"), xe_device_probe, 64 * GIB, 8 * GIB)
    return kernel


def test_a_device_whose_struct_pages_do_not_fit_is_no_memory(
    make_kernel: Callable[..., Kernel],
) -> None:
    kernel = make_kernel("6.17", ram=128 * MIB)

    stop = kernel.run(kernel.kthread("kworker/0:1"), xe_device_probe, 64 * GIB, 8 * GIB)

    assert (stop, stop.value) == (Returned(), errno(ENOMEM))  # type: ignore[union-attr]
    (refused,) = [event for event in kernel.history if isinstance(event, Refused)]
    assert (refused.path, refused.errno) == ("vmemmap_populate_basepages", ENOMEM)
    assert refused.why.startswith("no frame is left to map vmemmap at 0xffffea00")


@pytest.mark.parametrize("struct_page", [64, 80, 96])
def test_the_section_that_failed_can_be_told_from_those_that_did_not(
    make_kernel: Callable[..., Kernel], struct_page: int
) -> None:
    kernel = make_kernel("6.17", ram=128 * MIB, struct_page=struct_page)

    kernel.run(kernel.kthread("kworker/0:1"), xe_device_probe, 64 * GIB, 8 * GIB)

    assert kernel.sections.pfn_valid(PFN)
    assert not kernel.sections.pfn_valid(PFN + (8 * GIB >> 12) - 1)


@pytest.mark.parametrize(
    "options",
    [
        {"start": 80 * GIB, "size": 128 * MIB, "align": 2 * MIB},
        {"start": TIB, "size": GIB, "align": GIB},
        {"start": 80 * GIB, "size": 4 * MIB, "align": 0x1000},
    ],
)
def test_nothing_can_be_added_without_memory(starved: Kernel, options: dict[str, Any]) -> None:
    assert dax(starved, **options) == ENOMEM


def test_not_even_what_describes_the_device_finds_memory_in_the_end(starved: Kernel) -> None:
    errors = {dax(starved, 80 * GIB, 128 * MIB) for _ in range(65)}  # one frame holds 64

    assert errors == {ENOMEM}


@pytest.mark.release("6.8")
@pytest.mark.boot(vmemmap_base=FOUR.vmemmap_base)
def test_a_failed_population_is_not_synced(kernel: Kernel) -> None:
    task = kernel.fork("early")

    add_pages(kernel, 0, FOUR.pfn, SECTION, VmemAltmap(base_pfn=0, nr_pages=0), None)

    assert entries(kernel, FOUR.boundary)[0] != 0
    assert entries(kernel, FOUR.boundary, task.mm) == [0]


@pytest.mark.release("6.8")
@pytest.mark.boot(vmemmap_base=FOUR.vmemmap_base)
def test_a_retry_that_succeeds_syncs_what_the_failure_left(kernel: Kernel) -> None:
    task = kernel.fork("early")
    add_pages(kernel, 0, FOUR.pfn, SECTION, VmemAltmap(base_pfn=0, nr_pages=0), None)

    add_pages(kernel, 0, FOUR.pfn, SECTION, None, None)

    assert kernel.walk(FOUR.boundary, task.mm).verdict == "mapped"


def test_struct_pages_in_the_devices_own_memory_need_no_ram(kernel: Kernel) -> None:
    altmap = VmemAltmap(base_pfn=GIB >> 12, nr_pages=1024)
    device = DevPagemap(DEVICE_PRIVATE, 64 * GIB, 128 * MIB, altmap=altmap)

    stop = kernel.run(kernel.kthread("kworker/0:1"), devm_memremap_pages, device)

    assert stop == Returned()
    assert kernel.walk(0xFFFF_EA00_4000_0000).pa == GIB
    assert kernel.page(PFN).zone == 4
