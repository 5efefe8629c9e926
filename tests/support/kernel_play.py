"""A kernel that is played with: operations as values, and what must hold after each of them.

An operation is a small tuple, so that a sequence of them can be drawn, shrunk, printed, and written
into a test. What must hold is facts/SDM, not what the code under test says: every access to what
has been populated and not taken away translates under every table; a table agrees with init_mm's
in every slot that it has; nothing is lost from init_mm.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from support.kernel_facts import FIVE, FOUR, GIB, MIB, SECTION, TIB, compound, slots

from emu import OutsideRam, PageFault, Returned, Shutdown, Stop, Trap
from kernel_model import Kernel, Task
from kernel_model.e820 import E820
from kernel_model.hotplug import arch_add_memory
from kernel_model.percpu import pcpu_alloc
from kernel_model.scenarios.outcome import classify
from kernel_model.sync import sync_global_pgds
from kernel_model.tracing import trace_page_faults
from kernel_model.vmalloc import fill_first_slot, memremap, vmalloc
from kernel_model.vmemmap import populate_section_memmap

Op = tuple[str, *tuple[int, ...]]
DEVICE: Final = (32 * GIB, 36 * GIB)
MOST_TASKS: Final = 6
_NEW_SLOT: Final = {4: 512 * GIB, 5: 256 * TIB}  # physical: where the direct map opens a slot


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
        excluded: frozenset[str] = frozenset(),
    ) -> None:
        where = {4: FOUR, 5: FIVE}[levels]
        self.kernel = Kernel(
            release,
            levels=levels,
            vmemmap_base=where.vmemmap_base,
            ram=E820(((0, GIB),), (DEVICE,)),
            struct_page=struct_page,
            cpus=cpus,
        )
        self.boundary_section = where.pfn // SECTION
        self.excluded = excluded
        self.cpus = cpus
        self.ops: list[Op] = []
        self.ranges: list[Range] = []
        self.sections: set[int] = set()
        self.hot: set[int] = set()
        self.boot_slots = slots(self.kernel, self.kernel.init_mm)

    def close(self) -> None:
        self.kernel.close()

    # -- operations

    def do(self, *op: object) -> None:
        """Do one operation, and see whether all holds."""
        self.ops.append(op)  # type: ignore[arg-type]
        name, *arguments = op
        getattr(self, str(name))(*arguments)
        self.check()

    def fork(self) -> None:
        if len(self.kernel.tasks) < MOST_TASKS:
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

    def trace(self) -> None:
        """Trace page faults into a per-CPU buffer."""
        chunks = [found for found in self.ranges if found.path == "percpu"]
        if chunks and "trace_page_fault" in self.kernel.image.symbols:
            trace_page_faults(self.kernel, chunks[-1].address)

    def compound(self, section: int) -> None:
        """Populate the struct pages of a device with compounds: a section at the slot's border."""
        self._memmap(section, lambda pfn: compound(pfn << 12, 128 * MIB), "compound pages")

    def plain(self, section: int) -> None:
        """The same for a device without."""
        self._memmap(section, lambda _: None, "vmemmap_populate")

    def hot_add(self, number: int) -> None:
        """Add memory whose direct map opens a slot."""
        start = _NEW_SLOT[self.kernel.layout.levels] + number % 2 * GIB
        if start not in self.hot and self.kernel.tasks:
            self.hot.add(start)
            task = self._task(0)
            self._run(task, arch_add_memory, 0, start, 128 * MIB, None, None)
            self._populated(self.kernel.layout.va(start), "direct map")

    def sync(self) -> None:
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
        number = self.boundary_section + section - 1
        if number in self.sections:
            return
        self.sections.add(number)
        pfn = number * SECTION
        worker = self.kernel.kthread("worker")
        self._run(worker, populate_section_memmap, pfn, SECTION, 0, None, device(pfn))
        self.kernel.exit(worker)
        self._populated(self.kernel.layout.pfn_to_page(pfn), path)

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
