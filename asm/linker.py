"""Programs, placed at bases and joined.

Knows what GNU ld does with relocatable objects of one section per name: order, alignment, the
filling between, symbols and relocations. Refuses to know where an image should lie.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from asm.image import CallSite, Image, Segment, Symbol
from asm.layout import nops_between_programs
from asm.program import Base, Program, ProgramSymbol, Relocation, Section

_TOP: Final = 1 << 64
_RANK: Final = {"global": 0, "weak": 1, "local": 2}
ABSOLUTE: Final = "*ABS*"


class _Definition(NamedTuple):
    program: Program
    symbol: ProgramSymbol
    placed: Symbol


def link(programs: Sequence[Program], bases: Mapping[str, int]) -> Image:
    """The image of `programs`, with each section at the base that `bases` has for its name.

    A section like `.text.init` without a base is part of `.text`, as GNU ld has it. Sections of
    one name follow each other in the order of the programs. Raises ValueError, or
    AssemblyError with the line that is to blame, for a section without a base, segments that
    overlap, symbols that are undefined or defined twice, and addresses that do not fit.
    """
    starts, segments = _place(programs, bases)
    definitions = _definitions(programs, starts, bases)
    public = _public(definitions)
    for number, program in enumerate(programs):
        for relocation in program.relocations:
            if (number, relocation.section) in starts:
                segment = _segment(relocation.section, bases)
                at = starts[number, relocation.section] + relocation.offset
                target = _target(program, number, relocation.base, starts, public, relocation.line)
                _fill(segments[segment], at, at - bases[segment], target, relocation, program)
    return Image(
        tuple(Segment(name, bases[name], bytes(data)) for name, data in segments.items()),
        MappingProxyType(_unambiguous(definitions, public)),
        tuple(d.placed for d in sorted(definitions, key=lambda d: _RANK[d.symbol.binding])),
        MappingProxyType(_calls(programs, starts, public)),
    )


def _place(
    programs: Sequence[Program], bases: Mapping[str, int]
) -> tuple[dict[tuple[int, str], int], dict[str, bytearray]]:
    """Where the sections of each program start, and the bytes of the segments they make."""
    starts: dict[tuple[int, str], int] = {}
    segments: dict[str, bytearray] = {}
    for number, program in enumerate(programs):
        for section in program.sections.values():
            segment = _segment(section.name, bases)
            if section.loaded and (section.data or segment in bases):
                data = segments.setdefault(segment, bytearray())
                starts[number, section.name] = _append(data, segment, section, program, bases)
    _check_overlap(segments, bases)
    return starts, segments


def _segment(section: str, bases: Mapping[str, int]) -> str:
    """The name of the segment that a section is part of."""
    whole = "." + section.split(".")[1] if section.startswith(".") else section
    return section if section in bases or whole not in bases else whole


def _append(
    data: bytearray, segment: str, section: Section, program: Program, bases: Mapping[str, int]
) -> int:
    base = bases.get(segment)
    if base is None:
        given = ", ".join(bases) or "none"
        raise ValueError(f"section {section.name} of {program.name} has no base, of: {given}")
    if not 0 <= base < _TOP:
        raise ValueError(f"base {base:#x} of section {section.name} does not fit 64 bits")
    if base % section.alignment:
        raise ValueError(
            f"base {base:#x} of section {section.name} is not {section.alignment:#x} aligned,"
            f" as {program.name} expects"
        )
    gap = -len(data) % section.alignment
    data += nops_between_programs(gap) if section.kind == "code" else bytes(gap)
    start = base + len(data)
    data += section.data
    return start


def _check_overlap(segments: Mapping[str, bytearray], bases: Mapping[str, int]) -> None:
    ordered = sorted((bases[name], name) for name, data in segments.items() if data)
    for (base, name), (after, next_name) in zip(ordered, [*ordered[1:], (_TOP, "")], strict=True):
        end = base + len(segments[name])
        if end > after:
            what = f"section {next_name} at {after:#x}" if next_name else "the end of memory"
            raise ValueError(f"section {name} at {base:#x} ends at {end:#x}, beyond {what}")


def _definitions(
    programs: Sequence[Program], starts: Mapping[tuple[int, str], int], bases: Mapping[str, int]
) -> list[_Definition]:
    found: list[_Definition] = []
    for number, program in enumerate(programs):
        for symbol in program.symbols.values():
            if symbol.section is None:
                base, section = 0, ABSOLUTE
            elif (number, symbol.section) in starts:
                base = starts[number, symbol.section]
                section = _segment(symbol.section, bases)
            else:
                continue
            address = (base + symbol.offset) % _TOP
            placed = Symbol(symbol.name, section, address, symbol.size, symbol.kind)
            found.append(_Definition(program, symbol, placed))
    return found


def _public(definitions: Sequence[_Definition]) -> dict[str, Symbol]:
    """The symbols that programs share: global ones, else the first weak one of a name."""
    owners: dict[str, _Definition] = {}
    for definition in definitions:
        name = definition.symbol.name
        earlier = owners.get(name)
        if definition.symbol.binding == "local":
            continue
        if earlier is None or earlier.symbol.binding == "weak" != definition.symbol.binding:
            owners[name] = definition
        elif definition.symbol.binding == "global" == earlier.symbol.binding:
            files = f"{earlier.program.name} and {definition.program.name}"
            raise ValueError(f"symbol {name} is defined twice: in {files}")
    return {name: definition.placed for name, definition in owners.items()}


def _unambiguous(
    definitions: Sequence[_Definition], public: Mapping[str, Symbol]
) -> dict[str, Symbol]:
    local: dict[str, list[Symbol]] = {}
    for definition in definitions:
        local.setdefault(definition.symbol.name, []).append(definition.placed)
    single = {name: placed[0] for name, placed in local.items() if len(placed) == 1}
    return single | dict(public)


def _target(
    program: Program,
    number: int,
    base: Base | None,
    starts: Mapping[tuple[int, str], int],
    public: Mapping[str, Symbol],
    line: int,
) -> int:
    """The address that `base` stands for."""
    if base is None:
        return 0
    if base.is_section:
        start = starts.get((number, base.name))
        if start is None:
            message = f'section {base.name} is not loaded: it has no "a" flag'
            raise program.error(message, line)
        return start
    symbol = public.get(base.name)
    if symbol is not None:
        return symbol.address
    if base.name in program.weak:
        return 0
    raise program.error(f"undefined symbol {base.name}", line)


def _fill(
    data: bytearray, address: int, at: int, target: int, relocation: Relocation, program: Program
) -> None:
    """Write the value of `relocation` into `data`."""
    value = target + relocation.addend - (address if relocation.relative else 0)
    bits = 8 * relocation.size
    value %= _TOP
    if relocation.signed or relocation.relative or bits < 32:
        value -= _TOP if value >= _TOP // 2 else 0
    least = 0 if bits == 32 and not (relocation.signed or relocation.relative) else -1 << (bits - 1)
    most = 1 << (bits - 1 if relocation.signed or relocation.relative else bits)
    if bits < 64 and not least <= value < most:
        name = relocation.base.name if relocation.base else "a number"
        what = "distance" if relocation.relative else "address"
        raise program.error(
            f"the {what} {value:#x}, from {name}, does not fit {relocation.size} bytes"
            f"{' with its sign' if relocation.signed else ''}",
            relocation.line,
        )
    data[at : at + relocation.size] = (value % (1 << bits)).to_bytes(relocation.size, "little")


def _calls(
    programs: Sequence[Program],
    starts: Mapping[tuple[int, str], int],
    public: Mapping[str, Symbol],
) -> dict[CallSite, int | None]:
    found: list[tuple[CallSite, int | None]] = []
    for number, program in enumerate(programs):
        for call in program.calls:
            start = starts.get((number, call.section))
            if start is None:
                continue
            target: int | None = None
            if call.target is not None:
                base, addend = call.target
                target = (_target(program, number, base, starts, public, 0) + addend) % _TOP
            address = start + call.offset
            found.append((CallSite(address, address + call.size), target))
    return dict(sorted(found))
