"""Random system tables, stacks and privileged instructions: every run ends in a Stop."""

from collections.abc import Iterator
from random import Random
from typing import get_args

import pytest
from support.guest import CODE, DATA, Routine
from support.guest import USER_CODE as USER_WINDOW
from support.system import IST_STACK, STACK, TABLES, USER_STACK, System

from emu import EngineError, NotMapped, Stop
from emu.descriptors import (
    KERNEL_CODE,
    KERNEL_DATA,
    SEGMENT_LONG,
    SELECTOR_INDEX,
    SELECTOR_LDT,
    USER_CODE,
    Gate,
)

INSTRUCTIONS = """
int3 | int 0x80 | int 13 | int 8 | int 0xcc | ud2 | iretq | sysretq | swapgs | syscall | retfq | ret
mov ds, eax | mov es, ecx | mov ss, edx | mov fs, ebx | mov gs, [rsi] | push fs | pop gs
ltr dx | lldt ax | lidt [rdi] | lgdt [rsi] | sidt [rsi] | str rax | verr ax | lsl eax, ecx
lss rax, [rsi] | mov cr3, r8 | mov cr2, rax | invlpg [rdi] | clts | cli | sti | stac | clac
mov rax, [rdi] | mov [rdi], rax | mov rax, [rbp] | push rax | pop rax | popfq | pushfq | hlt
mov rsp, rdi | mov rsp, rsi | call rdi | jmp rsi | div rcx | rep movsb | enter 16, 2 | leave
wrmsr | rdmsr | in al, 0x60 | out 0x80, al
"""
CHOICES = [
    one.strip() for line in INSTRUCTIONS.split("\n") for one in line.split("|") if one.strip()
]
HANDLERS = (
    "iretq",
    "add rsp, 8; iretq",
    "hlt",
    "mov rax, [rdi]; iretq",
    "sub rsp, 0x100; push rax; ud2",
)
ENTRIES = (TABLES, TABLES + 0x1000, STACK - 8, STACK - 0x1008, IST_STACK - 8, USER_STACK - 8)
SEGMENT_BASE = 0xFF00_00FF_FFFF_0000
MSR_STAR, MSR_LSTAR = 0xC000_0081, 0xC000_0082


class Fuzzed(System):
    """A guest that is unsound in a few places, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.r = r = Random(seed)
        features = {"smep": r.random() < 0.3, "smap": r.random() < 0.3, "pke": r.random() < 0.2}
        super().__init__(levels=r.choice((4, 5)), pkru=r.getrandbits(32), **features)

    def draw(self) -> tuple[Routine, dict[str, int]]:
        """Write everything; return what to run, with which registers."""
        r = self.r
        handlers = [self.put(source).rip for source in HANDLERS]
        self.handle({vector: self.gate(handlers) for vector in range(32) if r.random() < 0.8})
        for n in range(8):
            self.poke(STACK - 64 + 8 * n, self.word().to_bytes(8, "little"))
        for _ in range(r.choice((0, 0, 1, 3, 10))):
            offset = r.choice(
                (r.randrange(0x200), 0x1000 + r.randrange(96), 0x1800 + r.randrange(104))
            )
            self.poke(TABLES + offset, r.randbytes(r.choice((1, 2, 8))))
        for _ in range(r.choice((0, 0, 1, 2))):
            self.spoil(r.choice(ENTRIES), r.choice((1, 2, 3, 4)))
        self.cpu.write_msr(MSR_STAR, r.choice((0x20_0010 << 32, r.getrandbits(64))))
        self.cpu.write_msr(MSR_LSTAR, r.choice((handlers[2], DATA)))
        return self.routine(), self.registers()

    def gate(self, handlers: list[int]) -> Gate:
        r = self.r
        return Gate(
            r.choice(handlers),
            r.choice((KERNEL_CODE, KERNEL_CODE, KERNEL_CODE, USER_CODE, KERNEL_DATA)),
            ist=r.choice((0, 0, 0, 1, 2)),
            type=r.choice((14, 15, 14, 12)),
            dpl=r.choice((0, 3)),
            present=r.random() < 0.95,
        )

    def spoil(self, va: int, level: int) -> None:
        """Flip one bit of an entry, if the walk still reaches it."""
        for step in self.walk(va).steps:
            if step.level == level:
                bit = self.r.choice((0, 1, 2, 7, 12, 20, 30, 39, 40, 51, 63))
                self.memory.write_u64(step.entry_pa, step.entry ^ 1 << bit)

    def runs_flat_code(self) -> bool:
        """Tell whether CS is 64-bit code with a base of 0, as its descriptor has it now.

        Compatibility mode is not emulated, and of a base the engine takes notice in 64-bit code.
        """
        selector = self.cpu.selectors["cs"]
        if selector & SELECTOR_LDT:
            return False
        try:
            segment = self.words(self.cpu.gdt.base + (selector & SELECTOR_INDEX), 1)[0]
        except NotMapped:
            return True
        return bool(segment & SEGMENT_LONG) and not segment & SEGMENT_BASE

    def routine(self) -> Routine:
        source = "; ".join(self.r.choices(CHOICES, k=self.r.randrange(1, 8)))
        if self.r.random() < 0.6:
            return self.put(source)
        routine = self.put_user(source)
        self.cpu.cpl = 3
        return routine

    def registers(self) -> dict[str, int]:
        names = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r11")
        stacks = (STACK, USER_STACK, STACK - 64, STACK - 64, self.word())
        return {name: self.word() for name in names} | {"rsp": self.r.choice(stacks)}

    def word(self) -> int:
        r = self.r
        near = (TABLES + r.randrange(0x2000), STACK - r.randrange(0x3000), DATA)
        code = (CODE + 64 * r.randrange(8), USER_WINDOW + 64 * r.randrange(8))
        users = (USER_STACK - r.randrange(0x3000), IST_STACK - 8 * r.randrange(600))
        selectors = (0, 0x10, 0x18, 0x2B, 0x33, 0x40, r.getrandbits(16))
        return r.choice((*near, *code, *users, *selectors, 1 << 62, r.getrandbits(64)))


def ends(seed: int) -> object:
    """Return how a run ends; None if an error comes of code that is not flat 64-bit code."""
    fuzzed = Fuzzed(seed)
    with fuzzed.machine:
        routine, registers = fuzzed.draw()
        try:
            return fuzzed.call(routine, step_limit=500, **registers)
        except EngineError as error:
            return error if fuzzed.runs_flat_code() else None


def bad(seeds: range) -> Iterator[tuple[int, object]]:
    for seed in seeds:
        stop = ends(seed)
        if stop is not None and not isinstance(stop, get_args(Stop)):
            yield seed, stop


@pytest.mark.parametrize(
    "seeds",
    [range(150), pytest.param(range(150, 8_000), marks=pytest.mark.slow)],
    ids=["sample", "many"],
)
def test_every_run_ends_in_a_stop(seeds: range) -> None:
    assert list(bad(seeds)) == []
