"""Labs for courses: a directory for each student, and checks that run the CPU on the answers.

Knows which labs there are: each module of `course` is one, with its text beside it. Refuses to know
what they teach, and loads no engine.

    lab         what a lab is made of: parts, what they ask, how points are lost
    seeded      the numbers of a seed      templates    the students' files, which they go into
    directory   what `lab new` writes      submission   what a student left there
    checking    all parts in a process of their own, which runs `judge`
    board       a lab's RAM, as words      bench, running   the CPU on it: one access, a routine
    handling    a page-fault handler       booted       a kernel with its tasks
    student     a function of the student's Python, in a process shut in by `inside` and `seccomp`
    entries     what a table holds         roots        a reference root, and some that lack entries
    gradescope  a report as that autograder reads it
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from pagewalk.labs.lab import Lab


@cache
def labs() -> tuple[Lab, ...]:
    """Return every lab, in the order of the course."""
    from pagewalk.labs import course

    names = (module.name for module in iter_modules(course.__path__, f"{course.__name__}."))
    return tuple(sorted((import_module(name).LAB for name in names), key=lambda lab: lab.number))


def find(name: str) -> Lab | None:
    """Return the lab of that name or number, if there is one."""
    return next((lab for lab in labs() if name in (lab.name, str(lab.number))), None)
