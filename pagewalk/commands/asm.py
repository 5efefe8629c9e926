"""`pagewalk asm FILE.S`: what a source becomes: offsets, bytes, mnemonics, symbols with sizes.

Knows how a listing looks, to people and to programs. Refuses to know where the code will lie and
what running it would do: nothing is linked or run.
"""

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kernel_model.scenarios.spec import SCHEMA
from pagewalk.sources import add_set_option, assemble_source, constants, header_options, read_source

if TYPE_CHECKING:
    from asm import ListingLine, Program
    from asm.program import ProgramSymbol, Section

_ROW = 8  # bytes on a line
_MOST = 64  # bytes of one statement that are shown to people

_EPILOG = """\
Offsets count from the start of a section. Fields that hold the address of a symbol are still 0;
`pagewalk trace` links them. Constants that the file's own `# pagewalk: --set` lines define count.

example: pagewalk asm copy.S --set SIZE=64"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", metavar="FILE.S", help="an assembly source, in Intel syntax")
    add_set_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Print the listing; 0 if there is one."""
    text = read_source(args.file)
    header = header_options(text, args.file)
    program = assemble_source(text, args.file, constants([*header.set, *args.set]))
    if args.json:
        print(json.dumps(_document(program), indent=2))
        return 0
    from pagewalk.terminal import show

    show(_lines(program))
    return 0


def _lines(program: "Program") -> Iterator[str]:
    listing = list(program.listing())
    for section in program.sections.values():
        lines = [line for line in listing if line.section == section.name]
        if not section.data and not lines:
            continue
        yield (
            f"Section {section.name}: {section.kind}, {len(section.data):#x} bytes, "
            f'aligned to {section.alignment}, flags "{section.flags}"'
        )
        yield ""
        for line in lines:
            if line.symbol is not None:
                yield _symbol_line(program.symbols[line.symbol])
            yield from _rows(line, section)
        yield ""
    absolute = [s for s in program.symbols.values() if s.section is None]
    if absolute:
        yield "Numbers"
        yield ""
        for symbol in absolute:
            yield f"{symbol.name} = {symbol.offset:#x}"
        yield ""
    yield from _symbol_table(program)


def _symbol_line(symbol: "ProgramSymbol") -> str:
    size = f"{symbol.size:#x} bytes" if symbol.size or symbol.kind != "notype" else ""
    about = ", ".join(part for part in (symbol.kind.replace("notype", ""), size) if part)
    return f"{symbol.name}:" + (f"    # {about}" if about else "")


def _rows(line: "ListingLine", section: "Section") -> Iterator[str]:
    if not line.data:
        return
    if section.kind == "bss":  # zeros, and often many
        size = f"{len(line.data):#x} bytes"
        yield f"{line.offset:6x}:  {size:{3 * _ROW}} {line.text}"
        return
    data = line.data[:_MOST]
    for start in range(0, len(data), _ROW):
        row = data[start : start + _ROW].hex(" ")
        text = line.text if start == 0 else ""
        yield f"{line.offset + start:6x}:  {row:{3 * _ROW}} {text}".rstrip()
    if len(line.data) > _MOST:
        yield f"        … {len(line.data):#x} bytes in all"


def _symbol_table(program: "Program") -> Iterator[str]:
    sized = [s for s in program.symbols.values() if s.kind != "notype" and s.section]
    if not sized:
        return
    yield "Symbols"
    yield ""
    for symbol in sorted(sized, key=lambda s: (s.section or "", s.offset)):
        yield (
            f"{symbol.offset:6x}  {symbol.size:#7x}  {symbol.kind:8}  {symbol.binding:6}  "
            f"{symbol.section:12}  {symbol.name}"
        )


def _document(program: "Program") -> dict[str, Any]:
    lines: dict[str, list[dict[str, Any]]] = {name: [] for name in program.sections}
    for line in program.listing():
        zeros = program.sections[line.section].kind == "bss"
        lines[line.section].append(
            {
                "offset": f"{line.offset:#x}",
                "size": len(line.data),
                "bytes": None if zeros else line.data.hex(" "),
                "text": line.text,
                "line": line.line or None,
                "symbol": line.symbol,
            }
        )
    return {
        "schema": SCHEMA,
        "file": program.name,
        "sections": [
            {
                "name": section.name,
                "kind": section.kind,
                "size": len(section.data),
                "alignment": section.alignment,
                "flags": section.flags,
                "lines": lines[section.name],
            }
            for section in program.sections.values()
            if section.data or lines[section.name]
        ],
        "symbols": [
            {
                "name": symbol.name,
                "section": symbol.section,
                "offset": f"{symbol.offset:#x}",
                "size": symbol.size,
                "kind": symbol.kind,
                "binding": symbol.binding,
            }
            for symbol in program.symbols.values()
        ],
    }
