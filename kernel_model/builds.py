"""A build is what compiler and configuration made of a release: its text, and its config tokens.

Knows which sources make up each build, what is inlined into what, and where an image is linked.
No offset appears here: sizes and call sites are in the builds' own `.S`. Two builds come from
the oopses of "[RFC V1 PATCH mm-hotfixes 2/3] x86/mm: define p*d_populate_kernel() and top level
page table sync" (2025-07-09), and "4.4" from that of "Re: [PATCH] x86/mm/vmfault: Make
vmalloc_fault() handle large pages" (Toshi Kani, 2016-02-09), which prints addresses too; other
releases reuse one of them.
"""

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final, Literal

from asm import Image, Program, assemble_file, link
from kernel_model.layout import GIB, START_KERNEL_MAP
from kernel_model.releases import Release
from kernel_model.structs import SIZEOF_PAGE, struct_constants
from kernel_model.words import did_you_mean

TEXT: Final = START_KERNEL_MAP + 0x100_0000  # 16 MiB: CONFIG_PHYSICAL_START
DATA: Final = START_KERNEL_MAP + 0x200_0000
_MODULE_PREFIX: Final = ".module."
_MODULE_STRIDE: Final = 0x10_0000
_EVERYWHERE: Final = (
    "head.S",
    "lib/memcpy.S",
    "mm/page_init.S",
    "mm/vmemmap_pmd.S",
    "mm/switch_mm.S",
    "mm/access.S",
    "mm/workqueue.S",
    "mm/debug_vm_pgtable.S",
    "mm/data.S",
    "mm/efi.S",
    "mm/trampoline.S",
    "mm/ldt.S",
    "entry/pti.S",
)
_STUBS: Final = (
    "stubs/ioremap.S",
    "stubs/vmalloc.S",
    "stubs/remove.S",
    "stubs/kasan.S",
    "stubs/outside.S",
)


@dataclass(frozen=True, slots=True)
class Build:
    """One build. `inlined` maps a function without a symbol to the one that it is part of.

    `running` are the sources of its own whose functions run on the CPU; `sources` are all others.
    `placed` and `module_bases` say where an oops found sections and modules; the other sections
    are part of `.text`, and the other modules lie behind the kernel's image.
    """

    name: str
    sources: tuple[str, ...]
    modules: tuple[str, ...]
    running: tuple[str, ...] = ()
    inlined: dict[str, str] = field(default_factory=dict)
    preempt: Literal["voluntary", "full"] = "voluntary"
    frame_pointers: bool = False  # a function's RBP points to its caller's
    kernel_image_size: int = GIB  # where the modules begin: 512 MiB without RANDOMIZE_BASE
    placed: dict[str, int] = field(default_factory=dict)
    module_bases: dict[str, int] = field(default_factory=dict)

    def bases(self) -> dict[str, int]:
        """Return the address of each section that has one of its own."""
        bases = {".text": TEXT, ".data": DATA, **self.placed}
        for i, module in enumerate(self.modules):
            base = START_KERNEL_MAP + self.kernel_image_size + (i + 1) * _MODULE_STRIDE
            bases[_MODULE_PREFIX + module] = self.module_bases.get(module, base)
        return bases


BUILDS: Final = {
    build.name: build
    for build in (
        Build(
            name="4.4",
            sources=(*_EVERYWHERE, *_STUBS, "builds/4.4.S"),
            running=("mm/vmalloc_fault.S", "entry/exceptions.S", "builds/4.4-finit.S"),
            modules=("device_dax", "nd_btt", "nd_pmem", "xe"),
            placed={
                ".text.fault": 0xFFFFFFFF_810662F0,
                ".text.sched_fair": 0xFFFFFFFF_810D6D50,
                ".text.module": 0xFFFFFFFF_81120170,
                ".text.exec": 0xFFFFFFFF_8122DC10,
                ".text.memcpy": 0xFFFFFFFF_813BB970,
                ".text.schedule": 0xFFFFFFFF_817A0810,
                ".text.syscall": 0xFFFFFFFF_817A4618,
                ".text.page_fault": 0xFFFFFFFF_817A6860,
            },
            module_bases={"nd_pmem": 0xFFFFFFFF_A0063000, "nd_btt": 0xFFFFFFFF_A028D000},
            frame_pointers=True,
            kernel_image_size=GIB // 2,
        ),
        Build(
            name="6.8",
            sources=(*_EVERYWHERE, *_STUBS, "builds/6.8.S"),
            running=("drivers/pmem.S",),
            modules=("device_dax", "xe"),
        ),
        Build(
            name="6.13-drm-tip",
            sources=(*_EVERYWHERE, *_STUBS, "builds/6.13.S"),
            running=("drivers/pmem.S",),
            modules=("device_dax", "xe"),
            inlined={"pagemap_range": "memremap_pages"},
            preempt="full",
        ),
    )
}


def find_build(name: str) -> Build:
    """Return a build by name; ValueError that lists the names, and the nearest."""
    if name in BUILDS:
        return BUILDS[name]
    hint = did_you_mean(name, BUILDS)
    raise ValueError(f"unknown build {name!r}: expected {', '.join(BUILDS)}{hint}")


Constants = tuple[tuple[str, int], ...]
"""What sources are assembled with, by name."""

_LEAVES: Final = {"unknown": 0, "hugetlbfs": 1, "known": 2}
_CHECKS: Final = {"addresses": 0, "frames": 1, "presence": 2}


@cache
def assembly_constants(sizeof_page: int, release: Release, *, hugetlbfs: bool) -> Constants:
    """Return what a release's text is assembled with, whatever its build."""
    if sizeof_page not in SIZEOF_PAGE:
        raise ValueError(f"struct page of {sizeof_page} bytes: expected 64, 80 or 96")
    fault = release.vmalloc_fault
    return (
        *struct_constants(sizeof_page, release.refcount_reset_types).items(),
        ("SUB_PMD", int(release.sub_pmd)),
        ("VMALLOC_FAULT", int(fault is not None)),
        ("HUGETLBFS", int(hugetlbfs) if fault else 1),
        ("VMALLOC_FAULT_LEAVES", _LEAVES[fault.leaves] if fault else 2),
        ("VMALLOC_FAULT_CHECKS", _CHECKS[fault.validates] if fault else 2),
    )


@cache
def build_image(name: str, constants: Constants) -> Image:
    """Assemble and link a build. What boot decides is data in it, so one image serves all boots."""
    build = find_build(name)
    programs = [_program(source, constants) for source in (*build.sources, *build.running)]
    return link(programs, build.bases())


@cache
def routines(name: str, constants: Constants) -> tuple[str, ...]:
    """List the functions that run on the CPU in a build.

    The other functions are stubs of those that run in Python.
    """
    return tuple(
        symbol.name
        for source in (*_EVERYWHERE, *find_build(name).running)
        for symbol in _program(source, constants).symbols.values()
        if symbol.kind == "function"
    )


@cache
def _program(source: str, constants: Constants) -> Program:
    return assemble_file(files("asm") / source, constants=dict(constants))


def is_text(section: str) -> bool:
    """Tell whether a section holds code, of vmlinux or of a module."""
    return section == ".text" or section.startswith((".text.", _MODULE_PREFIX))


def module_of(section: str) -> str | None:
    """Return the module whose code a section holds; None for vmlinux."""
    return section.removeprefix(_MODULE_PREFIX) if section.startswith(_MODULE_PREFIX) else None
