"""Numbers about the tables that are not on pgd_list, and the releases that can boot.

Like `kernel_facts`, worked out by hand from Linux's sources and documentation.
"""

from typing import Final

import pytest

from kernel_model import RELEASES, Kernel
from kernel_model.mm import Mm

ISOLATING: Final = tuple(name for name, release in RELEASES.items() if release.pti)
DEPTHS: Final = (4, 5)

# By levels: where the direct map has its second slot, if KASLR lets it begin 64 GiB before that.
BASE: Final = {4: 0xFFFF_88F0_0000_0000, 5: 0xFF11_FFF0_0000_0000}
SECOND: Final = {4: 0xFFFF_8900_0000_0000, 5: 0xFF12_0000_0000_0000}
ADDED: Final = 64 << 30  # what lies there

ENTRY_AREA: Final = 0xFFFF_FE00_0000_0000
ESPFIX: Final = 0xFFFF_FF00_0000_0000
EFI_VA_START, EFI_VA_END = 0xFFFF_FFFF_0000_0000, 0xFFFF_FFEF_0000_0000


BOOTING: Final = tuple(
    pytest.param(release, levels, id=f"{release}-{levels}")
    for release in RELEASES
    for levels in DEPTHS
    if levels in RELEASES[release].levels
)


def named(kernel: Kernel, name: str) -> Mm:
    """The table outside pgd_list that is called so."""
    (found,) = (mm for mm in kernel.outside if mm.name == name)
    return found


def filled(kernel: Kernel, pa: int) -> set[int]:
    """The entries of a table that are not 0."""
    words = kernel.memory.words[pa >> 3 : (pa >> 3) + 512]
    return {index for index, entry in enumerate(words) if entry}


def table_of(kernel: Kernel, mm: Mm, addr: int, level: int) -> int:
    """The table of a level that a walk for `addr` reads."""
    (step,) = (step for step in kernel.walk(addr, mm).steps if step.level == level)
    return step.entry_pa & -4096
