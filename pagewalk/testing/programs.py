"""Programs of tests: sources, as text or in files, each assembled once in a process.

Knows what is a file and what is a source. Refuses to know what becomes of a program (`machine`).
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import asm
from asm import AssemblyError, Program
from asm.source import decoded


def assemble(
    source: str | os.PathLike[str], directory: Path, constants: Mapping[str, int]
) -> Program:
    """Return the program of a source, or of a file in `directory`. Raises AssemblyError, OSError.

    A string is a file's name if it has no blank in it and ends in .S or .s.
    """
    __tracebackhide__ = True
    name = "<asm>"
    if _is_file(source):
        path = directory / source
        source, name = decoded(path.read_bytes(), file=path.name), path.name
    try:
        return _assembled(str(source), name, tuple(sorted(constants.items())))
    except AssemblyError as error:
        raise error.with_traceback(None) from None


def _is_file(source: str | os.PathLike[str]) -> bool:
    if not isinstance(source, str):
        return True
    return source.endswith((".S", ".s")) and not any(c.isspace() for c in source)


@lru_cache(maxsize=256)
def _assembled(source: str, name: str, constants: tuple[tuple[str, int], ...]) -> Program:
    return asm.assemble(source, name=name, constants=dict(constants))
