"""The labs' `.S` files, completed wrongly: each slip costs its points, and says why."""

import pytest

from pagewalk.labs import find
from pagewalk.labs.directory import solved, write
from pagewalk.labs.judge import judge
from pagewalk.labs.submission import Submission

CLEAR = "and qword ptr [rsi + rcx * 8]"
FILE = {"cr3": "load_under.S", "accessed-dirty": "scan.S", "stale": "remap.S"}


@pytest.fixture
def reasons(tmp_path):
    """Complete a lab's file as the teacher would, but for one change; return what is lost."""

    def judged(name, old, new):
        lab, file = find(name), FILE[name]
        write(tmp_path, lab, "ada")
        text = solved(lab, "ada")[file]
        assert text.count(old) == 1
        (tmp_path / file).write_text(text.replace(old, new))
        parts = [part for part in lab.of_seed("ada").parts if part.asks[0].key == file]
        return [judge(part, Submission(tmp_path)) for part in parts]

    return judged


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("cr3", "mov     cr3, rsi", "nop", "not the other task's word"),
        ("cr3", "mov     cr3, rcx", "nop", "leaves CR3 = "),
        ("cr3", "mov     cr3, rsi", "mov cr3, rdi", "does not return: #"),
        (
            "cr3",
            "mov     cr3, rsi",
            "here: jmp here",
            "stopped after 100000 steps at rip 0xffffffff81000073 (load_under+0x3/0xc)",
        ),
        ("cr3", "mov     cr3, rsi", "hlt", "does not return: hlt at rip"),
        ("cr3", "mov     cr3, rsi", "ud2", "does not return: #UD"),
        ("cr3", "mov     cr3, rsi", "mov rax, [0x1234]", "supervisor read, not-present"),
        ("cr3", "mov     cr3, rsi", "lidt [rip]\n ud2", "does not return: shutdown"),
        ("cr3", "mov     cr3, rsi", "movv cr3, rsi", "`movv cr3, rsi`"),
        ("cr3", "\nload_under:", "\nload_undr:", "nothing in this source is called load_under"),
        ("cr3", "mov     cr3, rsi", "mov rsp, 8", "#PF at 0x8"),
        ("accessed-dirty", "invlpg  [rdi]", "nop", "were accessed before it"),
        (
            "accessed-dirty",
            "bts     eax, ecx",
            f"{CLEAR}, -2\n bts eax, ecx",
            "before scan 2, an access",
        ),
        ("accessed-dirty", "bts     eax, ecx", f"{CLEAR}, -65\n bts eax, ecx", "clears D"),
        ("accessed-dirty", "btr     qword", "bt qword", "leaves A = 1"),
        ("accessed-dirty", "cmp     ecx, 8", "cmp ecx, 7", "were accessed before it"),
    ],
)
def test_a_slip_is_told_in_one_line(reasons, name, old, new, words):
    (reason,) = reasons(name, old, new)

    assert words in reason
    assert "\n" not in reason


def test_remap_without_an_invlpg_returns_the_old_frame_s_word(reasons):
    changed, alone = reasons("stale", "invlpg  [rdi]", "nop")

    assert "the old frame's word" in changed
    assert alone == changed


def test_remap_with_a_write_of_cr3_makes_the_cpu_forget_the_other_page(reasons):
    changed, alone = reasons("stale", "invlpg  [rdi]", "mov rax, cr3\n mov cr3, rax")

    assert changed is None
    assert "forget the page beside it" in alone


def test_a_word_that_was_read_off_the_lab_s_text_is_not_the_one_that_is_asked_for(reasons):
    word = hex(find("cr3").of_seed("ada").solution()["word_b"])

    (reason,) = reasons(
        "cr3", "mov     rax, [rdi]\n        mov     cr3, rcx", f"mov rax, {word}\n mov cr3, rcx"
    )

    assert reason == f"load_under returns {word}, which is not the other task's word"
