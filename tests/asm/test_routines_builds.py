"""What two reported oopses say about two kernel builds, asserted from their assembled images.

Every `symbol+offset/size` of both call traces is a return address behind a real call of the frame
above it. A third build, 4.4, has the same stubs, with frame pointers. And GNU as, where there is
one, makes the same bytes of every source.
"""

import functools
import itertools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from support.kernel_oopses import COMPOUND_TRACE, SUB_PMD_TRACE

import asm
from asm import Image, Segment, assemble_file, link
from kernel_model.builds import BUILDS

SOURCES: Final = Path(asm.__file__).parent
BASES: Final = {
    ".text": 0xFFFFFFFF81000000,
    ".data": 0xFFFFFFFF82000000,
    ".module.device_dax": 0xFFFFFFFFC0000000,
    ".module.xe": 0xFFFFFFFFC0100000,
    ".module.nd_btt": 0xFFFFFFFFC0200000,
    ".module.nd_pmem": 0xFFFFFFFFC0300000,
}

# Whoever calls it -> whom, for the functions that both builds have. In 6.13 pagemap_range is
# part of memremap_pages.
EDGES: Final = {
    "arch_add_memory": {"__kernel_physical_mapping_init", "add_pages"},
    "__kernel_physical_mapping_init": {"sync_global_pgds", "arch_sync_kernel_pagetables"},
    "add_pages": {"__add_pages"},
    "__add_pages": {"sparse_add_section"},
    "sparse_add_section": {"__populate_section_memmap"},
    "__populate_section_memmap": {"vmemmap_populate", "vmemmap_populate_compound_pages"},
    "vmemmap_populate": {
        "vmemmap_populate_hugepages",
        "vmemmap_populate_basepages",
        "sync_global_pgds",
    },
    "vmemmap_populate_hugepages": {
        "vmemmap_set_pmd",
        "vmemmap_check_pmd",
        "vmemmap_populate_basepages",
        "arch_sync_kernel_mappings",
        "arch_sync_kernel_pagetables",
    },
    "vmemmap_populate_basepages": {"arch_sync_kernel_mappings", "arch_sync_kernel_pagetables"},
    "vmemmap_populate_compound_pages": {
        "arch_sync_kernel_mappings",
        "arch_sync_kernel_pagetables",
    },
    "arch_sync_kernel_mappings": {"sync_global_pgds"},
    "sync_global_pgds": set(),
    "arch_sync_kernel_pagetables": set(),
    "devm_memremap_pages": {"memremap_pages"},
    "dev_dax_probe": {"devm_memremap_pages"},
    "dax_bus_probe": {"dev_dax_probe"},
    "xe_devm_add": {"devm_memremap_pages"},
    "xe_tile_init_noalloc": {"xe_devm_add"},
    "xe_device_probe": {"xe_tile_init_noalloc"},
}
SHARED_EDGES: Final = {
    "memremap": {"ioremap_cache"},
    "ioremap_cache": {"__ioremap_caller"},
    "__ioremap_caller": {"ioremap_page_range"},
    "ioremap_page_range": {"arch_sync_kernel_mappings"},
    "vmalloc": {"__vmalloc_node_range"},
    "__vmalloc_node_range": {"map_kernel_range"},
    "map_kernel_range": {"arch_sync_kernel_mappings"},
    "vfree": {"vmalloc_sync_all"},
    "vmalloc_sync_all": {"sync_global_pgds"},
    "pcpu_alloc": {"pcpu_create_chunk", "pcpu_populate_chunk"},
    "pcpu_create_chunk": set(),
    "pcpu_populate_chunk": {"map_kernel_range"},
    "add_memory": {"add_memory_resource"},
    "add_memory_resource": {"arch_add_memory"},
    "remove_memory": {"try_remove_memory"},
    "try_remove_memory": {"arch_remove_memory"},
    "devres_release_all": {"devm_memremap_pages_release"},
    "devm_memremap_pages_release": {"memunmap_pages"},
    "memunmap_pages": {"pageunmap_range"},
    "pageunmap_range": {"arch_remove_memory", "__remove_pages"},
    "arch_remove_memory": {"__remove_pages", "kernel_physical_mapping_remove"},
    "kernel_physical_mapping_remove": {"remove_pagetable"},
    "__remove_pages": {"sparse_remove_section"},
    "sparse_remove_section": {"vmemmap_free"},
    "vmemmap_free": {"remove_pagetable"},
    "remove_pagetable": {"vmemmap_pmd_is_unused", "sync_global_pgds"},
    "kasan_add_zero_shadow": {"kasan_populate_early_shadow"},
    "kasan_populate_early_shadow": {"arch_sync_kernel_mappings", "arch_sync_kernel_pagetables"},
    "pmem_attach_disk": {"devm_memremap_pages"},
    "pmem_submit_bio": {"pmem_do_read"},
    "pmem_do_read": {"__asan_load8"},
}
HLT, UD2 = 0xF4, (0x0F, 0x0B)
MAPPING_CALLS: Final = {
    "memmap_init_zone_device",
    "arch_add_memory",
    "add_pages",
    "kasan_add_zero_shadow",
}


