"""Which SSE instructions refuse an operand that is not aligned, asked of the host's own CPU.

Run as a program: executes each on an aligned address and on another one, in a child process each,
and prints those that die of the second alone. Knows no table of ours.
"""

import ctypes
import mmap
import os
import signal
import sys
from itertools import product

import capstone

ESCAPES = {"0f": 0, "0f38": 0, "0f3a": 1}  # and the bytes of an immediate
PREFIXES = ("", "66", "f3", "f2")
WITH_IMMEDIATE = frozenset(bytes.fromhex("70 c2 c4 c5 c6"))
NO_OPERAND = frozenset(("maskmovq", "maskmovdqu"))
MODRM = 0x07  # [rdi]
SETUP, RETURN = "48bf", "c3"  # movabs rdi, imm64; ret


def candidates():
    """Every opcode that the decoder takes for one with an operand in memory and a vector."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for (escape, immediate), prefix, opcode in product(ESCAPES.items(), PREFIXES, range(256)):
        more = immediate or (escape == "0f" and opcode in WITH_IMMEDIATE)
        code = bytes.fromhex(prefix + escape) + bytes((opcode, MODRM, *[0] * more))
        for _, size, mnemonic, operands in decoder.disasm_lite(code, 0, 1):
            if size == len(code) and "mm" in operands and mnemonic not in NO_OPERAND:
                yield code


class Bench:
    """A page of code and one of data."""

    def __init__(self):
        self._code = mmap.mmap(-1, 0x1000, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._data = mmap.mmap(-1, 0x1000)
        self._entry, self._operand = map(self._address, (self._code, self._data))
        self._run = ctypes.CFUNCTYPE(None)(self._entry)

    @staticmethod
    def _address(page):
        return ctypes.addressof(ctypes.c_char.from_buffer(page))

    def signal(self, code, offset):
        """Return the signal that the instruction ends in, 0 for none."""
        operand = (self._operand + offset).to_bytes(8, "little")
        routine = bytes.fromhex(SETUP) + operand + code + bytes.fromhex(RETURN)
        self._code[: len(routine)] = routine
        child = os.fork()
        if child == 0:
            self._run()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


if __name__ == "__main__":
    bench = Bench()
    for each in candidates():
        aligned, crooked = (bench.signal(each, offset) for offset in (0x100, 0x104))
        if not aligned:  # an instruction that this CPU has
            sys.stdout.write(f"{each.hex()} {int(crooked == signal.SIGSEGV)}\n")
