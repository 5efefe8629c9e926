"""The CPU's own walk: what it reads, what it reports, and what it writes.

Knows a few cases of each kind, by the SDM. Refuses to know `walk` and `rights`, which tests hold
against the CPU in every combination.
"""

from typing import Final

from emu import _layout, _unicorn
from emu.fault import PF_I, PF_P, PF_PK, PF_RSVD, PF_U, PF_W
from emu.paging import (
    CR4_PKE,
    CR4_SMAP,
    CR4_SMEP,
    ENTRY_NAME,
    KEY_SHIFT,
    PS,
    RW,
    US,
    XD,
    A,
    D,
)
from emu.proofs.bare import CODE, DATA, DATA_PA, HLT, LOAD, STORE, Bare, Stopped
from emu.proofs.proof import Proof, proof, seen

_STAC: Final = b"\x0f\x01\xcb"
_CLAC: Final = b"\x0f\x01\xca"
_WRPKRU: Final = b"\x0f\x01\xef"
_USER: Final = 0x40_0000
_USER_CODE: Final = 0x50_0000
_FAR: Final = 1 << 50  # canonical at 5 levels only


def _codes(found: list[Stopped]) -> str:
    return ", ".join("none" if s.vector is None else f"{s.error_code:#x}" for s in found)


def _user(bare: Bare) -> None:
    """Map the window of code for the user, too."""
    bare.map(_USER_CODE, 0x1_0000, US, 1)


@proof("error-codes", "the error code of a #PF says P, W, U and I as the SDM does")
def error_codes() -> str:
    bare = Bare()
    bare.map(DATA, DATA_PA, XD)
    load, store = bare.put(LOAD), bare.put(STORE, 0x40)
    found = [
        bare.run(load, rdi=DATA + 0x1000),
        bare.run(store, rdi=DATA + 0x1000),
        bare.run(DATA + 0x1000),
        bare.run(store, rdi=DATA),
        bare.run(DATA),
    ]
    _user(bare)
    bare.set_cpl(3)
    found += [
        bare.run(_USER_CODE, rdi=_USER),
        bare.run(_USER_CODE + 0x40, rdi=_USER),
        bare.run(_USER_CODE, rdi=DATA),
    ]
    wanted = [0, PF_W, PF_I, PF_P | PF_W, PF_P | PF_I, PF_U, PF_U | PF_W, PF_U | PF_P]
    return seen(
        [s.page_fault for s in found] == wanted,
        f"absent read, write, fetch; read-only, no-execute; user absent read, write, supervisor "
        f"page: {_codes(found)}",
    )


@proof("reserved-bits", "a reserved bit is reported with P (QEMU 7 forgets it), at every level")
def reserved_bits() -> str:
    bare = Bare()
    bare.put(LOAD)
    found = {}
    for level, bits in ((4, PS), (3, PS | 1 << 13), (2, PS | 1 << 13), (1, 1 << 51)):
        va = DATA + (level << 39)
        bare.map(va, DATA_PA)
        entry_pa = bare.entry_pa(va, level)
        bare.memory.write_u64(entry_pa, bare.entry(va, level) | bits)
        found[ENTRY_NAME[level]] = bare.run(rdi=va)
    return seen(
        [s.page_fault for s in found.values()] == [PF_P | PF_RSVD] * 4,
        ", ".join(f"{name} {stopped.error_code:#x}" for name, stopped in found.items()),
    )


@proof("page-sizes", "pages of 4 KiB, 2 MiB and 1 GiB, at 4 and 5 levels")
def page_sizes() -> str:
    found = []
    for levels, va in ((4, DATA), (5, _FAR)):
        bare = Bare(levels=levels)
        bare.put(LOAD)
        bare.memory.write_u64(DATA_PA, 0x51)
        for level in (1, 2, 3):
            start = va + (level << 30)
            bare.map(start, DATA_PA if level == 1 else 0, PS if level > 1 else 0, level)
            bare.run(rdi=start + (0 if level == 1 else DATA_PA), rax=0)
            found.append(bare.get("rax"))
    return seen(found == [0x51] * 6, f"loads of 0x51 gave {', '.join(map(hex, found))}")


@proof("accessed-dirty", "a load sets A at every level, a store D as well, in the leaf alone")
def accessed_dirty() -> str:
    bare = Bare()
    load, store = bare.put(LOAD), bare.put(STORE, 0x40)
    bare.map(DATA, DATA_PA)
    flags = []
    for routine in (load, store):
        bare.run(routine, rdi=DATA)
        flags.append([bare.entry(DATA, level) & (A | D) for level in (4, 3, 2, 1)])
    named = [
        "/".join(("A" * bool(f & A) + "D" * bool(f & D)) or "-" for f in each) for each in flags
    ]
    return seen(
        flags == [[A, A, A, A], [A, A, A, A | D]],
        f"levels 4 to 1 after a load {named[0]}, after a store {named[1]}",
    )


