"""Tables of garbage in RAM with holes, and what `walk` says of an address in them."""

from functools import reduce

from hypothesis import strategies as st

from emu import Paging, PhysMemory, VirtAddr
from emu.paging import PS, RW, US, XD, A, D, G, P
from emu.walk import walk

PIECES = ((0x1000, 0x6000), (0x8000, 0xA000), (0xA000, 0xB000))  # a hole, and a seam
KEY = 15 << 59
_FLAGS = (RW, US, A, D, PS, G, XD, 1 << 59, 1 << 62, 1 << 45, 1 << 12, 1 << 20)
_INDICES = (0, 1, 2, 254, 255, 256, 257, 510, 511)

flags = st.lists(st.sampled_from(_FLAGS), max_size=3).map(lambda bits: sum(set(bits)))
tables = st.builds(lambda n, rights: n << 12 | RW | US | P | rights, st.integers(1, 11), flags)
entries = st.one_of(tables, tables, st.just(0), st.just(RW), st.integers(0, (1 << 64) - 1))
indices = st.one_of(st.sampled_from(_INDICES), st.integers(0, 511))


@st.composite
def spaces(draw, entries=entries, most=4):
    """RAM with a few entries in each frame, and paging from one of them."""
    memory = PhysMemory(PIECES)
    for start, end in PIECES:
        for pa in range(start, end, 0x1000):
            for at, entry in draw(st.dictionaries(indices, entries, max_size=most)).items():
                memory.write_u64(pa + 8 * at, entry)
    root = draw(st.sampled_from((0x1000, 0x1000, 0x1000, 0x5000, 0x9000, 0x7000)))
    levels, nxe = draw(st.sampled_from((4, 5))), draw(st.booleans())
    return memory, Paging.long_mode(root, levels=levels, nxe=nxe)


def near_indices(levels):
    """Addresses that these tables have much to say of, and others."""
    parts = st.tuples(*[indices] * levels, st.integers(0, 4095))
    linear = parts.map(lambda p: reduce(lambda va, i: va << 9 | i, p[:-1], 0) << 12 | p[-1])
    sign = 1 << 8 + 9 * (levels - 1) + 12
    canonical = linear.map(lambda va: va | -(va & sign) & (1 << 64) - 1)
    return st.one_of(canonical, linear, st.integers(0, (1 << 64) - 1))


def known(memory, paging, va):
    """What `walk` knows: kind, level, entry_pa, entry, pa, and the rights over all levels."""
    found = walk(memory.read_u64, paging, VirtAddr(va))
    steps = [step.entry for step in found.steps]
    _, entry_pa, entry = found.steps[-1] if steps else (0, 0, 0)
    rights = 0
    if found.verdict == "mapped":
        everywhere = reduce(int.__and__, steps) & (RW | US)
        rights = everywhere | reduce(int.__or__, steps) & XD | entry & (G | KEY)
    return found.verdict, found.level, entry_pa, entry, found.pa or 0, rights
