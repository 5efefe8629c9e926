"""Lab 11: demand paging.

An area of a task's addresses, with nothing mapped in it at first, and a list of free frames. The
handler takes from the list what a walk turns out to lack: tables, and the page in the end.
"""

from string import Template
from typing import Final

from emu.paging import FRAME_SIZE, RW, US, P, page_shift
from pagewalk.labs import handling
from pagewalk.labs.board import Board
from pagewalk.labs.entries import flags_given, read_table
from pagewalk.labs.handling import Handler, Touch
from pagewalk.labs.lab import Answer, Exercise, Lab, Lost, Number, Part, Source
from pagewalk.labs.running import FREE
from pagewalk.labs.seeded import Dice
from pagewalk.labs.templates import course_file

FILE: Final = "demand.S"
_PAGES: Final = 16  # of the area; its middle is a border of 2 MiB, so that two tables map it
_FREE: Final = 12  # frames in the list
_GARBAGE: Final = 0xBAD000 | P | RW | US
_TEXT: Final = course_file("demand", FILE)


class _Area:
    """A task with an area in which nothing is mapped, and the frames that there are for it."""

    def __init__(self, dice: Dice) -> None:
        self.board: Final = Board(dice, nr_frames=20, ram=FREE - FRAME_SIZE * dice.below(1 << 12))
        self.task: Final = self.board.frame()
        border = dice.between(1, 255) << page_shift(4) | dice.between(1, 511) << page_shift(2)
        border |= dice.below(512) << page_shift(3)
        self.start: Final = border - _PAGES // 2 * FRAME_SIZE
        self.end: Final = border + _PAGES // 2 * FRAME_SIZE
        self.free: Final = handling.chain(self.board, _FREE)
        for frame in self.free:  # what some earlier owner has left there
            self.board.words[frame + 8 * dice.between(1, 511)] = dice.word() | US | RW | P
        pages = dice.sample(range(self.start, self.end, FRAME_SIZE), dice.between(2, 5))
        again = [dice.choice(pages) for _ in range(6 - len(pages))]
        self.touches: Final = [
            Touch(self.task, page | dice.below(512) << 3, dice.word() if dice.below(2) else None)
            for page in (*pages, *dice.sample(again, len(again)))
        ]

    def source(self, handler: Template) -> str:
        """Return the file, with this handler."""
        names = {self.task: "the task"}
        return handling.source(self.board, self.touches, handler, names, **self._variables())

    def _variables(self) -> dict[str, int]:
        return {"area_start": self.start, "area_end": self.end, "free_list": self.free[0]}

    def handler(self, text: str) -> Handler:
        """Return the handler of a file, on these tables."""
        handler = Handler(text, FILE, self.board, (self.task,))
        handler.set(**self._variables())
        for frame in self.free:  # all of them are full of what passes for entries
            handler.put(dict.fromkeys(range(frame + 8, frame + FRAME_SIZE, 8), _GARBAGE))
        return handler

    def after(self) -> Handler:
        """Have the CPU do what `main` does, with a handler that is right."""
        handler = self.handler(self.source(_TEXT.teacher))
        for touch in self.touches:
            handler.touch(touch)
        return handler

    def taken(self, handler: Handler) -> int:
        """Return how many frames a handler has taken from the list; Lost if it has damaged it."""
        head = handler.variable("free_list")
        if head not in (*self.free, 0):
            raise Lost(f"{FILE}: free_list holds {head:#x}, which is no frame of the list")
        taken = len(self.free) if head == 0 else self.free.index(head)
        for frame, following in zip(self.free[taken:], [*self.free[taken + 1 :], 0], strict=True):
            if handler.word(frame) != following:
                raise Lost(f"{FILE}: the free frame at {frame:#x} does not lead to the next one")
        return taken

    # -- what the CPU says of an answer

    def check_faults(self, faults: int) -> None:
        """Count them."""
        if self.after().nr_faults != faults:
            raise Lost(f"a handler that maps a page each time is not entered {faults} times")

    def check_frames(self, frames: int) -> None:
        """Count what is missing from the list."""
        if self.taken(self.after()) != frames:
            raise Lost(f"not {frames} frames are taken from the list")

    def check_pa(self, pa: int) -> None:
        """Store to the last address that was touched: does the word come up at `pa`?"""
        handler, va = self.after(), self.touches[-1].va
        if pa % 8 or pa + 8 > self.board.ram:
            raise Lost(f"{pa:#x} is no place for 8 bytes in this RAM")
        word = ~handler.word(pa) & (1 << 64) - 1
        handler.store(self.task, va, word)
        if handler.word(pa) != word:
            raise Lost(f"a store to {va:#x} does not change what is at pa {pa:#x}")


