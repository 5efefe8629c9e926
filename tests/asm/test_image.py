"""Linked images: symbols both ways, call sites, and what cannot be linked."""

import re

import pytest

from asm import (
    AssemblyError,
    CallSite,
    Location,
    Segment,
    Symbol,
    UnknownSymbol,
    assemble,
    link,
)

TEXT, DATA, XE = 0xFFFFFFFF81000000, 0xFFFFFFFF82000000, 0xFFFFFFFFC0000000
BASES = {".text": TEXT, ".data": DATA, ".module.xe": XE}

KERNEL = """
    .globl  memremap
    .type   memremap, @function
memremap:
    push    rbx
    call    helper
    pop     rbx
inside:
    ret
    .size   memremap, . - memremap
    .type   helper, @function
helper:
    call    rax
    ret
    .size   helper, . - helper
unsized:
    ret
    .data
    .globl  table
    .type   table, @object
table:
    .quad   memremap, 0
    .size   table, . - table
    .set    ANSWER, 42
"""
DRIVER = """
    .section .module.xe, "ax"
    .globl  probe
    .type   probe, @function
probe:
    call    memremap
    hlt
    .org    probe + 0x20, 0x90
    call    memremap
    hlt
    call    memremap + 1
    jmp     memremap
    .size   probe, . - probe
"""


@pytest.fixture(scope="module")
def image():
    programs = [assemble(KERNEL, name="kernel.S"), assemble(DRIVER, name="driver.S")]
    return link(programs, BASES)


def test_segments_lie_at_their_bases(image):
    assert [(s.name, s.base) for s in image.segments] == [
        (".text", TEXT),
        (".data", DATA),
        (".module.xe", XE),
    ]


def test_a_segment_shows_its_base_in_hex():
    assert repr(Segment(".text", TEXT, b"123")) == "Segment('.text', 0xffffffff81000000, 0x3 bytes)"


def test_a_symbol_has_an_address_a_size_and_a_kind(image):
    assert image.symbols["table"] == Symbol("table", ".data", DATA, 16, "object")


def test_a_number_is_a_symbol_of_no_section(image):
    assert image.symbols["ANSWER"] == Symbol("ANSWER", "*ABS*", 42, 0, "notype")


def test_an_address_is_found_by_name(image):
    assert image.address("inside") == TEXT + 7


def test_an_unknown_name_is_refused_with_the_nearest_one(image):
    with pytest.raises(UnknownSymbol, match=r"no symbol is called memmap: did you mean memremap\?"):
        image.address("memmap")


def test_an_unknown_name_like_no_other_is_refused(image):
    with pytest.raises(UnknownSymbol, match=r"no symbol is called zzz$"):
        image.address("zzz")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (TEXT, "memremap+0x0/0x8"),
        (TEXT + 7, "memremap+0x7/0x8"),
        (TEXT + 8, "helper+0x0/0x3"),
        (DATA + 15, "table+0xf/0x10"),
        (XE + 0x20, "probe+0x20/0x30"),
        (TEXT + 11, None),
        (TEXT - 1, None),
        (DATA + 16, None),
        (0, None),
    ],
)
def test_an_address_is_described_as_the_kernel_prints_it(image, address, text):
    assert image.describe(address) == text


def test_a_label_inside_a_function_does_not_take_its_addresses(image):
    assert image.lookup(image.address("inside")) == Location("memremap", 7, 8, ".text")


def test_the_innermost_of_nested_objects_is_looked_up():
    source = """
        .type outer, @object; .size outer, 16; .type inner, @object; .size inner, 4
        outer: .quad 0
        inner: .quad 0
    """
    nested = link([assemble(source)], BASES)

    assert nested.describe(TEXT + 8) == "inner+0x0/0x4"
    assert nested.describe(TEXT + 12) == "outer+0xc/0x10"


