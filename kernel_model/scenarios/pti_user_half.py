"""A system call whose entry code uses the kernel's memory too early.

With page-table isolation a system call arrives on the user's table, of which the kernel's half has
what boot cloned and nothing else. However well the task's other table is synced, until CR3 is
switched the vmalloc area is not there, and a stack in it is not either.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kernel_model.layout import CPU_ENTRY_AREA, PAGE_SIZE
from kernel_model.releases import Release
from kernel_model.scenarios.outside import outside_notes
from kernel_model.scenarios.spec import Parameter, Scenario, Settings

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending

PROGRAM: Final = (
    0x40_0000  # where the task's own code lies; its stack is what it leaves of the page
)
SYSCALL: Final = b"\x0f\x05\x0f\x0b"  # syscall; ud2


def lacks(release: Release) -> str | None:
    """Name what the story is about, where it is not there."""
    return None if release.pti else "page-table isolation"


def boots(_settings: Settings) -> dict[str, Any]:
    """Return Kernel's options."""
    return {"pti": True}


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Run a program that makes a system call, and read the task's kernel stack on the way in."""
    from kernel_model.pti import map_user_page
    from kernel_model.scenarios.outcome import Ending

    task = kernel.fork("sh")
    assert task.mm.user is not None
    map_user_page(kernel, task.mm, PROGRAM, SYSCALL)
    touched = kernel.stack_of(task).top - 8
    early = settings["when"] == "before"
    stop = kernel.run(
        task,
        "return_to_user",
        rdi=PROGRAM,
        rsi=task.mm.user.pgd,
        rdx=PROGRAM + PAGE_SIZE,
        r8=touched if early else CPU_ENTRY_AREA,  # which is cloned
        r9=touched,
    )
    user = task.mm.user
    way = f"return_to_user: CR3 = {user.pgd:#x}, {user.name}; its system call is entry_SYSCALL_64"
    return Ending(
        replace(task, mm=user) if early else task,
        stop,
        touched,
        notes=(way, *outside_notes(kernel, touched)),
    )


SCENARIO: Final = Scenario(
    name="pti-user-half",
    summary="a system call reads the task's stack on the user's table, or on the kernel's",
    release="6.17",
    broke={"entry_SYSCALL_64": "the design: the user's table has nothing of the vmalloc area"},
    fixed="not at all: entry code switches CR3 first",
    look_at="bit 12 of CR3, which is set on the user's table",
    parameters=(
        Parameter(
            "when",
            "when the stack is read: before the switch to the kernel's table, or after it",
            "word",
            "before",
            ("before", "after"),
        ),
    ),
    play=play,
    lacks=lacks,
    boots=boots,
)
