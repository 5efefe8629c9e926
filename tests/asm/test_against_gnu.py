"""Whole sources against GNU as and ld: the same bytes and the same symbols.

Each part of snippets.S is one subject of the assembler. GNU as is the judge; where it warns
about a constant, it counts as refusing.
"""

import re
from pathlib import Path

import pytest
from support import gnu

from asm import AssemblyError, assemble, link

pytestmark = pytest.mark.skipif(gnu.MISSING is not None, reason=str(gnu.MISSING))

BASES = {
    ".text": 0xFFFFFFFF81000000,
    ".data": 0xFFFFFFFF82000000,
    ".bss": 0xFFFFFFFF83000000,
    ".hot": 0xFFFFFFFF84000000,
    ".rodata": 0xFFFFFFFF85000000,
    ".extra": 0xFFFFFFFF86000000,
}
CONSTANTS = {"SIZE": 80, "ZERO": 0}
PARTS = re.split(r"(?m)^#: (.*)\n", Path(__file__).with_name("snippets.S").read_text())
SNIPPETS = dict(zip(PARTS[1::2], PARTS[2::2], strict=True))
JUMPS = "".join(f"jmp l{n}\nl{n + 20}: nop\n" for n in range(60))
JUMPS += "".join(f"l{n}: nop\n.skip 1\n" for n in range(20))


def ours(*sources):
    """The image, and its sections as GNU's are given."""
    image = link([assemble(source, constants=CONSTANTS) for source in sources], BASES)
    return image, {s.name: (s.base, s.data) for s in image.segments if s.data}


def gnus(*sources):
    """The symbols of GNU's executable, and its sections."""
    linked = gnu.assemble_and_link(sources, BASES, CONSTANTS)
    return linked.symbols, {name: s for name, s in linked.sections.items() if s[1]}


@pytest.mark.parametrize("snippet", SNIPPETS.values(), ids=SNIPPETS)
def test_a_source_becomes_the_same_bytes(snippet):
    _, sections = ours(snippet)

    assert sections == gnus(snippet)[1]


@pytest.mark.parametrize("snippet", SNIPPETS.values(), ids=SNIPPETS)
def test_symbols_have_the_same_addresses_and_sizes(snippet):
    image, _ = ours(snippet)
    placed = {s.name: (s.address, s.size) for s in image.symbols.values()}

    expected, _ = gnus(snippet)

    assert placed == {name: expected.get(name) for name in placed}


def test_jumps_that_push_each_other_out_of_reach_end_as_in_gnu():
    assert ours(JUMPS)[1] == gnus(JUMPS)[1]


@pytest.mark.parametrize("gap", [1, 2, 9, 10, 11, 30, 63])
def test_programs_of_one_section_are_joined_with_the_same_filling(gap):
    sources = (
        f"f: .skip {gap}\n.data\n.byte 1",
        ".balign 64\nret\n.data\n.balign 32\n.quad .",
        "nop",
    )

    assert ours(*sources)[1] == gnus(*sources)[1]


def test_a_part_of_the_text_that_has_no_place_of_its_own_lies_with_the_rest():
    part = '.section .text.part, "ax"\n'
    sources = (f"f: nop\n{part}call h\n.quad f", f"{part}.balign 16\n.globl h\nh: nop\n.text\nret")

    image, sections = ours(*sources)

    assert sections == gnus(*sources)[1]
    assert image.symbols["h"].section == ".text"


def test_symbols_are_shared_between_programs():
    sources = (
        ".globl f\nf: call g\njmp h\nl: ret\n.weak w\nw: nop",
        ".globl g,h\nl: nop\ng: call f\nh: jmp w\n.quad l",
        ".globl w\nw: ret",
    )

    assert ours(*sources)[1] == gnus(*sources)[1]


@pytest.mark.parametrize(
    "snippet",
    [
        ".byte 300",
        ".long 0x100000000",
        "mov al, 300",
        "mov eax, 0x100000000",
        "push 0x80000000",
        "add rax, 0x80000000",
        "mov ebx, [0x80000000]",
        "mov [rdi], 5",
        "inc [rdi]",
        "movzx eax, [rdi]",
        "shl [rdi], cl",
        "lock mov [rdi], eax",
        "iret",
        "mov eax, 10h",
        "nop // not a comment here",
        ".org 5\n.org 2",
        "loop 1f\n.skip 200\n1: nop",
        "a: nop\na: nop",
        "jmp 1b",
        ".if nothing\n.endif",
        ".if 1",
        ".endif",
        ".byte 1/0",
        ".byte 1<<64",
        ".data\n.byte 1\n.balignw 4, 1",
        "lea rax, [rax+rbx+rcx]",
        "lea rax, [rax*3]",
        "mov eax, rbx",
    ],
)
def test_what_gnu_refuses_or_warns_about_is_refused(snippet):
    with pytest.raises(gnu.GnuError):
        gnus(snippet)

    with pytest.raises(AssemblyError):
        assemble(snippet)
