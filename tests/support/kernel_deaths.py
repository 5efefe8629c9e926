"""A death made by hand, of which each word that an oops prints is known, and its texts.

The task stood in __init_single_page at the store to offset 0x34. Its stack has two return
addresses, and between them an address of other text. The texts are those of Linux's own sources
and of oopses in public mails; where places lie in memory is the image's business, so that they
are named in braces.
"""

from typing import Final

from support.kernel_facts import FOUR
from support.kernel_oops import store

from emu import Registers, Trap, VirtAddr
from kernel_model import RELEASES, Kernel
from kernel_model.death import Death
from kernel_model.oops import compose

BASE: Final = 0xFFFF_C900_0000_4000  # of a stack of 16 KiB
RSP: Final = BASE + 0x3F90
PLACES: Final = {
    "rip": "__init_single_page+0x9",
    "caller": "__init_zone_device_page+0x17",
    "stray": "memremap_pages+0x10b",
    "outer": "memmap_init_zone_device+0x154",
}
TASK: Final = 0xFFFF_8880_0001_0000


def hand_made(kernel: Kernel) -> Death:
    """The death, on a kernel that has died of something alike."""
    store(kernel, FOUR.boundary)
    last = kernel.deaths.last
    assert last is not None
    at = {name: kernel.symbol(place) for name, place in PLACES.items()}
    words = (at["caller"], 0x40000000, at["stray"], FOUR.boundary, at["outer"], *range(1, 10))
    registers = Registers(
        rax=0xA, rbx=0xB, rcx=0xC, rdx=0xD, rsi=0x51, rdi=FOUR.boundary, rbp=0, rsp=RSP,
        r8=8, r9=9, r10=10, r11=11, r12=12, r13=13, r14=14, r15=15,
        rip=at["rip"], rflags=0x286, fs_base=0x7F00_0000_0740, gs_base=0xFFFF_8880_3FC0_0000,
    )  # fmt: skip
    return last._replace(
        number=1,
        comm="ndctl",
        pid=301,
        registers=registers,
        cr2=FOUR.boundary + 0x34,
        cr3=0x1234000,
        stack=b"".join(word.to_bytes(8, "little") for word in words),
        code=bytes(range(64)),
        task=TASK,
        bounds=(BASE, BASE + 0x4000),
    )


def trap(death: Death, vector: int, error_code: int | None = None) -> Death:
    """The same task, dead of another exception."""
    return death._replace(
        stop=Trap(vector, error_code, VirtAddr(death.registers.rip), death.registers)
    )


def text_of(kernel: Kernel, death: Death, release: str) -> str:
    """What a release prints of it."""
    return compose(death, death, RELEASES[release], kernel.build, kernel.image)


def filled(kernel: Kernel, text: str) -> str:
    """A text with the places of the image in it."""
    return text.format(**{name: f"{kernel.symbol(place):016x}" for name, place in PLACES.items()})
