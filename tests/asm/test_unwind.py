"""The stack's depth at an instruction: bytes between rsp and the return address.

Each source is one function f; the depth is asked where the label `here` stands.
"""

import pytest

from asm import assemble, link

BASE = 0xFFFFFFFF81000000


def image(body):
    source = f".type f, @function\nf:\n{body}\n.size f, . - f\n"
    return link([assemble(source)], {".text": BASE})


def depth(body):
    built = image(body)
    return built.stack_depth(built.address("here"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("here: ret", 0),
        ("push rbp\nhere: ret", 8),
        ("push rbp\npush 5\npush qword ptr [rdi]\npushfq\nhere: ret", 32),
        ("push ax\nhere: ret", 2),
        ("push rbp\npop rbp\nhere: ret", 0),
        ("push rbx\nsub rsp, 0x20\nhere: ret", 0x28),
        ("sub rsp, -0x80\nhere: ret", -0x80),
        ("sub rsp, 0x1000\nadd rsp, 0xff8\nhere: ret", 8),
        ("add rsp, -0x80\nhere: ret", 0x80),
        ("lea rsp, [rsp-0x18]\nhere: ret", 0x18),
        ("push rbp\nmov rbp, rsp\nsub rsp, 0x40\nhere: nop", 0x48),
        ("push rbp\nmov rbp, rsp\nsub rsp, 0x40\nleave\nhere: ret", 0),
        ("push rbp\nmov rbp, rsp\nand rsp, -0x40\npush rax\nlea rsp, [rbp-8]\nhere: ret", 16),
        ("push rbp\nmov rbp, rsp\nsub rsp, rax\nmov rsp, rbp\nhere: pop rbp", 8),
        ("enter 0x10, 0\nhere: leave", 0x18),
        ("push rbx\ncall f\nhere: ret", 8),
        ("push rbx\njmp 1f\n.byte 0x06\n1: here: ret", 8),
        ("jz 1f\npush rbx\npop rbx\n1: here: ret", 0),
        ("push rbx\njmp 1f\nret\n1: here: pop rbx", 8),
        ("push rbx\n1: dec rax\nhere: jnz 1b\nret", 8),
        ("endbr64\n.byte 0x0f, 0x1f, 0x44, 0, 0\npush rbp\nhere: ret", 8),
        ("push rbx\nxchg rax, rcx\nhere: ret", 8),
        ("push rbx\ncmp rsp, rax\nmov [rsp], rsp\nhere: ret", 8),
    ],
)
def test_the_depth_is_what_the_instructions_made_it(body, expected):
    assert depth(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        "and rsp, -16\nhere: ret",
        "mov rsp, rax\nhere: ret",
        "mov esp, eax\nhere: ret",
        "xchg rax, rsp\nhere: ret",
        "pop rsp\nhere: ret",
        "mov rbp, rsp\nmov rbp, rax\nleave\nhere: ret",
        "jz 1f\npush rbx\n1: here: ret",
        "1: push rbx\nhere: jnz 1b\nret",
        "ret\nhere: nop",
        "ud2\nhere: nop",
        "hlt\nhere: nop",
        "jmp rax\nhere: nop",
        "int3\nhere: nop",
    ],
    ids=str,
)
def test_the_depth_is_unknown(body):
    assert depth(body) is None


def test_the_hlt_behind_a_call_is_stepped_over():
    body = (
        "push rbp\npush rbx\ncall f\nhlt\n.org f + 0x86, 0x90\nhere: call f\nhlt\n.org f+0x90, 0xcc"
    )

    assert depth(body) == 16


def test_another_way_to_the_hlt_behind_a_call_does_not_matter():
    assert depth("jz 1f\ncall f\n1: hlt\nhere: ret") == 0


def test_a_jump_into_padding_that_was_passed_before_is_joined_with_it():
    assert depth("jz f + 5\nnop\nnop\nnop\nnop\nhere: ret") == 0
    assert depth("push rax\njz f + 8\npush rax\nnop\nnop\nnop\nnop\nnop\nhere: ret") is None


def test_addresses_outside_functions_have_no_depth():
    assert image("here: ret").stack_depth(BASE + 1) is None


def test_an_address_inside_an_instruction_has_no_depth():
    assert image("here: mov rax, rbx").stack_depth(BASE + 1) is None
