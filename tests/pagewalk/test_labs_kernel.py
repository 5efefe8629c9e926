"""Labs 8 to 12: answers that are nearly right, and answers that are hostile."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from pagewalk.cli import main
from pagewalk.labs import find
from pagewalk.labs.directory import README, solved, write
from pagewalk.labs.judge import judge
from pagewalk.labs.submission import Submission

HANDLERS = {"lazy": "lazy.S", "demand": "demand.S", "cow": "cow.S"}
ASSEMBLY = {"kernel-half": "share.S", "missing-entry": "sync.S", **HANDLERS}


@pytest.fixture
def reasons(tmp_path):
    """What becomes of the parts that ask for a file, when it has this text, one after the other."""

    def of(name, file, text):
        lab = find(name)
        write(tmp_path / name, lab, "ada")
        (tmp_path / name / file).write_text(text, encoding="utf-8")
        submission = Submission(tmp_path / name)
        for part in lab.of_seed("ada").parts:
            if part.asks[0].key == file:
                yield part.title, judge(part, submission)

    return of


def completed(name, file):
    return solved(find(name), "ada")[file]


def changed(name, file, old, new):
    """The teacher's file with a mistake in it: words one after the other, however spaced."""
    pattern = r"\s+".join(map(re.escape, old.split()))
    text, count = re.subn(pattern, new, completed(name, file))
    assert count
    return text


# -- nearly right


@pytest.mark.parametrize(
    ("name", "old", "new", "part", "reason"),
    [
        # PWT and PCD of CR3 are taken for a part of the address
        ("lazy", "and rcx, -4096", "", "The repair", "which it is to repair"),
        ("lazy", "add rsp, 8", "", "The repair", "shutdown (triple fault)"),
        ("lazy", "mov [rax], rdx", "", "The repair", "the same instruction faults again"),
        ("lazy", "mov [rax], rdx", "mov [rax], rdx\n mov [rax + 8], rdx",
         "Nothing but the repair", "of the task's root (lazy.S) holds"),
        ("lazy", "pop rdx pop rcx pop rax add", "pop rcx\npop rdx\npop rax\nadd",
         "The repair", "changes RCX"),
        ("lazy", "mov rax, cr2", "mov rax, cr2\n xor r15d, r15d", "The repair", "changes R15"),
        ("cow", "pop rdi pop rsi pop rdx pop rcx pop rax add",
         "pop rcx\n pop rsi\n pop rdx\n pop rcx\n pop rax\n add",
         "A copy for who writes", "cow.S"),
        ("lazy", "jns .Lno", "", "What cannot be repaired", "though it is a user's address"),
        ("lazy", "jnz .Lno # it is there", "#", "What cannot be repaired",
         "though what is missing lies below the entry: whenever it returns"),
        ("lazy", "jz .Lno", "", "What cannot be repaired",
         "though the reference has no entry for it, either: whenever it returns"),
        ("demand", "rep stosq", "", "A fresh page where it is touched", "is not zeroed"),
        ("demand", "mov ecx, 512", "mov ecx, 511", "A fresh page where it is touched",
         "is not zeroed"),
        ("demand", "or rdx, 7", "or rdx, 3", "A fresh page where it is touched",
         "gives up at bad_fault"),
        ("demand", "or rdx, 7", "or rdx, 5", "A fresh page where it is touched",
         "gives up at bad_fault"),
        ("demand", "or rdx, 7", "or rdx, 0x17", "Nothing else", "expected P, RW, US"),
        ("demand", "mov [rip + free_list], rax", "", "A fresh page where it is touched",
         "demand.S"),
        ("demand", "jb .Lno", "", "What is not to be mapped", "though it is below the area"),
        ("demand", "jae .Lno", "", "What is not to be mapped", "though it is behind the area"),
        ("demand", "jnz .Lno", "", "What is not to be mapped",
         "though its page is there, and read-only"),
        ("demand", "jz .Lno", "", "What is not to be mapped", "though no frame is free"),
        ("cow", "rep movsq", "", "A copy for who writes", "is not what the page was"),
        ("cow", "mov ecx, 512 rep movsq", "mov ecx, 511\n rep movsq", "A copy for who writes",
         "is not what the page was"),
        # writable, but still the frame of both
        ("cow", "mov [r8], rax", "or qword ptr [r8], 2", "A copy for who writes",
         "changes what the other task finds"),
        ("cow", "or rax, 7", "or rax, 0x207", "Once for each", "expected P, RW and US alone"),
        ("cow", "or rax, 7", "or rax, 3", "A copy for who writes", "gives up at bad_fault"),
        ("cow", "mov [rip + free_list], rcx", "", "Once for each",
         "the copies are not in the first"),
        ("cow", "jz .Lno", "", "What is read-only stays so", "though it is read-only"),
        ("kernel-half", "rep stosq", "", "What fork copies",
         "of the new root (share.S) holds"),
        ("kernel-half", "rep movsq", "", "What fork copies",
         "slot 256 of the new root (share.S) holds 0xbad"),
        ("kernel-half", "rep stosq", "rep stosq\n mov [rsi + 8], rax\n mov [rsi], rdi",
         "What fork copies", "of the old root (share.S) holds"),
        ("missing-entry", "jbe .Lslot", "jb .Lslot", "In assembly: every task has it",
         "fails: #PF at"),
        ("missing-entry", "mov [r10 + 8 * rcx], rax", "mov [r10 + 8 * rcx], rax\n mov [r10], rax",
         "In assembly: nothing else", "of the root at"),
        ("missing-entry", "inc r9", "inc r9\n mov rbx, r9", "In assembly: every task has it",
         "sync changes RBX"),
    ],
)  # fmt: skip
def test_a_mistake_in_assembly_loses_the_points_of_its_part(reasons, name, old, new, part, reason):
    text = changed(name, ASSEMBLY[name], old, new)

    found = dict(reasons(name, ASSEMBLY[name], text))

    assert found[part] is not None
    assert reason in found[part]


