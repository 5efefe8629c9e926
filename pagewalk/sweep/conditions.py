"""The names of conditions: which there are, what people may leave out, and how a case is written.

A case is the set of the names that hold, spelled out in full; people name less, and `complete`
adds what they mean. After kvm-unit-tests' `access.c`: `pte.p pte.rw user write cr0.wp`. Refuses
to know what a condition does: `oracle` says what must follow from it, `entries` how it is made.
"""

from collections.abc import Iterable
from typing import Final

from kernel_model.words import did_you_mean

Conditions = frozenset[str]

PATH: Final = {4: ("pml4e", "pdpte", "pde", "pte"), 5: ("pml5e", "pml4e", "pdpte", "pde", "pte")}
PAGE_BITS: Final = {"pdpte": 30, "pde": 21}
"""Which entries may map a page, and log2 of its size; a PTE always does."""
KINDS: Final = ("read", "write", "update", "fetch")
"""At most one is named; a read is what it is when none is."""

_OF_ENTRY: Final = {
    "p": "the entry is present",
    "rw": "it allows writes",
    "user": "it allows user-mode accesses",
    "a": "A is set before the access",
    "d": "D is set before the access",
    "nx": "it disables execution (XD)",
    "pse": "bit 7: the entry maps a page; in a PML4E or PML5E it is reserved",
    "51": "a bit from MAXPHYADDR up is set: 40 to 51",
    "13": "a low address bit of a large page is set: 13 to 20 in a PDE, 13 to 29 in a PDPTE",
    "ro": "short for .p .user: open, but read-only",
    "empty": "none of the entry's conditions holds",
}
_OF_ACCESS: Final = {
    "pkru.ad": "PKRU denies accesses with key 13",
    "pkru.wd": "PKRU denies writes with key 13",
    "pkey=13": "the page has protection key 13; the entries above it get key 5, which is denied",
    "user": "the access is made at CPL 3",
    "read": "it reads: the same as naming no kind",
    "write": "it writes",
    "update": "it reads, modifies and writes with one instruction",
    "fetch": "it fetches an instruction",
    "twice": "the supervisor has read the address before, and the TLB knows it",
    "non-canonical": "the address is not canonical",
    "ac": "RFLAGS.AC is set",
    "efer.nx": "EFER.NXE is set",
    "cr0.wp": "CR0.WP is set",
    "cr4.smep": "CR4.SMEP is set",
    "cr4.smap": "CR4.SMAP is set",
    "cr4.pke": "CR4.PKE is set",
}
_OPEN: Final = ("p", "rw", "user")
_SHORT: Final = frozenset({"read"} | {f"{entry}.{s}" for entry in PATH[5] for s in ("ro", "empty")})


def _vocabulary() -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in reversed(PATH[5]):
        for word, what in _OF_ENTRY.items():
            if word == "51":
                found |= {f"{entry}.{bit}": what for bit in range(40, 52)}
            elif word == "13":
                found |= {f"{entry}.{bit}": what for bit in range(13, PAGE_BITS.get(entry, 0))}
            elif not (word == "pse" and entry == "pte"):
                found[f"{entry}.{word}"] = what
    return found | _OF_ACCESS


VOCABULARY: Final = _vocabulary()
"""Every name, and what it says; in the order in which a case is written."""
_ORDER: Final = {name: place for place, name in enumerate(VOCABULARY)}


def open_entries(*entries: str) -> Conditions:
    """Return the conditions of entries that allow everything."""
    return frozenset(f"{entry}.{word}" for entry in entries for word in _OPEN)


def of_entry(conditions: Iterable[str], entry: str) -> Conditions:
    """Return those of the conditions that are about one entry."""
    return frozenset(name for name in conditions if name.startswith(f"{entry}."))


def complete(names: Iterable[str], levels: int) -> Conditions:
    """Return the case that is meant by the names: all that holds.

    What is not named does not hold, but an entry of which nothing is named, and which the access
    may need, is open: present, writable, the user's. ValueError for a name that is none, and for
    names that exclude each other.
    """
    said = frozenset(f"{name}e" if name.endswith(".ps") else name for name in names)
    _check(said, levels)
    meant = set(said - _SHORT)
    needed = True
    for entry in PATH[levels]:
        if f"{entry}.ro" in said:
            meant |= open_entries(entry) - {f"{entry}.rw"}
        elif needed and not of_entry(said, entry):
            meant |= open_entries(entry)
        needed = needed and not _maps_page(said, entry)
    return frozenset(meant)


def _check(said: Conditions, levels: int) -> None:
    """Raise ValueError for a name that is none, and for names that exclude each other."""
    for name in sorted(said):
        if name not in VOCABULARY:
            raise ValueError(f"{name!r}: no such condition{did_you_mean(name, VOCABULARY)}")
    kinds = [kind for kind in KINDS if kind in said]
    if len(kinds) > 1:
        raise ValueError(f"{' and '.join(map(repr, kinds))}: expected one kind of access")
    for entry in PATH[5]:
        own = of_entry(said, entry)
        if own and entry not in PATH[levels]:
            raise ValueError(f"{min(own)!r}: with {levels} levels there is no {entry.upper()}")
        if own & _SHORT and len(own) > 1:
            short = min(own & _SHORT)
            raise ValueError(f"{short!r}: expected no other condition of the entry beside it")
        for bit in range(13, PAGE_BITS.get(entry, 0)):
            if f"{entry}.{bit}" in said and not _maps_page(said, entry):
                raise ValueError(f"'{entry}.{bit}': expected '{entry}.pse' beside it")


def _maps_page(conditions: Conditions, entry: str) -> bool:
    """Tell whether an entry of a table maps a page, if it is there."""
    return entry in PAGE_BITS and f"{entry}.pse" in conditions


def written(conditions: Conditions, levels: int) -> str:
    """Return the shortest names that `complete` makes this case of, in the order of the table."""
    shown = set(conditions)
    needed = True
    for entry in PATH[levels]:
        own = of_entry(conditions, entry)
        if not own and needed:
            shown.add(f"{entry}.empty")
        elif own == open_entries(entry) and needed:
            shown -= own
        elif own == open_entries(entry) - {f"{entry}.rw"} and entry not in ("pde", "pte"):
            shown = shown - own | {f"{entry}.ro"}
        needed = needed and not _maps_page(own, entry)
    return " ".join(sorted(shown, key=_ORDER.__getitem__)) or "read"
