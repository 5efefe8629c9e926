"""What the engine is: its version, its layout, its CPU model, its RAM, and its privilege.

Knows what can be seen without a page fault. Refuses to know `cpu` and what is made of all this.
"""

from typing import Final

import unicorn

from emu import _layout, _unicorn
from emu.fault import GP, PF
from emu.paging import MAXPHYADDR, US, PhysAddr
from emu.proofs.bare import CODE, DATA, DATA_PA, LOAD, STORE, Bare
from emu.proofs.proof import Proof, proof, seen

_CPUID: Final = b"\x0f\xa2"
_READ_CR3: Final = b"\x0f\x20\xd8"  # mov rax, cr3
_FEATURES: Final = {  # CPUID leaf 7: register and bit
    "SMEP": ("ebx", 7),
    "SMAP": ("ebx", 20),
    "PKU": ("ecx", 3),
    "LA57": ("ecx", 16),
}
_TEBIBYTE: Final = 1 << 40


@proof("version", "the engine is one whose layout and behaviour are known")
def version() -> str:
    found = _unicorn.version()
    return seen(found in _unicorn.SUPPORTED, f"unicorn {'.'.join(map(str, found))}")


@proof("layout", "the CPU state in a saved context lies where emu/_layout.py says")
def layout() -> str:
    wrong = _layout.layout_mismatches()
    return seen(not wrong, f"{', '.join(wrong) or 'nothing'} lies elsewhere, by their markers")


@proof("cpu-model", "the CPU model has SMEP, SMAP, protection keys and 5-level paging")
def cpu_model() -> str:
    bare = Bare()
    bare.put(_CPUID)
    bare.run(rax=7, rcx=0)
    found = [name for name, (where, bit) in _FEATURES.items() if bare.get(where) >> bit & 1]
    return seen(found == list(_FEATURES), f"CPUID names {', '.join(found) or 'none of them'}")


@proof("maxphyaddr", f"physical addresses have {MAXPHYADDR} bits, and those above are reserved")
def maxphyaddr() -> str:
    bare = Bare()
    bare.put(_CPUID)
    bare.put(LOAD, 0x100)
    bare.run(rax=0x8000_0008)
    bits = bare.get("eax") & 255
    inside, above = MAXPHYADDR - 1, MAXPHYADDR
    bare.map(DATA, 1 << inside)
    bare.map(DATA + 0x1000, 1 << above)
    first = bare.run(CODE + 0x100, rdi=DATA)
    second = bare.run(CODE + 0x100, rdi=DATA + 0x1000)
    return seen(
        bits == MAXPHYADDR
        and first.status == unicorn.UC_ERR_READ_UNMAPPED
        and second.page_fault == 9,
        f"CPUID says {bits}; with bit {inside} set {first}, with bit {above} {second}",
    )


@proof("privilege", "CPL is kept apart from the CS selector, in the saved context")
def privilege() -> str:
    bare = Bare()
    bare.put(_READ_CR3)
    for at in (4, 3, 2, 1):
        bare.memory.write_u64(bare.entry_pa(CODE, at), bare.entry(CODE, at) | US)
    bare.set(cs=0x33)
    by_selector = bare.run()
    bare.set_cpl(3)
    by_context = bare.run()
    return seen(
        by_selector.rip == CODE + 4
        and by_selector.vector is None
        and by_context.vector == GP
        and by_context.rip == CODE,
        f"a read of CR3 with CS=0x33: {by_selector}; with CPL 3 in the context: {by_context}",
    )


@proof("shared-ram", "Python and the guest see each other's stores to RAM at once")
def shared_ram() -> str:
    bare = Bare()
    bare.map(DATA, DATA_PA)
    bare.put(LOAD + b"\xff\xc0" + STORE)  # inc eax between them
    values = []
    for value in (1, 5):
        bare.memory.write_u64(DATA_PA, value)
        bare.run(rdi=DATA)
        values += [bare.get("rax"), bare.memory.read_u64(DATA_PA)]
    return seen(values == [2, 2, 6, 6], f"1 and 5 were stored, incremented and read: {values}")


@proof("sparse-ram", "1 TiB of RAM can be mapped, and costs nothing until it is touched")
def sparse_ram() -> str:
    before = _resident()
    bare = Bare(ram=_TEBIBYTE)
    last = PhysAddr(_TEBIBYTE - 0x1000)
    bare.map(DATA, last)
    bare.put(STORE)
    stopped = bare.run(rdi=DATA, rax=0x77)
    value, grown = bare.memory.read_u64(last), _resident() - before
    return seen(
        stopped.vector is None and value == 0x77 and grown < 16 << 20,
        f"a store to pa {last:#x} left {value:#x} there; {grown >> 10} KiB more became resident",
    )


@proof("two-engines", "engines share RAM, and keep their TLBs to themselves")
def two_engines() -> str:
    first = Bare()
    second = Bare(beside=first)
    entry_pa = first.map(DATA, DATA_PA)
    first.put(STORE)
    first.put(LOAD, 0x100)
    first.run(rdi=DATA, rax=0x55)
    second.run(CODE + 0x100, rdi=DATA, rax=0)
    read = second.get("rax")
    first.memory.write_u64(entry_pa, 0)
    first.invalidate_tlb()
    flushed = first.run(CODE + 0x100, rdi=DATA)
    other = second.run(CODE + 0x100, rdi=DATA)
    return seen(
        read == 0x55 and flushed.vector == PF and other.vector is None,
        f"one stored 0x55, the other read {read:#x}; after one's flush: {flushed}, {other}",
    )


def _resident() -> int:
    """Return this process's resident bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


PROOFS: Final[tuple[Proof, ...]] = (
    version,
    layout,
    cpu_model,
    maxphyaddr,
    privilege,
    shared_ram,
    sparse_ram,
    two_engines,
)
