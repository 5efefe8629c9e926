"""The text that students get: it lies beside the labs, and each of their files in `course/files`.

Knows how one file has both the student's lines and the teacher's. Refuses to know the numbers that
are filled in: `$name` is one of them, as string.Template has it. The file is the teacher's; the
solution is marked as nbgrader does, and before it stands what the student finds instead:

        ### BEGIN SOLUTION
        #: nop                  # your code instead of this line
        mov     cr3, rax
        ### END SOLUTION

A template of Python that is none before it is filled in ends in `.in`: pip compiles each `.py`.
"""

import re
from importlib.resources import files
from string import Template
from typing import Final, NamedTuple

_SOLUTION: Final = re.compile(
    r"^ *### BEGIN SOLUTION\n"
    r"(?P<student>(?: *#: .*\n)*)(?P<teacher>(?:.*\n)*?)"
    r" *### END SOLUTION\n",
    re.MULTILINE,
)


class CourseFile(NamedTuple):
    """A file of a lab: as the student gets it, and with the solution."""

    student: Template
    teacher: Template


def course_file(lab: str, name: str) -> CourseFile:
    """Return the file of that name; `lab` is the module's name."""
    text = course_text("files", lab, name)
    return CourseFile(
        student=Template(_SOLUTION.sub(lambda part: part["student"].replace("#: ", ""), text)),
        teacher=Template(_SOLUTION.sub(r"\g<teacher>", text)),
    )


def course_text(*path: str) -> str:
    """Return the text of a file of the course."""
    return files("pagewalk.labs.course").joinpath(*path).read_text(encoding="utf-8")
