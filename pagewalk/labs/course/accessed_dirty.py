"""Lab 6: A and D: what the CPU writes into the entries that it uses, and what it then remembers.

Small pages and a large one are loaded from, stored to or left alone; then the student writes the
scan that a kernel looks for idle pages with.
"""

from functools import partial
from typing import Final

from emu.paging import ENTRY_SIZE, FRAME_SIZE, A, D, PhysAddr, VirtAddr, page_size
from emu.walk import walk
from pagewalk.labs.bench import INVLPG, LOAD, STORE, Bench, loaded
from pagewalk.labs.board import DIRECT, Board
from pagewalk.labs.lab import Answer, Exercise, Lab, Lost, Number, Part, Source
from pagewalk.labs.running import Routine
from pagewalk.labs.seeded import Dice
from pagewalk.labs.templates import course_file

_ENTRIES: Final = {
    "pde_vw": ("v", 2),
    "pde_xyz": ("x", 2),
    "pde_large": ("large", 2),
    **{f"pte_{page}": (page, 1) for page in "vwxyz"},
}
"""Entries by their names: a page whose walk comes by, and the level."""
_GROUPS: Final = (
    ("The three PDEs", 2, ("pde_vw", "pde_xyz", "pde_large")),
    ("The PTEs of v and w", 2, ("pte_v", "pte_w")),
    ("The PTEs of x, y and z", 3, ("pte_x", "pte_y", "pte_z")),
)
_PAGES: Final = 8  # that scan looks at
_SCAN_VA: Final = 0x2000_0000_0000
_SCAN_PA: Final = 0x10_0000
_SEE: Final = course_file("accessed_dirty", "see.S").student
_ACCESS: Final = {
    "load": """\
        mov     rdi, {va:#x}
        mov     rax, [rdi]              # load from page {name}""",
    "store": """\
        mov     rdi, {va:#x}
        mov     [rdi], rax              # store to page {name}""",
}
_SCAN: Final = course_file("accessed_dirty", "scan.S")


