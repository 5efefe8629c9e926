"""Lab 9: the top-level entry that was never copied.

The bug of 4917f55b4ef9 "mm/sparse-vmemmap: improve memory savings for compound devmaps": vmemmap
grows into a new top-level slot, of init_mm alone. Found by the student, and mended twice.
"""

from functools import partial
from string import Template
from typing import Final

from emu.paging import PhysAddr
from pagewalk.labs import student
from pagewalk.labs.bench import LOAD, loaded
from pagewalk.labs.board import DIRECT
from pagewalk.labs.booted import ALIGN, RELEASE, SIZEOF_PAGE, Lacking, Story
from pagewalk.labs.entries import entry_pa, filled, read_table, require_equal
from pagewalk.labs.lab import Answer, Exercise, Lab, Lost, Number, Part, Source
from pagewalk.labs.roots import Roots
from pagewalk.labs.running import FREE, Routine
from pagewalk.labs.seeded import Dice
from pagewalk.labs.templates import course_file

PYTHON: Final = "sync.py"
ASSEMBLY: Final = "sync.S"
_KEPT: Final = ("rbx", "rbp", "r12", "r13", "r14", "r15")

_SYNC_PY: Final = course_file("missing_entry", PYTHON)
_SYNC_S: Final = course_file("missing_entry", ASSEMBLY)
_PROBE: Final = course_file("missing_entry", "probe.py.in").student


# -- what the CPU says of a prediction


def _check_slot(story: Story, slot: int) -> None:
    """Copy this slot of init_mm to a task: does that help it?"""
    booted = story.boot()
    kernel = booted.kernel
    entry = booted.table(kernel.init_mm.pgd)[slot]
    for task in booted.tasks:
        kernel.memory.write_u64(PhysAddr(entry_pa(task.mm.pgd, slot)), entry)
    try:
        booted.must_initialise(booted.page(story.pfn))
    except Lost as lost:
        raise Lost(f"with slot {slot} of init_mm in every root, {lost}") from None


def _check_pfn(story: Story, pfn: int) -> None:
    """Initialise its struct page, and the one before, in the task that was forked first."""
    from emu import PageFault, Returned

    booted = story.boot()
    if not story.start >> 12 < pfn < story.start + story.size >> 12:
        raise Lost(f"{pfn:#x} is not the number of a frame of the device, or it is the first one")
    one_before = booted.initialise(booted.tasks[0], booted.page(pfn - 1))
    if not isinstance(one_before, Returned):
        raise Lost(f"{story.early[0]} faults at the struct page of pfn {pfn - 1:#x} already")
    if not isinstance(booted.initialise(booted.tasks[0], booted.page(pfn)), PageFault):
        raise Lost(f"{story.early[0]} does not fault at the struct page of pfn {pfn:#x}")


def _fault(story: Story) -> tuple[int, int]:
    """Return the address and the error code of the first page fault of the first task."""
    from emu import PageFault

    booted = story.boot()
    stop = booted.initialise(booted.tasks[0], booted.page(story.pfn))
    assert isinstance(stop, PageFault)
    return stop.address, stop.error_code


def _check_fault(story: Story, address: int, error_code: int) -> None:
    if _fault(story) != (address, error_code):
        raise Lost(f"the CPU reports another fault than {error_code:#x} at {address:#x}")


def _nr_dying(story: Story) -> int:
    """Have every task initialise the page, and count those that die."""
    from emu import PageFault

    booted = story.boot()
    stops = [booted.initialise(task, booted.page(story.pfn)) for task in booted.tasks]
    return sum(isinstance(stop, PageFault) for stop in stops)


def _check_tasks(story: Story, tasks: int) -> None:
    if _nr_dying(story) != tasks:
        raise Lost(f"it is not {tasks} of them that die")


# -- the Python


def _synced(text: str, levels: int) -> Lacking:
    """Call the student's sync() on a kernel that it has never seen, and have all tasks try."""
    story = Story(Dice(PYTHON, text), levels=levels)
    lacking = Lacking(story)
    arguments = (lacking.reference, lacking.roots, lacking.first, lacking.last, story.shift)
    ran = student.call(PYTHON, text, "sync", *arguments, memory=lacking.memory)
    if isinstance(ran, student.Failed):
        raise Lost(student.told(ran.reason, ran.printed))
    try:
        for page in lacking.pages:
            lacking.booted.must_initialise(page)
    except Lost as lost:
        raise Lost(student.told(str(lost), ran.printed)) from None
    return lacking


def _check_python(text: str) -> None:
    for levels in (4, 5):
        _synced(text, levels)


def _check_python_only_that(text: str) -> None:
    for levels in (4, 5):
        lacking = _synced(text, levels)
        reference = lacking.booted.table(lacking.reference)
        for task, before in zip(lacking.booted.tasks, lacking.before, strict=True):
            after = lacking.booted.table(task.mm.pgd)
            whose = f"{task.comm}'s root ({PYTHON})"
            require_equal(whose, after, filled(before, reference, lacking.slots))


# -- the assembly


