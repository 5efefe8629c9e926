"""Memory that is added while firmware is being called.

EFI's runtime services run on a table that is not on pgd_list. Every call begins with a copy of
init_mm's slots into it, so that it lags behind for no longer than a call takes: what the direct map
gains in between, every task's table has, and the one that is active has not. Whatever uses it
before the call returns, firmware or an interrupt's handler, faults.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kernel_model.scenarios.outside import (
    DEVICE,
    add_device,
    boots_with_device,
    check_device,
    nr_device_pages,
    outside_notes,
)
from kernel_model.scenarios.spec import Parameter, Scenario, Settings

if TYPE_CHECKING:
    from emu import Stop
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending

VALUE: Final = b"in added memory\0"


def boots(settings: Settings) -> dict[str, Any]:
    """Return Kernel's options."""
    return {**boots_with_device(settings), "firmware": "efi"}


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Have firmware keep a variable whose value lies in the memory that is added."""
    from emu import PhysAddr, Returned
    from kernel_model.efi import efi_mm, variable_store, virt_efi_set_variable_nonblocking
    from kernel_model.scenarios.outcome import Ending

    task, worker = kernel.fork("pstore"), kernel.kthread("kworker/1:1")
    start = int(settings["start"])
    data = kernel.layout.va(start)
    kernel.memory.write(PhysAddr(start), VALUE)
    added: list[Stop] = []

    def add(kernel: "Kernel") -> None:
        added.append(add_device(kernel, settings, worker))

    if settings["hotadd"] == "before":
        add(kernel)
    else:
        kernel.before["__efi_call"] = add
    stop = kernel.run(task, virt_efi_set_variable_nonblocking, data, len(VALUE))
    if added[0] != Returned():
        return Ending(worker, added[0], data)
    kept = variable_store(kernel, len(VALUE)).rstrip(b"\0").decode()
    return Ending(
        replace(task, mm=efi_mm(kernel)),
        stop,
        data,
        notes=outside_notes(kernel, data),
        facts={"variable": kept or None},
    )


SCENARIO: Final = Scenario(
    name="efi-call",
    summary="firmware is called on a table of its own while the direct map gains a slot",
    release="6.17",
    broke={
        "": "the design: a table off pgd_list, copied into when a call begins (67a9108ed431 "
        '"x86/efi: Build our own page table structures"; before that the trampoline\'s)'
    },
    fixed="not at all: the next call copies the slot",
    look_at="efi_mm's top-level entry for the faulting address, beside any task's",
    parameters=(
        Parameter(
            "hotadd",
            "when the memory is added: before the call, or behind the copy that it begins with",
            "word",
            "during",
            ("before", "during"),
        ),
        *DEVICE,
    ),
    play=play,
    check=check_device,
    boots=boots,
    nr_pages=nr_device_pages,
)
