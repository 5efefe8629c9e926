"""A build is what compiler and configuration made of a release: its text, and its config tokens.

Knows which sources make up each build, what is inlined into what, and where an image is linked.
No offset appears here: sizes and call sites are in the builds' own `.S`. Two builds come from
the oopses of "[RFC V1 PATCH mm-hotfixes 2/3] x86/mm: define p*d_populate_kernel() and top level
page table sync" (2025-07-09); other releases reuse one of them.
"""

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final, Literal

from asm import Image, Program, assemble_file, link
from kernel_model.layout import MODULES_VADDR, START_KERNEL_MAP
from kernel_model.structs import SIZEOF_PAGE, assembly_constants
from kernel_model.words import did_you_mean

TEXT: Final = START_KERNEL_MAP + 0x100_0000  # 16 MiB: CONFIG_PHYSICAL_START
DATA: Final = START_KERNEL_MAP + 0x200_0000
_MODULE_PREFIX: Final = ".module."
_MODULE_STRIDE: Final = 0x10_0000
_EVERYWHERE: Final = (
    "head.S",
    "mm/page_init.S",
    "mm/vmemmap_pmd.S",
    "mm/switch_mm.S",
    "mm/data.S",
)


@dataclass(frozen=True, slots=True)
class Build:
    """One build. `inlined` maps a function without a symbol to the one that it is part of."""

    name: str
    sources: tuple[str, ...]
    modules: tuple[str, ...]
    inlined: dict[str, str] = field(default_factory=dict)
    preempt: Literal["voluntary", "full"] = "voluntary"


BUILDS: Final = {
    build.name: build
    for build in (
        Build(
            name="6.8",
            sources=(*_EVERYWHERE, "builds/6.8.S"),
            modules=("device_dax", "xe"),
        ),
        Build(
            name="6.13-drm-tip",
            sources=(*_EVERYWHERE, "builds/6.13.S"),
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


@cache
def build_image(name: str, sizeof_page: int, refcount_reset_types: frozenset[int]) -> Image:
    """Assemble and link a build. What boot decides is data in it, so one image serves all boots."""
    build = find_build(name)
    if sizeof_page not in SIZEOF_PAGE:
        raise ValueError(f"struct page of {sizeof_page} bytes: expected 64, 80 or 96")
    programs = [_program(source, sizeof_page, refcount_reset_types) for source in build.sources]
    bases = {".text": TEXT, ".data": DATA}
    for i, module in enumerate(build.modules):
        bases[_MODULE_PREFIX + module] = MODULES_VADDR + (i + 1) * _MODULE_STRIDE
    return link(programs, bases)


@cache
def routines(sizeof_page: int, refcount_reset_types: frozenset[int]) -> tuple[str, ...]:
    """List the functions that run on the CPU: those of the sources that hold in every build.

    A build's own source has only stubs of functions that run in Python.
    """
    return tuple(
        symbol.name
        for source in _EVERYWHERE
        for symbol in _program(source, sizeof_page, refcount_reset_types).symbols.values()
        if symbol.kind == "function"
    )


@cache
def _program(source: str, sizeof_page: int, refcount_reset_types: frozenset[int]) -> Program:
    constants = assembly_constants(sizeof_page, refcount_reset_types)
    return assemble_file(files("asm") / source, constants=constants)


def module_of(section: str) -> str | None:
    """Return the module whose code a section holds; None for vmlinux."""
    return section.removeprefix(_MODULE_PREFIX) if section.startswith(_MODULE_PREFIX) else None
