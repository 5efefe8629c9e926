"""The mm routines on a bare CPU without paging: what they write, where, and in which order.

Knows the kernel's struct page from the constants below alone; imports nothing that it judges but
the assembler. Flat memory: a virtual address is the address in RAM.
"""

import functools
import struct
from pathlib import Path
from typing import Final

import pytest
from unicorn import UC_ARCH_X86, UC_HOOK_MEM_WRITE, UC_MODE_64, Uc, UcError, x86_const

import asm
from asm import Image, assemble_file, link

SOURCES: Final = Path(asm.__file__).parent
FILES: Final = ("head", "mm/page_init", "mm/vmemmap_pmd", "mm/switch_mm", "mm/data")
BASES: Final = {".text": 0x100000, ".data": 0x200000}

BLOCK: Final = 1 << 21
ENTRY, ZONE, NODE, PGMAP, STACK = 0x300000, 0x300400, 0x300800, 0x300C00, 0x400000
VMEMMAP, VMEMMAP_SIZE = 0x1000_0000, 2 * BLOCK
LOW_SIZE: Final = 0x400000
ZONE_PGDAT, PGDAT_NODE_ID, PGMAP_TYPE, PGMAP_VMEMMAP_SHIFT = 0x40, 0x80, 0x98, 0xA0

JUNK, UNUSED = b"\xa5", b"\xfd"  # what vmemmap holds before; PAGE_UNUSED
DIRECT_MAP, LARGE_PAGE = 0xFFFF888000000000, 0x163E00000
LARGE_ENTRY, TABLE_ENTRY = 0x8000000163E001E3, 0x163E00067
PRIVATE, COHERENT, FS_DAX, GENERIC, PCI_P2PDMA = 1, 2, 3, 4, 5
NID, DEVICE_ZONE = 3, 4
ZONE_AND_NODE, RESERVED, HEAD = NID << 54 | DEVICE_ZONE << 51, 1 << 14, 1 << 6
NO_MAPCOUNT: Final = 0xFFFFFFFF
FIRST_PFN, OPTIMIZED, PLAIN = 512, 1, 0
SAVED: Final = {"rbx": 0xB0, "rbp": 0xB1, "r12": 0xB2, "r13": 0xB3, "r14": 0xB4, "r15": 0xB5}
WORDS: Final = (
    *("flags", "lru", "lru_prev", "mapping", "index", "private"),
    *("mapcount", "refcount", "memcg"),
)
ARGUMENTS: Final = ("rdi", "rsi", "rdx", "rcx", "r8")


