"""A kernel that is played with: operations as values, and what must hold after each of them.

An operation is a small tuple, so that a sequence of them can be drawn, shrunk, printed, and written
into a test. What must hold: every access to what has been populated and not taken away succeeds
under every table; a table agrees with init_mm's in every slot that it has; init_mm loses no slot.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from support.kernel_facts import FIVE, GIB, MIB, SECTION, TIB, compound, slots

from emu import OutsideRam, PageFault, Returned, Shutdown, Stop, Trap
from kernel_model import Kernel, Task
from kernel_model.e820 import E820
from kernel_model.interleaving import interleave
from kernel_model.ioremap import memremap
from kernel_model.kasan import kasan_add_zero_shadow
from kernel_model.mm import Stack
from kernel_model.percpu import pcpu_alloc
from kernel_model.ramhotplug import add_memory, remove_memory
from kernel_model.scenarios.outcome import classify
from kernel_model.sync import sync_global_pgds
from kernel_model.tracing import trace_page_faults
from kernel_model.vmalloc import vmalloc
from kernel_model.vmap_areas import fill_first_slot
from kernel_model.vmemmap import populate_section_memmap

Op = tuple[str, *tuple[int, ...]]
DEVICE: Final = (32 * GIB, 36 * GIB)
MOST_TASKS: Final = 6
_VMEMMAP_BASE: Final = {4: None, 5: FIVE.vmemmap_base}
_BORDER: Final = {4: 32 * TIB // (128 * MIB), 5: FIVE.pfn // SECTION}
"""The section whose struct pages open a slot."""
_PAGE_OFFSET: Final = {4: None, 5: 0xFF11_FFF0_0000_0000}
_NEW_SLOT: Final = {4: 512 * GIB, 5: 64 * GIB}  # physical: where the direct map opens a slot
_NEW_SHADOW: Final = {4: 3584 * GIB, 5: 1824 * TIB}  # and where its shadow does
MERGED_EXCLUDED: Final = frozenset(("zero shadow", "efi_mm", "trampoline_pgd"))
"""What the merged fix leaves open: KASAN's run-time branch, and the tables outside pgd_list."""


class Range(NamedTuple):
    """Something that was populated: an address in it, and by which path."""

    address: int
    path: str


class Violation(Exception):
    """An invariant does not hold behind `ops`; `what` says which, and of whom."""

    def __init__(self, ops: Iterable[Op], what: str) -> None:
        self.ops, self.what = tuple(ops), what
        super().__init__(f"{what}, after {' '.join(map(_shown, self.ops))}")


def _shown(op: Op) -> str:
    return f"{op[0]}({', '.join(map(str, op[1:]))})"


