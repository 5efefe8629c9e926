"""Kernel(...): what is refused, by which words, and that all the rest boots."""

from typing import Any

import pytest
from support.kernel_facts import ALL_RELEASES, GIB, MIB, TIB

from emu import Returned
from kernel_model import RELEASES, Kernel


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"release": "6.18"}, "unknown release '6.18': expected 4.4, 4.6, 4.12-rc"),
        ({"release": "rfc-v2"}, "did you mean rfc-v1?"),
        ({"release": ""}, "unknown release ''"),
        ({"build": "6.9"}, "unknown build '6.9': expected 4.4, 6.8, 6.13-drm-tip"),
        ({"build": "6.13-drm-top"}, "did you mean 6.13-drm-tip?"),
        ({"levels": 3}, "3 levels"),
        ({"levels": 0}, "0 levels"),
        ({"struct_page": 72}, "struct page of 72 bytes: expected 64, 80 or 96"),
        ({"struct_page": 0}, "struct page of 0 bytes"),
        ({"ram": 0}, "ram 0x0: expected a multiple of 128 MiB, up to 1 TiB"),
        ({"ram": -128 * MIB}, "ram -0x8000000: expected"),
        ({"ram": 4 * GIB + 1}, "ram 0x100000001: expected"),
        ({"ram": 64 * MIB}, "ram 0x4000000: expected"),
        ({"ram": TIB + 128 * MIB}, "ram 0x10008000000: expected"),
        ({"vmemmap_base": 0xFFFF_E6FF_C000_1000}, "vmemmap_base 0xffffe6ffc0001000 is not 1 GiB"),
        ({"vmemmap_base": 0}, "vmemmap_base 0x0 leaves no room"),
        ({"vmemmap_base": 0xFFFF_FF00_0000_0000}, "vmemmap_base 0xffffff0000000000: its"),
        ({"vmemmap_base": 0xFFFF_EA00_0000_0000, "levels": 5}, "vmemmap_base 0xffffea0000000000"),
    ],
)
def test_a_value_that_makes_no_kernel_is_refused_by_name(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        Kernel(**options)


@pytest.mark.parametrize(
    ("release", "levels"),
    [(name, levels) for name in ALL_RELEASES for levels in RELEASES[name].levels],
)
def test_every_release_boots_at_its_levels(release: str, levels: int) -> None:
    with Kernel(release, levels=levels) as kernel:
        stop = kernel.run(kernel.fork("a"), "__init_single_page", rdi=kernel.layout.vmemmap_base)

        assert stop == Returned()


@pytest.mark.parametrize(
    ("levels", "struct_page", "ram"),
    [
        (4, 64, 128 * MIB),
        (5, 96, 128 * MIB),
        (4, 96, 640 * MIB),
        (5, 80, 5 * GIB + 128 * MIB),
        (4, 80, 64 * GIB),
        (5, 64, 512 * GIB),
    ],
)
def test_all_of_ram_has_struct_pages_and_the_direct_map(
    levels: int, struct_page: int, ram: int
) -> None:
    with Kernel(levels=levels, struct_page=struct_page, ram=ram) as kernel:
        last = (ram >> 12) - 1

        assert kernel.walk(kernel.layout.va(ram - 8)).pa == ram - 8
        assert kernel.walk(kernel.layout.va(ram)).verdict == "not-present"
        assert kernel.page(last).refcount == 0
        assert kernel.sections.pfn_valid(last)
        assert not kernel.sections.pfn_valid(last + 1)


def test_no_frame_of_a_boot_structure_is_handed_out_again() -> None:
    with Kernel(ram=128 * MIB) as kernel:
        free = kernel.frames.nr_free

        frames = {kernel.frames.allocate() for _ in range(free)}

        used = {step.entry_pa & ~0xFFF for va in REGIONS for step in kernel.walk(va).steps}
        assert len(frames) == free
        assert not frames & used
        assert min(frames) >= 0x300_0000


REGIONS = (
    *(0xFFFF_8880_0000_0000, 0xFFFF_8880_0000_0000 + 127 * MIB, 0xFFFF_C900_0000_0000),
    *(0xFFFF_EA00_0000_0000, 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8200_0000, 0xFFFF_FFFF_C010_0000),
)