def constants(size: int) -> dict[str, int]:
    """Some constants: only those of struct page's size may move code, none may move a call."""
    page = {"FLAGS": 0, "LRU": 8, "COMPOUND_HEAD": 8, "PGMAP": 8, "LRU_PREV": 0x10}
    page |= {"ZONE_DEVICE_DATA": 0x10, "MAPPING": 0x18, "INDEX": 0x20, "PRIVATE": 0x28}
    page |= {"MAPCOUNT": 0x30, "REFCOUNT": 0x34, "MEMCG": 0x38, "UNUSED": 0xFD}
    folio = {"ORDER": 0, "ENTIRE_MAPCOUNT": 0x18, "NR_PAGES_MAPPED": 0x1C}
    folio |= {"PINCOUNT": 0x20, "NR_PAGES": 0x24}
    return (
        {f"PAGE_{name}": value for name, value in page.items()}
        | {f"FOLIO_{name}": value for name, value in folio.items()}
        | {"NODES_PGSHIFT": 54, "ZONES_PGSHIFT": 51, "PG_RESERVED": 14, "PG_HEAD": 6}
        | {"ZONE_DEVICE": 4, "ZONE_PGDAT": 0x640, "PGDAT_NODE_ID": 0x2A00}
        | {"PGMAP_TYPE": 0x98, "PGMAP_VMEMMAP_SHIFT": 0xA0, "REFCOUNT_RESET_TYPES": 6}
        | {"VMALLOC_FAULT": 1, "VMALLOC_FAULT_LEAVES": 0, "VMALLOC_FAULT_CHECKS": 0}
        | {"HUGETLBFS": 1, "SUB_PMD": 1}
        | {"SIZEOF_PAGE": size, "COMPOUND_NR_OPTIMIZED": 2 * (4096 // size)}
    )


def files(build: str) -> list[Path]:
    """The sources of `build`, in the order in which they are linked."""
    found = next(b for b in BUILDS.values() if f"builds/{build}.S" in b.sources)
    return [SOURCES / name for name in (*found.sources, *found.running)]


@functools.cache
def image(build: str, size: int = 64) -> Image:
    programs = [assemble_file(file, constants=constants(size)) for file in files(build)]
    return link(programs, BASES)


def frame(line: str) -> tuple[str, int, str | None]:
    """symbol, offset and module of a line of a call trace."""
    symbol, offset, module = re.fullmatch(r"(\w+)\+(0x\w+)/0x\w+(?: \[(\w+)\])?", line).groups()
    return symbol, int(offset, 16), module


def lines(build: str, trace: tuple[str, ...]) -> list[tuple[str, str]]:
    """(build, line) for each line of `trace`."""
    return [(build, line) for line in trace]


def calls(build: str, trace: tuple[str, ...]) -> list[tuple[str, str, int, str]]:
    """(build, caller, offset behind the call, callee) for each call that `trace` shows."""
    pairs = itertools.pairwise(map(frame, trace))
    return [(build, caller, offset, callee) for (callee, *_), (caller, offset, _) in pairs]


def callees(image: Image, caller: str) -> list[str | None]:
    """Whom `caller` calls, in the order of its text."""
    found = [
        image.lookup(target)
        for site, target in image.calls.items()
        if target is not None and (where := image.lookup(site.address)) and where.symbol == caller
    ]
    return [callee.symbol if callee else None for callee in found]


def byte_at(image: Image, address: int) -> int:
    segment = next(s for s in image.segments if s.base <= address < s.end)
    return segment.data[address - segment.base]


def section(module: str | None) -> str:
    return f".module.{module}" if module else ".text"


@pytest.mark.parametrize("size", [64, 80, 96])
@pytest.mark.parametrize(
    ("build", "line"), lines("6.8", COMPOUND_TRACE) + lines("6.13", SUB_PMD_TRACE)
)
def test_a_line_of_the_oops_comes_out_of_the_assembler(build, line, size):
    symbol, _, module = frame(line)
    linked = image(build, size)

    assert linked.describe(linked.parse(line.split()[0])) == line.split()[0]
    assert linked.symbols[symbol].section == section(module)


@pytest.mark.parametrize("size", [64, 80, 96])
@pytest.mark.parametrize(
    ("build", "caller", "offset", "callee"),
    calls("6.8", COMPOUND_TRACE) + calls("6.13", SUB_PMD_TRACE),
)
def test_a_return_address_stands_behind_a_call(build, caller, offset, callee, size):
    linked = image(build, size)

    returns = [site.return_address for site in linked.call_sites(caller, callee)]
    assert linked.address(caller) + offset in returns


@pytest.mark.parametrize("build", ["6.8", "6.13"])
@pytest.mark.parametrize(
    ("label", "line"),
    [
        ("__init_single_page_store", "__init_single_page+0x9/0x6d"),
        ("vmemmap_set_pmd_store", "vmemmap_set_pmd+0xff/0x230"),
    ],
)
def test_the_instruction_that_faults_has_a_label_in_every_build(build, label, line):
    linked = image(build)

    assert linked.describe(linked.address(label)) == line


@pytest.mark.parametrize("build", ["4.4", "6.8", "6.13"])
@pytest.mark.parametrize(("caller", "callees_of_it"), (EDGES | SHARED_EDGES).items())
def test_every_build_has_every_call_once(build, caller, callees_of_it):
    linked = image(build)

    assert sorted(callees(linked, caller)) == sorted(callees_of_it)


@pytest.mark.parametrize(
    ("build", "function"),
    [("4.4", name) for name in EDGES | SHARED_EDGES] + [("6.8", name) for name in SHARED_EDGES],
)
def test_a_function_with_a_frame_pointer_begins_by_setting_it(build, function):
    linked = image(build)

    start = linked.address(function)
    code = bytes(byte_at(linked, start + n) for n in range(4))
    assert code == bytes.fromhex("55 4889e5")  # push rbp; mov rbp, rsp


@pytest.mark.parametrize("build", ["4.4", "6.8"])
def test_pagemap_range_is_a_function(build):
    linked = image(build)

    assert callees(linked, "memremap_pages") == ["pagemap_range"]
    assert set(callees(linked, "pagemap_range")) == MAPPING_CALLS


def test_in_6_13_pagemap_range_is_inlined():
    linked = image("6.13")

    assert "pagemap_range" not in linked.symbols
    assert set(callees(linked, "memremap_pages")) == MAPPING_CALLS


@pytest.mark.parametrize("build", ["4.4", "6.8", "6.13"])
@pytest.mark.parametrize("caller", EDGES | SHARED_EDGES)
def test_a_stub_stops_the_cpu_behind_each_call_and_its_frame_is_known(build, caller):
    linked = image(build)

    behind = [s for s in linked.calls if linked.lookup(s.address).symbol == caller]
    assert all(byte_at(linked, site.return_address) == HLT for site in behind)
    assert None not in [linked.stack_depth(site.address) for site in behind]


@pytest.mark.parametrize(
    ("place", "depth"),
    [
        ("__init_single_page_store", 0),
        ("__init_zone_device_page+0x17", 0x18),
        ("memmap_init_zone_device+0x154", 0x58),
        ("vmemmap_set_pmd_write_entry", 0x28),
        ("vmemmap_set_pmd_store", 0x28),
        ("vmemmap_check_pmd_read_entry", 0),
        ("vmemmap_check_pmd_store", 8),
        ("vmemmap_flush_unused_pmd_store", 0),
        ("vmemmap_pmd_is_unused_store", 8),
        ("switch_mm_write_cr3", 0),
        ("__asan_load8_shadow", 0),
    ],
)
def test_the_frame_of_a_routine_is_known_where_it_may_fault(place, depth):
    linked = image("6.8")

    assert linked.stack_depth(linked.parse(place)) == depth


@pytest.mark.parametrize("build", ["4.4", "6.8", "6.13"])
@pytest.mark.parametrize("function", ["sync_global_pgds", "arch_sync_kernel_pagetables"])
def test_a_failed_sync_is_an_invalid_opcode_inside_its_function(build, function):
    linked = image(build)

    bug = linked.address(f"{function}_bug")
    assert (byte_at(linked, bug), byte_at(linked, bug + 1)) == UD2
    assert linked.lookup(bug).symbol == function


def test_the_oops_can_print_the_bytes_before_the_first_routine():
    linked = image("6.8")
    start = linked.address("_stext")

    assert start == BASES[".text"]
    assert linked.segments[0].data[:64] == b"\xcc" * 64


def test_the_return_of_a_bare_run_has_a_name():
    linked = image("6.8")
    stop = linked.address("run_return")

    assert byte_at(linked, stop) == HLT
    assert linked.is_return_address(stop)
    assert linked.lookup(stop - 1).symbol == "call_once"


@pytest.mark.parametrize("build", ["4.4", "6.8", "6.13"])
def test_the_driver_reads_where_it_reads_in_4_4(build):
    linked = image(build)

    chain = ["btt_log_read+0x63/0x140", "pmem_rw_bytes+0x6a/0x190"]
    assert all(linked.is_return_address(linked.parse(place)) for place in chain)
    assert linked.describe(linked.address("memcpy_erms_copy")) == "memcpy_erms+0x6/0x10"


@pytest.mark.parametrize("build", ["4.4", "6.8", "6.13"])
def test_memremap_calls_where_proc_vmallocinfo_says(build):
    linked = image(build)

    caller = linked.parse("memremap+0xb4/0x110")
    sites = linked.call_sites("memremap", "ioremap_cache")
    assert [site.return_address for site in sites] == [caller]


# GNU as is asked too.

HAVE_GNU: Final = all(map(shutil.which, ("as", "ld", "nm", "objcopy")))


def gnu_link(build: str, size: int, folder: Path) -> Path:
    """What `as` and `ld` make of the sources of `build`."""
    defined = [f"--defsym={name}={value}" for name, value in constants(size).items()]
    objects = [folder / f"{file.stem}.o" for file in files(build)]
    for file, made in zip(files(build), objects, strict=True):
        run("as", "-msyntax=intel", "-mnaked-reg", *defined, "-o", made, file)
    placed = [f"--section-start={name}={base:#x}" for name, base in BASES.items()]
    run("ld", "-e", "0", *placed, "-o", folder / "image", *objects)
    return folder / "image"


def run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return done.stdout


def gnu_section(image: Path, name: str) -> bytes:
    run("objcopy", "-O", "binary", "-j", name, image, image.with_suffix(".bin"))
    return image.with_suffix(".bin").read_bytes()


def gnu_sizes(image: Path) -> dict[str, tuple[int, int]]:
    """Address and size of every symbol that has a size."""
    fields = [line.split() for line in run("nm", "-S", image).splitlines()]
    return {f[3]: (int(f[0], 16), int(f[1], 16)) for f in fields if len(f) == 4}


def differences(image: Image, segment: Segment, other: bytes) -> list[str]:
    """Each place where `other` is not the segment's bytes, one per function; its length too."""
    pairs = itertools.zip_longest(segment.data, other)
    found = [segment.base + at for at, (one, two) in enumerate(pairs) if one != two]
    places = {
        str(image.lookup(a) and image.lookup(a).symbol): image.describe(a) for a in found[::-1]
    }
    return [place or f"outside functions in {segment.name}" for place in places.values()]


@pytest.mark.skipif(not HAVE_GNU, reason="no GNU binutils here")
@pytest.mark.parametrize("build", ["4.4", "6.8", "6.13"])
@pytest.mark.parametrize("size", [64, 80, 96])
def test_gnu_as_and_ld_make_the_same_image(build, size, tmp_path):
    ours = image(build, size)

    gnu = gnu_link(build, size, tmp_path)

    sized = {s.name: (s.address, s.size) for s in ours.symbols.values() if s.size}
    assert sized == gnu_sizes(gnu)
    wrong = [differences(ours, s, gnu_section(gnu, s.name)) for s in ours.segments]
    assert wrong == [[]] * len(ours.segments)
