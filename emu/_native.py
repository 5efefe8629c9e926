"""Recording in machine code: callbacks that the engine calls without Python in between.

Knows the host: whether it runs the callbacks (`_callbacks`), and where they are. What is not known
by heart, or special, is left to Python's hooks (`_scribe`): the callbacks jump there.

The callbacks are assembled when they are first needed, so nothing need be compiled to install
them. They run on x86-64 hosts that follow the System V ABI; elsewhere Python's hooks do it all.
"""

import ctypes
import mmap
import os
import platform
from functools import cache
from typing import NamedTuple

import keystone

from emu._callbacks import ACCESS, CODE, COPY, FILL, NAMES, TAPE
from emu._tape import Tape


class Callbacks(NamedTuple):
    """Host addresses of the callbacks; `area` is the mapping that holds them."""

    code: int
    access: int
    fill: int
    area: mmap.mmap


def runs_here() -> bool:
    """Tell whether this host can run the callbacks."""
    return why_not() is None


@cache
def why_not() -> str | None:
    """Say what keeps this host from running the callbacks; None if nothing does."""
    if platform.machine() != "x86_64" or os.name != "posix":
        return f"{platform.machine()} under {platform.system()} has another calling convention"
    try:
        _executable(mmap.PAGESIZE)
    except OSError as error:
        return f"the host maps no memory that is writable and executable: {error.strerror}"
    return None


def callbacks(tape: Tape) -> Callbacks:
    """Return callbacks that record on `tape`, which must live as long."""
    parts = _assembled(tape.registers is not None)
    area = _executable(sum(map(len, parts)) + 3 * 16)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    starts = []
    offset = 0
    for part in parts:
        code = part.replace(TAPE.to_bytes(8, "little"), tape.address.to_bytes(8, "little"))
        area[offset : offset + len(code)] = code
        starts.append(at + offset)
        offset += -(-len(code) // 16) * 16
    code_at, access_at, fill_at = starts
    return Callbacks(code_at, access_at, fill_at, area)


def _executable(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


@cache
def _assembled(registers: bool) -> tuple[bytes, bytes, bytes]:
    """Assemble the callbacks. They refer to nothing outside themselves but the tape."""
    assembler = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    code = CODE.replace("{copy}", COPY if registers else "")
    texts = (text.format(**NAMES) for text in (code, ACCESS, FILL))
    parts = (  # a text with empty lines is nothing to keystone
        bytes(assembler.asm("; ".join(filter(str.strip, text.splitlines())))[0]) for text in texts
    )
    return tuple(parts)  # type: ignore[return-value]
