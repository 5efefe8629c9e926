"""An assembled source before it is linked: sections, symbols, lines and the listing."""

import subprocess
import sys
from textwrap import dedent

import pytest

from asm import ListingLine, Section, assemble
from asm.program import Base, ProgramSymbol, Relocation

SOURCE = """\
# a comment
    .globl  f
    .type   f, @function
f:
    mov     eax, COUNT
    call    g               # elsewhere
again: also:
    jmp     again
    .size   f, . - f
    .data
    .balign 8
    .quad   f + 1,   2
end:
"""


@pytest.fixture(scope="module")
def program():
    return assemble(SOURCE, name="mine.S", constants={"COUNT": 16})


def test_sections_have_their_bytes_alignment_and_kind(program):
    assert program.sections[".text"] == Section(
        ".text", bytes.fromhex("b810000000 e800000000 ebfe"), 1, "code", "ax", True
    )
    assert program.sections[".data"].alignment == 8


def test_symbols_have_sections_offsets_sizes_and_bindings(program):
    assert program.symbols["f"] == ProgramSymbol("f", ".text", 0, 12, "function", "global")
    assert program.symbols["end"] == ProgramSymbol("end", ".data", 16, 0, "notype", "local")


def test_what_is_not_known_is_left_to_the_linker(program):
    assert program.relocations == (
        Relocation(".text", 6, 4, True, True, Base("g", False), -4, 6),
        Relocation(".data", 0, 8, False, False, Base(".text", True), 1, 12),
    )


def test_each_statement_has_its_line(program):
    assert program.lines[".text", 5] == 6
    assert program.lines[".data", 0] == 12


def test_the_listing_shows_instructions_directives_and_labels(program):
    assert list(program.listing()) == [
        ListingLine(".text", 0, bytes.fromhex("b810000000"), "mov eax, 0x10", 5, "f"),
        ListingLine(".text", 5, bytes.fromhex("e800000000"), "call g", 6, None),
        ListingLine(".text", 10, b"", "", 8, "again"),
        ListingLine(".text", 10, bytes.fromhex("ebfe"), "jmp again", 8, "also"),
        ListingLine(".data", 0, bytes([*bytes(8), 2, *bytes(7)]), ".quad f + 1, 2", 12, None),
        ListingLine(".data", 16, b"", "", 0, "end"),
    ]


def test_the_listing_leaves_labels_out_of_the_text():
    lines = assemble("a: b: .byte 1; c: call b").listing()

    assert [line.text for line in lines] == ["", ".byte 1", "call b"]


def test_labels_that_begin_with_l_and_numbers_are_no_symbols():
    assert list(assemble(".Lhidden: 1: nop\njmp 1b\nseen: jmp .Lhidden").symbols) == ["seen"]


def test_an_assembled_program_cannot_be_changed(program):
    with pytest.raises(TypeError):
        program.symbols["g"] = None


def test_importing_the_package_loads_no_engine():
    script = """
        import sys
        import asm
        from asm import AssemblyError, Image, Program, assemble, link
        assert not {"keystone", "capstone"} & set(sys.modules)
        assert "assemble" in dir(asm)
    """

    subprocess.run([sys.executable, "-c", dedent(script)], check=True)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import asm

    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        asm.frobnicate  # noqa: B018