@proof("failed-walk", "a walk that fails sets A above, and leaves the leaf as it was")
def failed_walk() -> str:
    bare = Bare()
    bare.put(STORE)
    bare.map(DATA, DATA_PA, 0)
    stopped = bare.run(rdi=DATA)
    flags = [bare.entry(DATA, level) & (A | D) for level in (4, 3, 2, 1)]
    return seen(
        stopped.page_fault == PF_P | PF_W and flags == [A, A, A, 0],
        f"a store to a read-only page: {stopped}; A and D at levels 4 to 1: "
        f"{', '.join(map(hex, flags))}",
    )


@proof("smap", "SMAP keeps the supervisor from the user's pages, unless RFLAGS.AC is set")
def smap() -> str:
    bare = Bare(cr4=CR4_SMAP)
    bare.map(_USER, DATA_PA, RW | US)
    bare.put(LOAD + HLT)
    bare.put(_STAC + LOAD + STORE + _CLAC + STORE, 0x40)
    closed = bare.run(rdi=_USER)
    opened = bare.run(CODE + 0x40, rdi=_USER)
    return seen(
        closed.page_fault == PF_P
        and opened.page_fault == PF_P | PF_W
        and opened.rip == CODE + 0x40 + 12,
        f"a load: {closed}; stac, load, store, clac, store: {opened}",
    )


@proof("smep-wp", "SMEP keeps the supervisor from the user's code, WP from read-only pages")
def smep_wp() -> str:
    bare = Bare(cr4=CR4_SMEP)
    bare.map(_USER, DATA_PA, US)
    bare.memory.write(DATA_PA, HLT)
    bare.put(STORE)
    fetched, stored = bare.run(_USER), bare.run(rdi=_USER)
    bare.set(cr4=bare.get("cr4") & ~CR4_SMEP, cr0=bare.get("cr0") & ~(1 << 16))
    without = [bare.run(_USER), bare.run(rdi=_USER)]
    return seen(
        [s.page_fault for s in (fetched, stored, *without)]
        == [PF_P | PF_I, PF_P | PF_W, None, None],
        f"{fetched}, {stored}; without them error codes {_codes(without)}",
    )


@proof("protection-keys", "a key of the user's page binds user and supervisor, of another nobody")
def protection_keys() -> str:
    bare = Bare(cr4=CR4_PKE)
    key = 1 << KEY_SHIFT
    bare.map(_USER, DATA_PA, RW | US | key)
    bare.map(DATA, DATA_PA, RW | key)
    _user(bare)
    bare.put(_WRPKRU + LOAD)
    bare.put(LOAD, 0x40)
    found = [bare.run(rax=4, rcx=0, rdx=0, rdi=va) for va in (_USER, DATA)]  # AD of key 1
    bare.set_cpl(3)
    found.append(bare.run(_USER_CODE + 0x40, rdi=_USER))
    return seen(
        [s.page_fault for s in found] == [PF_P | PF_PK, None, PF_P | PF_U | PF_PK],
        f"key 1 denied: supervisor to a user's page, to its own, user: {_codes(found)}",
    )


@proof("translate-fetch", "a translation for a fetch sets A, or is refused, as the fetch would be")
def translate_fetch() -> str:
    bare = Bare()
    bare.map(DATA, DATA_PA)
    bare.map(DATA + 0x1000, DATA_PA, XD)
    found = []
    for va in (DATA, DATA + 0x1000):
        status = _unicorn.translate_fetch(bare.uc._uch, va)
        blob = _layout.view(bare.uc.context_save())
        control = _layout.CONTROL.unpack_from(blob, _layout.AT_CONTROL)
        found.append((bool(status), control[2], control[7], bare.entry(va) & A))
    return seen(
        found == [(False, 0, 0, A), (True, DATA + 0x1000, PF_P | PF_I, 0)],
        "refused, CR2, error code and A of the leaf, without XD and with it: "
        + "; ".join(f"{no}, {cr2:#x}, {code:#x}, {a:#x}" for no, cr2, code, a in found),
    )


PROOFS: Final[tuple[Proof, ...]] = (
    error_codes,
    reserved_bits,
    page_sizes,
    accessed_dirty,
    failed_walk,
    smap,
    smep_wp,
    protection_keys,
    translate_fetch,
)
