"""A page fault in the vmalloc area of a kernel 4.4, as a mail tells it, really taken.

The mail: "Re: [PATCH] x86/mm/vmfault: Make vmalloc_fault() handle large pages", Toshi Kani,
2016-02-09. Its addresses, offsets and sizes are written down here as it has them.
"""

import re
from pathlib import Path
from typing import Final

import pytest
from support import gnu
from support.kernel_44 import ABSENT, DEVICE, SCRATCH, Kernel44, image_44

import asm
from emu import PhysAddr, Returned
from kernel_model.builds import BUILDS, VmallocFault
from kernel_model.structs import assembly_constants

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
READ_ONLY: Final = 0xFFFFFFFF84000000
VARIANTS: Final = [(leaves, checks) for leaves in (0, 1, 2) for checks in (0, 1, 2)]
BYTES: Final = bytes(range(64))
CALLEE_SAVED: Final = {"rbx": 0xB0, "rbp": 0xB1, "r12": 0xB2, "r13": 0xB3, "r14": 0xB4, "r15": 0xB5}


def without_small_pages(kernel: Kernel44) -> int:
    """An address that the 1 GiB page maps, with something to read there."""
    source = kernel.map_leaf()
    kernel.memory.write(PhysAddr(DEVICE[0] + 0x1F_E000), BYTES)
    return source


def with_a_small_page(kernel: Kernel44) -> int:
    """An address that a 4 KiB page maps, with something to read there."""
    source = kernel.map_small()
    kernel.memory.write(PhysAddr(DEVICE[0]), BYTES)
    return source


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

    modules = {s.name: s.base for s in image.segments if s.name.startswith(".module")}
    assert modules == {".module.nd_pmem": 0xFFFFFFFFA0063000, ".module.nd_btt": 0xFFFFFFFFA028D000}


@pytest.mark.skipif(gnu.MISSING is not None, reason=str(gnu.MISSING))
@pytest.mark.parametrize(("leaves", "checks"), [(0, 0), (1, 1), (2, 2)])
def test_gnu_as_and_ld_make_the_same_image(leaves, checks):
    build, image = BUILDS["4.4"], image_44(leaves, checks)
    constants = assembly_constants(64, frozenset()) | VmallocFault(leaves, checks).constants()
    sources = [(SOURCES / file).read_text() for file in (*build.sources, *build.running)]
    bases = {renamed(name): base for name, base in build.bases().items()}

    theirs = gnu.assemble_and_link(list(map(renamed, sources)), bases, constants)

    assert {renamed(s.name): (s.base, s.data) for s in image.segments} == {
        name: section for name, section in theirs.sections.items() if section[1]
    }
    sized = {s.name: (s.address, s.size) for s in image.symbols.values() if s.size}
    assert sized == {name: place for name, place in theirs.symbols.items() if place[1]}


# A fault that is handled.


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize(("leaves", "checks"), VARIANTS)
def test_a_missing_top_entry_is_copied_and_the_read_made_again(leaves, checks, levels):
    kernel = Kernel44(leaves, checks, levels=levels)
    source = with_a_small_page(kernel)

    stop = kernel.finit_module(source)

    assert stop == Returned(0)
    assert kernel.read(kernel.destination, 64) == BYTES
    assert kernel.handled_faults == 1


def test_the_entry_that_is_copied_is_that_of_init_mm():
    kernel = Kernel44()
    source = with_a_small_page(kernel)
    before = kernel.top_entries(source)

    kernel.finit_module(source)

    mine, reference = kernel.top_entries(source)
    assert before == (0, reference)
    assert mine & ~0x20 == reference  # the CPU has set A


def test_what_a_function_may_not_change_is_unchanged_in_the_end():
    kernel = Kernel44()
    source = with_a_small_page(kernel)

    kernel.finit_module(source, **CALLEE_SAVED)

    left = kernel.cpu.registers
    assert {name: getattr(left, name) for name in CALLEE_SAVED} == CALLEE_SAVED
    assert left.rsp == kernel.stack - 8


def test_a_handled_fault_changes_no_register_of_who_faulted():
    kernel = Kernel44()
    source = with_a_small_page(kernel)
    others = CALLEE_SAVED | {f"r{n}": 0xA0 + n for n in (8, 9, 10, 11)}

    kernel.call("memcpy_erms", rdi=kernel.destination, rsi=source, rdx=64, **others)

    left = kernel.cpu.registers
    expected = others | {"rax": kernel.destination, "rdx": 64, "rcx": 0}
    expected |= {"rdi": kernel.destination + 64, "rsi": source + 64}
    assert {name: getattr(left, name) for name in expected} == expected


