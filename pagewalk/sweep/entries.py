"""What the names of a case are in a machine: raw entries, control registers, an address.

The one place where a condition meets its bit. Each entry of a path leads to a gigabyte of its own,
so that any of them may map a page, and the next entry lies in it all the same. Refuses to know
what an access should come to, and what runs it.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from emu.paging import (
    ENTRY_SIZE,
    KEY_SHIFT,
    PS,
    RW,
    US,
    XD,
    A,
    D,
    P,
    Paging,
    PhysAddr,
    VirtAddr,
    index,
    page_size,
)
from emu.rights import Access, Kind
from pagewalk.sweep.conditions import PATH, Conditions

ADDRESSES: Final = {4: VirtAddr(0xFFFF_9234_5678_8ABC), 5: VirtAddr(0xFF12_3456_789A_ACDE)}
"""The address of every case of a depth; its index differs at each level, and from the routines'."""
NON_CANONICAL: Final = {4: VirtAddr(0x0000_9234_5678_8ABC), 5: VirtAddr(0x0112_3456_789A_ACDE)}

_PAT: Final = 1 << 12  # of a large page: of no effect here, and right below reserved bits
_FLAG: Final = {"p": P, "rw": RW, "user": US, "a": A, "d": D, "nx": XD, "pse": PS}
_LEVEL: Final = {entry: level for level, entry in zip(range(5, 0, -1), PATH[5], strict=True)}
_BIT: Final = {
    f"{entry}.{word}": (level, bit)
    for entry, level in _LEVEL.items()
    for word, bit in {**_FLAG, **{str(n): 1 << n for n in (*range(13, 30), *range(40, 52))}}.items()
} | {"pdpte.pse": (3, PS | _PAT), "pde.pse": (2, PS | _PAT)}
_KEY, _DENIED_KEY = 13, 5  # with the same low bits
_DENIED: Final = 3 << 2 * _DENIED_KEY  # in PKRU: AD and WD
_CONTROL: Final = frozenset("efer.nx cr0.wp cr4.smep cr4.smap cr4.pke pkru.ad pkru.wd".split())
_GIB: Final = 1 << 30
RAM: Final = 16 * _GIB


class Setting(NamedTuple):
    """A case, as a machine needs it. `entries` are in the order of the walk."""

    va: VirtAddr
    entries: tuple[int, ...]
    paging: Paging
    access: Access
    update: bool
    twice: bool


def target(level: int) -> PhysAddr:
    """Return where an entry of `level` leads: the next table, or the page that it maps."""
    return PhysAddr((9 - level) * _GIB)


def page(va: int, level: int) -> PhysAddr:
    """Return where `va` leads through an entry of `level` that maps a page."""
    return PhysAddr(target(level) + (va & (page_size(level) - 1)))


def slots(root: PhysAddr, levels: int) -> tuple[PhysAddr, ...]:
    """Return where the entries of a path lie, root first."""
    va = ADDRESSES[levels]
    tables = [root, *(target(level) for level in range(levels, 1, -1))]
    return tuple(
        PhysAddr(table + ENTRY_SIZE * index(va, level))
        for table, level in zip(tables, range(levels, 0, -1), strict=True)
    )


def setting(conditions: Conditions, levels: int, root: PhysAddr) -> Setting:
    """Return the case under tables that begin at `root`."""
    words = list(_TARGETS)
    for name in conditions:
        if name in _BIT:
            level, bit = _BIT[name]
            words[level] |= bit
    if "pkey=13" in conditions:
        _put_keys(words)
    kind, update = _kind(conditions)
    return tuple.__new__(
        Setting,
        (
            (NON_CANONICAL if "non-canonical" in conditions else ADDRESSES)[levels],
            tuple(words[levels:0:-1]),
            _paging(conditions & _CONTROL, levels, root),
            _ACCESS[kind]["user" in conditions, "ac" in conditions],
            update,
            "twice" in conditions,
        ),
    )


_TARGETS: Final = (0, *map(target, range(1, 6)))
_KINDS: Final[tuple[Kind, ...]] = ("read", "write", "fetch")
_ACCESS: Final = {
    kind: {(user, ac): Access(kind, user, ac=ac) for user in (False, True) for ac in (False, True)}
    for kind in _KINDS
}


def _put_keys(words: list[int]) -> None:
    """Give the entry that maps the page a key, and the others one that is denied everything."""
    leaf = 3 if words[3] & PS else 2 if words[2] & PS else 1
    for level in range(1, 6):
        words[level] |= (_KEY if level == leaf else _DENIED_KEY) << KEY_SHIFT


def _kind(conditions: Conditions) -> tuple[Kind, bool]:
    """Return the kind of access that rights judge by, and whether it is an update."""
    if "update" in conditions:
        return "write", True
    if "write" in conditions:
        return "write", False
    return "fetch" if "fetch" in conditions else "read", False


@lru_cache
def _paging(controls: Conditions, levels: int, root: PhysAddr) -> Paging:
    pkru = _DENIED | ("pkru.ad" in controls) << 2 * _KEY
    pkru |= ("pkru.wd" in controls) << 2 * _KEY + 1
    return Paging.long_mode(
        root,
        levels=levels,
        wp="cr0.wp" in controls,
        nxe="efer.nx" in controls,
        smep="cr4.smep" in controls,
        smap="cr4.smap" in controls,
        pke="cr4.pke" in controls,
        pkru=pkru,
    )
