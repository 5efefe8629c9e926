"""The page's own walk and rights against Python's: tables, addresses, and both answers."""

import json
import random

from emu import Access, Paging, PhysMemory, refusal
from emu.paging import ADDRESS, PS, P
from emu.walk import walk
from pagewalk.view.document import paging_facts

RAM = ((0, 0x40000), (0x80000, 0xC0000))
ACCESSES = [(kind, user) for user in (False, True) for kind in ("read", "write", "fetch")]
PAGINGS = [
    Paging.long_mode(0x1000, **options)
    for options in (
        {},
        {"levels": 5},
        {"wp": False},
        {"nxe": False},
        {"smep": True, "smap": True},
        {"levels": 5, "pke": True, "pkru": 0x1B2D_936C, "smap": True},
    )
]
_ASK = """(question) => {
    const [entries, pieces, registers, vas, accesses] = JSON.parse(question);
    const memory = new Map(entries.map(([pa, entry]) => [BigInt(pa), BigInt(entry)]));
    const ram = pieces.map((piece) => piece.map(BigInt));
    const read = (pa) =>
        ram.some(([start, end]) => start <= pa && pa < end) ? memory.get(pa) ?? 0n : null;
    const paging = readPaging(registers);
    return JSON.stringify(vas.map((va) => {
        const found = walk(read, paging, BigInt(va));
        const pa = physicalAddress(found);
        const faults = !["outside-ram", "non-canonical"].includes(found.verdict);
        return {
            verdict: found.verdict,
            steps: found.steps.map((step) => [step.level, hex(step.entryPa), hex(step.entry)]),
            table: hex(found.table),
            pa: pa === null ? null : hex(pa),
            refused: faults
                ? accesses.map(([kind, user]) => refusal(found, kind, user, paging))
                : null,
        };
    }));
}"""
# As text: it is a hundred times as fast as what the driver makes of a long list.


def random_tables(paging, *, seed):
    """Fill RAM with entries of every sort; return it, and addresses of every sort."""
    chance = random.Random(seed)
    memory = PhysMemory(RAM)
    for start, end in RAM:
        for pa in range(start, end, 8):
            memory.write_u64(pa, _entry(chance))
    return memory, [_address(chance, paging) for _ in range(500)]


def _entry(chance):
    lead = chance.choice([0x1000 * chance.randrange(0xD0), chance.getrandbits(40) & ADDRESS])
    flags = P | 2 * chance.getrandbits(1) | 4 * chance.getrandbits(1) | 0x60
    entry = lead | flags | chance.getrandbits(4) << 59
    if chance.random() < 0.15:
        entry = entry & ~0x3FFF_E000 | PS
    if chance.random() < 0.1:
        entry |= 1 << chance.choice([7, 13, 20, 41, 51, 63])
    return entry & ~P if chance.random() < 0.1 else entry


def _address(chance, paging):
    bits = 12 + 9 * paging.levels
    va = chance.getrandbits(bits)
    if va >> bits - 1:
        va |= (1 << 64) - (1 << bits)
    return chance.getrandbits(64) if chance.random() < 0.05 else va


def the_page_s(page, memory, paging, vas):
    """Return what the page's rules say of each address."""
    entries = [
        [hex(pa), hex(memory.read_u64(pa))] for start, end in RAM for pa in range(start, end, 8)
    ]
    pieces = [[hex(start), hex(end)] for start, end in RAM]
    question = [entries, pieces, paging_facts(paging), [hex(va) for va in vas], ACCESSES]
    return json.loads(page.evaluate(_ASK, json.dumps(question)))


def python_s(memory, paging, vas):
    """Return what Python's rules say of each address, in the same form."""
    return [_answer(walk(memory.read_u64, paging, va), paging) for va in vas]


def _answer(found, paging):
    refused = None
    if found.verdict not in ("outside-ram", "non-canonical"):
        refusals = [refusal(found, Access(*access), paging) for access in ACCESSES]
        refused = [one and one.reason for one in refusals]
    return {
        "verdict": found.verdict,
        "steps": [[level, hex(pa), hex(entry)] for level, pa, entry in found.steps],
        "table": hex(found.table),
        "pa": None if found.pa is None else hex(found.pa),
        "refused": refused,
    }