def test_a_second_read_does_not_fault():
    kernel = Kernel44()
    source = with_a_small_page(kernel)
    kernel.finit_module(source)

    stop = kernel.finit_module(source)

    assert stop == Returned(0)
    assert kernel.handled_faults == 1


# The oops.


def test_a_1_gib_page_is_taken_for_a_table_and_read_through_the_direct_map():
    kernel = Kernel44()
    source = without_small_pages(kernel)

    stop = kernel.finit_module(source)

    died = kernel.pt_regs(stop)
    assert kernel.cpu.cr2 == 0xFFFF880840000FF8
    assert died["rip"] == 0xFFFFFFFF810664AE


def test_it_dies_of_a_page_fault_with_error_code_0():
    kernel = Kernel44()
    source = without_small_pages(kernel)

    kernel.finit_module(source)

    assert kernel.cpu.registers.rsi == 14
    assert kernel.cpu.registers.rdx == 0
    assert kernel.handled_faults == 0


def test_the_stack_reads_as_in_the_mail():
    kernel = Kernel44()
    source = without_small_pages(kernel)
    died = kernel.pt_regs(kernel.finit_module(source))

    trace = kernel.call_trace(died["rsp"], died["rbp"])

    assert trace[: len(INNERMOST)] == INNERMOST
    assert trace[-len(OUTERMOST) :] == OUTERMOST


def test_what_the_mail_leaves_out_are_frames_that_are_there():
    kernel = Kernel44()
    source = without_small_pages(kernel)
    died = kernel.pt_regs(kernel.finit_module(source))

    trace = kernel.call_trace(died["rsp"], died["rbp"])

    elided = trace[len(INNERMOST) : -len(OUTERMOST)]
    assert elided
    assert not [line for line in elided if line.startswith("?")]


def test_old_words_below_the_thread_do_not_show():
    kernel = Kernel44()
    text = kernel.image.address("run_return").to_bytes(8, "little")
    kernel.memory.write(PhysAddr(kernel.stack - 0x1000 - kernel.direct_map), 510 * text)
    source = without_small_pages(kernel)
    died = kernel.pt_regs(kernel.finit_module(source))

    trace = kernel.call_trace(died["rsp"], died["rbp"])

    assert not re.search("run_return|call_once", "\n".join(trace))


@pytest.mark.parametrize(("leaves", "hugetlbfs"), [(1, 1), (2, 0), (2, 1)])
@pytest.mark.parametrize("checks", [0, 1, 2])
@pytest.mark.parametrize("levels", [4, 5])
def test_a_handler_that_knows_large_pages_ends_there(leaves, hugetlbfs, checks, levels):
    kernel = Kernel44(leaves, checks, hugetlbfs, levels=levels)
    source = without_small_pages(kernel)

    stop = kernel.finit_module(source)

    assert stop == Returned(0)
    assert kernel.read(kernel.destination, 64) == BYTES
    assert kernel.handled_faults == 1


@pytest.mark.parametrize(("leaves", "hugetlbfs"), [(0, 0), (0, 1), (1, 0)])
@pytest.mark.parametrize("checks", [0, 1, 2])
@pytest.mark.parametrize("levels", [4, 5])
def test_a_handler_that_does_not_dies_at_the_same_place(leaves, hugetlbfs, checks, levels):
    kernel = Kernel44(leaves, checks, hugetlbfs, levels=levels)
    source = without_small_pages(kernel)

    died = kernel.pt_regs(kernel.finit_module(source))

    assert kernel.image.describe(died["rip"]) == "vmalloc_fault+0x1be/0x300"
    assert kernel.cpu.cr2 == kernel.direct_map + 0x840000FF8


# What vmalloc_fault refuses, and what it dies of.


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("checks", [0, 1, 2])
def test_an_address_that_nothing_maps_is_refused(checks, levels):
    kernel = Kernel44(2, checks, levels=levels)

    stop = kernel.call("vmalloc_fault", rdi=kernel.slot)

    assert stop == Returned(0xFFFFFFFF)


@pytest.mark.parametrize("below", [1 << 30, 1 << 21, 1 << 12])
@pytest.mark.parametrize(("leaves", "checks"), VARIANTS)
def test_a_neighbour_of_a_mapped_page_is_refused_at_each_level(leaves, checks, below):
    kernel = Kernel44(leaves, checks)
    source = kernel.map_small()

    stop = kernel.call("vmalloc_fault", rdi=source ^ below)

    assert stop == Returned(0xFFFFFFFF)


@pytest.mark.parametrize("level", [2, 3])
@pytest.mark.parametrize("checks", [0, 1, 2])
def test_an_entry_of_nothing_but_a_and_d_is_none(checks, level):
    kernel = Kernel44(2, checks)
    source = kernel.map_small() ^ (1 << 30 if level == 3 else 1 << 21)
    steps = kernel.walk(source).steps
    kernel.memory.write_u64(steps[-1].entry_pa, 0x60)

    stop = kernel.call("vmalloc_fault", rdi=source)

    assert [step.level for step in steps][-1] == level
    assert stop == Returned(0xFFFFFFFF)


