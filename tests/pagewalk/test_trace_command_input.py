"""`pagewalk trace` and `pagewalk asm` with bad input: one line on stderr, status 2, no output."""

import pytest
from support.cli import run_cli

COMMANDS = pytest.mark.parametrize("command", ["trace", "asm"])


def refused(*arguments):
    """Run a command that must be refused; return its one line."""
    status, output, errors = run_cli(*arguments, parse=False)
    assert (status, output) == (2, "")
    assert errors.startswith("pagewalk: ")
    assert errors.count("\n") == 1
    return errors


@pytest.fixture
def ret(tmp_path):
    """A file that nothing is wrong with."""
    file = tmp_path / "ret.S"
    file.write_text("routine: ret\n")
    return str(file)


@COMMANDS
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "nothing to assemble"),
        (b"# nothing\n", "nothing to assemble"),
        (b"f:\n  mov rax, [rdi\n", "file.S:2: "),
        (b"f:\n  mov rax, [rdi\n", ": `mov rax, [rdi`"),
        (b"f: zork rax\n", "zork"),
        (b"f: ret # \xff\n", "file.S:1: byte 0xff at offset 0x9: expected UTF-8"),
        (b"# " + 10_000_000 * b"x", "at most 0x100000 bytes"),
        (b"\0\0\0\0", "file.S:1: "),
        (b"\x7fELF\x02\x01\x01", "file.S:1: "),
        (b"f: ret\x1b[31m", "\\x1b[31m"),
        (b"# pagewalk: --zork\nf: ret", "file.S:1: unrecognized arguments: --zork"),
        (b'f: ret\n# pagewalk: --reg "', "file.S:2: No closing quotation"),
        (b"# pagewalk: --set N\nf: ret", "--set 'N': expected NAME=VALUE"),
        (b"# pagewalk: f.S\nf: ret", "unrecognized arguments: f.S"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_source(tmp_path, command, content, words):
    file = tmp_path / "file.S"
    file.write_bytes(content)

    assert words in refused(command, str(file))


@COMMANDS
@pytest.mark.parametrize(
    ("name", "words"), [("missing.S", "No such file"), (".", "Is a directory"), ("\0", "null")]
)
def test_a_file_that_is_none(tmp_path, command, name, words):
    assert words in refused(command, f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("content", "words"),
    [("f: call nowhere", "undefined symbol nowhere"), (".data\nx: .byte 1", "expected code")],
)  # fmt: skip
def test_a_source_that_cannot_be_run(tmp_path, content, words):
    file = tmp_path / "file.S"
    file.write_text(content)

    assert words in refused("trace", str(file))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--reg rxa=1", "--reg 'rxa=1': expected one of rax"),
        ("--reg rip=1", "expected one of rax"),
        ("--reg rax", "expected REGISTER=VALUE"),
        ("--reg rax=zork", "no symbol is called zork"),
        ("--reg rax=routin", "did you mean routine?"),
        ("--reg rax=-1", "expected a number from 0x0"),
        ("--reg rax=0x10000000000000000", "to 0xffffffffffffffff"),
        ("--map zork", "expected VA=PA[+SIZE]:RIGHTS"),
        ("--map 0x1000=0x2000", "expected VA=PA[+SIZE]:RIGHTS"),
        ("--map 0x1000=0x2000:q", "expected VA=PA[+SIZE]:RIGHTS"),
        ("--map 0x1000=zork:r", "PA 'zork': expected a number"),
        ("--map 0x1001=0x2000:r", "VA 0x1001: expected a multiple of 4 KiB"),
        ("--map 0x1000=0x2001:r", "PA 0x2001: expected a multiple of 4 KiB"),
        ("--map 0x1000=0x2000+5:r", "SIZE 0x5: expected a multiple of 4 KiB"),
        ("--map 0x1000=0x2000+0:r", "SIZE"),
        ("--map 0x1000=0x40000000:r", "expected RAM, which ends at 0x40000000"),
        ("--map 0x1000=0x3ffff000+8K:r", "expected RAM"),
        ("--map 0x800000000000=0:r", "expected canonical addresses of 4 levels"),
        ("--map 0x7ffffffff000=0+8K:r", "expected canonical addresses"),
        ("--map 0xfffffffffffff000=0+8K:r", "expected canonical addresses"),
        ("--map 0=0+8K:r --map 0x1000=0:r", "expected addresses that are free; --map 0=0+8K:r"),
        ("--map 0xffffffff81000000=0:r", ".text has 0xffffffff81000000-0xffffffff81000fff"),
        ("--map 0xffffc90000003000=0:r", "stack has"),
        ("--user --map 0x3fe000=0:r", "return has"),
        ("--entry routin", "did you mean routine?"),
        ("--max-steps 0", "--max-steps '0': expected a number from 0x1"),
        ("--max-steps zork", "expected a number"),
        ("--ram 0", "--ram '0': expected a number from 0x100000"),
        ("--ram 2T", "to 0x10000000000"),
        ("--ram 0x100001", "expected a multiple of 4 KiB"),
        ("--levels 3", "--levels '3': expected 4 or 5"),
        ("--set zork", "--set 'zork': expected NAME=VALUE"),
        ("--set 1=2", "expected NAME=VALUE"),
        ("--map", "expected one argument"),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_option_that_makes_no_sense(ret, options, words, form):
    assert words in refused("trace", ret, *options.split(), *form)


@pytest.mark.parametrize(
    "options", [("--map", "1\n=0:r"), ("--entry", "a\nb"), ("--reg", "rax=a\nb")]
)
def test_a_newline_does_not_make_two_lines(ret, options):
    assert "\\n" in refused("trace", ret, *options)


def test_ram_that_does_not_hold_the_tables(ret):
    maps = [f"--map={n << 39:#x}=0:r" for n in range(1, 129)]

    assert "--ram 0x100000: expected more" in refused("trace", ret, "--ram", "1M", *maps)


def test_ram_that_does_not_hold_the_code(tmp_path):
    file = tmp_path / "file.S"
    file.write_text("f: ret\n .skip 0x100000\n")

    assert "--ram 0x100000: expected more" in refused("trace", str(file), "--ram", "1M")


def test_the_header_is_checked_like_the_command_line(tmp_path):
    file = tmp_path / "file.S"
    file.write_text("# pagewalk: --map 5\nf: ret\n")

    assert "--map '5': expected VA=PA" in refused("trace", str(file))
