"""Where a program, its stack and the address it returns to lie on a machine without a kernel.

Knows linear addresses and rights. Refuses to know frames and tables: who makes the machine has
those (`bare`, `testing.machine`). Addresses have their names back here, too.

    supervisor              user
    0xffffffff81000000      0x400000          the source's sections, .text first, each from a page
                                              border on, with the rights of its flags
    0xffffffff80ffe000      0x3fe000          `hlt`: where the routine returns to
    0xffffc90000000000      0x7fffffffb000    the stack, 16 KiB; unmapped on both sides
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from emu.paging import FRAME_SIZE, RW, US, XD

if TYPE_CHECKING:
    from asm import Image, Program

STACK_SIZE: Final = 4 * FRAME_SIZE
MAX_STEPS: Final = 10_000_000
"""After how many steps a routine that has not returned is stopped, unless somebody says."""
_INT3, _HLT = b"\xcc", b"\xf4"


class Bases(NamedTuple):
    """Where things lie in one privilege mode."""

    text: int
    returns_to: int
    stack: int


SUPERVISOR: Final = Bases(0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_80FF_E000, 0xFFFF_C900_0000_0000)
USER: Final = Bases(0x40_0000, 0x3F_E000, 0x7FFF_FFFF_B000)


class Part(NamedTuple):
    """Whole pages that a run needs: their rights are "rwxu" or fewer."""

    name: str
    va: int
    size: int
    rights: str
    data: bytes = b""


def link_from(program: "Program", base: int) -> "Image":
    """Place the sections one behind the other, each from a page border on. Raises as `link`."""
    from asm import link

    bases = {}
    for section in program.sections.values():
        if section.loaded:
            alignment = max(FRAME_SIZE, section.alignment)
            base = -(-base // alignment) * alignment
            bases[section.name] = base
            base += len(section.data)
    return link([program], bases)


def sections(program: "Program", image: "Image", user: str) -> Iterator[Part]:
    """Yield the sections of a program that was placed; `user` is "u" for user-mode pages, or ""."""
    for segment in image.segments:
        if not segment.data:
            continue
        flags = program.sections[segment.name].flags
        size = -(-len(segment.data) // FRAME_SIZE) * FRAME_SIZE
        rights = "r" + ("w" if "w" in flags else "") + ("x" if "x" in flags else "") + user
        filler = _INT3 if "x" in flags else b"\0"  # running off the end of code traps
        yield Part(segment.name, segment.base, size, rights, segment.data.ljust(size, filler))


def surroundings(bases: Bases, user: str) -> Iterator[Part]:
    """Yield what a routine finds besides itself: the page that it returns to, and its stack."""
    yield Part("return", bases.returns_to, FRAME_SIZE, "rx" + user, _HLT * FRAME_SIZE)
    yield Part("stack", bases.stack, STACK_SIZE, "rw" + user)


def leaf_flags(rights: str) -> int:
    """Return the flags of an entry that maps a page with these rights: "rwxu" or fewer."""
    flags = 0 if "x" in rights else XD
    return flags | (RW if "w" in rights else 0) | (US if "u" in rights else 0)


def describe(image: "Image", address: int) -> str | None:
    """Name an address: by its function or object, or by the label before it."""
    if (found := image.describe(address)) is not None:
        return found
    for segment in image.segments:
        if segment.base <= address < segment.end:
            before = [
                (s.address, s.name)
                for s in image.everything
                if s.section == segment.name and s.address <= address
            ]
            if before:
                start, name = max(before)
                return f"{name}+{address - start:#x}"
    return None
