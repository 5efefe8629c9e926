"""A machine under a kernel 4.4: its image, its direct map, and a task that lacks a vmalloc slot.

What the tables map is put there by hand; the RAM, the device and the addresses are those of "Re:
[PATCH] x86/mm/vmfault: Make vmalloc_fault() handle large pages" (Toshi Kani, 2016-02-09), as far
as the mail tells them.
"""

from dataclasses import replace
from functools import cache
from typing import Final

from asm import Image
from emu import (
    Gate,
    Halted,
    Machine,
    PhysAddr,
    Stop,
    VirtAddr,
    Walk,
    map_page,
    map_range,
    read_virtual,
    write_system_tables,
)
from emu.descriptors import KERNEL_CODE
from emu.paging import RW
from emu.walk import walk
from kernel_model.builds import Constants, assembly_constants, build_image
from kernel_model.releases import RELEASES, VmallocFault

TEXT, MODULES = 0xFFFFFFFF80000000, 0xFFFFFFFFA0000000
SCRATCH: Final = 0xFFFFFFFF82800000  # for code of a test's own
ABSENT: Final = 0x30  # a vector whose gate is not present
MODULES_PA: Final = 0x220_0000
DIRECT_MAP: Final = {4: 0xFFFF_8800_0000_0000, 5: 0xFF11_0000_0000_0000}
VMALLOC: Final = {4: 0xFFFF_C900_0000_0000, 5: 0xFFA0_0000_0000_0000}
VMALLOC_SIZE: Final = {4: 32 << 40, 5: 12800 << 40}
PGDIR_SHIFT: Final = {4: 39, 5: 48}
FOURTH_GIB: Final = 0x3_8000_0000  # of the mapping, behind the slot's beginning
LEAF_PA: Final = 0x8_4000_0000
LAST_BLOCK: Final = 0x3FE0_0000  # of the leaf; the only part of the device that is there
IN_BLOCK: Final = 0x1F_E000
CONTENT: Final = bytes(range(64))
LOW_RAM = (0, 0x300_0000)
DEVICE = (LEAF_PA + LAST_BLOCK, LEAF_PA + (1 << 30))
HIGH_RAM = (0xC_7E00_0000, 0xC_7F03_B000)

PT_REGS: Final = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx"),
    *("rsi", "rdi", "orig_rax", "rip", "cs", "rflags", "rsp", "ss"),
)
EXCEPTIONS: Final = {
    0: "divide_error",
    6: "invalid_op",
    11: "segment_not_present",
    12: "stack_segment",
    13: "general_protection",
    14: "page_fault",
}


def constants_44(leaves: int = 0, checks: int = 0, hugetlbfs: int = 1) -> Constants:
    """What one variant of vmalloc_fault is assembled with."""
    fault = VmallocFault(
        ("unknown", "hugetlbfs", "known")[leaves],  # type: ignore[arg-type]
        ("addresses", "frames", "presence")[checks],  # type: ignore[arg-type]
    )
    release = replace(RELEASES["4.4"], vmalloc_fault=fault)
    return assembly_constants(64, release, hugetlbfs=bool(hugetlbfs))


@cache
def image_44(leaves: int = 0, checks: int = 0, hugetlbfs: int = 1) -> Image:
    """The build with one variant of vmalloc_fault."""
    return build_image("4.4", constants_44(leaves, checks, hugetlbfs))