SYNC = "def sync(memory, reference, roots, first, last, shift):\n"
SLOTS = "    for slot in range({}):\n"
COPY = """\
        entry = memory.read_u64(reference + 8 * slot)
        for root in roots:
            memory.write_u64(root + 8 * slot, entry)
"""
RANGE = "first >> shift & 511, (last >> shift & 511) + 1"


@pytest.mark.parametrize(
    ("text", "part", "reason"),
    [
        (SYNC + SLOTS.format("512") + COPY, "nothing else", "root (sync.py) holds 0x"),
        (SYNC + SLOTS.format("256, 512") + COPY, "nothing else", "slot 272 of "),
        (SYNC + SLOTS.format(RANGE.replace("shift", "39")) + COPY,
         "every task has it", " dies when it"),
        (SYNC + SLOTS.format(RANGE.replace(" + 1", "")) + COPY,
         "every task has it", " dies when it"),
        (SYNC + "    memory.write_u64(reference, 1)\n" + SLOTS.format(RANGE) + COPY,
         "every task has it", "ValueError: pa 0x2100000 is in no task's root: nothing else"),
        (SYNC + SLOTS.format(RANGE) + COPY.replace("in roots", "in roots[1:]"),
         "every task has it", " dies when it initialises the struct page at 0xff"),
    ],
)  # fmt: skip
def test_a_mistake_in_python_loses_the_points_of_its_part(reasons, text, part, reason):
    found = dict(reasons("missing-entry", "sync.py", text))

    assert reason in found[f"In Python: {part}"]


def test_what_sync_printed_is_told_with_the_reason(reasons):
    text = SYNC + "    print(f'{first:#x}')\n    print('nothing done')\n"

    _, reason = next(reasons("missing-entry", "sync.py", text))

    assert reason.endswith("; it printed last: nothing done")


# -- hostile


HOSTILE_PYTHON = {
    "": "sync.py: NameError: there is no function sync()",
    "def sync(:": "sync.py:1: SyntaxError: invalid syntax",
    "raise SystemExit": "sync.py:1: SystemExit: ",
    "import os\nos._exit(0)": "it ended its process (exit status 0) before it returned",
    "import os\nos.kill(os.getppid(), 9)": "sync.py:2: PermissionError: ",
    SYNC + "    memory.read_u64(1 << 60)": "sync.py:2: ValueError: pa 0x1000000000000000 is",
    SYNC + "    memory.write_u64(reference + 0xFF8, 0)": "sync.py:2: ValueError: pa 0x2100ff8",
    SYNC + "    memory.write_u64(1 << 24, 0)": "sync.py:2: ValueError: pa 0x1000000 is in no",
    SYNC + "    for r in roots: memory.write_u64(r + 8 * 511, 0)": " dies",
    SYNC + "    for r in roots: memory.write_u64(r + 8 * 511, 1 << 62 | 7)": " dies",
}


