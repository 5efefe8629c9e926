"""What an oops means: bits, entries, places, depth, and whether a top-level entry is missing."""

import io

import pytest
from support.oops_texts import COMPOUND, COVER, FIVE_LEVELS, HANDLER, PLAIN, SUB_PMD, without

from kernel_model.reading.explain import (
    Place,
    depth,
    entries,
    error_bits,
    kaslr_text,
    places,
    stop_text,
)
from kernel_model.reading.judge import LargePage, large_page
from kernel_model.reading.oopses import Judged, read_oopses
from kernel_model.reading.text import parse

ADDRESS = b"ffffe70000000034"


def judged(text: bytes) -> Judged:
    """The first oops of a text, judged."""
    found = read_oopses(io.BytesIO(text).read).first
    assert found is not None
    return found


def unsynced(text: bytes) -> bool | None:
    """The answer."""
    return judged(text).verdict.unsynced


# -- error codes


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (0, []),
        (2, ["W"]),
        (3, ["P", "W"]),
        (0x11, ["P", "I"]),
        (0x2C, ["U", "RSVD", "PK"]),
        (0x8000_8041, ["P", "SHSTK", "SGX", "RMP"]),
    ],
)
def test_an_error_code_is_told_bit_by_bit(code: int, names: list[str]) -> None:
    bits = error_bits(code)

    assert [bit.name for bit in bits if bit.is_set] == names
    assert [bit.bit for bit in bits] == [0, 1, 2, 3, 4, 5, 6, 15, 31]


# -- the page-table line


def table(line: bytes) -> str:
    """What the line says of where the kernel stopped."""
    return stop_text(parse(b"BUG: unable to handle page fault for address: " + line + b"\nOops:"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"PGD 0 P4D 0 ", "stopped at the p4d: not present"),
        (b"PGD 0 ", "stopped at the pgd: not present"),
        (b"PGD c7f03a067 PUD 0 ", "stopped at the pud: not present"),
        (b"PGD 1067 P4D 1067 PUD 2067 PMD 80000000fa8001e3 ", "reached the page, at the pmd"),
        (b"PGD 1067 P4D 1067 PUD 2067 PMD 3067 PTE 8000000000004163", "the page, at the pte"),
        (b"PGD 1067 P4D 1067 PUD 2067 PMD 3067 PTE 0", "stopped at the pte: not present"),
        (b"PGD 1067 P4D 1067 \nBAD", "could not be read (BAD)"),
        (b"PGD 1067 P4D 1067 ", "breaks off behind the p4d, which is present"),
    ],
)
def test_where_the_kernels_own_walk_stopped(line: bytes, words: str) -> None:
    assert words in table(line)


def test_at_4_levels_the_top_entry_is_printed_twice() -> None:
    first, second = entries(judged(COMPOUND).oops, 4)

    assert first.meaning == "the top entry, empty"
    assert second.meaning.startswith("the top entry again")


@pytest.mark.parametrize(
    ("text", "levels", "why"),
    [
        (COMPOUND, 4, "printed twice"),
        (HANDLER, 4, "no P4D"),
        (PLAIN, 4, "CR4.LA57 is 0"),
        (FIVE_LEVELS, 5, "CR4.LA57 is 1"),
        (without(FIVE_LEVELS, b"CR2: "), 5, "PGD stands alone"),
        (without(without(PLAIN, b"CR2: "), b"PGD"), None, "nothing in the text"),
        (COMPOUND.replace(b"PGD 0 P4D 0", b"PGD 1067 P4D 0"), 5, "two entries"),
        (
            without(without(FIVE_LEVELS, b"CR2: "), b"PGD"),
            5,
            "canonical with 5 levels only",
        ),
    ],
)
def test_the_depth_is_told_by_what_the_text_has(text: bytes, levels: int, why: str) -> None:
    found = depth(judged(text).oops)

    assert found.levels == levels
    assert why in found.why


# -- places (facts: the table of the two layouts)


@pytest.mark.parametrize(
    ("address", "levels", "slot", "region", "fixed"),
    [
        (0xFFFF_E700_0000_0034, 4, 462, "vmalloc", False),
        (0xFFFF_EA00_0000_0000, 4, 468, "vmemmap", False),
        (0xFFFF_EB3F_F120_0000, 4, 470, "vmemmap, if a struct page has more than 64 bytes", False),
        (0xFFFF_8880_0000_0000, 4, 273, "direct map", False),
        (0xFFFF_8808_4000_0FF8, 4, 272, "the LDT remap area, one for each mm", True),
        (0xFFFF_8000_0000_0000, 4, 256, "the guard hole, where the kernel maps nothing", True),
        (0xFFFF_ED80_0000_0000, 4, 475, "KASAN's shadow, if the kernel has it", False),
        (0xFFFF_FE00_0000_0000, 4, 508, "cpu entry area", True),
        (0xFFFF_FF00_0000_0000, 4, 510, "espfix stacks", True),
        (0xFFFF_FFFF_8100_0000, 4, 511, "kernel text and data", True),
        (0xFFFF_FFFF_C000_0000, 4, 511, "modules", True),
        (0x34, 4, 0, "user space: a null pointer", True),
        (0x7F00_1234_5678, 4, 254, "user space", True),
        (0xFFD4_0000_0000_0034, 4, None, "not canonical", True),
        (0xFFD4_0000_0000_0034, 5, 468, "vmemmap", False),
        (0xFF11_0000_0000_0000, 5, 273, "direct map", False),
        (0xFFFF_E700_0000_0034, 5, 511, "KASAN's shadow, if the kernel has it", False),
    ],
)
def test_where_an_address_lies_since_4_20(
    address: int, levels: int, slot: int | None, region: str, fixed: bool
) -> None:
    assert Place(levels, "ldt-below", slot, region, fixed) in places(address)


