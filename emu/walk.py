"""The walk: which entries translate an address, root first, and where they end.

Knows how one entry leads to the next. Refuses to know who asks: whether an access may use the
translation is `rights`. SDM vocabulary; source: Intel SDM volume 3A, "Paging", "Linear-Address
Translation with 4-Level Paging and 5-Level Paging".
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

from emu.paging import (
    ADDRESS,
    ENTRY_NAME,
    ENTRY_SIZE,
    PAGE_SIZE_NAME,
    P,
    Paging,
    PhysAddr,
    VirtAddr,
    flags_text,
    frame,
    index,
    maps_page,
    page_size,
    slot_of,
)

ReadU64 = Callable[[PhysAddr], int | None]
"""Read the 8 bytes at a physical address, or answer None where there is no RAM."""

Verdict = Literal["mapped", "not-present", "reserved-bit", "outside-ram", "non-canonical"]
ENDS: Final = {
    "mapped": "pa {pa}, in the {size} page at {frame}",
    "not-present": "not present: the walk stops here",
    "reserved-bit": "a reserved bit is set: the walk stops here",
    "outside-ram": "points outside RAM: the walk stops here",
    "no-root": "CR3 points outside RAM",
    "non-canonical": "not canonical: no table is read, the access is #GP or #SS",
}
"""What a walk comes to: by its verdict, or "no-root" if there was no table to begin with."""


class Step(NamedTuple):
    """One entry that was read."""

    level: int
    entry_pa: PhysAddr
    entry: int

    @property
    def slot(self) -> int:
        """Which of the 512 entries of its table it is."""
        return slot_of(self.entry_pa)

    def __repr__(self) -> str:
        return f"{ENTRY_NAME[self.level]} @{self.entry_pa:#x} = {self.entry:#x}"


class Walk(NamedTuple):
    """The entries read for `va`, root first, and what settled the matter.

    With "outside-ram" the entry that could not be read is not among the steps: it lies in
    `table`, which the last step (or CR3, if there is none) points to.
    """

    va: VirtAddr
    steps: tuple[Step, ...]
    verdict: Verdict
    table: PhysAddr  # the table that the walk ended in

    @property
    def level(self) -> int:
        """The level of the last entry read; 0 if none was."""
        return self.steps[-1].level if self.steps else 0

    @property
    def pa(self) -> PhysAddr | None:
        """The physical address that `va` translates to; None unless mapped."""
        if self.verdict != "mapped":
            return None
        level, _, entry = self.steps[-1]
        return PhysAddr(frame(entry, level) | self.va & (page_size(level) - 1))

    @property
    def end(self) -> str:
        """What the walk came to, in a few words.

        Which bit is reserved depends on the `Paging`, which the walk does not keep.
        """
        if self.verdict == "mapped":
            at, size = frame(self.steps[-1].entry, self.level), PAGE_SIZE_NAME[self.level]
            return ENDS["mapped"].format(pa=f"{self.pa:#x}", size=size, frame=f"{at:#x}")
        if self.verdict == "outside-ram" and not self.steps:
            return ENDS["no-root"]
        return ENDS[self.verdict]

    def html(self, names: Mapping[int, str] = ENTRY_NAME, under: str = "") -> str:
        """Return a table of the entries, by `names`, with what the walk came to at its foot.

        `under` says whose tables they are, if somebody knows.
        """
        from emu import markup

        rows = [
            (
                *(names[step.level], f"{step.slot}"),
                *(f"{step.entry_pa:#x}", f"{step.entry:#x}"),
                flags_text(step.entry, step.level),
            )
            for step in self.steps
        ]
        caption = f"walk for {self.va:#x}" + (f" under {under}" if under else "")
        columns = ("entry", "index", "at pa", "value", "flags")
        return markup.table(caption, columns, rows, foot=f"→ {self.end}")

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        steps = ", ".join(map(repr, self.steps))
        return f"Walk({self.va:#x}: {steps}{' -> ' if steps else ''}{self.verdict})"


_step: Final = tuple.__new__  # takes half as long as calling Step, and a walk is budgeted


def walk(read_u64: ReadU64, paging: Paging, va: VirtAddr) -> Walk:
    """Translate `va` as a CPU does that has cached nothing: one entry a level, from CR3 down.

    An entry is absent, malformed, a page, or the next table; only the last leads on. Whether the
    page may be used so or so is for `rights` to say, and no A or D bit is set on the way. A number
    that is no 64-bit address is not canonical.
    """
    table = paging.root
    if not paging.is_canonical(va):
        return Walk(va, (), "non-canonical", table)

    path: list[Step] = []
    for level in range(paging.levels, 0, -1):
        entry_pa = PhysAddr(table + ENTRY_SIZE * index(va, level))
        entry = read_u64(entry_pa)
        if entry is None:
            return Walk(va, tuple(path), "outside-ram", table)
        path.append(_step(Step, (level, entry_pa, entry)))

        if not entry & P:
            return Walk(va, tuple(path), "not-present", table)
        if paging.reserved(entry, level):
            return Walk(va, tuple(path), "reserved-bit", table)
        if maps_page(entry, level):
            return Walk(va, tuple(path), "mapped", table)

        table = PhysAddr(entry & ADDRESS)
    raise AssertionError("an entry of level 1 leads nowhere: it is absent, malformed or a page")