@pytest.mark.parametrize("text", HOSTILE_PYTHON)
def test_hostile_python_costs_points(reasons, text):
    _, reason = next(reasons("missing-entry", "sync.py", text))

    assert HOSTILE_PYTHON[text] in reason
    assert "\n" not in reason


HOSTILE_ASSEMBLY = {
    "nothing": "",
    "no instruction": "mov rax, ",
    "an endless loop": "jmp {entry}",
    "an endless recursion": "call {entry}",
    "an endless string": "mov rcx, -1\nmov rdi, 0xffff888000000000\nrep stosb",
    "nothing but a return": "add rsp, 8\niretq",
    "a return behind the access": "add qword ptr [rsp + 8], 3\nadd rsp, 8\nxor eax, eax\niretq",
    "a halt": "hlt",
    "no opcode": "ud2",
    "a null pointer": "mov rax, [0]",
    "a wild jump": "mov rax, 0x123456\njmp rax",
    "no canonical address": "mov rax, 0x8123456789abcdef\nmov rax, [rax]",
    "no stack": "xor esp, esp\npush rax",
    "no IDT": "lidt [rsp]\nint3",
    "a root outside RAM": "mov rax, 0x123456000\nmov cr3, rax\nnop",
    "no paging": "xor eax, eax\nmov cr0, rax",
    "all RAM wiped": "mov ecx, 0x80000\nmov rdi, 0xffff888000000000\nxor eax, eax\nrep stosq",
    "the tables wiped": "mov rdi, cr3\nmov rax, 0xffff888000000000\nadd rdi, rax\n"
    "mov ecx, 512\nxor eax, eax\nrep stosq",
    "itself changed": "lea rax, [rip]\nmov byte ptr [rax], 0xf4",
    "a terabyte": ".fill 1 << 40",
    "another file": '.incbin "/etc/passwd"',
    "a long repetition": ".rept 1000000\nnop\n.endr",
}


@pytest.mark.parametrize("body", HOSTILE_ASSEMBLY.values(), ids=HOSTILE_ASSEMBLY)
@pytest.mark.parametrize("name", ASSEMBLY)
def test_hostile_assembly_costs_points(reasons, name, body):
    entry = {"kernel-half": "share_kernel_half", "missing-entry": "sync"}.get(name, "page_fault")
    text = f"{entry}:\n{body.format(entry=entry)}\n.data\n"
    text += "\n".join(
        f"{variable}: .quad 0" for variable in ("reference", "free_list", "area_start", "area_end")
    )

    _, reason = next(reasons(name, ASSEMBLY[name], text + "\n.text\nbad_fault: hlt\n"))

    assert reason
    assert "\n" not in reason


def test_a_label_that_was_taken_away_costs_points(reasons):
    text = completed("demand", "demand.S").replace("area_end:", "end_of_area:")

    text = text.replace("[rip + area_end]", "[rip + end_of_area]")

    _, reason = next(reasons("demand", "demand.S", text))

    assert reason == "demand.S has no label area_end any more"


# -- the commands in the texts


STATUS = {"pagewalk run": 1, "pagewalk trace see.S": 1}
"""Of those that end with another status than 0, when all files are completed."""


@pytest.mark.parametrize("name", ASSEMBLY)
def test_the_commands_in_a_text_do_what_it_says(name, tmp_path, monkeypatch, capsys):
    write(tmp_path, find(name), "ada")
    for file, text in solved(find(name), "ada").items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^ {4,}pagewalk (.*)$", (tmp_path / README).read_text(), re.MULTILINE)

    statuses = {command: main(shlex.split(command)) for command in commands}

    capsys.readouterr()
    assert statuses
    assert statuses == {
        command: next((s for c, s in STATUS.items() if f"pagewalk {command}".startswith(c)), 0)
        for command in commands
    }


@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_that_is_still_to_be_written_gives_up(name, tmp_path, capsys):
    write(tmp_path, find(name), "ada")

    status = main(["trace", str(tmp_path / HANDLERS[name])])

    assert status == 1
    assert "halted: hlt at rip" in capsys.readouterr().out


def test_probe_py_shows_the_bug_and_the_fix(tmp_path):
    write(tmp_path, find("missing-entry"), "ada")
    (tmp_path / "sync.py").write_text(completed("missing-entry", "sync.py"), encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, "probe.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )

    before, after = ran.stdout.split("after sync():")
    assert "#PF at" in before
    assert "#PF" not in after
