"""A page fault in the vmalloc area of a kernel 4.4, as a mail tells it, really taken.

The mail: "Re: [PATCH] x86/mm/vmfault: Make vmalloc_fault() handle large pages", Toshi Kani,
2016-02-09. Its addresses, offsets and sizes are written down here as it has them.
"""

import re
from pathlib import Path
from typing import Final

import pytest
from support import gnu
from support.kernel_44 import Kernel44, constants_44, image_44

import asm
from emu import PhysAddr
from kernel_model.builds import BUILDS

SOURCES: Final = Path(asm.__file__).parent
ADDRESSES: Final = {
    "vmalloc_fault+0x1be/0x300": 0xFFFFFFFF810664AE,
    "__do_page_fault+0x285/0x3e0": 0xFFFFFFFF81067335,
    "do_page_fault+0x2f/0x80": 0xFFFFFFFF810674BF,
    "put_prev_entity+0x35/0x7a0": 0xFFFFFFFF810D6D85,
    "page_fault+0x28/0x30": 0xFFFFFFFF817A6888,
    "memcpy_erms+0x6/0x10": 0xFFFFFFFF813BB976,
    "schedule+0x35/0x80": 0xFFFFFFFF817A0845,
    "pmem_rw_bytes+0x6a/0x190": 0xFFFFFFFFA006350A,
    "schedule_timeout+0x183/0x240": 0xFFFFFFFF817A3713,
    "btt_log_read+0x63/0x140": 0xFFFFFFFFA028D2B3,
    "kernel_read+0x50/0x80": 0xFFFFFFFF8122DC60,
    "SyS_finit_module+0xb9/0xf0": 0xFFFFFFFF81124489,
    "entry_SYSCALL_64_fastpath+0x1a/0xa4": 0xFFFFFFFF817A4632,
}
SYMBOL_PUT_END: Final = 0xFFFFFFFF811201D0  # __symbol_put+0x60/0x60
CALLS: Final = {  # whose return address it is: who is called there
    "__do_page_fault+0x285/0x3e0": "vmalloc_fault",
    "do_page_fault+0x2f/0x80": "__do_page_fault",
    "page_fault+0x28/0x30": "do_page_fault",
    "pmem_rw_bytes+0x6a/0x190": "memcpy_erms",
    "btt_log_read+0x63/0x140": "pmem_rw_bytes",
    "entry_SYSCALL_64_fastpath+0x1a/0xa4": "SyS_finit_module",
}
INNERMOST: Final = [
    "__do_page_fault+0x285/0x3e0",
    "do_page_fault+0x2f/0x80",
    "? put_prev_entity+0x35/0x7a0",
    "page_fault+0x28/0x30",
    "? memcpy_erms+0x6/0x10",
    "? schedule+0x35/0x80",
    "? pmem_rw_bytes+0x6a/0x190 [nd_pmem]",
    "? schedule_timeout+0x183/0x240",
    "btt_log_read+0x63/0x140 [nd_btt]",
]
OUTERMOST: Final = [
    "? __symbol_put+0x60/0x60",
    "? kernel_read+0x50/0x80",
    "SyS_finit_module+0xb9/0xf0",
    "entry_SYSCALL_64_fastpath+0x1a/0xa4",
]
VARIANTS: Final = [(leaves, checks) for leaves in (0, 1, 2) for checks in (0, 1, 2)]


def renamed(text: str) -> str:
    """`text` with other names for the sections that ld would make part of .text."""
    return text.replace(".text.", ".placed.")


# The text.


@pytest.mark.parametrize(("leaves", "checks"), VARIANTS)
@pytest.mark.parametrize(("place", "address"), ADDRESSES.items())
def test_a_place_of_the_trace_has_the_address_that_the_trace_prints(place, address, leaves, checks):
    image = image_44(leaves, checks)

    assert image.describe(address) == place


def test_a_function_begins_right_behind_symbol_put():
    image = image_44()

    assert image.describe(SYMBOL_PUT_END - 1) == "__symbol_put+0x5f/0x60"
    assert image.lookup(SYMBOL_PUT_END).offset == 0