@pytest.mark.parametrize("offset", [-0x1000, 32 << 40])
def test_an_address_outside_the_vmalloc_area_is_refused(offset):
    kernel = Kernel44()
    kernel.map(0xFFFFC90000000000 + offset, DEVICE[0])

    stop = kernel.call("vmalloc_fault", rdi=0xFFFFC90000000000 + offset)

    assert stop == Returned(0xFFFFFFFF)


def test_a_2_mib_page_is_taken_for_a_table_too():
    kernel = Kernel44()
    kernel.map(kernel.leaf, 0x9000_0000, level=2)

    kernel.call("vmalloc_fault", rdi=kernel.leaf + 0x7_8000)

    assert kernel.cpu.cr2 == 0xFFFF8800900003C0


@pytest.mark.parametrize(("leaves", "hugetlbfs"), [(1, 1), (2, 0)])
def test_a_2_mib_page_is_left_alone_by_a_handler_that_knows_large_pages(leaves, hugetlbfs):
    kernel = Kernel44(leaves, 1, hugetlbfs)
    kernel.map(kernel.leaf, 0x9000_0000, level=2)

    stop = kernel.call("vmalloc_fault", rdi=kernel.leaf + 0x7_8000)

    assert stop == Returned(0)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("checks", [0, 1, 2])
def test_a_task_whose_entry_points_to_another_table_is_a_bug(checks, levels):
    kernel = Kernel44(0, checks, levels=levels)
    source = kernel.map_small()
    at = kernel.top_entry_pa(source)
    kernel.memory.write_u64(at, kernel.frames.allocate() | 3)

    died = kernel.pt_regs(kernel.call("vmalloc_fault", rdi=source))

    assert kernel.cpu.registers.rsi == 6
    assert died["rip"] == kernel.image.address("vmalloc_fault_bug")
    assert died["orig_rax"] == 2**64 - 1


def test_with_5_levels_the_p4d_entries_must_agree():
    kernel = Kernel44(levels=5)
    source = kernel.map_small()
    _, reference = kernel.top_entries(source)
    other = kernel.frames.allocate()
    kernel.memory.write(other, kernel.memory.read(PhysAddr(reference & ~0xFFF), 0x1000))
    kernel.memory.write_u64(other, kernel.frames.allocate() | 3)
    kernel.memory.write_u64(kernel.top_entry_pa(source), other | 3)

    kernel.call("vmalloc_fault", rdi=source)

    assert kernel.cpu.registers.rsi == 6


# The other exceptions.


@pytest.mark.parametrize(
    ("vector", "error_code", "code", "registers"),
    [
        (0, 0, "f7f1", {"rcx": 0}),  # div ecx
        (6, 0, "0f0b", {}),  # ud2
        (8, 0, "50", {"rsp": 0xFFFFC90000001000}),  # push rax, where there is no stack
        (11, ABSENT << 3 | 2, f"cd{ABSENT:02x}", {}),  # int ABSENT
        (12, 0, "488b4500", {"rbp": 1 << 63}),  # mov rax, [rbp]
        (13, 0, "488b00", {"rax": 1 << 63}),  # mov rax, [rax]
        (14, 3, "488900", {"rax": READ_ONLY}),  # mov [rax], rax, read-only
        (14, 0, "488b00", {"rax": 0x1000}),  # mov rax, [rax], a user address
    ],
)
def test_an_exception_ends_with_its_vector_its_error_code_and_the_registers(
    vector, error_code, code, registers
):
    kernel = Kernel44()
    kernel.map(READ_ONLY, DEVICE[0], 0)
    interrupted = {"rdi": 0xD1, "rsi": 0x51, "r15": 0xF5, "r8": 0x88} | registers

    died = kernel.pt_regs(kernel.execute(bytes.fromhex(code), **interrupted))

    assert (kernel.cpu.registers.rsi, kernel.cpu.registers.rdx) == (vector, error_code)
    assert {name: died[name] for name in interrupted} == interrupted
    assert (died["rip"], died["cs"]) == (SCRATCH, 0x10)


def test_a_double_fault_is_taken_on_a_stack_of_its_own():
    kernel = Kernel44()

    stop = kernel.execute(b"\x50", rsp=0xFFFFC90000001000)

    assert kernel.pt_regs(stop)["rsp"] == 0xFFFFC90000001000
    assert kernel.ist - 0x200 < kernel.cpu.registers.rsp < kernel.ist