def _assembly(roots: Roots, text: Template) -> str:
    """Return the file, with these roots."""
    main = text.substitute(
        reference_va=hex(DIRECT + roots.reference),
        list_va=hex(DIRECT + roots.list),
        nr_tasks=len(roots.tasks),
        first=hex(roots.first),
        last=hex(roots.last),
        root=hex(roots.tasks[0]),
        va=hex(roots.vas[-1]),
        direct=hex(DIRECT),
    )
    return roots.board.source(main, roots.tasks)


def _called(text: str) -> tuple[Roots, Routine, dict[int, list[int]]]:
    """Call the student's routine on roots that it has never seen; return what they held before."""
    roots = Roots(Dice(ASSEMBLY, text), ram=FREE)
    routine = Routine(text, ASSEMBLY, "sync")
    routine.put(roots.board.words)
    for root in roots.tasks:
        routine.lend_kernel_half(root)
    everybody = (roots.reference, *roots.tasks)
    before = {root: read_table(routine.memory, root) for root in everybody}
    kept = {name: 0x5EED << 32 | number for number, name in enumerate(_KEPT)}
    routine.call(
        rdi=DIRECT + roots.reference,
        rsi=DIRECT + roots.list,
        rdx=len(roots.tasks),
        rcx=roots.first,
        r8=roots.last,
        **kept,
    )
    for name, value in kept.items():
        if getattr(routine.cpu.registers, name) != value:
            raise Lost(f"{ASSEMBLY}: sync changes {name.upper()}, which is its caller's")
    return roots, routine, before


def _require_loads(roots: Roots, routine: Routine) -> None:
    """Have the CPU load under every root, from all that the reference maps."""
    for root in roots.tasks:
        routine.cpu.cr3 = root
        for va in roots.vas:
            what = f"{ASSEMBLY}: after sync, a task's load from {va:#x}"
            if loaded(routine.access(LOAD, va), what) != roots.word(va):
                raise Lost(f"{what} finds another word than the reference has there")


def _check_assembly(text: str) -> None:
    roots, routine, _ = _called(text)
    _require_loads(roots, routine)


def _check_assembly_only_that(text: str) -> None:
    roots, routine, before = _called(text)
    _require_loads(roots, routine)
    reference = before[roots.reference]
    for root, entries in before.items():
        whose = f"the root at {root:#x} ({ASSEMBLY})"
        wanted = filled(entries, reference, roots.slots)
        require_equal(whose, read_table(routine.memory, root), wanted)


def _exercise(dice: Dice) -> Exercise:
    story, roots = Story(dice), Roots(dice)
    first = story.early[0]
    python = (Source(PYTHON, "the function sync().", _SYNC_PY.student.substitute()),)
    assembly = (Source(ASSEMBLY, "the function sync.", _assembly(roots, _SYNC_S.student)),)
    numbers = {
        "vmemmap_base": hex(story.vmemmap_base),
        "start": hex(story.start),
        "size": hex(story.size),
        "align": hex(ALIGN),
        "release": RELEASE,
    }

    def solution() -> dict[str, Answer]:
        address, error_code = _fault(story)
        return {
            "slot": story.slot,
            "pfn": story.pfn,
            "address": address,
            "error_code": error_code,
            "tasks": _nr_dying(story),
            PYTHON: _SYNC_PY.teacher.substitute(),
            ASSEMBLY: _assembly(roots, _SYNC_S.teacher),
        }

    return Exercise(
        parts=(
            Part(
                "The slot",
                1,
                (Number("slot", "The slot that the probe fills, of init_mm alone.", most=511),),
                partial(_check_slot, story),
            ),
            Part(
                "The first struct page in it",
                1,
                (
                    Number(
                        "pfn", "The number of the device's first frame whose struct page is there."
                    ),
                ),
                partial(_check_pfn, story),
            ),
            Part(
                "The fault",
                1,
                (
                    Number("address", f"What CR2 holds when {first} has initialised it."),
                    Number("error_code", "The error code of that page fault."),
                ),
                partial(_check_fault, story),
            ),
            Part(
                "Who dies",
                1,
                (Number("tasks", "How many of the tasks would fault there."),),
                partial(_check_tasks, story),
            ),
            Part("In Python: every task has it", 2, python, _check_python),
            Part("In Python: nothing else", 1, python, _check_python_only_that),
            Part("In assembly: every task has it", 2, assembly, _check_assembly),
            Part("In assembly: nothing else", 1, assembly, _check_assembly_only_that),
        ),
        values={
            **numbers,
            "end": f"{story.start + story.size:#x}",
            "sizeof_page": SIZEOF_PAGE,
            "first": first,
            "early": ", ".join(story.early),
            "late": ", ".join(story.late),
        },
        solution=solution,
        files={"probe.py": _PROBE.substitute(numbers, early=story.early, late=story.late)},
    )


LAB = Lab(
    number=9,
    name="missing-entry",
    title="The missing top-level entry",
    idea="Who fills a top-level slot for the kernel must tell every root.",
    points=10,
    exercise=_exercise,
)
