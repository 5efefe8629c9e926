"""The firmware's image: the same bytes as with GNU as, each part within its page."""

from pathlib import Path

import pytest
from support import gnu

import asm
from asm import assemble, link

SOURCE = (Path(asm.__file__).parent / "firmware" / "runtime.S").read_text()
BASES = {".text": 0xFFFF_FFFE_FFE0_0000, ".data": 0xFFFF_FFFE_FFC0_1000}


@pytest.mark.skipif(gnu.MISSING is not None, reason=str(gnu.MISSING))
def test_it_becomes_the_same_bytes_as_with_gnu_as():
    image = link([assemble(SOURCE)], BASES)

    linked = gnu.assemble_and_link([SOURCE], BASES, {})
    assert {s.name: (s.base, s.data) for s in image.segments if s.data} == {
        name: section for name, section in linked.sections.items() if section[1]
    }


@pytest.mark.parametrize("section", BASES)
def test_a_region_is_a_page_at_most(section):
    image = link([assemble(SOURCE)], BASES)

    assert {s.name: len(s.data) <= 4096 for s in image.segments}[section]
