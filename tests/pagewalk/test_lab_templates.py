"""The files of the labs: what the student gets of them, and what the teacher."""

import pytest

from pagewalk.labs import find, labs
from pagewalk.labs.directory import solved, write
from pagewalk.labs.templates import course_file, course_text

every_lab = pytest.mark.parametrize("name", [lab.name for lab in labs()])


def test_the_student_gets_the_marked_lines_instead_of_the_solution():
    routine = course_file("cr3", "load_under.S").student.template

    assert routine.endswith(
        "load_under:\n"
        "        xor     eax, eax                # your code instead of this line\n"
        "        ret\n"
        "        .size   load_under, . - load_under\n"
    )


def test_the_teacher_gets_the_solution_without_the_marked_lines():
    routine = course_file("cr3", "load_under.S").teacher.template

    assert routine.endswith(
        "load_under:\n"
        "        mov     rcx, cr3\n"
        "        mov     cr3, rsi\n"
        "        mov     rax, [rdi]\n"
        "        mov     cr3, rcx\n"
        "        ret\n"
        "        .size   load_under, . - load_under\n"
    )


def test_a_file_without_a_solution_is_the_same_for_both():
    text = course_text("files", "cr3", "see.S")

    see = course_file("cr3", "see.S")

    assert see.student.template == see.teacher.template == text


@every_lab
def test_no_mark_is_left_in_a_file_that_somebody_gets(name, tmp_path):
    write(tmp_path, find(name), "ada")

    given = "".join(path.read_text(encoding="utf-8") for path in tmp_path.iterdir())
    texts = given + "".join(solved(find(name), "ada").values())

    assert "SOLUTION" not in texts
    assert "#: " not in texts
