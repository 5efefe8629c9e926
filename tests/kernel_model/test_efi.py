"""EFI's table: what is copied into it, when, and what a call sees (facts 1.1, 2.6, 9)."""

from collections.abc import Callable
from typing import Any

import pytest
from support.kernel_facts import MIB, put_slot, slots
from support.kernel_outside import (
    ADDED,
    BASE,
    DEPTHS,
    EFI_VA_END,
    EFI_VA_START,
    SECOND,
    named,
    table_of,
)

from emu import PageFault, PhysAddr, Returned
from kernel_model import Kernel, KernelError
from kernel_model.drivers import dax_bus_probe
from kernel_model.e820 import E820
from kernel_model.efi import (
    efi_mm,
    efi_sync_low_kernel_mappings,
    service,
    variable_store,
    virt_efi_set_variable_nonblocking,
)

DEVICE = (ADDED, 128 * MIB, 2 * MIB)
VALUE = b"boot entry"
PF_READ = 0


pytestmark = [pytest.mark.release("6.17"), pytest.mark.levels(*DEPTHS)]


@pytest.fixture
def boot_parameters(levels: int) -> dict[str, Any]:
    """Firmware, a device whose memory opens a slot, and a second CPU."""
    ram = E820(((0, 4 << 30),), ((ADDED, ADDED + 128 * MIB),))
    return {"ram": ram, "page_offset_base": BASE[levels], "firmware": "efi", "cpus": 2}


def set_variable(kernel: Kernel, task: str, data: int) -> object:
    """Have a task pass ten bytes at `data` to firmware."""
    return kernel.run(kernel.task(task), virt_efi_set_variable_nonblocking, data, len(VALUE))


def add_memory(kernel: Kernel) -> None:
    """Add the device's memory from the other CPU."""
    kernel.use_cpu(1)
    assert kernel.run(kernel.kthread("kworker"), dax_bus_probe, *DEVICE) == Returned()
    kernel.use_cpu(0)


def test_firmware_keeps_what_a_direct_map_pointer_leads_to(kernel: Kernel) -> None:
    kernel.fork("a")

    stop = set_variable(kernel, "a", kernel.kmalloc(VALUE))

    assert (stop, variable_store(kernel, 10)) == (Returned(), VALUE)


def test_the_task_has_its_own_table_again_afterwards(kernel: Kernel) -> None:
    task = kernel.fork("a")

    set_variable(kernel, "a", kernel.kmalloc(VALUE))

    assert kernel.cpu.cr3 == task.mm.pgd


def test_the_call_is_made_on_efis_table(kernel: Kernel) -> None:
    kernel.fork("a")
    seen: list[int] = []
    kernel.before["__efi_call"] = lambda k: seen.append(k.cpu.cr3)

    set_variable(kernel, "a", kernel.kmalloc(VALUE))

    assert seen == [efi_mm(kernel).pgd]


def test_that_table_is_not_on_pgd_list(kernel: Kernel) -> None:
    task = kernel.fork("a")

    assert list(kernel.pgd_list) == [task.mm]
    assert [mm.name for mm in kernel.outside] == ["init_mm", "trampoline_pgd", "efi_mm"]


@pytest.mark.parametrize("symbol", ["set_variable", "variable_store"])
def test_only_that_table_maps_the_firmware(kernel: Kernel, symbol: str) -> None:
    task = kernel.fork("a")
    addr = service(symbol)

    assert EFI_VA_END <= addr < EFI_VA_START
    assert kernel.walk(addr, efi_mm(kernel)).verdict == "mapped"
    assert {kernel.walk(addr, mm).verdict for mm in (kernel.init_mm, task.mm)} == {"not-present"}


@pytest.mark.parametrize(
    ("symbol", "va"), [("set_variable", -0x1_0020_0000), ("variable_store", -0x1_003F_F000)]
)
def test_regions_lie_from_minus_4_gib_down_with_their_offset_in_2_mib(
    kernel: Kernel, symbol: str, va: int
) -> None:
    assert service(symbol) == va % (1 << 64)


def test_a_call_copies_the_slots_from_the_direct_map_to_the_one_before_the_text(
    kernel: Kernel,
) -> None:
    put_slot(kernel, kernel.init_mm, 500, 0x1234_5067)

    efi_sync_low_kernel_mappings(kernel)

    theirs, ours = slots(kernel, efi_mm(kernel)), slots(kernel, kernel.init_mm)
    assert theirs[273:511] == ours[273:511]
    assert theirs[511] != ours[511]


@pytest.mark.parametrize("slot", [0, 255, 272])
def test_it_copies_nothing_below(kernel: Kernel, slot: int) -> None:
    put_slot(kernel, kernel.init_mm, slot, 0x1234_5067)

    efi_sync_low_kernel_mappings(kernel)

    assert slots(kernel, efi_mm(kernel))[slot] == 0


