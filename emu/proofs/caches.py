"""What the engine remembers of translations and of code, and what makes it forget.

Knows what the rule at the top of `cpu` is made of. Refuses to know that rule. "Flush" is here what
the engine's own calls are named.
"""

from collections.abc import Callable
from typing import Final

from emu.fault import PF
from emu.paging import RW, XD, PhysAddr
from emu.proofs.bare import (
    CODE,
    DATA,
    DATA_PA,
    HLT,
    LOAD,
    PATCH,
    STORE,
    Bare,
    answer,
)
from emu.proofs.proof import Proof, proof, seen

_RELOAD_CR3: Final = b"\x0f\x20\xd8\x0f\x22\xd8"  # mov rax, cr3; mov cr3, rax
_INVLPG: Final = b"\x0f\x01\x3f"  # invlpg [rdi]
_ELSEWHERE: Final = 0x800  # into the window of code
_SECOND_PA: Final = PhysAddr(DATA_PA + 0x1000)


def _forgotten(act: Callable[[Bare], object]) -> bool:
    """Tell whether `act` makes the engine forget a translation that it has used."""
    bare = Bare()
    entry_pa = bare.map(DATA, DATA_PA)
    bare.put(LOAD)
    bare.run(rdi=DATA)
    bare.memory.write_u64(entry_pa, 0)
    act(bare)
    return bare.run(rdi=DATA).vector == PF


def _executing(code: bytes) -> Callable[[Bare], object]:
    return lambda bare: bare.run(bare.put(code, _ELSEWHERE), rdi=DATA)


_FLUSHES: Final[dict[str, Callable[[Bare], object]]] = {
    "the same CR3 written by Python": lambda bare: bare.set(cr3=bare.root),
    "and by the guest": _executing(_RELOAD_CR3),
    "invlpg": _executing(_INVLPG),
    "the TLB-flush call": lambda bare: bare.invalidate_tlb(),
}
_KEEPERS: Final[dict[str, Callable[[Bare], object]]] = {
    "another run": _executing(HLT),
    "a #PF": lambda bare: bare.run(rdi=DATA + 0x5000),
    "a restored context": lambda bare: bare.uc.context_restore(bare.uc.context_save()),
    "a code flush": lambda bare: bare.uc.ctl_flush_tb(),
}


@proof("tlb-flush", "a used translation is forgotten when CR3 is written, by invlpg, by a call")
def tlb_flush() -> str:
    forgotten = {name: _forgotten(act) for name, act in _FLUSHES.items()}
    return seen(
        all(forgotten.values()),
        ", ".join(f"{name}: {_word(found)}" for name, found in forgotten.items()),
    )


@proof("tlb-keep", "a used translation outlives runs, faults, restored contexts, code flushes")
def tlb_keep() -> str:
    forgotten = {name: _forgotten(act) for name, act in _KEEPERS.items()}
    return seen(
        not any(forgotten.values()),
        ", ".join(f"{name}: {_word(found)}" for name, found in forgotten.items()),
    )


def _word(forgotten: bool) -> str:
    return "forgotten" if forgotten else "kept"


@proof("tlb-more", "an entry made present, writable or executable is seen without a flush")
def tlb_more() -> str:
    bare = Bare()
    bare.memory.write(DATA_PA, HLT)
    entry_pa = bare.entry_pa(DATA, 1)
    load, store = bare.put(LOAD), bare.put(STORE, 0x40)
    found = []
    for routine, flags in ((load, XD), (store, XD | RW), (DATA, RW)):
        before = bare.run(routine, rdi=DATA)
        bare.memory.write_u64(entry_pa, DATA_PA | flags | 1)
        found.append((before, bare.run(routine, rdi=DATA)))
        bare.memory.write(DATA_PA, HLT)
    return seen(
        all(before.vector == PF and after.vector is None for before, after in found),
        "; ".join(f"{before}, then {after}" for before, after in found),
    )


