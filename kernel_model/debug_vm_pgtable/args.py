"""What the checklist works on: an address space of its own, one table a level, and pages.

Knows what has to be allocated and given back, in which order. Refuses to know the checks. Linux
vocabulary; source: mm/debug_vm_pgtable.c, init_args() and destroy_args() (v6.17).
"""

from random import Random
from typing import TYPE_CHECKING, Final

from emu import OutOfFrames, PhysAddr
from emu.paging import ENTRIES
from kernel_model import inplace, mm, pgalloc
from kernel_model.debug_vm_pgtable.steps import Level
from kernel_model.entries import Entries
from kernel_model.inplace import Place
from kernel_model.layout import PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, PUD_SIZE
from kernel_model.pgalloc import Deposits

if TYPE_CHECKING:
    from kernel_model.debug_vm_pgtable.report import Report
    from kernel_model.kernel import Kernel

PATH: Final = "debug_vm_pgtable"
NUMBER: Final[dict[Level, int]] = {"pte": 1, "pmd": 2, "pud": 3, "p4d": 4, "pgd": 5}
BELOW: Final[dict[Level, Level]] = {"pgd": "p4d", "p4d": "pud", "pud": "pmd", "pmd": "pte"}
ABOVE: Final[dict[Level, Level]] = {below: above for above, below in BELOW.items()}
SIZE: Final[dict[Level, int]] = {"pte": PAGE_SIZE, "pmd": PMD_SIZE, "pud": PUD_SIZE}


class Args:
    """An address space with tables under one random user address. Free with destroy().

    `at` is where the entry of each level lies, `table` where the table of each level begins; a
    folded p4d's is the pgd's entry. `range` has a frame of known RAM for each level, `page` an
    allocated one for those levels at which the page is large enough.
    """

    def __init__(self, kernel: "Kernel", seed: int) -> None:
        user = 1 << kernel.layout.pgdir_shift + 8
        self.random: Final = Random(seed)
        # So far below the end that what follows a page of any size is user space still.
        self.vaddr: Final = self.random.randrange(user - 2 * PUD_SIZE >> PAGE_SHIFT) << PAGE_SHIFT
        self.entries: Final = Entries.of(kernel.release)
        self.at: Final[dict[Level, PhysAddr]] = {}
        self.table: Final[dict[Level, PhysAddr]] = {}
        self.deposits: Final = Deposits()
        self.range_size, first = _find_range(kernel)
        self.range: Final = {level: (first & -size) >> PAGE_SHIFT for level, size in SIZE.items()}
        self.page: Final[dict[Level, int]] = {}
        self.mm: mm.Mm | None = None
        self._kernel: Final = kernel
        self._nr_free: Final = kernel.frames.nr_free
        self._floor: Final = kernel.frames.floor
        self._single: PhysAddr | None = None

    def init(self) -> mm.Mm:
        """Allocate everything. Raises OutOfFrames; destroy() then gives back what there is."""
        kernel, addr, at, table = self._kernel, self.vaddr, self.at, self.table
        self.mm = mm.pgd_alloc(kernel, PATH)
        at["pgd"] = kernel.pgtable.pgd_offset(self.mm.pgd, addr)
        at["p4d"] = pgalloc.p4d_alloc(kernel, at["pgd"], addr, PATH)
        table["p4d"] = kernel.pgtable.p4d_offset(at["pgd"], 0)
        at["pud"] = pgalloc.pud_alloc(kernel, at["p4d"], addr, PATH)
        table["pud"] = kernel.pgtable.pud_offset(at["p4d"], 0)
        at["pmd"] = pgalloc.pmd_alloc(kernel, at["pud"], addr)
        table["pmd"] = kernel.pgtable.pmd_offset(at["pud"], 0)
        at["pte"] = pgalloc.pte_alloc(kernel, at["pmd"], addr)
        table["pte"] = kernel.pgtable.pte_offset(at["pmd"], 0)
        self._alloc_page()
        return self.mm

    def place(self, level: Level) -> Place:
        """Return the entry of a level, with the helpers for it."""
        return Place(self._kernel.pgtable, self.entries, self.at[level])

    def destroy(self, report: "Report") -> None:
        """Give everything back, lowest table first, and report what does not come back."""
        kernel, frames = self._kernel, self._kernel.frames
        frames.floor = self._floor
        if self._single is not None:
            frames.free(self._single)
        for level in ("pte", "pmd", "pud", "p4d"):
            if level not in self.table:
                continue
            above = ABOVE[level]
            getattr(inplace, f"{above}_clear", inplace.clear)(self.place(above))
            with report.refusal(f"{level}_free(mm, {self.table[level]:#x})", level):
                getattr(pgalloc, f"{level}_free")(kernel, self.table[level])
        if self.mm is not None:
            at = self.mm.pgd >> 3
            left = sum(entry != 0 for entry in kernel.memory.words[at : at + ENTRIES // 2])
            report.check("entries left in the user half", "pgd", "0", str(left))
            with report.refusal(f"pgd_free(mm, {self.mm.pgd:#x})", "pgd"):
                mm.pgd_free(kernel, self.mm)
        report.check("free frames, as before", "pgd", str(self._nr_free), str(frames.nr_free))

    def _alloc_page(self) -> None:
        """Allocate a page of PUD size, or else of PMD size, or else a single one."""
        for size in (PUD_SIZE, PMD_SIZE):
            try:
                pa = self._kernel.frames.keep_low(size)
            except OutOfFrames:
                continue
            break
        else:
            self._single = pa = self._kernel.frames.allocate()
            size = PAGE_SIZE
        self.page.update({level: pa >> PAGE_SHIFT for level in SIZE if SIZE[level] <= size})


def _find_range(kernel: "Kernel") -> tuple[int, int]:
    """Return size and start of an aligned range of RAM, as large as a pud's if there is one.

    The first page is firmware's.
    """
    for size in (PUD_SIZE, PMD_SIZE):
        for start, end in kernel.e820.ram:
            aligned = -(-max(start, PAGE_SIZE) // size) * size
            if aligned + size <= end:
                return size, aligned
    raise AssertionError("no kernel boots in less than 2 MiB of RAM")