@pytest.mark.parametrize(
    ("address", "slot", "region"),
    [
        (0xFFFF_8808_4000_0FF8, 272, "direct map"),
        (0xFFFF_C7FF_FFFF_FFFF, 399, "direct map"),
        (0xFFFF_C97F_C000_0000, 402, "vmalloc"),
        (0xFFFF_C983_BFE0_0000, 403, "vmalloc"),
    ],
)
def test_where_an_address_lay_before_4_20(address: int, slot: int, region: str) -> None:
    assert Place(4, "direct-map-first", slot, region, False) in places(address)


def test_kaslr_is_said_to_have_moved_what_it_may_have_moved() -> None:
    assert "KASLR may have put" in kaslr_text(judged(COMPOUND).oops)
    assert "probably it did not" in kaslr_text(judged(PLAIN).oops)


# -- the verdict


@pytest.mark.parametrize("text", [COMPOUND, COVER, SUB_PMD, HANDLER, PLAIN, FIVE_LEVELS])
def test_each_of_the_reported_oopses_is_an_unsynced_entry(text: bytes) -> None:
    assert unsynced(text) is True


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"PGD 0 P4D 0", b"PGD fffb1067 P4D fffb1067 PUD 0"),
        (b"PGD 0 P4D 0", b"PGD fffb1067 P4D 0"),
        (b"PGD 0 P4D 0", b"PGD dead0000 P4D dead0000"),
        (ADDRESS, b"0000000000000034"),
        (ADDRESS, b"00007f0012345678"),
        (ADDRESS, b"dead000000000134"),
        (ADDRESS, b"ffff800000000034"),
        (b"0x0002", b"0x0003"),
        (b"0x0002", b"0x0006"),
        (b"Oops: 0002", b"general protection fault: 0000"),
    ],
)
def test_something_else_is_none(old: bytes, new: bytes) -> None:
    text = COMPOUND if b"Oops" not in old else without(PLAIN, b"BUG").replace(b"#PF", b"PF")

    assert unsynced(text.replace(old, new)) is False


@pytest.mark.parametrize(
    "text",
    [
        without(PLAIN, b"PGD"),
        COMPOUND[: COMPOUND.index(b"PGD")],
        COMPOUND[: COMPOUND.index(b"#PF")],
        without(without(PLAIN, b"BUG"), b"CR2"),
        without(without(PLAIN, b"#PF"), b"Oops"),
        b"double fault: 0000 [#1] SMP\nRIP: 0010:f+0x1/0x2\n",
        HANDLER.replace(b"ff880840000ff8", b"ff880840003ff8"),
        HANDLER[: HANDLER.index(b"Oops")],
    ],
)
def test_half_a_text_does_not_tell(text: bytes) -> None:
    assert unsynced(text) is None


def test_a_stray_accessed_bit_leaves_an_entry_empty() -> None:
    assert unsynced(COMPOUND.replace(b"PGD 0 P4D 0", b"PGD 60 P4D 60")) is True


def test_the_handler_needs_no_line_to_have_found_the_entry_missing() -> None:
    assert unsynced(without(HANDLER, "ÂPGD".encode())) is True


@pytest.mark.parametrize(
    ("address", "page"),
    [
        # "Re: [PATCH] x86/mm/vmfault: Make vmalloc_fault() handle large pages": pmem at 480000000,
        # the last 2 MiB of its last GiB.
        (0xFFFF_8808_4000_0FF8, LargePage(0x8_4000_0000, 1 << 30, "pmd", 511)),
        # A 2 MiB page at 90000000, read at ffffc90001278000: pte 0x78.
        (0xFFFF_8800_9000_03C0, LargePage(0x9000_0000, 1 << 21, "pte", 0x78)),
        (0xFFFF_8800_9000_13C0, None),
        (0xFFFF_C900_0000_0000, None),
    ],
)
def test_which_page_the_handler_took_for_a_table(address: int, page: LargePage | None) -> None:
    assert large_page(address) == page


def test_what_was_accessed_first_is_a_part_of_that_page() -> None:
    page = judged(HANDLER).verdict.large_page

    assert page is not None
    assert (page.pa + page.first, page.pa + page.end) == (0x8_7FE0_0000, 0x8_8000_0000)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (b"ffffe70000000034", "init_mm's entry is not in the text"),
        (b"ffffffff81000034", "from boot on"),
        (b"ffff880000000034", "never synced on purpose"),
    ],
)
def test_what_to_keep_in_mind_is_said(address: bytes, words: str) -> None:
    verdict = judged(COMPOUND.replace(ADDRESS, address)).verdict

    assert words in " ".join(verdict.caveats)
