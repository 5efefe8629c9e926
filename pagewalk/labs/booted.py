"""The kernel of lab 9: its tasks, a device that is probed between two forks, and what is mapped.

Knows how to boot it, for a story whose numbers were drawn, and how to have each task initialise
struct pages. Refuses to know what a student is to mend. Linux vocabulary.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from emu.paging import FRAME_SIZE, RW, XD, P, PhysAddr, VirtAddr, canonical, page_shift
from pagewalk.labs.entries import entry_pa, read_table
from pagewalk.labs.lab import Lost
from pagewalk.labs.seeded import Dice

if TYPE_CHECKING:
    from emu import PhysMemory, Stop
    from kernel_model.mm import Task

RELEASE: Final = "6.8"
"""A release whose compound path of vmemmap population syncs nothing."""
ALIGN: Final = 2 << 20
SIZEOF_PAGE: Final = 64
ROUTINE: Final = "__init_single_page"
_RAM: Final = 512 << 20
_GIB: Final = 1 << 30
_SECTION: Final = 128 << 20
_SLOTS: Final = {4: (380, 500), 5: (0x1D6, 0x1F4)}  # where vmemmap may cross into another one
_NAMES: Final = ("bash", "cron", "dbus", "getty", "login", "sshd", "systemd", "udevd")


class Story:
    """The numbers: where vmemmap begins, where the device lies, who was forked when."""

    def __init__(self, dice: Dice, *, levels: int = 4) -> None:
        self.levels: Final = levels
        self.shift: Final = page_shift(levels)
        self.slot: Final = dice.between(*_SLOTS[levels])
        below = dice.between(1, 7)  # GiB of vmemmap in the slot before
        border = canonical(self.slot << self.shift, levels)
        self.vmemmap_base: Final = border - below * _GIB
        border_pa = below * _GIB // SIZEOF_PAGE << 12
        self.start: Final = border_pa - _SECTION * dice.between(1, 3)
        self.size: Final = border_pa + _SECTION * dice.between(1, 3) - self.start
        self.pfn: Final = border_pa >> 12
        names = dice.sample(_NAMES, dice.between(4, 6))
        nr_early = dice.between(2, len(names) - 1)
        self.early: Final = names[:nr_early]
        self.late: Final = names[nr_early:]

    def boot(self) -> "Booted":
        """Boot the kernel, and let it all happen."""
        return Booted(self)


class Booted:
    """The kernel after the story. `tasks` are those that were forked, in order."""

    def __init__(self, story: Story) -> None:
        from emu import Returned
        from kernel_model import Kernel
        from kernel_model.drivers import dax_bus_probe

        self.story: Final = story
        self.kernel: Final = Kernel(
            RELEASE, levels=story.levels, vmemmap_base=story.vmemmap_base, ram=_RAM
        )
        self.tasks = [self.kernel.fork(name) for name in story.early]
        worker = self.kernel.kthread("kworker/0:1")
        stop = self.kernel.run(worker, dax_bus_probe, story.start, story.size, ALIGN)
        assert isinstance(stop, Returned)
        self.tasks += [self.kernel.fork(name) for name in story.late]

    def initialise(self, task: "Task", page: int) -> "Stop":
        """Run __init_single_page() on a struct page, in a task."""
        zone = self.kernel.zone_device
        return self.kernel.run(task, ROUTINE, rdi=page, rsi=self.story.pfn, rdx=zone, rcx=0)

    def must_initialise(self, page: int) -> None:
        """Run it in every task; Lost if one of them dies."""
        from emu import Returned

        for task in self.tasks:
            stop = self.initialise(task, page)
            if not isinstance(stop, Returned):
                raise Lost(
                    f"{task.comm} dies when it initialises the struct page at {page:#x}: {stop}"
                )

    def page(self, pfn: int) -> int:
        """Return where a frame's struct page is (pfn_to_page)."""
        return self.kernel.layout.pfn_to_page(pfn)

    def table(self, pgd: int) -> list[int]:
        """Return the entries of a top table."""
        return read_table(self.kernel.memory, pgd)

    def map_further_slot(self, slot: int) -> int:
        """Fill another slot of init_mm, with all that leads to a page, and return its address."""
        from emu import map_page

        kernel = self.kernel
        va = VirtAddr(kernel.layout.slot_base(slot))
        paging = kernel.paging(kernel.init_mm)
        map_page(kernel.memory, kernel.frames, paging, va, kernel.frames.allocate(), RW | XD)
        return va


class Lacking:
    """A kernel whose tasks lack two slots of a range of three, and have some of their own.

    In the range there is one slot more, which init_mm lacks, too. Each task has entries in its
    user half, and where its LDT lies.
    """

    def __init__(self, story: Story) -> None:
        self.booted: Final = story.boot()
        kernel, tasks = self.booted.kernel, self.booted.tasks
        further = self.booted.map_further_slot(story.slot + 2)
        for number, task in enumerate(tasks):
            for slot in (number, 128, 255, kernel.layout.ldt_slot):
                where = PhysAddr(entry_pa(task.mm.pgd, slot))
                kernel.memory.write_u64(where, kernel.frames.allocate() | RW | P)
        self.slots: Final = range(story.slot - 1, story.slot + 3)
        self.first: Final = self.booted.page(story.start >> 12)
        self.last: Final = further + FRAME_SIZE - 1
        self.pages: Final = (self.first, self.booted.page(story.pfn), further)
        self.reference: Final = kernel.init_mm.pgd
        self.roots: Final = [task.mm.pgd for task in tasks]
        self.before: Final = [self.booted.table(root) for root in self.roots]
        self.memory: Final = RootsOnly(kernel.memory, self.roots)


class RootsOnly:
    """RAM, of which only the frames of some roots can be written."""

    def __init__(self, memory: "PhysMemory", roots: Collection[int]) -> None:
        self.read_u64: Final = memory.read_u64
        self._memory = memory
        self._roots = roots

    def write_u64(self, pa: PhysAddr, value: int) -> None:
        """Store 8 bytes; ValueError outside the roots."""
        if pa & -FRAME_SIZE not in self._roots:
            raise ValueError(f"pa {pa:#x} is in no task's root: nothing else is to be changed")
        self._memory.write_u64(pa, value)
