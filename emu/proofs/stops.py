"""How a run ends: exits, `hlt`, exceptions, accesses outside RAM, and a stop from outside.

Knows what the bare engine leaves behind at each end. Refuses to know `cpu`, which makes a Stop of
it.
"""

import threading
from typing import Final

import unicorn

from emu.fault import BP, DE, GP, PF
from emu.paging import RW, PhysAddr
from emu.proofs.bare import (
    ADD,
    CODE,
    CODE_PA,
    COUNT,
    DATA,
    DATA_PA,
    HLT,
    HOLE,
    LOAD,
    NOP,
    STORE,
    Bare,
    Stopped,
)
from emu.proofs.proof import Proof, proof, seen

_UD2: Final = b"\x0f\x0b"
_INT3: Final = b"\xcc"
_INT_80: Final = b"\xcd\x80"
_INT_14: Final = b"\xcd\x0e"
_DIV_ECX: Final = b"\xf7\xf1"
_REP_STOSB: Final = b"\xf3\xaa"
_SPIN: Final = b"\xeb\xfe"


@proof("empty-exits", "with an empty list of exits, no address ends a run, not even 0")
def empty_exits() -> str:
    bare = Bare()
    bare.map(0, CODE_PA, 0)
    bare.put(COUNT + HLT)
    stopped = bare.run(0, rbx=0)
    return seen(
        stopped[:2] == (0, None) and stopped.rip == 3 and bare.get("rbx") == 1,
        f"code at address 0 counted to {bare.get('rbx')}: {stopped}",
    )


@proof("hlt", "hlt ends a run without an error, RIP behind it, and the next run goes on")
def hlt() -> str:
    bare = Bare()
    bare.put(NOP + HLT + NOP + HLT)
    first = bare.run()
    second = bare.run(first.rip)
    return seen(
        all(s[:2] == (0, None) for s in (first, second))
        and (first.rip, second.rip) == (CODE + 2, CODE + 4),
        f"{first}, then {second}",
    )


@proof("invalid-opcode", "an invalid opcode is an error and no exception, RIP at it")
def invalid_opcode() -> str:
    bare = Bare()
    bare.put(COUNT + _UD2)
    stopped = bare.run(rbx=0)
    return seen(
        stopped.status == unicorn.UC_ERR_INSN_INVALID
        and stopped.vector is None
        and stopped.rip == CODE + 2
        and bare.get("rbx") == 1,
        str(stopped),
    )


@proof("software-interrupt", "int3 and int n are marked as software's, RIP behind them")
def software_interrupt() -> str:
    bare = Bare()
    found = []
    for offset, code in enumerate((_INT3, _INT_80, _INT_14)):
        found.append(bare.run(bare.put(code, offset * 16)))
    return seen(
        [(s.vector, s.software, s.rip & 15) for s in found]
        == [(BP, True, 1), (0x80, True, 2), (PF, True, 2)],
        ", ".join(f"{s}{' by software' * s.software}" for s in found),
    )


@proof("exceptions", "an exception leaves RIP at its instruction, those before it done")
def exceptions() -> str:
    bare = Bare()
    non_canonical = bare.run(bare.put(COUNT + LOAD + COUNT), rbx=0, rdi=1 << 63)
    divide = bare.run(bare.put(COUNT + _DIV_ECX + COUNT, 0x40), rcx=0)
    page = bare.run(bare.put(COUNT + STORE + COUNT, 0x80), rdi=DATA)
    found = [(s.vector, s.rip) for s in (non_canonical, divide, page)]
    return seen(
        found == [(GP, CODE + 2), (DE, CODE + 0x42), (PF, CODE + 0x82)] and bare.get("rbx") == 3,
        f"{non_canonical}, {divide}, {page}; {bare.get('rbx')} of 3 instructions before them ran",
    )


