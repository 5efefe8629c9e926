"""Delivery against a model of its own, on random and hostile states."""

from random import Random

import pytest
from support.delivery_model import Model

from emu import OutsideRam, PageFault, Shutdown, Trap
from emu.descriptors import Gate, SystemSegment, TableRegister
from emu.interrupts import Delivery, State, deliver
from emu.paging import PS, RW, U64, US, A, D, P, Paging

RAM = 0x60000
RIP = 0xFFFF_8000_1234_5678
VECTORS = (0, 1, 3, 6, 8, 10, 11, 12, 13, 14, 17, 0x80)
HAS_CODE = (8, 10, 11, 12, 13, 14, 17, 21)
KERNEL, USER, CONFORMING, LDT_CODE = 0x10, 0x1B, 0x20, 0x2C
CODE = 0x00AF_9B00_0000_FFFF


class Drawn:
    """RAM with page tables and system tables at random places, most of it sound."""

    def __init__(self, seed):
        self.r = Random(seed)
        self.ram = {}
        self.free = 0x1000
        self.levels = self.r.choice((4, 5))
        self.top = 1 << (47 if self.levels == 4 else 56)
        self.build()

    def often(self, common, *others, chance=0.85):
        return common if self.r.random() < chance else self.r.choice(others)

    def frame(self):
        self.free += 0x1000
        return self.free - 0x1000

    def map(self, va, flags=RW):
        table = 0
        for level in range(self.levels, 1, -1):
            at = table + 8 * (va >> 3 + 9 * level & 511)
            self.ram.setdefault(at, 0)
            if not self.ram[at]:
                self.ram[at] = self.frame() | P | RW | US | self.r.choice((0, A))
            table = self.ram[at] & -0x1000
        at = table + 8 * (va >> 12 & 511)
        if at not in self.ram:
            bits = self.often(0, A, A | D, chance=0.5) | flags
            self.ram[at] = self.frame() | P | bits
        return at, self.ram[at] & 0xFF_FFFF_F000

    def store(self, va, data):
        for n, byte in enumerate(data):
            _, page = self.map(va + n)
            pa = page + (va + n & 0xFFF)
            shift = 8 * (pa & 7)
            self.ram[pa & -8] = self.ram.get(pa & -8, 0) & ~(0xFF << shift) | byte << shift

    def place(self, region):
        """An address in a region of two pages; the highest before the hole, at times."""
        base = self.often(0xFFFF << 48 | 0xFF << 40 | region << 28, self.top - 0x1000, chance=0.97)
        pages = (base,) if base == self.top - 0x1000 else (base, base + 0x1000)
        flags = self.often(RW, 0, US | RW, chance=0.93)
        for page in pages:
            self.map(page, flags)
        return base

    def pointer(self, region):
        """A stack pointer: often near the border of its pages, seldom nowhere."""
        border = self.place(region) + 0x1000
        at = border + self.often(0x800, 0, 8, 16, 24, 32, 40, 44, -8, 0x1000, chance=0.5)
        return self.often(at, 1 << 62, 0, self.top, self.top + 16, -self.top + 16) & U64

    def gate(self):
        r = self.r
        selector = self.often(KERNEL, USER, CONFORMING, LDT_CODE, 0, 4, 0x28, 0x30, 0xFFF8)
        return Gate(
            self.often(RIP + 0x1000, self.top, 1 << 63, 0, chance=0.95),
            selector | r.choice((0, 0, 3)),
            self.often(0, *range(8), chance=0.6),
            self.often(r.choice((0xE, 0xF)), 0xC, 0x1E, 5, 0, chance=0.95),
            r.choice((0, 3)),
            r.random() < 0.95,
        ).pack()

    def segment(self, dpl=0, more=0):
        bit = self.often(0, *(1 << n for n in (40, *range(40, 48), 53, 54)), chance=0.8)
        return ((CODE | dpl << 45 | more) ^ bit).to_bytes(8, "little")

    def build(self):
        r = self.r
        idt, gdt, ldt, tss = (
            self.place(region) + self.often(0, 0x800, 0xFA0, 0xFC8, 0xFDA, 0xFE5, 0xFF1, chance=0.5)
            for region in (1, 2, 3, 4)
        )
        self.vector = r.choice(VECTORS)
        for vector in {self.vector, 8, 13, *r.sample(VECTORS, 9)}:
            self.store(idt + 16 * vector, self.gate())
        table = b"".join(
            (bytes(16), self.segment(), self.segment(3), self.segment(r.choice((0, 3)), 1 << 42))
        )
        self.store(gdt, table + self.segment() + bytes(16))
        self.store(ldt, bytes(0x28) + self.segment())
        self.rsp = self.pointer(5) + self.often(0, 3, -5)
        pointers = [self.pointer(6 + n) for n in range(3)]
        for n in range(11):
            at = tss + 4 + 8 * n
            self.store(at, r.choice(pointers).to_bytes(8, "little"))
        self.tables = idt, gdt, ldt, tss
        for _ in range(self.often(0, 1, 2, 3, chance=0.6)):
            self.spoil_an_entry()
        for _ in range(self.often(0, 1, 3, chance=0.8)):
            at = r.choice(sorted(self.ram))
            self.ram[at] ^= 1 << r.randrange(64)

    def spoil_an_entry(self):
        va = self.r.choice((*self.tables, self.rsp, self.rsp - 8)) & U64 & -0x1000
        table = 0
        for level in range(self.levels, self.r.randrange(0, self.levels), -1):
            at = table + 8 * (va >> 3 + 9 * level & 511)
            table = self.ram.get(at, 0) & 0xFF_FFFF_F000
        bit = self.r.choice((P, RW, US, A, D, PS, 1 << 19, 1 << 30, 1 << 41, 1 << 60, 1 << 63))
        self.ram[at] = self.ram.get(at, 0) ^ bit

    def read_u64(self, pa):
        return self.ram.get(pa, 0) if pa < RAM else None

    def state(self):
        r = self.r
        cpl = r.choice((0, 0, 3, 3, 1))
        features = {name: r.random() < 0.5 for name in ("smep", "smap", "pke", "wp")}
        paging = Paging.long_mode(0, levels=self.levels, pkru=r.getrandbits(32), **features)
        idt, gdt, ldt, tss = self.tables
        return State(
            paging,
            cpl,
            r.getrandbits(16),
            r.getrandbits(16),
            self.rsp & U64,
            r.getrandbits(19) | 2,
            TableRegister(idt, self.often(0xFFF, 0, 16 * self.vector + r.randrange(17), 0x90)),
            TableRegister(gdt, self.often(0x37, 0, r.randrange(0x38))),
            SystemSegment(0x40, ldt, self.often(0x2F, 0, r.randrange(0x38))),
            SystemSegment(r.getrandbits(16), tss, self.often(103, r.randrange(104))),
        )

    def exception(self):
        vector = self.vector
        if vector in (3, 0x80) or self.r.random() < 0.3:
            return Trap(vector, None, RIP + 2, instruction=RIP)
        if vector == 14:
            return PageFault(0x1234, 2, RIP)
        return Trap(vector, 0x18 if vector in HAS_CODE else None, RIP)


