"""The ways into the kernel and out of it: the same bytes as GNU as, and nothing left behind."""

from pathlib import Path

import pytest
from support import gnu

import asm
from asm import assemble, assemble_file, link

ENTRY = Path(asm.__file__).parent / "entry"
FILES = sorted(ENTRY.glob("*.S"))
CALLEES = "\n".join(
    f".globl {name}\n{name}: ret" for name in ("do_page_fault", "do_syscall", "handler")
)
BASES = {".text": 0xFFFF_FFFF_8100_0000}


@pytest.mark.skipif(gnu.MISSING is not None, reason=str(gnu.MISSING))
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_source_becomes_the_same_bytes_as_with_gnu_as(file):
    sources = [file.read_text(), CALLEES]

    image = link([assemble(source) for source in sources], BASES)

    linked = gnu.assemble_and_link(sources, BASES, {})
    assert {s.name: (s.base, s.data) for s in image.segments if s.data} == {
        name: section for name, section in linked.sections.items() if section[1]
    }


def test_there_are_four_of_them():
    names = [file.name for file in FILES]

    assert names == ["exceptions.S", "page_fault.S", "syscall.S", "user.S"]


@pytest.mark.parametrize(
    ("file", "symbol"),
    [
        ("exceptions.S", "page_fault"),
        ("page_fault.S", "entry_page_fault"),
        ("syscall.S", "entry_syscall"),
        ("user.S", "enter_user"),
    ],
)
def test_each_is_a_function_with_a_size(file, symbol):
    image = link([assemble_file(ENTRY / file), assemble(CALLEES)], BASES)

    assert image.symbols[symbol].kind == "function"
    assert image.symbols[symbol].size > 0
