"""Kernel, the facade: one booted machine, its tasks, and what they may be made to do.

Knows how to switch to a task and run something in it, on the CPU or in Python, and that a task
which dies does not return. Refuses to know subjects: those are the other modules. Linux
vocabulary.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

from asm import Image
from emu import (
    Cpu,
    Frames,
    Machine,
    OutOfFrames,
    Paging,
    PhysAddr,
    PhysMemory,
    Returned,
    Stop,
    VirtAddr,
    read_virtual,
)
from emu.walk import Walk, walk
from kernel_model import boot
from kernel_model.boot import Firmware
from kernel_model.builds import Build, assembly_constants, build_image, find_build, routines
from kernel_model.callstack import symbolise
from kernel_model.deaths import Deaths
from kernel_model.e820 import E820
from kernel_model.errors import ENOMEM, KernelError, TaskDied
from kernel_model.history import Event, Refused
from kernel_model.kasan import EarlyShadow
from kernel_model.layout import GIB, PAGE_SIZE, Layout, make_layout
from kernel_model.mm import (
    Mm,
    Stack,
    Task,
    alloc_thread_stack,
    exit_task,
    fork,
    reserve_thread_stack,
)
from kernel_model.named import check_registers, check_routine
from kernel_model.oops import compose
from kernel_model.pgtable import Pgtable
from kernel_model.releases import DEFAULT_RELEASE, Release, find_release
from kernel_model.running import run_bug, run_routine, switch_mm, switch_to
from kernel_model.sparse import SectionMap
from kernel_model.structs import (
    SIZEOF_PAGE,
    StructPage,
    parse_page,
)
from kernel_model.vmap_areas import VmapAreas
from kernel_model.writers import Writers

if TYPE_CHECKING:
    from kernel_model.memremap import DevPagemap


class Kernel:
    """A booted Linux of one release and build. Free with close(), `with`, or by dropping it.

    `release` is a name from RELEASES; `build` overrides the release's own; `vmemmap_base` is the
    one KASLR choice (see `layout`); `ram` is boot RAM from physical 0, in bytes, whole 128 MiB, or
    the map of RAM and devices; `struct_page` is 64, 80 or 96; `hugetlbfs` and `kasan` are the
    kernel's configuration; `ivt` says whether firmware left real mode's vectors in page 0. KASLR
    may choose `page_offset_base` too. With `pti` page tables are isolated. `firmware` is "bios",
    and real mode has its table, "efi", and the runtime services have theirs too, or None for a
    kernel that needs neither. Raises ValueError for a value that makes no kernel.

    All that runs, runs on one CPU at a time: `cpu`, whose task is `current`; see `use_cpu`.
    """

    def __init__(
        self,
        release: str = DEFAULT_RELEASE,
        *,
        levels: int = 4,
        build: str | None = None,
        vmemmap_base: int | None = None,
        page_offset_base: int | None = None,
        ram: int | E820 = 4 * GIB,
        struct_page: int = 64,
        cpus: int = 1,
        hugetlbfs: bool = True,
        kasan: bool = False,
        ivt: bool = True,
        pti: bool = False,
        firmware: Firmware | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.e820: Final[E820] = ram if isinstance(ram, E820) else E820.plain(ram)
        self.ram: Final = self.e820.ram_end
        if not 1 <= cpus <= boot.MOST_CPUS:
            raise ValueError(f"{cpus} CPUs: expected 1 to {boot.MOST_CPUS}")
        self._options: Final[dict[str, Any]] = {
            "levels": levels,
            "build": build,
            "vmemmap_base": vmemmap_base,
            "ram": ram,
            "struct_page": struct_page,
            "cpus": cpus,
            "hugetlbfs": hugetlbfs,
            "kasan": kasan,
            "ivt": ivt,
            "page_offset_base": page_offset_base,
            "pti": pti,
            "firmware": firmware,
        }
        if struct_page not in SIZEOF_PAGE:
            raise ValueError(f"struct page of {struct_page} bytes: expected 64, 80 or 96")
        self.release: Final[Release] = find_release(release)
        if levels in (4, 5) and levels not in self.release.levels:
            raise ValueError(f"{levels} levels: release {release} has 4 only")
        if pti and not self.release.pti:
            raise ValueError(f"pti: release {release} has no page-table isolation")
        if firmware not in (None, "bios", "efi"):
            raise ValueError(f"firmware {firmware!r}: expected bios, efi or None")
        self.build: Final[Build] = find_build(self.release.build if build is None else build)
        self.layout: Final[Layout] = make_layout(
            levels=levels,
            vmemmap_base=vmemmap_base,
            page_offset_base=page_offset_base,
            ram=self.ram,
            sizeof_page=struct_page,
            era=self.release.layout,
            kernel_image_size=self.build.kernel_image_size,
            kasan=kasan,
        )
        constants = assembly_constants(struct_page, self.release, hugetlbfs=hugetlbfs)
        self.image: Final[Image] = build_image(self.build.name, constants)
        self.routines: Final = routines(self.build.name, constants)
        self.machine: Final[Machine] = boot.make_machine(self.e820, levels, cpus)
        self.memory: Final[PhysMemory] = self.machine.memory
        if ivt:
            self.memory.write(PhysAddr(0), boot.IVT)
        self.frames: Final[Frames] = self.machine.frames
        self.cpu: Cpu = self.machine.cpu
        self.pgtable: Final = Pgtable(self.memory, self.layout, Writers(self))
        self.sections: Final = SectionMap()
        self.history: Final[list[Event]] = []
        """What was forked, switched to, populated and synced since the boot began, in order."""
        self.tasks: Final[list[Task]] = []
        """The tasks that there are, the idle ones left out."""
        self.pgd_list: Final[dict[Mm, None]] = {}
        """The tables that a sync reaches, as an ordered set; init_mm's is not in it."""
        self.devres: Final[list[DevPagemap]] = []  # what goes when its driver does
        self.vmap_areas: Final = VmapAreas(self.layout.vmalloc_base, self.layout.vmalloc_end)
        self.before: Final[dict[str, Callable[[Kernel], object]]] = {}
        """What happens just before a routine is called: a context switch, say."""
        self.preempt: Callable[[str], object] | None = None
        """Told the name of each modelled function that is entered: another CPU's turn, say."""

        self.init_mm: Final = boot.init_mm(pti=pti)
        self.outside: Final[dict[Mm, None]] = {self.init_mm: None}
        """Tables that are not on pgd_list, and that no sync reaches."""
        if self.init_mm.user is not None:
            self.outside[self.init_mm.user] = None
        self.pti: Final = pti
        self.firmware: Final = firmware
        self._idle: Final = [boot.idle_task(nr, self.init_mm) for nr in range(cpus)]
        self.init_task: Final = self._idle[0]
        self.current: Task = self.init_task
        self._currents: Final = list(self._idle)
        self.cpu_nr = 0
        self.zone_device = VirtAddr(0)
        self.kasan: EarlyShadow | None = None
        """The tables that stand for shadow nobody keeps, in a kernel that has KASAN."""
        self.slab_is_available = False
        self.boot_paging: Final[Paging] = self.cpu.paging
        self.selectors: Final[dict[str, int]] = self.cpu.selectors
        self.run_return: Final = self.image.address("run_return")
        self.deaths: Final = Deaths(self.image)
        if self.handles_faults:
            for cpu in self.machine.cpus:
                cpu.on_delivery = self.deaths.delivered
        self._running: Final[set[int]] = set()
        self._pid = 300
        self._heap = self._heap_end = 0
        self._progress = progress
        try:
            boot.boot(self)
        except OutOfFrames as error:
            raise ValueError(f"ram {self.ram:#x} is too little to boot: {error}") from None
        self.nr_boot_events: Final = len(self.history)
        self.pgtable.writers.unframed = "no kernel function"

    # -- tasks

    def fork(self, comm: str) -> Task:
        """Make a task with a table of its own: a copy of the kernel's slots as they are now.

        Raises OutOfFrames; inside a run, the run then returns -ENOMEM.
        """
        return fork(self, comm)

    def twin(self) -> "Kernel":
        """Boot another kernel with the same options."""
        return Kernel(self.release.name, **self._options)

    def exit(self, task: Task) -> None:
        """End a task that is not running; its table and its stack are freed.

        A CPU that still has its table goes idle first. ValueError for a task that is none.
        """
        if task not in self.tasks:
            raise ValueError(f"{task!r} is no task of this kernel")
        if task.frames:
            raise KernelError(f"{task!r} is running: it cannot exit")
        here = self.cpu_nr
        for nr, cpu in enumerate(self.machine.cpus):
            tables = [mm.pgd for mm in (task.mm, task.mm.user) if mm]
            if cpu.cr3 in tables or task in (self._currents[nr], self.current):
                self.use_cpu(nr)
                self.switch_mm(self.init_mm)
                self.current = self._idle[nr]
        self.use_cpu(here)
        exit_task(self, task)

    def use_cpu(self, nr: int) -> None:
        """Make another CPU the one that runs: `cpu` is it, and `current` its task."""
        if not 0 <= nr < len(self._idle):
            raise ValueError(f"CPU {nr}: expected one of 0 to {len(self._idle) - 1}")
        self._currents[self.cpu_nr] = self.current
        self.cpu_nr, self.cpu, self.current = nr, self.machine.cpus[nr], self._currents[nr]

    def _take_off_other_cpus(self, task: Task) -> None:
        """A task is on one CPU at a time: one that had it goes idle, and keeps its table so far."""
        for nr, current in enumerate(self._currents):
            if current is task and nr != self.cpu_nr:
                self._currents[nr] = self._idle[nr]

    @property
    def handles_faults(self) -> bool:
        """Whether exceptions go to the build's own entries, and only then end a run.

        Other builds have no fault to handle in the kernel's half: an exception is a death.
        """
        return "oops_stop" in self.image.symbols

    @property
    def handled_faults(self) -> int:
        """How many page faults of the kernel its own handler has fixed up; it counts them."""
        counter = self.image.symbols.get("handled_faults")
        return int(self.memory.words[boot.kernel_pa(counter.address) >> 3]) if counter else 0

    def kthread(self, comm: str) -> Task:
        """Make a kernel thread that runs on init_mm's own table."""
        area = reserve_thread_stack(self)
        task = Task(comm, self.next_pid(), self.init_mm, area=area)
        self.tasks.append(task)
        return task

    def next_pid(self) -> int:
        """Return a pid that no task has."""
        self._pid += 1
        return self._pid

    def task(self, comm: str) -> Task:
        """Return a task by its name; ValueError that lists the names."""
        for task in (*self.tasks, self.init_task):
            if task.comm == comm:
                return task
        names = ", ".join(t.comm for t in (*self.tasks, self.init_task))
        raise ValueError(f"no task is called {comm!r}: expected one of {names}")

    def stack_of(self, task: Task) -> Stack:
        """Return a task's kernel stack, made now if it has none yet. Raises OutOfFrames."""
        return task.stack or alloc_thread_stack(self, task)

    def switch_mm(self, mm: Mm) -> None:
        """Write CR3, by the routine, on the current task's stack. Its table is `mm`'s from now on.

        A task that already has its table keeps it otherwise: this is also how a kernel thread
        borrows one. TaskDied if text or stack is missing from the new table; CR3 then stays.
        """
        switch_mm(self, mm)

    def run(
        self, task: Task, what: "str | Callable[..., int | None]", *args: Any, **kwargs: Any
    ) -> Stop:
        """Run something in a task and say how it ended.

        `what` is the symbol of a routine, with registers by name (`rdi=page`), or a modelled
        kernel function with its arguments after the kernel; its result is `Returned.value`.
        Wherever the task faults, it dies there: nothing after that happens. Without memory for a
        stack or a fork it returns -ENOMEM. Raises KernelError from inside a run, and ValueError
        for what is no routine and for an argument that a routine cannot take.
        """
        if self.cpu_nr in self._running or self.current.frames:
            raise KernelError(f"{self.current!r} is running: {task!r} cannot run inside it")
        if task.mm not in self.pgd_list and task.mm not in self.outside:
            raise ValueError(f"{task!r} is no task of this kernel")
        if isinstance(what, str):
            check_routine(what, self.routines, self.image)
            check_registers(what, args, kwargs)
        nr = self.cpu_nr
        if len(self._currents) > 1:
            self._take_off_other_cpus(task)
        self._running.add(nr)
        try:
            switch_to(self, task)
            if isinstance(what, str):
                return run_routine(self, what, kwargs)
            value = what(self, *args, **kwargs)
        except TaskDied as death:
            return death.stop
        except OutOfFrames:
            value = -ENOMEM
        finally:
            self._running.discard(nr)
        return Returned((value or 0) & (1 << 64) - 1)

    # -- for modelled functions

    def call(self, routine: str, **registers: int) -> int:
        """Call a routine from the running function and return RAX; TaskDied if it faults."""
        action = self.before.get(routine)
        if action is not None:
            action(self)
        stop = run_routine(self, routine, registers)
        if not isinstance(stop, Returned):
            raise TaskDied(stop)
        return stop.value

    def bug(self, label: str) -> None:
        """BUG(): execute the ud2 at `label`, which kills the running task."""
        raise TaskDied(run_bug(self, label))

    def refuse(self, path: str, errno: int, why: str) -> int:
        """Tell the history that `path` refuses, and return -errno."""
        self.history.append(Refused(path, errno, why))
        return -errno

    def kmalloc(self, data: bytes) -> VirtAddr:
        """Put an object into memory and return its direct-map address. Raises OutOfFrames."""
        size = -(-len(data) // 64) * 64
        if self._heap + size > self._heap_end:
            self._heap = self.frames.allocate()
            self._heap_end = self._heap + PAGE_SIZE
        pa, self._heap = PhysAddr(self._heap), self._heap + size
        self.memory.write(pa, data)
        return self.layout.va(pa)

    def flush_tlb_all(self) -> None:
        """Have every CPU forget its translations."""
        for cpu in self.machine.cpus:
            cpu.invalidate_tlb()

    def caller(self) -> str:
        """Return who called the running function, as in memremap+0xb4/0x110; "" if nobody did."""
        frames = self.current.frames
        if not frames:
            return ""
        stack = self.stack_of(self.current)
        returns_to = self.memory.read_u64(stack.pa_of(frames[-1][1]))
        return symbolise(self.image, returns_to) if returns_to else ""

    def progress(self, nr_pages: int) -> None:
        """Tell whoever watches that `nr_pages` more have been added."""
        if self._progress is not None:
            self._progress(nr_pages)

    # -- looking

    def symbol(self, text: str) -> VirtAddr:
        """Return the address of "symbol", "symbol+0x9" or "symbol+0x9/0x6d"."""
        return VirtAddr(self.image.parse(text))

    def paging(self, mm: Mm) -> Paging:
        """Return the control registers as they are when `mm` is active."""
        return self.boot_paging.with_root(mm.pgd)

    def walk(self, addr: int, mm: Mm | None = None) -> Walk:
        """Walk `addr` under a table, init_mm's by default."""
        return self.walk_under(self.paging(mm or self.init_mm), addr)

    def walk_under(self, paging: Paging, addr: int) -> Walk:
        """Walk `addr` under any control registers."""
        return walk(self.memory.read_u64, paging, VirtAddr(addr))

    def read(self, addr: int, size: int, mm: Mm | None = None) -> bytes:
        """Read by address under a table, init_mm's by default; NotMapped where that cannot be."""
        return read_virtual(self.memory, self.paging(mm or self.init_mm), VirtAddr(addr), size)

    def page(self, pfn: int) -> StructPage:
        """Read a struct page back; NotMapped if there is none."""
        return parse_page(self.read(self.layout.pfn_to_page(pfn), 64))

    def oops(self, stop: Stop) -> str:
        """Return the kernel's own text for the last task that died; ValueError for any other."""
        first, last = self.deaths.first, self.deaths.last
        if first is None or last is None or last.stop != stop:
            raise ValueError(f"{stop!r} is not how the last task died")
        return compose(last, first, self.release, self.build, self.image)

    # -- lifetime

    def close(self) -> None:
        """Free the machine."""
        self.machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