@proof("code-python", "code that Python changes stays as it was, until the code cache is flushed")
def code_python() -> str:
    bare = Bare()
    values: list[int] = []
    forget: tuple[Callable[[Bare], object], ...] = (
        lambda _: None,
        lambda _: None,
        lambda bare: bare.invalidate_tlb(),
        lambda bare: bare.uc.ctl_flush_tb(),
    )
    for act in forget:
        bare.put(answer(2 if values else 1))
        act(bare)
        bare.run(rax=0)
        values.append(bare.get("rax"))
    return seen(
        values == [1, 1, 1, 2],
        f"it answered {values[0]}; changed to 2 {values[1]}, after a TLB flush {values[2]}, after "
        f"a code flush {values[3]}",
    )


@proof("code-guest", "a guest's store into code through the mapping that executes is seen")
def code_guest() -> str:
    bare = Bare()
    there = CODE + 0x40
    bare.put(answer(1), 0x40)
    bare.put(PATCH)
    values = []
    for value in (1, 2, 3):
        if value > 1:
            bare.run(rdi=there, rsi=value)
        bare.run(there, rax=0)
        values.append(bare.get("rax"))
    ahead = b"\xc6\x05\x01\x00\x00\x00\x07" + answer(1)  # mov byte ptr [rip + 1], 7
    bare.run(bare.put(ahead, 0x80), rax=0)
    values.append(bare.get("rax"))
    return seen(
        values == [1, 2, 3, 7],
        f"1, stored 2 and 3, and 7 from the same block: {', '.join(map(str, values))}",
    )


@proof("code-remap", "a page of code that is mapped elsewhere is seen after a TLB flush alone")
def code_remap() -> str:
    bare = Bare()
    bare.memory.write(DATA_PA, answer(1) + HLT)
    bare.memory.write(_SECOND_PA, answer(2) + HLT)
    values = []
    for pa in (DATA_PA, _SECOND_PA, DATA_PA):
        bare.map(DATA, pa, 0)
        bare.invalidate_tlb()
        bare.run(DATA, rax=0)
        values.append(bare.get("rax"))
    return seen(values == [1, 2, 1], f"two pages in turn: {', '.join(map(str, values))}")


@proof("two-roots", "the same address under two roots is two pages of code, and of data")
def two_roots() -> str:
    bare = Bare()
    bare.put(LOAD)
    roots = bare.root, bare.copy_root()
    for root, pa in zip(roots, (DATA_PA, _SECOND_PA), strict=True):
        bare.root = root
        bare.map(DATA, pa, 0)
        bare.memory.write(pa, answer(pa) + HLT)
    found = []
    for root in roots * 3:
        bare.set(cr3=root, rax=0)
        bare.run(DATA)
        code = bare.get("rax")
        bare.run(rdi=DATA)
        found.append((code, bare.get("rax") >> 8 & 0xFFFF_FFFF))
    return seen(
        found == [(DATA_PA, DATA_PA), (_SECOND_PA, _SECOND_PA)] * 3,
        f"executed and read in turn: {', '.join(f'{c:#x}/{d:#x}' for c, d in found)}",
    )


@proof("code-others", "a store to code by one engine is not seen by another's code cache")
def code_others() -> str:
    first = Bare()
    second = Bare(beside=first)
    there, patch = first.put(answer(1), 0x40), first.put(PATCH)
    forget: tuple[Callable[[], object], ...] = (
        lambda: None,
        lambda: first.run(patch, rdi=there, rsi=2),
        second.uc.ctl_flush_tb,
    )
    values = []
    for act in forget:
        act()
        second.run(there, rax=0)
        values.append(second.get("rax"))
    return seen(
        values == [1, 1, 2],
        f"it answered {values[0]}; when the other had stored 2 {values[1]}, after a code flush "
        f"{values[2]}",
    )


PROOFS: Final[tuple[Proof, ...]] = (
    tlb_flush,
    tlb_keep,
    tlb_more,
    code_python,
    code_guest,
    code_remap,
    two_roots,
    code_others,
)