def test_around_the_window_the_tables_below_agree(kernel: Kernel) -> None:
    text = 0xFFFF_FFFF_8100_0000
    at = table_of(kernel, kernel.init_mm, text, 3) >> 3
    kernel.memory.words[at] = 0x1234_5067  # the first of 444 entries below the window

    efi_sync_low_kernel_mappings(kernel)

    ours = kernel.memory.words[at : at + 512].tolist()
    at = table_of(kernel, efi_mm(kernel), text, 3) >> 3
    theirs = kernel.memory.words[at : at + 512].tolist()
    assert (theirs[:444], theirs[508:]) == (ours[:444], ours[508:])
    assert ours[444:508] == [0] * 64
    assert any(theirs[444:508])


def test_with_5_levels_the_p4ds_below_the_last_agree_too() -> None:
    with Kernel("6.17", levels=5, firmware="efi") as kernel:
        at = table_of(kernel, kernel.init_mm, EFI_VA_END, 4)
        kernel.memory.write_u64(PhysAddr(at + 8 * 508), 0x1234_5067)

        efi_sync_low_kernel_mappings(kernel)

        theirs = table_of(kernel, efi_mm(kernel), EFI_VA_END, 4)
        assert (theirs != at, kernel.memory.read_u64(PhysAddr(theirs + 8 * 508))) == (
            True,
            0x1234_5067,
        )


def test_a_slot_that_is_new_before_the_call_is_there(kernel: Kernel) -> None:
    kernel.fork("a")
    kernel.memory.write(PhysAddr(ADDED), VALUE)
    add_memory(kernel)

    stop = set_variable(kernel, "a", SECOND[kernel.layout.levels])

    assert (stop, variable_store(kernel, 10)) == (Returned(), VALUE)


def test_a_slot_that_is_new_during_the_call_is_not(
    kernel: Kernel, expect_page_fault: Callable[..., PageFault]
) -> None:
    task = kernel.fork("a")
    data = SECOND[kernel.layout.levels]
    kernel.before["__efi_call"] = add_memory

    stop = set_variable(kernel, "a", data)

    fault = expect_page_fault(stop, at=data, error="", level="pgd")
    assert (fault.rip, fault.cr3) == (service("set_variable_read"), efi_mm(kernel).pgd)
    assert {kernel.walk(data, mm).verdict for mm in (kernel.init_mm, task.mm)} == {"mapped"}


def test_the_next_call_sees_it(kernel: Kernel) -> None:
    kernel.fork("a")
    kernel.before["__efi_call"] = add_memory
    set_variable(kernel, "a", SECOND[kernel.layout.levels])
    del kernel.before["__efi_call"]

    assert set_variable(kernel, "a", SECOND[kernel.layout.levels]) == Returned()


def test_the_oops_names_the_frames_but_not_the_firmware(kernel: Kernel) -> None:
    kernel.fork("a")
    kernel.before["__efi_call"] = add_memory

    stop = set_variable(kernel, "a", SECOND[kernel.layout.levels])

    lines = kernel.oops(stop).split("\n")  # type: ignore[arg-type]
    assert f"RIP: 0010:{service('set_variable_read'):#x}" in lines
    assert {" ? __efi_call+0xd/0x13", " ? virt_efi_set_variable_nonblocking+0x8f/0xf0"} < {*lines}


@pytest.mark.parametrize("name", ["efi_mm", "trampoline_pgd"])
def test_a_kernel_without_firmware_has_no_such_table(
    make_kernel: Callable[..., Kernel], name: str
) -> None:
    kernel = make_kernel("6.17")

    with pytest.raises(KernelError, match=f"there is no {name}: expected a Kernel with other"):
        kernel.run(kernel.fork("a"), lambda k: named_by_model(k, name))


def named_by_model(kernel: Kernel, name: str) -> int:
    """Ask the model for a table that it has not got."""
    from kernel_model.realmode import outside

    return outside(kernel, name).pgd


def test_before_4_6_the_trampolines_table_is_efis_too(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("4.4", firmware="efi")
    task = kernel.fork("a")

    stop = set_variable(kernel, "a", kernel.kmalloc(VALUE))

    assert (stop, variable_store(kernel, 10)) == (Returned(), VALUE)
    assert efi_mm(kernel) is named(kernel, "trampoline_pgd")
    # The text's slot is shared, so that everybody has the firmware's mappings.
    assert kernel.walk(service("set_variable"), task.mm).verdict == "mapped"


@pytest.mark.parametrize(("release", "has"), [("4.4", True), ("4.6", False), ("5.10", False)])
def test_a_call_before_4_6_gives_the_trampoline_the_kernels_slots(
    make_kernel: Callable[..., Kernel], release: str, has: bool
) -> None:
    kernel = make_kernel(release, firmware="efi")

    vmalloc = slots(kernel, named(kernel, "trampoline_pgd"))[402]
    assert (vmalloc != 0) is has


def test_an_unknown_firmware_is_refused(make_kernel: Callable[..., Kernel]) -> None:
    with pytest.raises(ValueError, match=r"^firmware 'uboot': expected bios, efi or None$"):
        make_kernel("6.17", firmware="uboot")
