"""A machine with one routine on it: what `pagewalk trace` runs.

Knows which frames the routine, its stack and the address it returns to get (`placing` has their
addresses), and what else the user wants mapped. Refuses to know Linux: there is no kernel here,
no IDT, nobody to handle a fault.

In RAM all this, the root and the tables come from the top down; --map is free to use the rest,
or to map these frames a second time.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from pagewalk import placing
from pagewalk.arguments import BadInput, bad, bad_name, number
from pagewalk.sources import one_line, shown

if TYPE_CHECKING:
    from asm import Image, Program
    from emu import Cpu

_FRAME: Final = 4096
_LEAST_RAM, _MOST_RAM = 1 << 20, 1 << 40
_REGISTERS: Final = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *(f"r{n}" for n in range(8, 16)),
    *("fs_base", "gs_base"),
)
_MAP: Final = re.compile(r"([^=:+]+)=([^=:+]+)(?:\+([^=:+]+))?:([rwxu]+)\Z")
_MAP_SYNTAX: Final = "VA=PA[+SIZE]:RIGHTS, RIGHTS being r and any of w, x, u"


class Region(NamedTuple):
    """A run of pages: what it is called, where it lies, and its rights: "rwxu" or fewer."""

    name: str
    va: int
    pa: int
    size: int
    rights: str
    data: bytes = b""

    @property
    def last(self) -> int:
        """The last byte's linear address."""
        return self.va + self.size - 1

    def overlaps(self, other: "Region") -> bool:
        """Tell whether an address lies in both."""
        return self.va <= other.last and other.va <= self.last


class Wanted(NamedTuple):
    """How a routine is to be run, as the user said it; not yet checked against anything."""

    levels: int
    ram: int
    user: bool
    entry: str | None
    maps: tuple[Region, ...]
    registers: dict[str, str]


class Bare:
    """The machine, ready to run from `entry` until it comes to `returns_to`."""

    def __init__(self, program: "Program", file: str, wanted: Wanted) -> None:
        bases = placing.USER if wanted.user else placing.SUPERVISOR
        with one_line(file):
            self.image: Final = placing.link_from(program, bases.text)
        self.entry: Final = _entry(program, self.image, file, wanted.entry)
        self.returns_to: Final = bases.returns_to
        self._values = _register_values(wanted.registers, self.image)
        self.regions: Final = _place(program, self.image, bases, wanted)
        _check_maps(wanted, self.regions)
        self.maps: Final = wanted.maps
        self._build(wanted)
        self._prepare(bases)

    @property
    def cpu(self) -> "Cpu":
        """The CPU that is to run it."""
        return self._machine.cpu

    def close(self) -> None:
        """Free the machine."""
        self._machine.close()

    def symbol(self, address: int) -> str | None:
        """Name an address: by its function or object, or by the label before it."""
        return placing.describe(self.image, address)

    def _build(self, wanted: Wanted) -> None:
        """Make the machine, and map everything."""
        from emu import Frames, Machine, OutOfFrames, Paging, PhysAddr, VirtAddr, map_range

        root = min(region.pa for region in self.regions) - _FRAME
        if root <= 0:
            _too_small(wanted.ram)
        paging = Paging.long_mode(root, levels=wanted.levels)
        everything = (*self.regions, *wanted.maps)
        code = [(r.pa, r.pa + r.size) for r in everything if "x" in r.rights]
        try:
            self._machine = Machine(ram=wanted.ram, paging=paging, code=code)
        except OSError as error:
            bad("--ram", f"{wanted.ram:#x}", f"RAM that this host has room for: {error.strerror}")
        memory = self._machine.memory
        frames = Frames(memory, 0, root)
        for region in everything:
            flags = placing.leaf_flags(region.rights)
            where = VirtAddr(region.va), PhysAddr(region.pa), region.size
            try:
                map_range(memory, frames, paging, *where, flags, largest=3)
            except OutOfFrames:
                _too_small(wanted.ram)
        for region in self.regions:
            memory.write(PhysAddr(region.pa), region.data)

    def _prepare(self, bases: placing.Bases) -> None:
        """Set the registers, and put the return address where RSP points."""
        from emu import NotMapped, VirtAddr, write_virtual

        cpu = self.cpu
        registers = {"rsp": bases.stack + placing.STACK_SIZE - 8, **self._values}
        cpu.write(**registers)
        cpu.cpl = 3 if bases is placing.USER else 0
        back = self.returns_to.to_bytes(8, "little")
        try:
            write_virtual(cpu.memory, cpu.paging, VirtAddr(registers["rsp"]), back)
        except NotMapped:
            if "rsp" not in self._values:
                raise
            # Whoever points RSP nowhere wants to see what happens.


