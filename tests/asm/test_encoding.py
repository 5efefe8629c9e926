"""Single instructions against GNU as, and what keystone gets wrong when it is left alone."""

from itertools import product

import pytest
from support import gnu
from support.statements import STATEMENTS

from asm import AssemblyError, assemble

ODD_MNEMONICS = ["mov", "jmp", "rex64", "data32", "a32", "wait", "x"]
ODD_OPERANDS = ["", "rax", "5", "[rax]", "rax, 5, 5, 5, 5", "st, st(7)"]


def encoded(statement):
    try:
        return assemble(statement).sections[".text"].data
    except AssemblyError:
        return None


@pytest.fixture(scope="module")
def gnus():
    return gnu.encodings(STATEMENTS)


@pytest.mark.skipif(gnu.MISSING is not None, reason=str(gnu.MISSING))
def test_every_statement_becomes_what_gnu_as_makes_of_it(gnus):
    ours = {statement: encoded(statement) for statement in STATEMENTS}

    differing = {text: (ours[text], gnus[text]) for text in STATEMENTS if ours[text] != gnus[text]}
    assert differing == {}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("pushf", "9c"),
        ("popf", "9d"),
        ("movsd", "a5"),
        ("rep movsd", "f3a5"),
        ("cmpsd", "a7"),
        ("endbr64", "f30f1efa"),
        ("sysretq", "480f07"),
        ("sysretl", "0f07"),
        ("lretq", "48cb"),
        ("serialize", "0f01e8"),
        ("wbnoinvd", "f30f09"),
        ("int 3", "cc"),
        ("mov rax, fs", "8ce0"),
        ("mov fs, ax", "8ee0"),
        ("mov rbx, [0xffffffff82000000]", "488b1c2500000082"),
        ("mov rbx, gs:[0x28]", "65488b1c2528000000"),
        ("mov rax, [0x1000]", "488b042500100000"),
        ("mov eax, 10", "b80a000000"),
        ("mov eax, [rdi+10]", "8b470a"),
        ("nop dword ptr [rax]", "0f1f00"),
        ("mov word ptr [rax], ds", "8c18"),
        ("lock inc dword ptr gs:[rax]", "65f0ff00"),
    ],
)
def test_what_keystone_gets_wrong_is_right(statement, expected):
    assert encoded(statement) == bytes.fromhex(expected)


def test_a_distance_in_a_displacement_counts_though_gnu_as_drops_it():
    assert encoded("a: nop\nb: add rax, [rdi+b-a]") == bytes.fromhex("90 48034701")


def test_of_odd_combinations_only_the_known_ones_are_encoded():
    codes = {text: encoded(text) for text in map(" ".join, product(ODD_MNEMONICS, ODD_OPERANDS))}

    assert {text: code.hex() for text, code in codes.items() if code is not None} == {
        "jmp rax": "ffe0",
        "jmp 5": "e900000000",
        "jmp [rax]": "ff20",
        "wait ": "9b",
    }
