"""Mistakes in a source: each is refused, with file, line, the line itself and what was expected."""

import contextlib
import io
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asm import AssemblyError, assemble, assemble_file

REFUSALS = {
    "mov al, 300": "0x12c does not fit `mov al, 0x12c`: it would become 0x2c",
    "mov eax, 0x100000000": "0x100000000 does not fit",
    "add eax, 0x1ffffffff": "0x1ffffffff does not fit",
    "add rax, 0x80000000": "cannot encode",
    "cmp byte ptr [rdi], 300": "0x12c does not fit",
    "push 0x80000000": "0x80000000 does not fit",
    "push 0x1122334455667788": "0x1122334455667788 does not fit",
    "enter 70000, 0": "0x11170 does not fit",
    "ret 70000": "0x11170 does not fit",
    "mov rax, [rdi + 0x80000000]": "[rdi + 0x80000000] does not fit",
    "mov rax, [rdi - 0x80000001]": "[rdi - 0x80000001] does not fit",
    "mov rax, [rdi + 0x8000000000]": "[rdi + 0x8000000000] does not fit",
    "lea rax, [rip + 0x100000000]": "[rip + 0x100000000] does not fit",
    "mov rbx, [0x100000000]": "[rip + 0x100000000] does not fit",
    "movabs rbx, [0x10]": "takes al, ax, eax or rax only",
    "iret": "iretq or iretd was expected",
    "sysret": "sysretq or sysretl was expected",
    "frobnicate rax": "cannot encode `frobnicate rax`: invalid mnemonic",
    "mov rax": "cannot encode `mov rax`: invalid operand",
    "mov eax, rbx": "cannot encode `mov eax, rbx`: invalid operand",
    "mov [rdi], 5": "the size of [rdi] is not known",
    "neg [rdi]": "the size of [rdi] is not known",
    "mov bh, sil": "bh cannot stand beside sil",
    "movzx rax, ah": "ah cannot stand beside rax",
    "mov ah, [r8]": "ah cannot stand beside r8",
    "stosb [rax]": "`stosb` is written without operands",
    "rex64 [rax]": "`rex64` is not the name of an instruction",
    "str": "cannot encode `str`",
    "lock nop": "`lock` does not go with this `nop`",
    "rep jmp 1b": "`rep` in front of `jmp` is not supported",
    "call short f": "`call` has no short form",
    "call offset f": "a target is written without `offset`",
    "mov rax, [rax + rbx + rcx]": "has three registers",
    "mov rax, [rax*2 + rbx*2]": "has two index registers",
    "mov rax, [rax*3]": "rax*3 is not a register times 1, 2, 4 or 8",
    "mov rax, [rbx - rax]": "subtracts a register",
    "mov rax, [rip + rax]": "rax is not an index register",
    "mov rax, [rsp*2]": "rsp is not an index register",
    "mov rax, [al]": "al does not address memory",
    "mov rax, [rdi": "is not a memory operand",
    "mov rax, [rdi +]": "lacks a term",
    "mov rax, [fs:0]": "the segment goes in front of the bracket",
    "movs byte ptr [rdi], byte ptr [rsi]": "has two memory operands",
    "vpaddd zmm0, zmm1, zmm2": "zmm0 is a register",
    "mov %rax, %rbx": "`%` is not expected",
    "x\xe9: nop": "`\xe9` is not ASCII",
    "rax: nop": "rax is a register",
    "again: nop; again: nop": "again is already defined in line 2",
    ".set again, 1; again: nop": "again is already defined in line 2",
    "again: nop; .set again, 1": "again is already a label, in line 2",
    "jmp short f; .skip 128; f: nop": "the target is 0x80 bytes away: -0x80 to 0x7f were expected",
    "loop elsewhere": "this jump reaches no further",
    ".byte 256": "0x100 does not fit 1 byte",
    ".byte -129": "-0x81 does not fit 1 byte",
    ".short 0x10000": "0x10000 does not fit 2 bytes",
    ".octa 1, f": ".octa takes numbers only",
    ".float 1.0": "the directive .float is not supported",
    ".macro f": "the directive .macro is not supported",
    '.include "f"': "the directive .include is not supported",
    '.incbin "f"': "the directive .incbin is not supported",
    ".att_syntax": "the directive .att_syntax is not supported",
    ".code32": "the directive .code32 is not supported",
    ".intel_syntax prefix": "noprefix was expected",
    ".err": ".err was reached",
    '.error "too small"': "too small",
    '.ascii "a': "the string is never closed",
    '.ascii "a" "b"': "is not a string in double quotes",
    ".ascii a": "is not a string in double quotes",
    r'.ascii "\q"': r"`\q` is not an escape",
    "nop /* never": "the comment is never closed",
    "nop // no comment": "`/` is not expected",
    ".skip -1": "-1 repetitions: 0 or more were expected",
    ".skip 0x2000000": "0x2000000 bytes: at most 0x1000000 were expected",
    ".skip f": "is an address: a constant was expected",
    ".skip 1, 300": "0x12c does not fit 1 byte",
    ".fill 1, 9": "units of 0x9 bytes: 0 to 8 were expected",
    ".fill 1, 8, 0x100000000": "0x100000000 does not fit 4 bytes",
    ".balign 3": "alignment 0x3: a power of two up to 0x200000 was expected",
    ".p2align 30": "0 to 21 was expected",
    "nop; .org 0": ".org to 0x0 goes back: the code before it ends at 0x2",
    ".org elsewhere": ".org leaves its section",
    ".org 0x2000000": "at most 0x1000000 were expected",
    ".if unknown": "`unknown` is not known here: a constant was expected",
    ".if 1": "the .if in line 2 has no .endif",
    ".ifc a, b": "the condition .ifc is not supported",
    ".else": ".else without .if",
    ".elseif 1": ".elseif without .if",
    ".endif": ".endif without .if",
    ".if 1; .else; .else; .endif": ".else after .else of the .if in line 2",
    ".rept 2": "the .rept in line 2 has no .endr",
    ".rept -1": ".rept of -1: 0 or more was expected",
    ".endr": ".endr without .rept",
    ".rept 0x20000; nop; .endr": "more than the 0x10000 statements expected",
    ".type f": ".type takes 2 operands, not 1",
    ".type f, @thing": "@function, @object or @notype was expected",
    ".size unknown, 1": "nothing in this source is called unknown",
    "f: .size f, f": "the size of f is an address: a constant was expected",
    ".size f, unknown": "nothing in this source is called f",
    ".globl 5": "`5` is not the name of a symbol",
    '.section .f, "q"': "only a, w and x are supported",
    '.section .f, "ax", @thing': "@progbits or @nobits was expected",
    '.text; .section .text, "aw"': 'section .text has the flags "ax", not "aw"',
    ".bss; .byte 1": "section .bss holds no data",
    ".quad f - g": "the difference of these places is not known before linking",
    "f: .skip after - f + 1; after: nop": "where this lies depends on itself",
}