def test_a_global_name_is_preferred_for_an_address():
    source = ".type l, @function; .type g, @function; .globl g\nl: g: ret\n.size l, 1; .size g, 1"

    assert link([assemble(source)], BASES).describe(TEXT) == "g+0x0/0x1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("memremap", TEXT),
        ("memremap+0x7", TEXT + 7),
        ("memremap+7", TEXT + 7),
        ("memremap+0x7/0x8", TEXT + 7),
        ("memremap+0x8/0x8", TEXT + 8),
        (" table ", DATA),
        ("0xffffe70000000034", 0xFFFFE70000000034),
        ("4096", 4096),
    ],
)
def test_a_text_names_an_address(image, text, expected):
    assert image.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memremap+0x7/0x9", "gives a size of 0x9: memremap has 0x8 bytes"),
        ("memremap+0x9/0x8", "offset 0x9 is beyond the size 0x8"),
        ("memremap-1", "is no address"),
        ("memremap+", "is no address"),
        ("0x10000000000000000", "a number of 64 bits was expected"),
        ("-1", "is no address"),
        ("", "is no address"),
        ("memmap+0x1", "did you mean memremap"),
    ],
)
def test_a_text_that_names_no_address_is_refused(image, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        image.parse(text)


def test_every_call_of_one_function_in_another_is_found(image):
    assert image.call_sites("probe", "memremap") == (
        CallSite(XE, XE + 5),
        CallSite(XE + 0x20, XE + 0x25),
    )


def test_a_function_that_does_not_call_another_has_no_call_sites(image):
    assert image.call_sites("memremap", "probe") == ()


def test_call_sites_of_an_unknown_function_are_refused(image):
    with pytest.raises(UnknownSymbol, match="did you mean probe"):
        image.call_sites("probed", "memremap")


@pytest.mark.parametrize(
    ("address", "expected"),
    [(XE + 5, True), (TEXT + 6, True), (TEXT + 10, True), (XE, False), (XE + 0x30, False)],
)
def test_a_return_address_is_where_a_call_ends(image, address, expected):
    assert image.is_return_address(address) is expected


@pytest.mark.parametrize("base", [0x1000, TEXT, 0x7FFF_F000])
def test_a_program_is_linked_anywhere(base):
    program = assemble("f: lea rax, [rip + f]\n.quad f")

    data = link([program], {".text": base}).segments[0].data

    assert data == bytes.fromhex("488d05f9ffffff") + base.to_bytes(8, "little")


def test_a_local_name_of_two_programs_is_no_name_of_the_image():
    source = ".type helper, @function\nhelper: ret\n.size helper, 1"
    both = link([assemble(source), assemble(source)], BASES)

    with pytest.raises(UnknownSymbol, match="helper is a local symbol of more than one program"):
        both.address("helper")
    assert both.describe(TEXT + 1) == "helper+0x0/0x1"


def test_a_weak_definition_gives_way():
    weak = assemble(".weak f\nf: ud2\njmp f", name="weak.S")
    strong = assemble(".globl f\nf: ret", name="strong.S")

    image = link([weak, strong], BASES)

    assert image.address("f") == TEXT + 7
    assert image.segments[0].data[2:7] == b"\xe9\0\0\0\0"


@pytest.mark.parametrize(
    ("sources", "bases", "message"),
    [
        (["nop"], {}, "section .text of 0.S has no base, of: none"),
        (["nop"], {".text": 1 << 64}, "base 0x10000000000000000 of section .text"),
        ([".balign 16\nnop"], {".text": 8}, "base 0x8 of section .text is not 0x10 aligned"),
        (["nop\n.data\n.quad 0"], {".text": 0x1004, ".data": 0x1000}, "ends at 0x1008, beyond"),
        (["nop\nnop"], {".text": (1 << 64) - 1}, "beyond the end of memory"),
        ([".globl f\nf: ret"] * 2, BASES, "symbol f is defined twice: in 0.S and 1.S"),
    ],
)
def test_what_cannot_be_linked_is_refused(sources, bases, message):
    programs = [assemble(source, name=f"{n}.S") for n, source in enumerate(sources)]

    with pytest.raises(ValueError, match=re.escape(message)):
        link(programs, bases)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nop\ncall f", "undefined symbol f"),
        ("nop\n.long f\n.globl f\n.set f, 0x100000000", "0x100000000 does not fit 4 bytes"),
        ("nop\n.long .text_end\n.text_end:", "0xffffffff81000005, from .text, does not fit"),
        ("nop\nmov eax, offset g\n.data\ng: .quad 0", "0xffffffff82000000, from .data"),
        ("nop\n.byte g-.\n.data\ng: .quad 0", "the distance 0xffffff, from .data, does not fit"),
    ],
)
def test_an_address_that_cannot_be_filled_in_is_refused_with_its_line(source, message):
    with pytest.raises(AssemblyError) as refusal:
        link([assemble(source, name="mine.S")], BASES)

    assert message in refusal.value.message
    assert (refusal.value.file, refusal.value.line) == ("mine.S", 2)


def test_an_address_in_a_section_that_takes_no_memory_is_refused():
    source = "nop\n.quad note\n.section .note\nnote: .byte 1"

    with pytest.raises(AssemblyError, match=r'section \.note is not loaded: it has no "a" flag'):
        link([assemble(source)], BASES)