@proof(
    "page-crossing",
    "a store across two pages faults for the page that is at fault, and does not tear",
)
def page_crossing() -> str:
    bare = Bare()
    first, second = bare.map(DATA, DATA_PA), bare.entry_pa(DATA + 0x1000, 1)
    bare.put(STORE)
    at_second = bare.run(rdi=DATA + 0xFFC, rax=(1 << 64) - 1)
    kept = bare.memory.read_u64(PhysAddr(DATA_PA + 0xFF8))
    bare.memory.write_u64(first, 0)
    bare.memory.write_u64(second, DATA_PA | RW | 1)
    bare.invalidate_tlb()
    at_first = bare.run(rdi=DATA + 0xFFC)
    return seen(
        (at_second.cr2, at_first.cr2) == (DATA + 0x1000, DATA + 0xFFC)
        and at_second.page_fault == at_first.page_fault == 2
        and kept == 0,
        f"second page missing: {at_second}, {kept:#x} stored; first page missing: {at_first}",
    )


@proof("resume", "an instruction that faulted goes on where it was, once its page is there")
def resume() -> str:
    bare = Bare()
    bare.map(DATA, DATA_PA)
    bare.put(_REP_STOSB)
    first = bare.run(rdi=DATA + 0xFF0, rcx=0x20, rax=7)
    left = bare.get("rcx")
    bare.map(DATA + 0x1000, DATA_PA + 0x1000)
    second = bare.run(first.rip)
    stored = bare.memory.read(PhysAddr(DATA_PA + 0xFF0), 0x20).count(7)
    return seen(
        (first.cr2, first.rip, left) == (DATA + 0x1000, CODE, 0x10)
        and (second.vector, bare.get("rcx"), stored) == (None, 0, 0x20),
        f"rep stosb of 0x20 bytes: {first} with {left:#x} left, then {second} with {stored:#x} "
        f"stored",
    )


@proof("outside-ram", "an access outside RAM is an error of its kind, RIP and registers exact")
def outside_ram() -> str:
    bare = Bare()
    bare.map(DATA, HOLE)
    loads = bare.run(bare.put(COUNT + LOAD + COUNT), rbx=0, rdi=DATA, rax=7)
    stores = bare.run(bare.put(COUNT + STORE + COUNT, 0x40), rdi=DATA)
    adds = bare.run(bare.put(COUNT + ADD + COUNT, 0x80), rdi=DATA)
    fetches = bare.run(DATA + 5)
    kinds = (
        (unicorn.UC_ERR_READ_UNMAPPED, CODE + 2),
        (unicorn.UC_ERR_WRITE_UNMAPPED, CODE + 0x42),
        (unicorn.UC_ERR_READ_UNMAPPED, CODE + 0x82),
        (unicorn.UC_ERR_FETCH_UNMAPPED, DATA + 5),
    )
    found = (loads, stores, adds, fetches)
    return seen(
        tuple((s.status, s.rip) for s in found) == kinds
        and all(s.vector is None for s in found)
        and (bare.get("rbx"), bare.get("rax")) == (3, 7),
        f"{', '.join(map(str, found))}; {bare.get('rbx')} of 3 instructions before them ran",
    )


@proof("stop", "another thread can end a run, at an instruction")
def stop() -> str:
    bare = Bare()
    bare.put(_SPIN)
    found: list[Stopped] = []
    runner = threading.Thread(target=lambda: found.append(bare.run()), daemon=True)
    runner.start()
    for _ in range(2000):  # a stop that comes before the run has begun is lost
        bare.uc.emu_stop()
        runner.join(0.0005)
        if not runner.is_alive():
            break
    return seen(
        bool(found) and found[0][:2] == (0, None) and found[0].rip == CODE,
        f"an endless loop: {found[0] if found else 'still running'}",
    )


PROOFS: Final[tuple[Proof, ...]] = (
    empty_exits,
    hlt,
    invalid_opcode,
    software_interrupt,
    exceptions,
    page_crossing,
    resume,
    outside_ram,
    stop,
)