def read_maps(texts: Iterable[str], ram: int, levels: int) -> tuple[Region, ...]:
    """Read the values of --map."""
    from emu.paging import is_canonical

    found = []
    for text in texts:
        match = _MAP.match(text.strip())
        if match is None:
            bad("--map", repr(text), _MAP_SYNTAX)
        text = shown(text)
        va = number(f"--map {text}: VA", match[1])
        pa = number(f"--map {text}: PA", match[2])
        size = number(f"--map {text}: SIZE", match[3], least=1) if match[3] else _FRAME
        rights = "r" + "".join(c for c in "wxu" if c in match[4])
        for what, value in (("VA", va), ("PA", pa), ("SIZE", size)):
            if value % _FRAME:
                bad("--map", f"{text}: {what} {value:#x}", "a multiple of 4 KiB")
        last = va + size - 1
        if not (is_canonical(va, levels) and is_canonical(last, levels)) or va >> 63 != last >> 63:
            bad("--map", f"{text}: VA {va:#x}+{size:#x}", f"canonical addresses of {levels} levels")
        if pa + size > ram:
            bad("--map", f"{text}: PA {pa:#x}+{size:#x}", f"RAM, which ends at {ram:#x} (--ram)")
        found.append(Region(f"--map {text}", va, pa, size, rights))
    return tuple(found)


def read_registers(items: Iterable[str]) -> dict[str, str]:
    """Read the values of --reg: names are checked, values are kept as text."""
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        name = name.strip().lower()
        if not equals or not value.strip():
            bad("--reg", repr(item), "REGISTER=VALUE")
        if name not in _REGISTERS:
            bad_name("--reg", item, _REGISTERS, word=name)
        found[name] = value.strip()
    return found


def read_ram(text: str) -> int:
    """Read the value of --ram."""
    ram = number("--ram", text, least=_LEAST_RAM, most=_MOST_RAM)
    if ram % _FRAME:
        bad("--ram", repr(text), "a multiple of 4 KiB")
    return ram


def _register_values(texts: dict[str, str], image: "Image") -> dict[str, int]:
    """Turn the texts of --reg into values: numbers, or symbols of the source."""
    values = {}
    for name, text in texts.items():
        if text[:1].isdigit() or text[:1] in "+-":
            values[name] = number(f"--reg {name}", text)
            continue
        try:
            values[name] = image.parse(text)
        except ValueError as error:
            bad("--reg", f"{name}={shown(text)}", f"a number or a symbol; {shown(str(error))}")
    return values


def _entry(program: "Program", image: "Image", file: str, name: str | None) -> int:
    """Return where to start: at `name`, or at the source's first function, or first label."""
    if name is not None:
        try:
            return image.address(name)
        except ValueError as error:
            bad("--entry", shown(name), f"a symbol of {shown(file)}; {shown(str(error))}")
    sections = [s.name for s in program.sections.values() if "x" in s.flags and s.data]
    starts = [s for s in program.symbols.values() if s.section in sections]
    first = min(
        starts,
        key=lambda s: (s.kind != "function", sections.index(s.section or ""), s.offset),
        default=None,
    )
    if first is not None:
        return image.address(first.name)
    if not sections:
        raise BadInput(f"{shown(file)}: expected code to run; it has none")
    return next(s.base for s in image.segments if s.name == sections[0])


def _place(
    program: "Program", image: "Image", bases: placing.Bases, wanted: Wanted
) -> tuple[Region, ...]:
    """Return the tool's own regions, in frames from the top of RAM down."""
    user = "u" if wanted.user else ""
    top = wanted.ram
    regions = []
    parts = (*placing.sections(program, image, user), *placing.surroundings(bases, user))
    for name, va, size, rights, data in parts:
        top -= size
        regions.append(Region(name, va, top, size, rights, data))
    if top <= 0:
        _too_small(wanted.ram)
    return tuple(regions)


def _check_maps(wanted: Wanted, regions: tuple[Region, ...]) -> None:
    """Refuse maps that overlap each other, or what is there already."""
    for position, region in enumerate(wanted.maps):
        for other in (*regions, *wanted.maps[:position]):
            if region.overlaps(other):
                bad(
                    region.name,
                    f"({region.va:#x}-{region.last:#x})",
                    f"addresses that are free; {other.name} has {other.va:#x}-{other.last:#x}",
                )


def _too_small(ram: int) -> NoReturn:
    bad("--ram", f"{ram:#x}", "more: it does not hold the code, the stack and the tables")
