"""Routines: sources in Intel syntax become programs, and programs linked at bases an image.

Knows what GNU as and ld make of a source, symbols both ways, and the stack at each instruction.
The modules refuse to know whose code it is and who will run it. Linux is in the sources only:
`mm/` has routines of its memory management, `builds/` the functions of two builds.

Exports lazily: importing this package loads neither keystone nor capstone.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asm.assembler import assemble, assemble_file
    from asm.errors import AssemblyError, UnknownSymbol
    from asm.image import CallSite, Image, Location, Segment, Symbol
    from asm.linker import link
    from asm.program import ListingLine, Program, Section

__all__ = [
    "AssemblyError",
    "CallSite",
    "Image",
    "ListingLine",
    "Location",
    "Program",
    "Section",
    "Segment",
    "Symbol",
    "UnknownSymbol",
    "assemble",
    "assemble_file",
    "link",
]

_HOME = {
    "assemble": "asm.assembler",
    "assemble_file": "asm.assembler",
    "AssemblyError": "asm.errors",
    "UnknownSymbol": "asm.errors",
    "CallSite": "asm.image",
    "Image": "asm.image",
    "Location": "asm.image",
    "Segment": "asm.image",
    "Symbol": "asm.image",
    "link": "asm.linker",
    "ListingLine": "asm.program",
    "Program": "asm.program",
    "Section": "asm.program",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
