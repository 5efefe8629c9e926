"""The package's own sources: GNU as and ld make the same image of them, wherever it lies.

The constants are those of a kernel build, with the struct page sizes that builds have.
"""

from itertools import count
from pathlib import Path

import pytest
from support import gnu

import asm
from asm import assemble_file, link

pytestmark = pytest.mark.skipif(gnu.MISSING is not None, reason=str(gnu.MISSING))

FOLDER = Path(asm.__file__).parent
BUILDS = sorted(FOLDER.glob("builds/*.S"))
COMMON = [path for path in sorted(FOLDER.rglob("*.S")) if path not in BUILDS]
FIXED = {
    "NODES_PGSHIFT": 54,
    "ZONES_PGSHIFT": 51,
    "PG_RESERVED": 14,
    "PG_HEAD": 6,
    "ZONE_DEVICE": 4,
    "PAGE_UNUSED": 0xFD,
    "REFCOUNT_RESET_TYPES": 0x14,
}
OFFSETS = """
    PAGE_FLAGS PAGE_LRU PAGE_COMPOUND_HEAD PAGE_PGMAP PAGE_LRU_PREV PAGE_ZONE_DEVICE_DATA
    PAGE_MAPPING PAGE_INDEX PAGE_PRIVATE PAGE_MAPCOUNT PAGE_REFCOUNT PAGE_MEMCG ZONE_PGDAT
    PGDAT_NODE_ID PGMAP_TYPE PGMAP_VMEMMAP_SHIFT FOLIO_ORDER FOLIO_ENTIRE_MAPCOUNT
    FOLIO_NR_PAGES_MAPPED FOLIO_PINCOUNT FOLIO_NR_PAGES COMPOUND_NR_OPTIMIZED
"""
CONSTANTS = FIXED | dict(zip(OFFSETS.split(), count(0, 4), strict=False))


@pytest.mark.parametrize("base", [0xFFFFFFFF81000000, 0xFFFFFFFF9A200000, 0x400000])
@pytest.mark.parametrize("size", [64, 80, 96])
@pytest.mark.parametrize("build", BUILDS, ids=lambda path: path.stem)
def test_gnu_as_and_ld_make_the_same_image(build, size, base):
    constants = CONSTANTS | {"SIZEOF_PAGE": size}
    paths = [*COMMON, build]
    programs = [assemble_file(path, constants=constants) for path in paths]
    names = sorted({name for program in programs for name in program.sections})
    bases = dict(zip(names, count(base, 0x400000), strict=False))

    image = link(programs, bases)

    expected = gnu.assemble_and_link([path.read_text() for path in paths], bases, constants)
    sections = {s.name: (s.base, s.data) for s in image.segments if s.data}
    assert sections == {name: s for name, s in expected.sections.items() if s[1]}
    placed = {s.name: (s.address, s.size) for s in image.symbols.values()}
    assert placed == {name: expected.symbols.get(name) for name in placed}