def told(found, ram):
    """What `deliver` says, in the model's words."""
    if isinstance(found, OutsideRam):
        return None, ("outside", found.pa)
    chain = [
        (exc.vector, exc.error_code, exc.address if isinstance(exc, PageFault) else None)
        for exc in found.exceptions[1:]
    ]
    if isinstance(found, Shutdown):
        return chain, ("shutdown",)
    return chain, (*found[1:8], {**ram, **found.stores})


def disagree(seed):
    ours, model = said_by_both(seed)
    return ours != model


def said_by_both(seed):
    """Return what `deliver` and the model make of one state."""
    drawn = Drawn(seed)
    state, exc = drawn.state(), drawn.exception()
    before = dict(drawn.ram)
    ours = told(deliver(drawn.read_u64, state, exc, {}), before)
    assert drawn.ram == before
    model = Model(before, RAM, state)
    begin = exc.instruction if isinstance(exc, Trap) else None
    chain, end = model.deliver(exc.vector, exc.error_code, exc.rip, begin)
    if end[0] == "outside":
        return ours, (None, end)
    return ours, (chain, end if end == ("shutdown",) else (*end, model.ram))


def misled(seed):
    """Tell whether what earlier deliveries remembered changes a later one, as RAM changes."""
    drawn, known = Drawn(seed), {}
    state, exc = drawn.state(), drawn.exception()
    for _ in range(4):
        with_known = deliver(drawn.read_u64, state, exc, known)
        if told(with_known, {}) != told(deliver(drawn.read_u64, state, exc, {}), {}):
            return True
        if isinstance(with_known, Delivery):
            drawn.ram.update(with_known.stores)
        if drawn.r.random() < 0.5:
            drawn.spoil_an_entry()
    return False


@pytest.mark.parametrize(
    "seeds",
    [range(1500), pytest.param(range(1500, 60_000), marks=pytest.mark.slow)],
    ids=["sample", "many"],
)
def test_delivery_and_the_model_agree(seeds):
    assert [seed for seed in seeds if disagree(seed)] == []


@pytest.mark.parametrize(
    "seeds",
    [range(400), pytest.param(range(400, 12_000), marks=pytest.mark.slow)],
    ids=["sample", "many"],
)
def test_what_is_remembered_changes_nothing(seeds):
    assert [seed for seed in seeds if misled(seed)] == []
