"""Keystone and capstone, loaded on first use.

Knows how to call them without being hurt: no option of keystone is ever set, since any makes it
read decimal numbers as hexadecimal, and no two threads enter it at once, since that crashes the
process. Refuses to know what is right; `numeric` compares.
"""

import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from asm.errors import Refused

_one_at_a_time = threading.Lock()


class _Tools(NamedTuple):
    keystone: Any
    error: type[Exception]
    capstone: Any
    registers: dict[int, str]


@lru_cache(maxsize=1)
def _tools() -> _Tools:
    import capstone
    import keystone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    names = {n: decoder.reg_name(n) for n in range(1, capstone.x86.X86_REG_ENDING)}
    encoder = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    return _Tools(encoder, keystone.KsError, decoder, names)


def encode_text(text: str) -> bytes:
    """Keystone's bytes for one instruction at address 0, unchecked. Raises Refused."""
    with _one_at_a_time:
        tools = _tools()
        try:
            code, _ = tools.keystone.asm(text, 0, as_bytes=True)
        except tools.error as error:
            reason = str(error).partition(" (")[0].lower()
            raise Refused(f"cannot encode `{text}`: {reason}") from None
    if not code:
        raise Refused(f"cannot encode `{text}`")
    return bytes(code)


def decode(code: bytes, text: str) -> Any:
    """Capstone's reading of `code`, which came from `text`. Raises Refused."""
    decoded = next(_tools().capstone.disasm(code, 0, 1), None)
    if decoded is None or decoded.size != len(code):
        raise Refused(f"`{text}` became {code.hex()}, which is not one instruction")
    return decoded


def register_names() -> dict[int, str]:
    """Capstone's numbers of registers, with their names."""
    return _tools().registers


def disassemble(code: bytes, address: int) -> Iterator[tuple[int, int, str, str]]:
    """Address, size, mnemonic and operands of each instruction, up to the first that is none."""
    found: Iterator[tuple[int, int, str, str]] = _tools().capstone.disasm_lite(code, address)
    return found