class Play:
    """A kernel, and the operations on it. `excluded` are paths whose ranges may fault."""

    def __init__(
        self,
        release: str,
        levels: int = 4,
        *,
        cpus: int = 1,
        struct_page: int = 64,
        hugetlbfs: bool = True,
        kasan: bool = False,
        excluded: frozenset[str] = frozenset(),
    ) -> None:
        self.kernel = Kernel(
            release,
            levels=levels,
            vmemmap_base=None if kasan else _VMEMMAP_BASE[levels],
            page_offset_base=None if kasan else _PAGE_OFFSET[levels],
            ram=E820(((0, GIB),), (DEVICE,)),
            struct_page=struct_page,
            cpus=cpus,
            hugetlbfs=hugetlbfs,
            kasan=kasan,
            firmware="efi",
        )
        self.border = _BORDER[levels]
        self.excluded = excluded
        self.cpus = cpus
        self.ops: list[Op] = []
        self.without: frozenset[str] = frozenset()
        self.ranges: list[Range] = []
        self.sections: set[int] = set()
        self.hot: set[int] = set()
        self.shadows: set[int] = set()
        self.boot_slots = slots(self.kernel, self.kernel.init_mm)

    def close(self) -> None:
        self.kernel.close()

    # -- operations

    def do(self, *op: object) -> None:
        """Do one operation, and see whether all holds."""
        name, *arguments = op
        if name in self.without:
            return
        self.ops.append(op)  # type: ignore[arg-type]
        getattr(self, str(name))(*arguments)
        self.check()

    def fork(self, full: int) -> None:
        """Make a task; if `full`, when the vmalloc area's first slot has no room for its stack."""
        if len(self.kernel.tasks) < MOST_TASKS:
            if full:
                fill_first_slot(self.kernel)
            self.kernel.fork(f"task{len(self.ops)}")

    def exit(self, which: int) -> None:
        if self.kernel.tasks:
            self.kernel.exit(self._task(which))

    def switch(self, which: int, cpu: int) -> None:
        """Let a task run on a CPU: the switch is on the stack of whoever ran there before."""
        if self.kernel.tasks:
            self.kernel.use_cpu(cpu % self.cpus)
            self._run(self._task(which), "read_byte", rdi=self.kernel.layout.va(0))

    def access(self, which: int, what: int) -> None:
        """Let a task touch something that was populated."""
        if self.kernel.tasks and self.ranges:
            found = self.ranges[what % len(self.ranges)]
            self._run(self._task(which), "read_byte", by=found.path, rdi=found.address)

    def vmalloc(self, full: int) -> None:
        """Map a page; if `full`, when all that the area's first slot had is taken."""
        if full:
            fill_first_slot(self.kernel)
        self._populated(vmalloc(self.kernel, 4096), "vmalloc")

    def ioremap(self, full: int) -> None:
        """Map a GiB of a device by one page; `full` as for vmalloc."""
        if full:
            fill_first_slot(self.kernel)
        self._populated(memremap(self.kernel, DEVICE[0], GIB), "ioremap")

    def percpu(self, _: int) -> None:
        """Make a chunk of per-CPU memory, at the area's top."""
        self._populated(pcpu_alloc(self.kernel, 0x80, 8).address(0, 0x80), "percpu")

    def trace(self, _: int) -> None:
        """Trace page faults into a new per-CPU buffer, where a stack has a guard."""
        if self.kernel.release.vmap_stack and self.kernel.handles_faults:
            self.percpu(0)
            trace_page_faults(self.kernel, self.ranges[-1].address)

    def compound(self, section: int) -> None:
        """Populate the struct pages of a device with compounds: a section at the slot's border."""
        self._memmap(section, lambda pfn: compound(pfn << 12, 128 * MIB), "compound pages")

    def plain(self, section: int) -> None:
        """The same for a device without."""
        self._memmap(section, lambda _: None, "vmemmap_populate")

    def hot_add(self, number: int) -> None:
        """Add memory whose direct map opens a slot."""
        start = self._hot(number)
        if start not in self.hot:
            self.hot.add(start)
            self._by_somebody(add_memory, start, 128 * MIB)
            self._populated(self.kernel.layout.va(start), "direct map")

    def hot_remove(self, number: int) -> None:
        """Take it away again."""
        start = self._hot(number)
        if start in self.hot:
            self.hot.remove(start)
            self.ranges.remove(Range(self.kernel.layout.va(start), "direct map"))
            self._by_somebody(remove_memory, start, 128 * MIB)

    def shadow(self, number: int) -> None:
        """Give memory of a device a shadow, as KASAN does at run time."""
        if self.kernel.kasan is not None and number not in self.shadows:
            self.shadows.add(number)
            layout = self.kernel.layout
            start = layout.va(_NEW_SHADOW[layout.levels] + number * 128 * MIB)
            self._by_somebody(kasan_add_zero_shadow, start, 128 * MIB)
            self._populated(layout.kasan_mem_to_shadow(start), "zero shadow")

    def outside(self, which: int, what: int) -> None:
        """Touch something on a table that is not on pgd_list."""
        tables = [mm for mm in self.kernel.outside if mm is not self.kernel.init_mm]
        if self.ranges:
            mm, found = tables[which % len(tables)], self.ranges[what % len(self.ranges)]
            task = Task("outsider", 1, mm, stack=self._outsiders_stack())
            by = mm.name if found.path not in self.excluded else found.path
            self._run(task, "read_byte", by=by, rdi=found.address)

    def race(self, steps: int) -> None:
        """Map into one new slot on two CPUs, the second after so many steps of the first."""
        if len(self.kernel.tasks) < 2 or self.cpus < 2:
            return
        maps, uses = self.kernel.tasks[:2]
        for task in (maps, uses):
            self.kernel.stack_of(task)
        fill_first_slot(self.kernel)

        def map_and_use() -> Stop:
            mapped = self.kernel.run(uses, vmalloc, 4096)
            assert isinstance(mapped, Returned)
            return self.kernel.run(uses, "read_byte", rdi=mapped.value)

        calls = (lambda: self.kernel.run(maps, vmalloc, 4096), map_and_use)
        stops = interleave(self.kernel, calls, (*(0,) * (steps + 1), 1)).stops
        if not all(isinstance(stop, Returned) for stop in stops):
            self._fail(f"{classify(stops[1])} of {uses.comm}: {stops[1]}")

    def sync(self, _: int) -> None:
        """Sync everything, as vmalloc_sync_all() and others do."""
        sync_global_pgds(self.kernel, self.kernel.layout.page_offset_base, (1 << 64) - 1)

    # -- what must hold

    def check(self) -> None:
        kernel = self.kernel
        reference = slots(kernel, kernel.init_mm)
        boundary = kernel.layout.kernel_pgd_boundary
        for task in kernel.tasks:
            for slot, entry in enumerate(slots(kernel, task.mm)[boundary:], boundary):
                if entry and (entry ^ reference[slot]) & ~0x60:
                    self._fail(f"{task.comm} has another entry in slot {slot} than init_mm")
        for slot, entry in enumerate(self.boot_slots):
            if entry and not reference[slot]:
                self._fail(f"init_mm has lost slot {slot}")

    def _fail(self, what: str) -> None:
        raise Violation(self.ops, what)

    def _task(self, which: int) -> Task:
        return self.kernel.tasks[which % len(self.kernel.tasks)]

    def _populated(self, address: int, path: str) -> None:
        if address:
            self.ranges.append(Range(address, path))

    def _memmap(self, section: int, device: Callable[[int], object], path: str) -> None:
        number = self.border - section
        if number in self.sections:
            return
        self.sections.add(number)
        pfn = number * SECTION
        self._by_somebody(populate_section_memmap, pfn, SECTION, 0, None, device(pfn))
        self._populated(self.kernel.layout.pfn_to_page(pfn), path)

    def _hot(self, number: int) -> int:
        return _NEW_SLOT[self.kernel.layout.levels] + number % 2 * GIB

    def _by_somebody(self, what: object, *args: object) -> None:
        """Have the first task do it, or a kernel thread if there is none."""
        if self.kernel.tasks:
            self._run(self._task(0), what, *args)
            return
        worker = self.kernel.kthread("worker")
        self._run(worker, what, *args)
        self.kernel.exit(worker)

    def _outsiders_stack(self) -> Stack:
        """The idle task's: it lies in the kernel's data, which all tables have."""
        stack = self.kernel.init_task.stack
        assert stack is not None
        return stack

    def _run(self, task: Task, what: object, *args: object, by: str = "", **kwargs: int) -> Stop:
        stop = self.kernel.run(task, what, *args, **kwargs)  # type: ignore[arg-type]
        died = isinstance(stop, PageFault | Trap | Shutdown)
        if died and by not in self.excluded:
            self._fail(f"{classify(stop)} of {task.comm}: {stop}")
        assert died or isinstance(stop, Returned | OutsideRam), stop
        return stop


def replay(ops: Iterable[Op], release: str, levels: int = 4, **options: int) -> str | None:
    """Play a sequence; what is violated at its end, or None. Earlier violations count as none."""
    play = Play(release, levels, **options)  # type: ignore[arg-type]
    ops = list(ops)
    try:
        for op in ops:
            play.do(*op)
    except Violation as violation:
        return violation.what if list(violation.ops) == ops else f"too early: {violation}"
    finally:
        play.close()
    return None