class _Touched:
    """Pages v and w below one PDE, x, y and z below another, a large one; what is done to each."""

    def __init__(self, dice: Dice) -> None:
        self.board: Final = Board(dice, nr_frames=16)
        board = self.board
        self.root: Final = board.frame()
        gib = dice.between(1, 255) << 39 | dice.below(512) << 30
        one, two, large = dice.sample(range(512), 3)
        pages = dice.sample(range(512), 5)
        self.va: Final = {
            name: gib | pd << 21 | page << 12 | dice.below(512) * ENTRY_SIZE
            for name, pd, page in zip("vwxyz", (one, one, two, two, two), pages, strict=True)
        }
        for va in self.va.values():
            board.map(self.root, va & -FRAME_SIZE, board.frame())
        self.va["large"] = gib | large << 21 | dice.below(1 << 18) * ENTRY_SIZE
        target = dice.between(1, board.below // page_size(2) - 1) * page_size(2)
        board.map(self.root, self.va["large"] & -page_size(2), target, level=2)
        some = [dice.choice(("load", "store", "")) for _ in "vw"]
        actions = (
            *dice.choice((some, ["", ""])),
            *dice.sample(("load", "store", ""), 3),
            dice.choice(("load", "store")),
        )
        self.actions: Final = dict(zip(self.va, actions, strict=True))
        self.stored: Final = next(name for name in "xyz" if self.actions[name] == "store")

    def bench(self) -> Bench:
        """Return the lab's machine, after all the accesses."""
        bench = Bench(self.board.ram, self.board.words)
        bench.cr3 = self.root
        for name, action in self.actions.items():
            if action == "load":
                bench.access(LOAD, self.va[name])
            elif action == "store":
                bench.access(STORE, self.va[name])
        return bench

    def entry_pa(self, name: str, level: int) -> int:
        """Return where the entry of `level` for a page lies."""
        return self.board.walk(self.root, self.va[name]).steps[4 - level].entry_pa

    def after(self, entry: tuple[str, int]) -> int:
        """Return an entry after all the accesses."""
        return self.bench().get(self.entry_pa(*entry))

    def after_again(self, *, invalidate: bool) -> int:
        """Clear A and D of the page that was stored to, store again, and return its PTE."""
        bench, pte_pa = self.bench(), self.entry_pa(self.stored, 1)
        bench.put(pte_pa, bench.get(pte_pa) & ~(A | D))
        if invalidate:
            bench.access(INVLPG, self.va[self.stored])
        bench.access(STORE, self.va[self.stored])
        return bench.get(pte_pa)

    # -- what the CPU says of an answer

    def check_after(self, keys: tuple[str, ...], *entries: int) -> None:
        """Make the accesses: are the entries these?"""
        for key, entry in zip(keys, entries, strict=True):
            _check(key, entry, self.after(_ENTRIES[key]))

    def check_again(self, stale: int, fresh: int) -> None:
        """Clear the bits and store again: is the PTE that one?"""
        _check("stale", stale, self.after_again(invalidate=False))
        _check("fresh", fresh, self.after_again(invalidate=True))


def _check(key: str, entry: int, found: int) -> None:
    if entry != found:
        raise Lost(f"the CPU leaves another entry than {key} = {entry:#x}")


def _check_scan(text: str) -> None:
    """Touch pages, scan, and again: does it see all that were touched, and no others?"""
    dice = Dice("scan", text)
    routine = Routine(
        text, "scan.S", "scan", maps=[f"{_SCAN_VA:#x}={_SCAN_PA:#x}+{_PAGES * FRAME_SIZE:#x}:rw"]
    )
    memory = routine.memory
    first = walk(memory.read_u64, routine.cpu.paging, VirtAddr(_SCAN_VA)).steps[-1].entry_pa
    dirty: set[int] = set()
    some = dice.sample(range(_PAGES), _PAGES // 2)
    others = [page for page in range(_PAGES) if page not in some]
    for turn, touched in enumerate((sorted(some), sorted([*others, some[0]]), sorted(some)), 1):
        for page in touched:
            va = _SCAN_VA + page * FRAME_SIZE
            if dice.below(2):
                stop, dirty = routine.access(STORE, va), dirty | {page}
            else:
                stop = routine.access(LOAD, va)
            loaded(stop, f"before scan {turn}, an access to page {page}")
        mask = routine.call(rdi=_SCAN_VA, rsi=DIRECT + first)
        seen = [page for page in range(64) if mask >> page & 1]
        if seen != touched:
            raise Lost(f"scan {turn} tells of pages {seen}, and {touched} were accessed before it")
        ptes = [memory.read_u64(PhysAddr(first + ENTRY_SIZE * page)) or 0 for page in range(_PAGES)]
        if any(pte & A for pte in ptes):
            raise Lost(f"scan {turn} leaves A = 1 in a PTE")
        if any(not ptes[page] & D for page in dirty):
            raise Lost(f"scan {turn} clears D: nobody would write that page to disk")


def _see(touched: _Touched) -> str:
    accesses = [
        _ACCESS[action].format(name=name, va=touched.va[name])
        for name, action in touched.actions.items()
        if action
    ]
    return _SEE.substitute(root=hex(touched.root), accesses="\n".join(accesses))


def _scan_sources(dice: Dice) -> tuple[str, str]:
    """Return scan.S as the student gets it, and completed: eight pages to try it on."""
    board = Board(dice, nr_frames=16)
    root = board.frame()
    first = dice.between(1, 255) << 39 | dice.below(1 << 18) << 21 | dice.below(32) << 16
    for page in range(_PAGES):
        board.map(root, first + page * FRAME_SIZE, board.frame())
    one, two = (page * FRAME_SIZE for page in dice.sample(range(_PAGES), 2))
    numbers = {
        "root": hex(root),
        "first": hex(first),
        "one": hex(one),
        "two": hex(two),
        "ptes": hex(DIRECT + board.walk(root, first).steps[-1].entry_pa),
    }
    student, teacher = (board.source(text.substitute(numbers), roots=(root,)) for text in _SCAN)
    return student, teacher


def _exercise(dice: Dice) -> Exercise:
    touched = _Touched(dice)
    board, root, stored = touched.board, touched.root, touched.stored
    student, teacher = _scan_sources(dice)
    cleared = f"A and D of the PTE of {stored} are cleared, and the CPU stores to {stored} again"

    def solution() -> dict[str, Answer]:
        return {
            **{key: touched.after(entry) for key, entry in _ENTRIES.items()},
            "stale": touched.after_again(invalidate=False),
            "fresh": touched.after_again(invalidate=True),
            "scan.S": teacher,
        }

    return Exercise(
        parts=(
            *(
                Part(
                    title,
                    points,
                    tuple(Number(key, f"{key} after the accesses.") for key in keys),
                    partial(touched.check_after, keys),
                )
                for title, points, keys in _GROUPS
            ),
            Part(
                "Stored to once more",
                2,
                (
                    Number("stale", f"{cleared}: its PTE."),
                    Number("fresh", f"{cleared}, after an invlpg: its PTE."),
                ),
                touched.check_again,
            ),
            Part(
                "Which pages are in use",
                4,
                (Source("scan.S", "the function scan.", student),),
                _check_scan,
            ),
        ),
        values={
            "root": f"{root:#x}",
            "ram": board.listing(),
            "stored": stored,
            "pages": "\n".join(f"{name:6} {va:#x}" for name, va in touched.va.items()),
            "accesses": "\n".join(
                f"{action:5} {'from' if action == 'load' else 'to  '} {name}"
                for name, action in touched.actions.items()
                if action
            ),
        },
        solution=solution,
        files={"see.S": board.source(_see(touched), roots=(root,))},
    )


LAB = Lab(
    number=6,
    name="accessed-dirty",
    title="A and D",
    idea="A walk leaves traces: A in every entry that it used, D where the page was written.",
    points=13,
    exercise=_exercise,
)
