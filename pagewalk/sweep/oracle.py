"""What a CPU must do with one access: predicted from the names of the case's conditions alone.

A second reading of the SDM, volume 3A, "Paging": "Access Rights", "Protection Keys", "Page-Fault
Exceptions" and "Accessed and Dirty Flags". It imports nothing of what it judges and shares no
constant with it; a case is a set of names, after kvm-unit-tests' `access.c`, and a condition that
is not named does not hold. Knows nothing of entries as numbers, and nothing of defaults.
"""

from collections.abc import Set
from typing import Final, NamedTuple

PRESENT, WRITE, USER, RESERVED, FETCH, KEY = 1, 2, 4, 8, 16, 32  # bits of the error code
GENERAL_PROTECTION, PAGE_FAULT = 13, 14

# What becomes of an entry's A and D. Later ones set all that earlier ones do.
KEPT: Final = 0  # neither changes
MAY_BE_ACCESSED: Final = 1  # A may be set: the entry was used, for an access that was refused
ACCESSED: Final = 2  # A is set
DIRTIED: Final = 3  # A and D are set


class Prediction(NamedTuple):
    """The exception, if there is one, and what becomes of each entry, root first."""

    vector: int | None
    error_code: int | None
    cr2: int | None
    marks: tuple[int, ...]


class _Entry(NamedTuple):
    """The conditions that one entry can have."""

    present: str
    writable: str
    user: str
    execute_disable: str
    page: str
    reserved: frozenset[str]
    reserved_in_page: frozenset[str]


def _entry(name: str, *, page_bits: int = 0, is_leaf: bool = False) -> _Entry:
    """`page_bits`: log2 of the page that the entry may map; 0 where it maps none."""
    reserved = {f"{name}.{bit}" for bit in range(40, 52)}  # from MAXPHYADDR on
    if not (page_bits or is_leaf):
        reserved.add(f"{name}.pse")
    in_page = {f"{name}.{bit}" for bit in range(13, page_bits)}
    return _Entry(
        f"{name}.p",
        f"{name}.rw",
        f"{name}.user",
        f"{name}.nx",
        f"{name}.pse" if page_bits else "",
        frozenset(reserved),
        frozenset(in_page),
    )


_FOUR: Final = (
    _entry("pml4e"),
    _entry("pdpte", page_bits=30),
    _entry("pde", page_bits=21),
    _entry("pte", is_leaf=True),
)
_PATH: Final = {4: _FOUR, 5: (_entry("pml5e"), *_FOUR)}


def predict(conditions: Set[str], levels: int, address: int) -> Prediction:
    """Return what an access to `address` must do where exactly these conditions hold."""
    nothing = (KEPT,) * levels
    if "non-canonical" in conditions:
        return Prediction(GENERAL_PROTECTION, 0, None, nothing)

    writes = "write" in conditions or "update" in conditions
    fetches = "fetch" in conditions
    code, marks = _attempt(
        conditions, levels, user="user" in conditions, writes=writes, fetches=fetches
    )
    if "twice" in conditions:
        _, earlier = _attempt(conditions, levels, user=False, writes=False, fetches=False)
        marks = tuple(map(max, earlier, marks))

    if code is None:
        return Prediction(None, None, None, marks)
    return Prediction(PAGE_FAULT, code, address, marks)


def _attempt(
    conditions: Set[str], levels: int, *, user: bool, writes: bool, fetches: bool
) -> tuple[int | None, tuple[int, ...]]:
    """Return the error code of one access, or None if it goes through, and the marks it leaves."""
    nxe = "efer.nx" in conditions
    code = (WRITE if writes else 0) | (USER if user else 0)
    if fetches and (nxe or "cr4.smep" in conditions):
        code |= FETCH

    user_page, read_only, execute_disable = True, False, False
    path = _PATH[levels]
    for used, entry in enumerate(path):
        if entry.present not in conditions:
            return code, _refused(used, levels)
        disabled = entry.execute_disable in conditions
        is_page = entry.page in conditions
        if (
            (disabled and not nxe)
            or not entry.reserved.isdisjoint(conditions)
            or (is_page and not entry.reserved_in_page.isdisjoint(conditions))
        ):
            return code | PRESENT | RESERVED, _refused(used, levels)
        user_page = user_page and entry.user in conditions
        read_only = read_only or entry.writable not in conditions
        execute_disable = execute_disable or disabled
        if is_page:
            break

    wp = "cr0.wp" in conditions
    if fetches:
        refused = execute_disable or (not user and user_page and "cr4.smep" in conditions)
    else:
        refused = writes and read_only and (user or wp)
        if user_page:
            if not user and "cr4.smap" in conditions and "ac" not in conditions:
                refused = True
            if _key_refuses(conditions, writes and (user or wp)):
                refused = True
                code |= KEY
    if user and not user_page:
        refused = True

    if refused:
        return code | PRESENT, _refused(used, levels)
    mark = DIRTIED if writes else ACCESSED
    return None, (ACCESSED,) * used + (mark,) + (KEPT,) * (levels - used - 1)


def _refused(used: int, levels: int) -> tuple[int, ...]:
    """The marks of an access that ended at an entry behind `used` others."""
    return (MAY_BE_ACCESSED,) * used + (KEPT,) * (levels - used)


def _key_refuses(conditions: Set[str], checked_write: bool) -> bool:
    """Tell whether the protection key of a user page forbids a data access.

    `checked_write`: it writes, and is one whose right to write is looked at.
    """
    if not ("cr4.pke" in conditions and "pkey=13" in conditions):
        return False
    return "pkru.ad" in conditions or (checked_write and "pkru.wd" in conditions)