def constants(size: int) -> dict[str, int]:
    """What a build with a struct page of `size` bytes hands to the assembler."""
    return {
        "SIZEOF_PAGE": size,
        "PAGE_FLAGS": 0x00,
        "PAGE_LRU": 0x08,
        "PAGE_COMPOUND_HEAD": 0x08,
        "PAGE_PGMAP": 0x08,
        "PAGE_LRU_PREV": 0x10,
        "PAGE_ZONE_DEVICE_DATA": 0x10,
        "PAGE_MAPPING": 0x18,
        "PAGE_INDEX": 0x20,
        "PAGE_PRIVATE": 0x28,
        "PAGE_MAPCOUNT": 0x30,
        "PAGE_REFCOUNT": 0x34,
        "PAGE_MEMCG": 0x38,
        "NODES_PGSHIFT": 54,
        "ZONES_PGSHIFT": 51,
        "PG_RESERVED": 14,
        "PG_HEAD": 6,
        "ZONE_DEVICE": DEVICE_ZONE,
        "ZONE_PGDAT": ZONE_PGDAT,
        "PGDAT_NODE_ID": PGDAT_NODE_ID,
        "PGMAP_TYPE": PGMAP_TYPE,
        "PGMAP_VMEMMAP_SHIFT": PGMAP_VMEMMAP_SHIFT,
        "REFCOUNT_RESET_TYPES": 1 << PRIVATE | 1 << COHERENT,
        "PAGE_UNUSED": UNUSED[0],
        "SUB_PMD": 1,
        "COMPOUND_NR_OPTIMIZED": 2 * (4096 // size),
        "FOLIO_ORDER": 0x00,
        "FOLIO_ENTIRE_MAPCOUNT": 0x18,
        "FOLIO_NR_PAGES_MAPPED": 0x1C,
        "FOLIO_PINCOUNT": 0x20,
        "FOLIO_NR_PAGES": 0x24,
    }


@functools.cache
def image(size: int) -> Image:
    files = [assemble_file(SOURCES / f"{f}.S", constants=constants(size)) for f in FILES]
    return link(files, BASES)


def register(name: str) -> int:
    return getattr(x86_const, f"UC_X86_REG_{name.upper()}")


class Flat:
    """A CPU, the linked routines, and two 2 MiB blocks of vmemmap full of junk."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.image = image(size)
        self.writes: list[tuple[int, int]] = []  # offset in vmemmap, size
        self.uc = Uc(UC_ARCH_X86, UC_MODE_64)
        self.uc.mem_map(0, LOW_SIZE)
        for segment in self.image.segments:
            self.uc.mem_write(segment.base, segment.data)
        self.uc.mem_map(VMEMMAP, VMEMMAP_SIZE)
        self.uc.mem_write(VMEMMAP, JUNK * VMEMMAP_SIZE)
        self.poke("vmemmap_base", VMEMMAP)
        self.poke("page_offset_base", DIRECT_MAP)
        self.put(NODE + PGDAT_NODE_ID, NID, 4)
        self.put(ZONE + ZONE_PGDAT, NODE, 8)

    def record_writes(self) -> None:
        def seen(uc: Uc, kind: int, va: int, size: int, value: int, data: object) -> None:
            self.writes.append((va - VMEMMAP, size))

        end = VMEMMAP + VMEMMAP_SIZE - 1
        self.uc.hook_add(UC_HOOK_MEM_WRITE, seen, begin=VMEMMAP, end=end)

    def put(self, va: int, value: int, size: int) -> None:
        self.uc.mem_write(va, value.to_bytes(size, "little"))

    def poke(self, symbol: str, value: int) -> None:
        self.put(self.image.address(symbol), value, 8)

    def peek(self, symbol: str) -> int:
        return int.from_bytes(self.uc.mem_read(self.image.address(symbol), 8), "little")

    def register(self, name: str) -> int:
        return self.uc.reg_read(register(name))

    def call(self, name: str, *arguments: int) -> int:
        """Run `name` until it returns; eax. What the ABI says it preserves, it must preserve."""
        values = dict(zip(ARGUMENTS, arguments, strict=False)) | SAVED
        values |= {"rsp": STACK - 8, "rax": 0}
        for each, value in values.items():
            self.uc.reg_write(register(each), value)
        stop = self.image.address("run_return")
        self.put(STACK - 8, stop, 8)

        self.uc.emu_start(self.image.address(name), LOW_SIZE)

        assert (self.register("rip"), self.register("rsp")) == (stop + 1, STACK)
        assert {each: self.register(each) for each in SAVED} == SAVED
        return self.register("eax")

    def words(self, pfn: int) -> dict[str, int]:
        """The struct page of `pfn`, field by field."""
        data = bytes(self.uc.mem_read(VMEMMAP + pfn * self.size, self.size))
        return dict(zip(WORDS, struct.unpack_from("<6Q2IQ", data), strict=True))

    def block(self, number: int) -> bytes:
        return bytes(self.uc.mem_read(VMEMMAP + number * BLOCK, BLOCK))

    def written_pages(self) -> set[int]:
        return {offset // self.size for offset, _ in self.writes}

    def set_pmd(self, addr: int, end: int) -> None:
        """vmemmap_set_pmd for offsets in vmemmap."""
        block = (DIRECT_MAP + LARGE_PAGE) & (1 << 64) - 1
        self.call("vmemmap_set_pmd", ENTRY, block, NID, VMEMMAP + addr, VMEMMAP + end)

    def check_pmd(self, entry: int, addr: int, end: int) -> int:
        self.put(ENTRY, entry, 8)
        return self.call("vmemmap_check_pmd", ENTRY, NID, VMEMMAP + addr, VMEMMAP + end)

    def unused_start(self) -> int | None:
        """unused_pmd_start as an offset in vmemmap; None when it is 0."""
        start = self.peek("unused_pmd_start")
        return start - VMEMMAP if start else None

    def init_memmap(self, *, shift: int, nr_pages: int, optimized: int) -> None:
        self.put(PGMAP + PGMAP_TYPE, GENERIC, 4)
        self.put(PGMAP + PGMAP_VMEMMAP_SHIFT, shift, 4)
        self.call("memmap_init_zone_device", ZONE, FIRST_PFN, nr_pages, PGMAP, optimized)

    def page_va(self, pfn: int) -> int:
        return VMEMMAP + pfn * self.size


@pytest.fixture(params=[64, 80, 96], ids="{}-byte-page".format)
def flat(request: pytest.FixtureRequest) -> Flat:
    return Flat(request.param)


@pytest.fixture
def recorded(flat: Flat) -> Flat:
    flat.record_writes()
    return flat


# __init_single_page


@pytest.mark.parametrize(
    ("size", "beyond"), [(64, []), (80, [0x48, 0x40]), (96, [0x58, 0x54, 0x50, 0x48, 0x40])]
)
def test_a_single_page_is_stored_in_the_order_of_a_distribution_kernel(size, beyond):
    flat = Flat(size)
    flat.record_writes()

    flat.call("__init_single_page", VMEMMAP, 0, DEVICE_ZONE, NID)

    order = [offset for offset, _ in flat.writes]
    assert order == [0x34, 0x30, *beyond, 0x38, 0x28, 0x08, 0x20, 0x18, 0x00, 0x10]


def test_a_single_page_is_written_whole_and_nothing_else_is(recorded):
    recorded.call("__init_single_page", recorded.page_va(7), 7, DEVICE_ZONE, NID)

    assert recorded.written_pages() == {7}
    assert sum(size for _, size in recorded.writes) == recorded.size


def test_a_single_page_starts_referenced_once_unmapped_and_on_an_empty_list(flat):
    flat.call("__init_single_page", VMEMMAP, 0, DEVICE_ZONE, NID)

    assert flat.words(0) == {
        "flags": ZONE_AND_NODE,
        "lru": VMEMMAP + 8,
        "lru_prev": VMEMMAP + 8,
        "mapping": 0,
        "index": 0,
        "private": 0,
        "mapcount": NO_MAPCOUNT,
        "refcount": 1,
        "memcg": 0,
    }


def test_junk_above_a_32_bit_argument_does_not_reach_the_flags(flat):
    junk = 0xDEADBEEF << 32

    flat.call("__init_single_page", VMEMMAP, 0, junk | DEVICE_ZONE, junk | NID)

    assert flat.words(0)["flags"] == ZONE_AND_NODE


def test_the_last_cpupid_of_a_96_byte_page_is_nobody():
    flat = Flat(96)

    flat.call("__init_single_page", VMEMMAP, 0, DEVICE_ZONE, NID)

    tail = struct.unpack("<2Q2IQ", flat.uc.mem_read(VMEMMAP + 0x40, 32))
    assert tail == (0, 0, 0xFFFFFFFF, 0, 0)


# __init_zone_device_page


def test_a_device_page_is_reserved_and_holds_its_pgmap(flat):
    flat.call("__init_zone_device_page", VMEMMAP, 0, DEVICE_ZONE, NID, PGMAP)

    page = flat.words(0)
    assert page["flags"] == ZONE_AND_NODE | RESERVED
    assert (page["lru"], page["lru_prev"]) == (PGMAP, 0)


@pytest.mark.parametrize(
    ("kind", "refcount"),
    [(PRIVATE, 0), (COHERENT, 0), (FS_DAX, 1), (GENERIC, 1), (PCI_P2PDMA, 1)],
)
def test_the_types_named_at_assemble_time_start_without_a_reference(flat, kind, refcount):
    flat.put(PGMAP + PGMAP_TYPE, kind, 4)

    flat.call("__init_zone_device_page", VMEMMAP, 0, DEVICE_ZONE, NID, PGMAP)

    assert flat.words(0)["refcount"] == refcount


# memmap_init_zone_device


@pytest.mark.parametrize(
    ("shift", "optimized", "nr_pages", "nr_whole"),
    [
        pytest.param(0, PLAIN, 0, 0, id="nothing"),
        pytest.param(0, PLAIN, 5, 5, id="lone-pages"),
        pytest.param(0, OPTIMIZED, 5, 5, id="lone-pages-have-nothing-to-deduplicate"),
        pytest.param(1, PLAIN, 4, 4, id="smallest-compound"),
        pytest.param(9, PLAIN, 1024, 1024, id="two-compounds"),
        pytest.param(9, PLAIN, 513, 1024, id="a-compound-begun-is-completed"),
    ],
)
def test_every_page_of_a_plain_memmap_is_initialised(
    recorded, shift, optimized, nr_pages, nr_whole
):
    recorded.init_memmap(shift=shift, nr_pages=nr_pages, optimized=optimized)

    assert recorded.written_pages() == set(range(FIRST_PFN, FIRST_PFN + nr_whole))


def test_a_deduplicated_compound_is_initialised_as_far_as_it_has_frames(recorded):
    own = 2 * (4096 // recorded.size)

    recorded.init_memmap(shift=9, nr_pages=1024, optimized=OPTIMIZED)

    heads = (FIRST_PFN, FIRST_PFN + 512)
    assert recorded.written_pages() == {head + n for head in heads for n in range(own)}


def test_lone_pages_are_no_heads(flat):
    flat.init_memmap(shift=0, nr_pages=2, optimized=PLAIN)

    assert flat.words(FIRST_PFN + 1)["flags"] == ZONE_AND_NODE | RESERVED


@pytest.mark.parametrize("optimized", [PLAIN, OPTIMIZED])
def test_the_head_of_a_compound_says_so_and_is_referenced(flat, optimized):
    flat.init_memmap(shift=9, nr_pages=1024, optimized=optimized)

    head = flat.words(FIRST_PFN + 512)
    assert head["flags"] == ZONE_AND_NODE | RESERVED | HEAD
    assert (head["refcount"], head["mapcount"], head["lru"]) == (1, NO_MAPCOUNT, PGMAP)


@pytest.mark.parametrize("optimized", [PLAIN, OPTIMIZED])
@pytest.mark.parametrize("tail", [1, 2, 83])
def test_a_tail_points_to_its_head_and_is_not_referenced(flat, optimized, tail):
    flat.init_memmap(shift=9, nr_pages=1024, optimized=optimized)

    page = flat.words(FIRST_PFN + 512 + tail)
    assert page["lru"] == flat.page_va(FIRST_PFN + 512) + 1
    assert (page["refcount"], page["mapcount"], page["private"]) == (0, NO_MAPCOUNT, 0)


def test_the_mapping_of_a_tail_is_poison(flat):
    flat.init_memmap(shift=9, nr_pages=512, optimized=PLAIN)

    tails = range(FIRST_PFN + 2, FIRST_PFN + 512)
    assert {flat.words(pfn)["mapping"] for pfn in tails} == {0xDEAD000000000400}
    assert {flat.words(pfn)["flags"] for pfn in tails} == {ZONE_AND_NODE | RESERVED}


def test_the_first_tail_holds_the_fields_of_its_compound(flat):
    flat.init_memmap(shift=9, nr_pages=512, optimized=PLAIN)

    first = flat.words(FIRST_PFN + 1)
    assert first["flags"] == ZONE_AND_NODE | RESERVED | 9
    assert first["mapping"] == NO_MAPCOUNT  # _entire_mapcount -1, _nr_pages_mapped 0
    assert first["index"] == 512 << 32  # _pincount 0, _folio_nr_pages


# vmemmap_set_pmd


def test_a_pmd_entry_maps_the_block_by_its_physical_address(flat):
    flat.set_pmd(0, BLOCK)

    assert int.from_bytes(flat.uc.mem_read(ENTRY, 8), "little") == LARGE_ENTRY


def test_a_block_that_is_used_whole_is_not_touched(recorded):
    recorded.poke("unused_pmd_start", VMEMMAP + 0x3000)

    recorded.set_pmd(BLOCK, 2 * BLOCK)

    assert (recorded.writes, recorded.unused_start()) == ([], 0x3000)


def test_the_mark_is_stored_at_its_start_then_its_end_then_between(recorded):
    size = recorded.size

    recorded.set_pmd(0, 0x80000)

    assert recorded.writes == [(o, 8) for o in (0, size - 8, *range(8, size - 8, 8))]


def test_the_first_touch_of_a_new_block_is_its_fault_label(flat):
    flat.uc.mem_unmap(VMEMMAP, BLOCK)

    with pytest.raises(UcError):
        flat.set_pmd(0, 0x80000)

    assert flat.register("rip") == flat.image.address("vmemmap_set_pmd_store")
    assert flat.register("r8") == flat.register("r12") == VMEMMAP + 0x80000
    assert (flat.register("rsi"), flat.register("r15")) == (0x80000000000001E3, LARGE_ENTRY)


def test_a_block_used_from_its_start_leaves_a_rest_to_be_marked_later(flat):
    flat.set_pmd(0, 0x80000)

    assert flat.block(0) == bytes(flat.size) + JUNK * (BLOCK - flat.size)
    assert flat.unused_start() == 0x80000


def test_a_block_used_up_to_its_end_is_marked_before_its_start(flat):
    flat.set_pmd(0x80000, BLOCK)

    rest = JUNK * (BLOCK - 0x80000 - flat.size)
    assert flat.block(0) == UNUSED * 0x80000 + bytes(flat.size) + rest
    assert flat.unused_start() is None


def test_a_partly_used_block_first_gets_the_last_rest_marked(flat):
    flat.poke("unused_pmd_start", VMEMMAP + 0x3000)

    flat.set_pmd(BLOCK, BLOCK + 0x80000)

    assert flat.block(0) == JUNK * 0x3000 + UNUSED * (BLOCK - 0x3000)
    assert flat.block(1) == bytes(flat.size) + JUNK * (BLOCK - flat.size)
    assert flat.unused_start() == BLOCK + 0x80000


def test_a_rest_once_marked_is_forgotten(flat):
    flat.poke("unused_pmd_start", VMEMMAP + 0x3000)

    flat.set_pmd(BLOCK + 0x80000, 2 * BLOCK)

    assert flat.unused_start() is None


# vmemmap_check_pmd


def test_an_entry_that_points_to_a_table_is_not_ours(recorded):
    recorded.poke("unused_pmd_start", VMEMMAP)

    assert recorded.check_pmd(TABLE_ENTRY, 0, 0x3000) == 0
    assert (recorded.writes, recorded.unused_start()) == ([], 0)


@pytest.mark.parametrize(("end", "left"), [(0x6000, 0x6000), (BLOCK, None)])
def test_going_on_where_the_last_section_ended_touches_nothing(recorded, end, left):
    recorded.poke("unused_pmd_start", VMEMMAP + 0x3000)

    assert recorded.check_pmd(LARGE_ENTRY, 0x3000, end) == 1
    assert (recorded.writes, recorded.unused_start()) == ([], left)


def test_going_on_elsewhere_marks_the_rest_and_the_new_start(flat):
    flat.poke("unused_pmd_start", VMEMMAP + 0x3000)

    assert flat.check_pmd(LARGE_ENTRY, BLOCK + 0x3000, BLOCK + 0x6000) == 1

    assert flat.block(0) == JUNK * 0x3000 + UNUSED * (BLOCK - 0x3000)
    after = JUNK * (BLOCK - 0x3000 - flat.size)
    assert flat.block(1) == JUNK * 0x3000 + bytes(flat.size) + after
    assert flat.unused_start() is None


# vmemmap_pmd_is_unused


def test_a_rest_not_marked_yet_is_no_part_in_use(flat):
    flat.set_pmd(0, 0x80000)

    assert flat.call("vmemmap_pmd_is_unused", VMEMMAP, VMEMMAP + 0x80000) == 1
    assert flat.block(0) == UNUSED * BLOCK
    assert flat.unused_start() is None


@pytest.mark.parametrize(
    ("parts", "verdicts"),
    [
        pytest.param([(0, 0x80000), (0x80000, BLOCK)], [0, 1], id="from-the-front"),
        pytest.param([(0x80000, BLOCK), (0, 0x80000)], [0, 1], id="from-the-back"),
    ],
)
def test_a_block_is_unused_once_its_last_part_goes(flat, parts, verdicts):
    flat.set_pmd(0, 0x80000)
    flat.check_pmd(LARGE_ENTRY, 0x80000, BLOCK)
    flat.uc.mem_write(VMEMMAP + 0x80000, b"struct page in use")

    ends = [(VMEMMAP + addr, VMEMMAP + end) for addr, end in parts]
    assert [flat.call("vmemmap_pmd_is_unused", *each) for each in ends] == verdicts
    assert flat.block(0) == UNUSED * BLOCK


@pytest.mark.parametrize("at", [0, BLOCK - 1])
def test_one_byte_keeps_a_block_in_use(flat, at):
    flat.uc.mem_write(VMEMMAP, UNUSED * BLOCK)
    flat.put(VMEMMAP + at, 0, 1)

    assert flat.call("vmemmap_pmd_is_unused", VMEMMAP + 0x1000, VMEMMAP + 0x1000) == 0


# switch_mm, call_once


def test_switch_mm_loads_the_root_of_the_next_task(flat):
    flat.call("switch_mm", 0x1000, 0x2000)

    assert flat.register("cr3") == 0x2000


def test_call_once_stops_behind_the_routine(flat):
    flat.uc.reg_write(register("rsp"), STACK)
    flat.uc.reg_write(register("rdi"), VMEMMAP)
    flat.uc.reg_write(register("rax"), flat.image.address("__init_single_page"))

    flat.uc.emu_start(flat.image.address("call_once"), LOW_SIZE)

    assert flat.register("rip") == flat.image.address("run_return") + 1
    assert flat.words(0)["refcount"] == 1