class Kernel44:
    """The machine, on the table of a task that was forked before the slot was filled."""

    def __init__(
        self, leaves: int = 0, checks: int = 0, hugetlbfs: int = 1, *, levels: int = 4
    ) -> None:
        self.image = image_44(leaves, checks, hugetlbfs)
        self.direct_map = DIRECT_MAP[levels]
        self.slot = VMALLOC[levels] + (1 << PGDIR_SHIFT[levels])  # the second of vmalloc
        self.leaf = self.slot + FOURTH_GIB
        machine = Machine(ram=[LOW_RAM, DEVICE, HIGH_RAM], levels=levels)
        self.machine, self.memory, self.frames = machine, machine.memory, machine.frames
        self.cpu = machine.cpu
        self.init = self.cpu.paging
        self._map_direct()
        self._load()
        self.task = self.init.with_root(self.frames.allocate())
        self.copy_tops()
        self.stack = self.page() + 0x1000
        self.ist = self.page() + 0x1000
        self.destination = self.page()
        for name, value in (
            ("page_offset_base", self.direct_map),
            ("vmalloc_base", VMALLOC[levels]),
            ("vmalloc_end", VMALLOC[levels] + VMALLOC_SIZE[levels]),
            ("pgdir_shift", PGDIR_SHIFT[levels]),
            ("init_mm_pgd", self.direct_map + self.init.root),
        ):
            self.poke(self.image.address(name), value)
        self._install_handlers()
        self.cpu.paging = self.task

    # -- tables

    def map(self, va: int, pa: int, flags: int = RW, level: int = 1) -> PhysAddr:
        """Map a page in the reference table; where its entry is."""
        to = VirtAddr(va), PhysAddr(pa)
        return map_page(self.memory, self.frames, self.init, *to, flags, level=level)

    def map_leaf(self) -> int:
        """Map the device in the new slot, by a 1 GiB page; an address that holds CONTENT."""
        self.map(self.leaf, LEAF_PA, RW, level=3)
        self.memory.write(PhysAddr(LEAF_PA + LAST_BLOCK + IN_BLOCK), CONTENT)
        return self.leaf + LAST_BLOCK + IN_BLOCK

    def map_small(self) -> int:
        """Map a 4 KiB page of the device there; the same."""
        source = self.leaf + LAST_BLOCK
        self.map(source, DEVICE[0])
        self.memory.write(PhysAddr(DEVICE[0]), CONTENT)
        return source

    def copy_tops(self) -> None:
        """Make the task's table a copy of the reference."""
        self.memory.write(self.task.root, self.memory.read(self.init.root, 0x1000))

    def top_entry_pa(self, va: int) -> PhysAddr:
        """Where the task's top-level entry for `va` lies."""
        return PhysAddr(self.task.root + 8 * (va >> PGDIR_SHIFT[self.init.levels] & 511))

    def top_entries(self, va: int) -> tuple[int, int]:
        """The task's entry for `va`, and the reference's."""
        at = self.top_entry_pa(va)
        return self.u64(at), self.u64(at - self.task.root + self.init.root)

    def walk(self, va: int) -> Walk:
        """What init_mm's tables say."""
        return walk(self.memory.read_u64, self.init, VirtAddr(va))

    def page(self) -> int:
        """A free page's address in the direct map."""
        return self.direct_map + self.frames.allocate()

    # -- memory

    def pa(self, va: int) -> PhysAddr:
        """Where an address of the direct map lies."""
        return PhysAddr(va - self.direct_map)

    def u64(self, pa: int) -> int:
        """A word of RAM."""
        value = self.memory.read_u64(PhysAddr(pa))
        assert value is not None
        return value

    def word(self, va: int) -> int:
        """A word by address, as init_mm maps it."""
        return int.from_bytes(self.read(va, 8), "little")

    def read(self, va: int, size: int) -> bytes:
        """Bytes by address, as init_mm maps them."""
        return read_virtual(self.memory, self.init, VirtAddr(va), size)

    def poke(self, va: int, value: int) -> None:
        """Set a word of the kernel's data."""
        self.memory.write_u64(PhysAddr(va - TEXT), value)

    @property
    def handled_faults(self) -> int:
        """What the guest has counted."""
        return self.word(self.image.address("handled_faults"))

    # -- running

    def finit_module(self, source: int, size: int = 64, **registers: int) -> Stop:
        """Let the system call read `size` bytes at `source`."""
        entry = "entry_SYSCALL_64_fastpath"
        return self._run(
            self.image.address(entry),
            {"rdi": self.destination, "rsi": source, "rdx": size} | registers,
            returns_to=self.image.address(f"{entry}_end"),
        )

    def call(self, symbol: str, **registers: int) -> Stop:
        """Run a function, with the return address of a bare run on the stack."""
        return self._run(self.image.address(symbol), registers)

    def execute(self, code: bytes, **registers: int) -> Stop:
        """Run bytes that are no part of the image."""
        self.memory.write(PhysAddr(SCRATCH - TEXT), code)
        return self._run(SCRATCH, registers)

    def _run(self, at: int, registers: dict[str, int], *, returns_to: int | None = None) -> Stop:
        if returns_to is None:
            returns_to = self.image.address("run_return")
        rsp = self.stack - 0x10
        self.memory.write_u64(self.pa(rsp), returns_to)
        return self.cpu.run(at, returns_to=returns_to, **({"rsp": rsp} | registers))

    def pt_regs(self, stop: Stop) -> dict[str, int]:
        """What __die was given, which is where the CPU must have stopped."""
        assert stop == Halted(VirtAddr(self.image.address("oops_stop")))
        at = self.cpu.registers.rdi
        return {name: self.word(at + 8 * i) for i, name in enumerate(PT_REGS)}

    def call_trace(self, rsp: int, rbp: int) -> list[str]:
        """The text addresses on the stack from `rsp` up, plain where the chain from `rbp` goes."""
        found = []
        for at in range(rsp, self.stack - 0x10, 8):
            word = self.word(at)
            where = self.image.lookup(word - 1)
            on_chain = at == rbp + 8
            if on_chain:
                rbp = self.word(rbp)
            if where is not None and where.section.startswith((".text", ".module")):
                module = where.section.partition(".module.")[2]
                name = f"{where.symbol}+{where.offset + 1:#x}/{where.size:#x}"
                mark = "" if on_chain else "? "
                found.append(f"{mark}{name}{f' [{module}]' if module else ''}")
        return found

    # -- boot

    def _map_direct(self) -> None:
        for start, end in (LOW_RAM, HIGH_RAM):
            self._range(self.direct_map + start, start, end - start)
        self._range(TEXT, 0, LOW_RAM[1])
        self._range(MODULES, MODULES_PA, LOW_RAM[1] - MODULES_PA)

    def _range(self, va: int, pa: int, size: int) -> None:
        to = VirtAddr(va), PhysAddr(pa)
        map_range(self.memory, self.frames, self.init, *to, size, RW, largest=2)

    def _load(self) -> None:
        for segment in self.image.segments:
            module = segment.base >= MODULES
            pa = segment.base - MODULES + MODULES_PA if module else segment.base - TEXT
            self.memory.write(PhysAddr(pa), segment.data)

    def _install_handlers(self) -> None:
        block = self.frames.allocate_block(0x2000)
        handlers: dict[int, int | Gate] = {
            vector: self.image.address(name) for vector, name in EXCEPTIONS.items()
        }
        handlers[8] = Gate(self.image.address("double_fault"), KERNEL_CODE, ist=1)
        handlers[ABSENT] = Gate(0, KERNEL_CODE, present=False)
        va = self.direct_map + block
        tables = write_system_tables(self.memory, self.init, va, handlers, ist=[self.ist])
        self.cpu.gdt, self.cpu.idt, self.cpu.tr = tables
