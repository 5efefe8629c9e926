"""GNU as and ld, as a second opinion on what a source becomes.

Knows how to call them and where ELF keeps sections and symbols. Imports nothing of what it
judges.
"""

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MISSING = next((f"no GNU {tool} on PATH" for tool in ("as", "ld") if not shutil.which(tool)), None)

_ALLOCATED = 2
_NOBITS = 8
_SYMTAB = 2


class GnuError(Exception):
    """What as or ld had to say against a source, warnings included."""


class Linked(NamedTuple):
    """Sections as name -> (address, bytes), and symbols as name -> (address, size)."""

    sections: dict[str, tuple[int, bytes]]
    symbols: dict[str, tuple[int, int]]


def assemble_and_link(
    sources: Sequence[str],
    bases: Mapping[str, int],
    constants: Mapping[str, int] | None = None,
) -> Linked:
    """What as and ld make of `sources`, each section at its base."""
    with tempfile.TemporaryDirectory() as folder:
        objects = [_assemble(Path(folder, str(n)), s, constants) for n, s in enumerate(sources)]
        linked = Path(folder, "linked")
        placed = [f"--section-start={name}={base:#x}" for name, base in bases.items()]
        _run(["ld", "-e", "0", "--no-relax", *placed, "-o", str(linked), *objects])
        return _read(linked.read_bytes())


def encodings(statements: Sequence[str]) -> dict[str, bytes | None]:
    """What as makes of each statement by itself; None where it refuses or warns."""
    accepted = list(statements)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "s"), Path(folder, "o")
        for _ in range(3):
            lines = [f'.section s{n},"ax"; {text}\n' for n, text in enumerate(accepted)]
            source.write_text(".intel_syntax noprefix; " + "".join(lines))
            run = subprocess.run(_command(source, target), capture_output=True, text=True)
            blamed = {int(line.split(":")[1]) - 1 for line in run.stderr.splitlines()[1:]}
            accepted = [text for n, text in enumerate(accepted) if n not in blamed]
            if not blamed:
                break
        sections = _sections(target.read_bytes())
    found = {text: sections[f"s{n}"][1] for n, text in enumerate(accepted)}
    return {text: found.get(text) for text in statements}


def _assemble(stem: Path, source: str, constants: Mapping[str, int] | None) -> str:
    # Without the directive, as reads no `gs:[…]`, whatever its options say.
    stem.write_text(f".intel_syntax noprefix; {source}\n")
    target = stem.with_suffix(".o")
    _run([*_command(stem, target), *_defined(constants or {})])
    return str(target)


def _command(source: Path, target: Path) -> list[str]:
    return ["as", "--64", "-msyntax=intel", "-mnaked-reg", "-o", str(target), str(source)]


def _defined(constants: Mapping[str, int]) -> list[str]:
    return [word for name, value in constants.items() for word in ("--defsym", f"{name}={value}")]


def _run(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode or run.stderr:
        raise GnuError(run.stderr)


def _headers(elf: bytes) -> tuple[list[tuple[int, ...]], int]:
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    first = struct.unpack_from("<IIQQQQIIQQ", elf, table)
    headers = range(count or first[5])
    return (
        [struct.unpack_from("<IIQQQQIIQQ", elf, table + n * size) for n in headers],
        first[6] if names == 0xFFFF else names,
    )


def _string(elf: bytes, at: int) -> str:
    return elf[at : elf.index(b"\0", at)].decode()


def _sections(elf: bytes) -> dict[str, tuple[int, bytes]]:
    headers, names = _headers(elf)
    found: dict[str, tuple[int, bytes]] = {}
    for name, kind, flags, address, offset, size, *_ in headers:
        if flags & _ALLOCATED:
            data = bytes(size) if kind == _NOBITS else elf[offset : offset + size]
            found[_string(elf, headers[names][4] + name)] = (address, data)
    return found


def _read(elf: bytes) -> Linked:
    headers, _ = _headers(elf)
    symbols: dict[str, tuple[int, int]] = {}
    for _, kind, _, _, offset, size, link, *_ in headers:
        for at in range(offset, offset + size, 24) if kind == _SYMTAB else ():
            name, _, _, _, value, extent = struct.unpack_from("<IBBHQQ", elf, at)
            symbols[_string(elf, headers[link][4] + name)] = (value, extent)
    return Linked(_sections(elf), symbols)
