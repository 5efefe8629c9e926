"""What a CPU raises in place of an instruction that the engine would let pass.

Knows how each of `sensitive`'s rules is decided, on the bytes at RIP and the picture of that
moment: by the registers, by the tables, or by the TSS. Refuses to know how the engine is made to
ask (`_watch`). SDM vocabulary; source: Intel SDM volume 1, "I/O Permission Bit Map".
"""

from typing import Final

from emu.descriptors import SELECTOR_RPL, TSS_IO_MAP, TSS_SIZE
from emu.fault import GP, OutsideRam, PageFault, Trap
from emu.instruction import Instruction
from emu.paging import U64, A, PhysAddr, VirtAddr
from emu.picture import Picture
from emu.predict import Context, Expected
from emu.registers import Registers
from emu.rights import Access
from emu.sensitive import CacheLine, UserPort, UserStack, Values, rule_of

_TSS_READ: Final = Access("read", implicit=True)
_IOPL_SHIFT: Final = 12  # in RFLAGS

Refusal = PageFault | OutsideRam | Trap


class Refusals:
    """Decides for the CPU of one picture."""

    def __init__(self, picture: Picture) -> None:
        self._picture: Final = picture

    def passes(self) -> bool:
        """Tell whether a CPU executes the instruction at RIP."""
        return self.refusal() is None

    def refusal(self) -> Refusal | None:
        """Return what it raises instead. What it loads from, it marks as accessed."""
        picture = self._picture
        registers = picture.engine.registers()
        instruction = picture.instruction(registers, registers.rip)
        if isinstance(instruction, Expected) or not picture.engine.in_64_bit_code():
            return None
        who = picture.who(registers)
        stop: Expected | bool | None = None  # True: #GP(0)
        match rule_of(instruction):
            case Values(refused):
                stop = refused(registers, who.paging)
            case CacheLine():
                stop = self._cache_line(who, instruction, registers)
            case UserStack() if who.user:
                stop = next(iter(picture.predictor.stops(who, registers)), None)
            case UserPort() as port if who.user and not self._has_iopl(registers):
                done = instruction.mnemonic.startswith("rep") and not instruction.accesses(
                    registers
                )
                stop = None if done else self._port(who, port, registers)
        if isinstance(stop, Expected):
            return picture.stopped(stop, registers)
        return picture.trap(GP, 0, registers) if stop else None

    def _cache_line(
        self, who: Context, instruction: Instruction, registers: Registers
    ) -> Expected | None:
        for stop in self._picture.predictor.stops(who, registers):
            return stop
        (access,) = instruction.accesses(registers)
        self._load(who, access.va, Access("read", who.user, ac=who.ac))
        return None

    def _has_iopl(self, registers: Registers) -> bool:
        return self._picture.engine.cpl() <= registers.rflags >> _IOPL_SHIFT & 3

    def _port(self, who: Context, port: UserPort, registers: Registers) -> Expected | bool:
        """Tell whether the TSS forbids one of the ports, or what stops the CPU from reading it."""
        selector, base, limit = self._picture.engine.system()[5:8]
        if not selector & ~SELECTOR_RPL or limit < TSS_SIZE - 1:
            return True
        number = registers.rdx & 0xFFFF if port.number is None else port.number
        start = self._word(who, base + TSS_IO_MAP)
        if isinstance(start, Expected):
            return start
        offset = start + (number >> 3)
        if offset + 1 > limit:
            return True
        bits = self._word(who, base + offset)
        if isinstance(bits, Expected):
            return bits
        return bits >> (number & 7) & (1 << port.size) - 1 != 0

    def _word(self, who: Context, va: int) -> int | Expected:
        value = 0
        for n in range(2):
            pa = self._load(who, va + n & U64, _TSS_READ)
            if isinstance(pa, Expected):
                return pa
            value |= self._picture.memory.peek(pa, 1)[0] << 8 * n
        return value

    def _load(self, who: Context, va: int, access: Access) -> PhysAddr | Expected:
        """Find a byte as the CPU does that reads it, with A."""
        found = self._picture.predictor.touch(who.paging, VirtAddr(va), access)
        if isinstance(found, Expected):
            return found
        for _, entry_pa, entry in found.steps:
            if not entry & A:
                self._picture.memory.words[entry_pa >> 3] = entry | A
        assert found.pa is not None
        return found.pa
