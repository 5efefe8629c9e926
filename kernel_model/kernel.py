"""Kernel, the facade: one booted machine, its tasks, and what they may be made to do.

Knows how to switch to a task and run something in it, on the CPU or in Python, and that a task
which dies does not return. Refuses to know subjects: those are the other modules. Linux
vocabulary.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from asm import Image
from emu import (
    Cpu,
    Frames,
    Halted,
    Machine,
    OutOfFrames,
    PageFault,
    Paging,
    PhysAddr,
    PhysMemory,
    Registers,
    Returned,
    Stop,
    Trap,
    VirtAddr,
    read_virtual,
)
from emu.interrupts import Delivery, Exc
from emu.walk import Walk, walk
from kernel_model import boot
from kernel_model.builds import Build, assembly_constants, build_image, find_build, routines
from kernel_model.callstack import call_site, deepest, depth, symbolise
from kernel_model.death import Death, with_symbol
from kernel_model.e820 import E820
from kernel_model.errors import ENOMEM, KernelError, TaskDied
from kernel_model.history import Event, LazyFault, Refused, Switched
from kernel_model.layout import GIB, PAGE_SIZE, Layout, make_layout
from kernel_model.mm import Mm, Stack, Task, alloc_thread_stack, exit_task, fork
from kernel_model.named import check_registers, check_routine
from kernel_model.oops import compose
from kernel_model.pgtable import Pgtable
from kernel_model.releases import Release, find_release
from kernel_model.sparse import SectionMap
from kernel_model.structs import (
    PT_REGS_ERROR_CODE,
    PT_REGS_RIP,
    SIZEOF_PAGE,
    SIZEOF_PT_REGS,
    StructPage,
    parse_page,
    parse_pt_regs,
)
from kernel_model.vmalloc import VmapAreas

if TYPE_CHECKING:
    from kernel_model.memremap import DevPagemap


class Kernel:
    """A booted Linux of one release and build. Free with close(), `with`, or by dropping it.

    `release` is a name from RELEASES; `build` overrides the release's own; `vmemmap_base` is the
    one KASLR choice (see `layout`); `ram` is boot RAM from physical 0, in bytes, whole 128 MiB, or
    the map of RAM and devices; `struct_page` is 64, 80 or 96; `hugetlbfs` is the kernel's
    configuration; `ivt` says whether firmware left real mode's vectors in page 0. Raises ValueError
    for a value that makes no kernel.

    All that runs, runs on one CPU at a time: `cpu`, whose task is `current`; see `use_cpu`.
    """

    def __init__(
        self,
        release: str = "6.8",
        *,
        levels: int = 4,
        build: str | None = None,
        vmemmap_base: int | None = None,
        ram: int | E820 = 4 * GIB,
        struct_page: int = 64,
        cpus: int = 1,
        hugetlbfs: bool = True,
        ivt: bool = True,
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
            "ivt": ivt,
        }
        if struct_page not in SIZEOF_PAGE:
            raise ValueError(f"struct page of {struct_page} bytes: expected 64, 80 or 96")
        self.release: Final[Release] = find_release(release)
        if levels in (4, 5) and levels not in self.release.levels:
            raise ValueError(f"{levels} levels: release {release} has 4 only")
        self.build: Final[Build] = find_build(self.release.build if build is None else build)
        self.layout: Final[Layout] = make_layout(
            levels=levels,
            vmemmap_base=vmemmap_base,
            ram=self.ram,
            sizeof_page=struct_page,
            era=self.release.layout,
            kernel_image_size=self.build.kernel_image_size,
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
        self.pgtable: Final = Pgtable(self.memory, self.layout)
        self.sections: Final = SectionMap()
        self.history: Final[list[Event]] = []
        self.tasks: Final[list[Task]] = []
        self.pgd_list: Final[dict[Mm, None]] = {}  # an ordered set; init_mm is not in it
        self.devres: Final[list[DevPagemap]] = []  # what goes when its driver does
        self.vmap_areas: Final = VmapAreas(self.layout.vmalloc_base, self.layout.vmalloc_end)
        self.before: Final[dict[str, Callable[[Kernel], object]]] = {}
        """What happens just before a routine is called: a context switch, say."""
        self.preempt: Callable[[str], object] | None = None
        """Told the name of each modelled function that is entered: another CPU's turn, say."""

        self.init_mm: Final = boot.init_mm()
        self.outside: Final[dict[Mm, None]] = {self.init_mm: None}
        """Tables that are not on pgd_list, and that no sync reaches."""
        self._idle: Final = [boot.idle_task(nr, self.init_mm) for nr in range(cpus)]
        self.init_task: Final = self._idle[0]
        self.current: Task = self.init_task
        self._currents: Final = list(self._idle)
        self.cpu_nr = 0
        self.zone_device = VirtAddr(0)
        self.boot_paging: Final[Paging] = self.cpu.paging
        self.selectors: Final[dict[str, int]] = self.cpu.selectors
        self._run_return: Final = self.image.address("run_return")
        self._switch_mm: Final = self.image.address("switch_mm")
        found = self.image.symbols.get("prepare_switch_to")
        self._prepare_switch: Final = found.address if found else 0
        self._dies_at: Final = self.image.symbols.get("oops_stop")
        self._raised: Final[dict[int, Exc]] = {}  # by the RSP that its handler began with
        self._page_faults: Final[list[PageFault]] = []  # delivered, and not looked at yet
        if self.handles_faults:
            for cpu in self.machine.cpus:
                cpu.on_delivery = self._delivered
        self._running: Final[set[int]] = set()
        self._pid = 300
        self._heap = self._heap_end = 0
        self._progress = progress
        self._first_death: Death | None = None
        self._last_death: Death | None = None
        try:
            boot.boot(self)
        except OutOfFrames as error:
            raise ValueError(f"ram {self.ram:#x} is too little to boot: {error}") from None
        self.nr_boot_events: Final = len(self.history)

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
            if cpu.cr3 == task.mm.pgd or task in (self._currents[nr], self.current):
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
        task = Task(comm, self.next_pid(), self.init_mm)
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
        cr3 = self.cpu.cr3
        if cr3 == mm.pgd:
            return
        if self.release.stack_sync == "copied":
            self._sync_current_stack_to_mm(mm)
        stop = self.cpu.run(
            self._switch_mm,
            returns_to=self._run_return,
            rdi=cr3,
            rsi=mm.pgd,
            rsp=self._push_run_return(),
        )
        if not isinstance(stop, Returned):
            death = TaskDied(self._finish(stop))
            self.cpu.cr3 = cr3
            raise death
        self.history.append(Switched(mm.name, mm.pgd))

    def _sync_current_stack_to_mm(self, mm: Mm) -> None:
        """Copy the top-level entry of the stack that is in use, before `mm` becomes active."""
        stack = self.stack_of(self.current)
        entry_pa = self.pgtable.pgd_offset(mm.pgd, stack.base)
        if self.pgtable.top_none(self.pgtable.get(entry_pa)):
            reference = self.pgtable.pgd_offset(self.init_mm.pgd, stack.base)
            self.pgtable.set(entry_pa, self.pgtable.get(reference))

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
        self._running.add(nr)
        try:
            self._switch_to(task)
            if isinstance(what, str):
                return self._run_routine(what, kwargs)
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
        stop = self._run_routine(routine, registers)
        if not isinstance(stop, Returned):
            raise TaskDied(stop)
        return stop.value

    def bug(self, label: str) -> None:
        """BUG(): execute the ud2 at `label`, which kills the running task."""
        at = self.image.address(label)
        _, entered_at = self.current.frames[-1]
        registers = {"rsp": entered_at - depth(self.image, at)}
        if self.build.frame_pointers:
            registers["rbp"] = entered_at - 8
        raise TaskDied(self._finish(self.cpu.run(at, **registers)))

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
        first, last = self._first_death, self._last_death
        if first is None or last is None or last.stop != stop:
            raise ValueError(f"{stop!r} is not how the last task died")
        return compose(last, first, self.release, self.build, self.image)

    # -- lifetime

    def close(self) -> None:
        """Free the machine."""
        self.machine.close()

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside

    def _run_routine(self, routine: str, registers: dict[str, int]) -> Stop:
        """Run a routine as called from the running function, or bare if there is none."""
        if self.current.frames:
            site, rsp = call_site(self, routine)
            if self.build.frame_pointers:
                registers.setdefault("rbp", self.current.frames[-1][1] - 8)
            stop = self.cpu.run(site.address, returns_to=site.return_address, rsp=rsp, **registers)
        elif f"{routine}_end" in self.image.symbols:  # an entry, which nobody calls
            stop = self.cpu.run(
                self.image.address(routine),
                returns_to=self.image.address(f"{routine}_end"),
                rsp=self.stack_of(self.current).top - 0x10,
                **registers,
            )
        else:
            stop = self.cpu.run(
                self.image.address(routine),
                returns_to=self._run_return,
                rsp=self._push_run_return(),
                **registers,
            )
        return self._came_back(stop) if type(stop) is Returned else self._finish(stop)

    def _came_back(self, stop: Stop) -> Stop:
        """Tell the history of the faults that were handled on the way."""
        if self._page_faults:
            self._tell_faults(repeated=True)
        return stop

    def _tell_faults(self, *, repeated: bool) -> None:
        """Tell the history of the faults that the kernel's handler was entered for."""
        for fault in self._page_faults:
            slot = self.layout.pgd_index(fault.address)
            missed = fault.walk is not None and len(fault.walk.steps) == 1
            now = self.walk_under(self.boot_paging.with_root(fault.cr3), fault.address)
            filled = missed and len(now.steps) > 1
            event = LazyFault(self.current.comm, fault.address, slot, filled, repeated)
            self.history.append(event)
        self._page_faults.clear()
        self._raised.clear()

    def _delivered(self, delivery: Delivery) -> None:
        """Remember what the kernel's own handler is entered for."""
        exc = delivery.exceptions[-1]
        self._raised[delivery.rsp] = exc
        if isinstance(exc, PageFault):
            self._page_faults.append(exc)

    def _switch_to(self, task: Task) -> None:
        """Go on in another task: its table first, on the stack of the old one; then its stack."""
        self.stack_of(task)
        self.switch_mm(task.mm)
        lazy = self.release.vmalloc_sync == "fault"
        if lazy and self.release.vmap_stack and task is not self.current:
            self._prepare_switch_to(task)
        self.current = task

    def _prepare_switch_to(self, task: Task) -> None:
        """Touch the next stack while the old one can still take a fault: a new entry is copied."""
        stop = self.cpu.run(
            self._prepare_switch,
            returns_to=self._run_return,
            rdi=self.stack_of(task).top - 8,
            rsp=self._push_run_return(),
        )
        if not isinstance(stop, Returned):
            raise TaskDied(self._finish(stop))
        self._came_back(stop)

    def _push_run_return(self) -> int:
        """Put the return address of a bare run where the current stack is free; return RSP."""
        task = self.current
        stack = self.stack_of(task)
        if task.frames:
            function, entered_at = task.frames[-1]
            rsp = entered_at - deepest(self.image, function) - 8
            if rsp < stack.base:
                raise KernelError(f"the stack of {task!r} has overflowed in {function}")
        else:
            rsp = stack.top - 0x10
        self.memory.write_u64(stack.pa_of(rsp), self._run_return)
        return rsp

    def _finish(self, stop: Stop) -> Stop:
        """Name what killed the running task, and keep what its oops needs."""
        if self._dies_at is not None and isinstance(stop, Halted):
            stop = self._died_by_itself(stop)
        if isinstance(stop, (PageFault, Trap)):
            stop = with_symbol(stop, self.image)
            last = self._last_death
            self._last_death = Death.of(self, stop, last.number + 1 if last else 1)
            self._first_death = self._first_death or self._last_death
        return stop

    def _died_by_itself(self, stop: Halted) -> Stop:
        """Return what the handler that gave up was entered for; other stops as they are.

        RDI holds its struct pt_regs, whose upper part is the CPU's own frame.
        """
        if self._dies_at is None or stop.rip != self._dies_at.address:
            return stop
        regs = self.cpu.registers.rdi
        exc = self._raised.get(regs + PT_REGS_ERROR_CODE) or self._raised.get(regs + PT_REGS_RIP)
        if exc is None:
            raise KernelError(f"the handler died with pt_regs at {regs:#x}, where none are")
        if isinstance(exc, PageFault) and exc in self._page_faults:
            self._page_faults.remove(exc)
        self._tell_faults(repeated=False)
        if isinstance(exc, Trap) and exc.registers is None:
            return replace(exc, registers=self._pt_regs(regs))
        return exc

    def _pt_regs(self, regs: int) -> Registers:
        """Read the registers that an entry has saved."""
        saved = parse_pt_regs(self.read(regs, SIZEOF_PT_REGS))
        now = self.cpu.registers
        return now._replace(**{name: saved[name] for name in now._fields if name in saved})
