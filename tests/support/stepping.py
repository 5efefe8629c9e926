"""Programs drawn at random, run as they are, and by single steps with a question before each.

The one way finds the instructions to ask about in blocks of code; the other asks about all of them,
on an engine that watches none. What it comes to must be the same.
"""

from random import Random
from typing import NamedTuple
from unittest.mock import patch

from support.guest import DATA, Guest

from emu import EngineError, StepLimit, Stop, VirtAddr
from emu._unicorn import Engine
from emu.refusals import Refusals

CODE = VirtAddr(0xFFFF_9100_0000_0000)
PAGES = 2
BAD = 1 << 63
LIMIT = 60  # steps; a program that goes on longer is not compared
PIECES = [
    bytes.fromhex(code)
    for code in (
        "48ffc3 90 0f2807 0f284610 660f6f07 0f1006 0f2907 0f5806 0f22d8 0f22dd 410f22d8 440f22c2 "
        "0fae3f 0fae3e ffc8 488b07 488917 660fef06 0f28c1 0f22c5 4883c701 4883c608 0f20d8"
    ).split()
]
SENSITIVE = bytes.fromhex("0f22d8280790")  # what a constant may hide


def drawn_program(random: Random) -> bytes:
    """Two pages of pieces, jumps into the middle of them, and stores into the code."""
    code = bytearray()
    while len(code) < PAGES * 0x1000 - 0x100:
        code += _piece(random)
    return bytes(code).ljust(PAGES * 0x1000, b"\xf4")


def _piece(random: Random) -> bytes:
    match random.choices(range(6), (75, 10, 8, 3, 2, 2))[0]:
        case 0:
            return random.choice(PIECES)
        case 1:
            return b"\xeb" + bytes([random.randrange(40)])
        case 2:
            return bytes([0x70 + random.randrange(16), random.randrange(40)])
        case 3:
            return b"\xe8" + random.randrange(100).to_bytes(4, "little")
        case 4:
            stored = (random.choice(PIECES) + b"\x90" * 4)[:4]
            return b"\xc7\x05" + random.randrange(60).to_bytes(4, "little") + stored
        case _:
            return b"\x48\xb8" + bytes(random.choices(SENSITIVE, k=8))


class Outcome(NamedTuple):
    """How a run ended. RIP is in `stop`."""

    stop: Stop
    general: tuple[int, ...]
    rflags: int
    memory: bytes


class Stepped:
    """A guest with the program at CODE, whose data is at DATA, in frames that are not adjacent."""

    def __init__(self, program: bytes, *, watches: bool) -> None:
        if watches:
            self.guest = Guest()
        else:
            with patch.object(Engine, "watch", lambda *_: None):
                self.guest = Guest()
        self.data = self.guest.page(DATA)
        self.frames = []
        for page in range(PAGES):
            self.frames.append(self.guest.page(CODE + page * 0x1000))
            self.guest.frames.allocate_block(0x1000)
        self.program = program
        self._refusals = Refusals(self.guest.cpu._picture)

    def reset(self, registers: dict[str, int]) -> None:
        """Begin again: the program as it was drawn, no data, these registers."""
        for number, frame in enumerate(self.frames):
            self.guest.memory.write(frame, self.program[number * 0x1000 :][:0x1000])
        self.guest.memory.zero(self.data, 0x1000)
        self.guest.cpu.paging = self.guest.paging
        self.guest.cpu.invalidate_code()
        self.guest.cpu.write(**registers)

    def outcome(self, stop: Stop) -> Outcome:
        """What has become of registers and memory."""
        registers = self.guest.cpu.registers
        memory = b"".join(self.guest.memory.read(at, 0x1000) for at in (*self.frames, self.data))
        return Outcome(stop, registers[:16], registers.rflags, memory)

    def run(self, rip: int, limit: int | None) -> Outcome:
        """As it is."""
        return self.outcome(self.guest.cpu.run(rip, step_limit=limit))

    def step(self, rip: int) -> Outcome:
        """By steps, with a question before each."""
        cpu = self.guest.cpu
        for _ in range(LIMIT):
            cpu.write(rip=rip)
            cpu.engine.save()
            refusal = self._refusals.refusal()
            stop = cpu.run(rip, step_limit=1) if refusal is None else refusal
            if not isinstance(stop, StepLimit):
                return self.outcome(stop)
            rip = stop.rip
        return self.outcome(StepLimit(VirtAddr(rip), LIMIT))


def drawn_registers(random: Random, cr3: int, cr0: int) -> dict[str, int]:
    """Mostly such as nothing refuses."""
    crooked = random.choice((0, 0, 0, 0, 8, 4, 1))
    return {
        "rax": random.choice((cr3, cr3, random.getrandbits(64))),
        "rbp": random.choice((cr3, cr3, cr0)),
        "r8": random.choice((cr3, cr3, BAD)),
        "rdx": random.choice((0, 0, 3, 16)),
        "rdi": DATA + 0x100 + random.choice((0, 0, crooked)),
        "rsi": DATA + 0x200 + random.choice((0, 0, crooked)),
        "rcx": CODE + random.randrange(PAGES * 0x1000),
        "rbx": 0,
        "rsp": DATA + 0x800,
        "rflags": 2,
    }


def both_ways(seed: int, runs: int) -> list[tuple[Outcome, Outcome]]:
    """Draw a program, and run it from several places: as it is, and by steps."""
    random = Random(seed)
    program = drawn_program(random)
    whole, stepped = Stepped(program, watches=True), Stepped(program, watches=False)
    found = []
    for number in range(runs):
        start = CODE + random.randrange(PAGES * 0x1000 - 0x200)
        paging = whole.guest.paging
        registers = drawn_registers(random, paging.cr3, paging.cr0)
        for each in (whole, stepped):
            each.reset(registers)
        try:
            wanted = stepped.step(start)
        except EngineError:  # deviation "undecodable-bytes"
            continue
        if isinstance(wanted.stop, StepLimit):
            continue
        if number % 3:
            found.append((whole.run(start, None), wanted))
        else:  # deviation "recorded-flags"
            counted = whole.run(start, LIMIT)
            found.append((counted._replace(rflags=0), wanted._replace(rflags=0)))
    return found