@pytest.mark.parametrize(("statement", "message"), REFUSALS.items(), ids=REFUSALS)
def test_a_mistake_is_refused_with_its_line(statement, message):
    with pytest.raises(AssemblyError) as refusal:
        assemble(f"nop\n{statement}\n", name="mine.S")

    assert message in refusal.value.message
    assert (refusal.value.file, refusal.value.line) == ("mine.S", 2)
    assert refusal.value.source == statement


def test_an_error_reads_file_line_message_and_the_source_line():
    with pytest.raises(AssemblyError) as refusal:
        assemble("  .byte 256  # too much", name="mine.S")

    expected = "mine.S:1: 0x100 does not fit 1 byte\n    .byte 256  # too much"
    assert str(refusal.value) == expected


def test_an_error_survives_a_trip_to_another_process():
    with pytest.raises(AssemblyError) as refusal:
        assemble(".byte 256")

    assert str(pickle.loads(pickle.dumps(refusal.value))) == str(refusal.value)


def test_a_line_that_is_too_long_to_read_is_shortened():
    with pytest.raises(AssemblyError) as refusal:
        assemble("x" * 100_000)

    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("source", ["", "\n\n", "# none", ".set a, 5", "a:", ".if 0\nnop\n.endif"])
def test_a_source_without_code_and_data_is_refused(source):
    with pytest.raises(AssemblyError, match="nothing to assemble"):
        assemble(source)


def test_a_file_gives_its_name_to_errors(tmp_path):
    path = tmp_path / "mine.S"
    path.write_text("nop\nfrobnicate\n")

    with pytest.raises(AssemblyError, match=r"^mine\.S:2: cannot encode"):
        assemble_file(path)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "mine.S"
    path.write_bytes(b"nop\n# \xff\n")

    with pytest.raises(AssemblyError, match=r"mine\.S:2: byte 0xff at offset 0x6: expected UTF-8"):
        assemble_file(path)


def test_a_mark_of_utf_8_is_no_part_of_a_file(tmp_path):
    path = tmp_path / "windows.S"
    path.write_text("nop", encoding="utf-8-sig")

    assert assemble_file(path).sections[".text"].data == b"\x90"


def test_a_file_that_is_too_large_is_refused_with_one_line(tmp_path):
    path = tmp_path / "mine.S"
    path.write_bytes(b"nop\n" * 2_500_000)

    with pytest.raises(AssemblyError) as refusal:
        assemble_file(path)

    assert str(refusal.value) == "mine.S: too long: expected at most 0x100000 bytes"


def test_a_text_that_is_too_large_is_refused():
    with pytest.raises(AssemblyError, match="too long: expected at most 0x100000 characters"):
        assemble("nop\n" * 300_000)


def test_a_missing_file_is_the_system_s_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        assemble_file(tmp_path / "absent.S")


WORDS = str.split("""
    mov add jmp call jz lock rep push nop rex64 .byte .quad .if .else .endif .org .skip .balign
    .section .text .set .rept .endr .size .type .ascii .globl rax eax ah sil cr3 xmm0 st(1) gs: [
    ] ( ) , : + - * ; # " ' \\ 0 1 5 0x80000000 1b 1f a b . $ = == << qword ptr byte offset short
""")


@settings(deadline=None)
@given(st.lists(st.sampled_from([*WORDS, " ", "\n", "\t", "é", "\0"]), max_size=30))
def test_any_text_is_assembled_or_refused(words):
    with contextlib.suppress(AssemblyError):
        assemble(" ".join(words))


class _Resource:
    """As much of a Traversable as reading one needs."""

    name = "inside.S"

    def open(self, mode):
        assert mode == "rb"
        return io.BytesIO(b"nop\n")


def test_a_resource_inside_a_package_is_read():
    assert assemble_file(_Resource()).name == "inside.S"


def test_constants_come_from_outside(tmp_path):
    path = Path(tmp_path, "mine.S")
    path.write_text(".byte SIZE / 2\n")

    assert assemble_file(path, constants={"SIZE": 80}).sections[".text"].data == b"\x28"