@pytest.mark.parametrize(("place", "callee"), CALLS.items())
def test_a_frame_of_the_trace_stands_behind_the_call_of_the_next_one(place, callee):
    image = image_44()

    at = image.parse(place)
    assert at in [site.return_address for site in image.call_sites(place.split("+")[0], callee)]


@pytest.mark.parametrize("place", sorted(ADDRESSES.keys() - {"vmalloc_fault+0x1be/0x300"}))
def test_every_other_place_of_the_trace_is_a_return_address_or_the_copying(place):
    image = image_44()

    at = image.parse(place)
    assert image.is_return_address(at) or at == image.address("memcpy_erms_copy")


@pytest.mark.parametrize(("leaves", "checks"), VARIANTS)
@pytest.mark.parametrize("hugetlbfs", [0, 1])
def test_the_pmd_entry_is_read_at_the_same_place_in_every_variant(leaves, checks, hugetlbfs):
    image = image_44(leaves, checks, hugetlbfs)

    assert image.describe(image.address("vmalloc_fault_read_pmd")) == "vmalloc_fault+0x1be/0x300"


def test_modules_lie_behind_512_mib_of_kernel():
    image = image_44()

    bases = [s.base for s in image.segments if s.name.startswith(".module")]
    assert min(bases) >= 0xFFFFFFFFA0000000
    assert max(bases) < 0xFFFFFFFFA1000000


@pytest.mark.skipif(gnu.MISSING is not None, reason=str(gnu.MISSING))
@pytest.mark.parametrize(("leaves", "checks"), [(0, 0), (1, 1), (2, 2)])
def test_gnu_as_and_ld_make_the_same_image(leaves, checks):
    build, image = BUILDS["4.4"], image_44(leaves, checks)
    constants = dict(constants_44(leaves, checks))
    sources = [(SOURCES / file).read_text() for file in (*build.sources, *build.running)]
    bases = {renamed(name): base for name, base in build.bases().items()}

    theirs = gnu.assemble_and_link(list(map(renamed, sources)), bases, constants)

    assert {renamed(s.name): (s.base, s.data) for s in image.segments} == {
        name: section for name, section in theirs.sections.items() if section[1]
    }
    sized = {s.name: (s.address, s.size) for s in image.symbols.values() if s.size}
    assert sized == {name: place for name, place in theirs.symbols.items() if place[1]}


# The oops.


def test_a_1_gib_page_is_taken_for_a_table_and_read_through_the_direct_map():
    kernel = Kernel44()
    source = kernel.map_leaf()

    stop = kernel.finit_module(source)

    died = kernel.pt_regs(stop)
    assert kernel.cpu.cr2 == 0xFFFF880840000FF8
    assert died["rip"] == 0xFFFFFFFF810664AE


def test_it_dies_of_a_page_fault_with_error_code_0():
    kernel = Kernel44()
    source = kernel.map_leaf()

    kernel.finit_module(source)

    assert kernel.cpu.registers.rsi == 14
    assert kernel.cpu.registers.rdx == 0
    assert kernel.handled_faults == 0


def test_the_stack_reads_as_in_the_mail():
    kernel = Kernel44()
    source = kernel.map_leaf()
    died = kernel.pt_regs(kernel.finit_module(source))

    trace = kernel.call_trace(died["rsp"], died["rbp"])

    assert trace[: len(INNERMOST)] == INNERMOST
    assert trace[-len(OUTERMOST) :] == OUTERMOST


def test_what_the_mail_leaves_out_are_frames_that_are_there():
    kernel = Kernel44()
    source = kernel.map_leaf()
    died = kernel.pt_regs(kernel.finit_module(source))

    trace = kernel.call_trace(died["rsp"], died["rbp"])

    elided = trace[len(INNERMOST) : -len(OUTERMOST)]
    assert elided
    assert not [line for line in elided if line.startswith("?")]


def test_old_words_below_the_thread_do_not_show():
    kernel = Kernel44()
    text = kernel.image.address("run_return").to_bytes(8, "little")
    kernel.memory.write(PhysAddr(kernel.stack - 0x1000 - kernel.direct_map), 510 * text)
    source = kernel.map_leaf()
    died = kernel.pt_regs(kernel.finit_module(source))

    trace = kernel.call_trace(died["rsp"], died["rbp"])

    assert not re.search("run_return|call_once", "\n".join(trace))
