"""`pagewalk asm FILE.S`: the listing."""

import pytest
from support.cli import run_cli

SOURCE = """
    .globl f
    .type f, @function
f:  mov eax, N
    call g
    ret
    .size f, . - f
g:  ret
    .data
table: .quad 1, 2
    .skip 0x800
    .bss
    .skip 0x1000
"""


@pytest.fixture
def listed(tmp_path):
    """List a source given as text."""

    def listing(source, *options, **named):
        file = tmp_path / "file.S"
        file.write_text(source)
        return run_cli("asm", str(file), *options, **named)

    return listing


def test_the_listing_has_offsets_bytes_and_mnemonics(listed):
    status, output, errors = listed(SOURCE, "--set", "N=5", parse=False)

    assert (status, errors) == (0, "")
    assert "f:    # function, 0xb bytes\n     0:  b8 05 00 00 00" in output
    assert "     a:  c3                       ret\n" in output
    assert "     8:  02 00 00 00 00 00 00 00\n" in output


def test_long_data_is_cut_for_people(listed):
    _, output, _ = listed(SOURCE, "--set", "N=5", parse=False)

    assert "… 0x800 bytes in all\n" in output
    assert "     0:  0x1000 bytes             .skip 0x1000\n" in output
    assert len(output.splitlines()) < 50


def test_the_document_has_everything(listed):
    status, document, _ = listed(SOURCE, "--set", "N=5", "--json")

    assert status == 0
    assert document["schema"] == 1
    assert [section["name"] for section in document["sections"]] == [".text", ".data", ".bss"]
    assert document["sections"][0]["lines"][0] == {
        "offset": "0x0", "size": 5, "bytes": "b8 05 00 00 00", "text": "mov eax, 5", "line": 4,
        "symbol": "f",
    }  # fmt: skip
    assert document["symbols"][0] == {
        "name": "f", "section": ".text", "offset": "0x0", "size": 11, "kind": "function",
        "binding": "global",
    }  # fmt: skip


def test_a_constant_of_the_file_counts(listed):
    _, document, _ = listed("# pagewalk: --set N=7\n" + SOURCE, "--json")

    assert document["sections"][0]["lines"][0]["text"] == "mov eax, 7"


def test_a_constant_that_is_missing_is_refused(listed):
    status, output, errors = listed(".if N\nf: ret\n.endif\n", parse=False)

    assert (status, output) == (2, "")
    assert "N" in errors


def test_a_source_need_not_be_whole(listed):
    status, _, errors = listed("f: call elsewhere\n", parse=False)

    assert (status, errors) == (0, "")