def _new(text: str) -> _Area:
    """Return an area that the student has never seen."""
    return _Area(Dice(FILE, text))


def _check_pages(text: str) -> None:
    """Touch every third page of an area, in both modes, in an order that is drawn."""
    area = _new(text)
    handler = area.handler(text)
    for cpl, page in zip((0, 3) * 3, Dice(text).sample(_thirds(area), 6), strict=True):
        va = page | 0xFF8
        loaded = handler.load(area.task, va, cpl=cpl)
        if loaded or any(read_table(handler.memory, handler.pa(area.task, page))):
            raise Lost(f"{FILE}: the page at {page:#x} is not zeroed")
        handler.store(area.task, va, page, cpl=3)
    for page in _thirds(area):
        if handler.load(area.task, page | 0xFF8, cpl=3) != page:
            raise Lost(f"{FILE}: at {page:#x}, there is not what was stored there")


def _check_only_those(text: str) -> None:
    """Compare what is mapped in the end with what was touched, and with what was taken."""
    from emu import ranges

    area = _new(text)
    handler = area.handler(text)
    pages = _thirds(area)
    for page in pages:
        handler.store(area.task, page, page)
    in_user_half = (r for r in ranges(handler.memory, handler.cpu.paging) if not r.first >> 63)
    mapped = sum(r.size for r in in_user_half if r.pa is not None)
    if mapped != len(pages) * FRAME_SIZE:
        raise Lost(
            f"{FILE}: {mapped:#x} bytes are mapped for {len(pages)} pages: is each table zeroed?"
        )
    for page in pages:
        for level, _, entry in handler.walk(area.task, page).steps:
            if flags_given(entry) != P | RW | US:
                raise Lost(f"{FILE}: {entry:#x} at level {level} for {page:#x}: expected P, RW, US")
    needed = len(pages) + 4  # a table at each of levels 3 and 2, and two at level 1
    if (taken := area.taken(handler)) != needed:
        raise Lost(f"{FILE}: takes {taken} frames: expected {needed}, tables included")
    if handler.nr_faults != len(pages):
        raise Lost(f"{FILE}: {handler.nr_faults} page faults for {len(pages)} pages")


def _check_refusals(text: str) -> None:
    area = _new(text)
    handler, task = area.handler(text), area.task
    handler.load(task, area.start)
    step = handler.walk(task, area.start).steps[-1]
    before = area.taken(handler)
    handler.must_refuse("it is below the area", task, area.start - 8)
    handler.must_refuse("it is behind the area", task, area.end)
    handler.put({step.entry_pa: step.entry & ~RW})
    handler.must_refuse("its page is there, and read-only", task, area.start, store=True)
    if area.taken(handler) != before:
        raise Lost(f"{FILE}: takes frames for what it refuses")
    handler.set(free_list=0)
    handler.must_refuse("no frame is free", task, area.end - 8)


def _thirds(area: _Area) -> range:
    return range(area.start, area.end, 3 * FRAME_SIZE)


def _exercise(dice: Dice) -> Exercise:
    area = _Area(dice)
    last = area.touches[-1].va
    handler = (Source(FILE, "the function page_fault.", area.source(_TEXT.student)),)

    def solution() -> dict[str, Answer]:
        after = area.after()
        return {
            "faults": after.nr_faults,
            "frames": area.taken(after),
            "pa": after.walk(area.task, last).pa,
            FILE: area.source(_TEXT.teacher),
        }

    return Exercise(
        parts=(
            Part(
                "Page faults",
                1,
                (Number("faults", "How many page faults `main` takes."),),
                area.check_faults,
            ),
            Part(
                "Frames",
                1,
                (Number("frames", "How many frames `main` has cost in the end."),),
                area.check_frames,
            ),
            Part(
                "Which frame",
                2,
                (Number("pa", f"The pa where {last:#x} lies in the end."),),
                area.check_pa,
            ),
            Part("A fresh page where it is touched", 3, handler, _check_pages),
            Part("Nothing else", 2, handler, _check_only_those),
            Part("What is not to be mapped", 1, handler, _check_refusals),
        ),
        values={
            "task": f"{area.task:#x}",
            "start": f"{area.start:#x}",
            "end": f"{area.end:#x}",
            "nr_free": len(area.free),
            "free": " -> ".join(f"{frame:#x}" for frame in area.free),
            "touches": handling.told(area.touches, {area.task: "the task"}),
        },
        solution=solution,
    )


LAB = Lab(
    number=11,
    name="demand",
    title="Demand paging",
    idea="A page costs a frame when it is touched, not when it is promised.",
    points=10,
    exercise=_exercise,
)
