"""Sixteen GiB of a device mapped over and over, until the vmalloc area's next slot is reached.

The case of "Re: [PATCH] x86/mm/vmfault: Make vmalloc_fault() handle large pages" (Toshi Kani,
2016-02-09): the 31st mapping crosses a 512 GiB boundary, so its upper part lies under a top-level
entry that a task forked before has not got, and ioremap maps it by 1 GiB pages.
"""

from typing import TYPE_CHECKING, Any, Final

from kernel_model.e820 import E820
from kernel_model.layout import GIB, PAGE_SIZE
from kernel_model.scenarios.spec import Parameter, Scenario, Settings

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending

DEVICES: Final = ((18 * GIB, 34 * GIB), (50 * GIB, 66 * GIB))
RAM: Final = ((0, 18 * GIB), (34 * GIB, 0xC_7F03_B000))
SIZE: Final = 16 * GIB
_IN_THE_MAIL: Final = (0, 0, 1, 1)  # which device the first mappings are of; then 0 and 1 in turn
_READ: Final = 512


def check(settings: Settings, _levels: int) -> None:
    """Refuse a read that is not inside the last mapping."""
    if int(settings["offset"]) + _READ > SIZE:
        raise ValueError(
            f"offset {int(settings['offset']):#x}: expected at most {SIZE - _READ:#x}, so that "
            f"{_READ} bytes can be read"
        )
    if not 1 <= int(settings["mappings"]) <= 1000:
        raise ValueError(f"mappings {settings['mappings']}: expected 1 to 1000")


def boots(settings: Settings) -> dict[str, Any]:
    """Return the machine of the mail: RAM with two devices in it."""
    return {"ram": E820(RAM, DEVICES), "hugetlbfs": bool(settings["hugetlbfs"])}


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Map, then read near the end of the last mapping in the task that the settings name."""
    from emu import PhysAddr, Returned
    from kernel_model.drivers import load_nd_btt
    from kernel_model.ioremap import memremap
    from kernel_model.scenarios.means import by_what_means
    from kernel_model.scenarios.outcome import Ending
    from kernel_model.vmap_areas import vmallocinfo

    who = settings["task"]
    task = kernel.kthread("kworker/0:1") if who == "init_mm" else kernel.fork("modprobe")
    starts = [DEVICES[number][0] for number in _devices(int(settings["mappings"]))]
    mapper, va = kernel.kthread("kworker/u4:0"), 0
    for phys in starts:
        mapped = kernel.run(mapper, memremap, phys, SIZE)
        if not isinstance(mapped, Returned) or not mapped.value:
            return Ending(mapper, mapped, va)
        va = mapped.value
    if who == "late":
        task = kernel.fork("late")

    offset = int(settings["offset"])
    pa, addr = PhysAddr(starts[-1] + offset), va + offset
    written = bytes((0xB7 + 3 * i) & 0xFF for i in range(_READ))
    kernel.memory.write(pa, written)
    to = kernel.kmalloc(bytes(_READ))
    stop = load_nd_btt(kernel, task, to, addr, _READ)
    read = kernel.read(to, _READ)

    lines = [line for line in vmallocinfo(kernel) if "ioremap" in line]
    notes = [f"/proc/vmallocinfo: {line}" for line in (lines[0], lines[-1])]
    notes.append(f"the read of {_READ} bytes at {addr:016x} is of the device at pa {pa:#x}")
    if isinstance(stop, Returned):
        notes.append(f"it returns the device's data: {'yes' if read == written else 'NO'}")
    notes.append(by_what_means(kernel, task, addr, stop))
    facts = {
        "vmallocinfo": lines,
        "read": f"{addr:#x}",
        "device_pa": f"{pa:#x}",
        "data_matches": read == written if isinstance(stop, Returned) else None,
    }
    return Ending(task, stop, addr, tuple(notes), facts)


def _devices(nr: int) -> list[int]:
    """Return the numbers of the devices that are mapped, in order."""
    return [_IN_THE_MAIL[i] if i < len(_IN_THE_MAIL) else i % 2 for i in range(nr)]


SCENARIO: Final = Scenario(
    name="ioremap-512g",
    summary="a device mapped by 1 GiB pages across a top-level boundary of the vmalloc area",
    release="4.4",
    broke={
        "vmalloc_fault": '5d72b4fba40e "x86, mm: support huge I/O mapping capability I/F" (4.1)',
        "memcpy_erms": '8bb9bf242d1f "x86/mm/64: Do not sync vmalloc/ioremap mappings", on top of '
        '6eb82f994026 "x86/mm: Pre-allocate P4D/PUD pages for vmalloc area"',
    },
    fixed={
        "vmalloc_fault": 'f4eafd8bcd52 "x86/mm: Fix vmalloc_fault() to handle large pages '
        'properly"; without CONFIG_HUGETLBFS, 18a955219bf7',
        "memcpy_erms": '995909a4e22b "x86/mm/64: Do not dereference non-present PGD entries"',
    },
    look_at="the page that the pud entry maps: the handler reads it as if it were a table of pmds",
    parameters=(
        Parameter("mappings", f"how many times {SIZE // GIB} GiB are mapped", "number", 31),
        Parameter("offset", "what is read of the last mapping", "address", SIZE - PAGE_SIZE),
        Parameter("hugetlbfs", "CONFIG_HUGETLBFS", "number", 1, (0, 1)),
        Parameter(
            "task",
            "whose table the read is made on: forked before the mappings, after, or init_mm's own",
            "word",
            "early",
            ("early", "late", "init_mm"),
        ),
    ),
    play=play,
    check=check,
    boots=boots,
)
