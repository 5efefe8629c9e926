"""What a CPU must do with an access, written down once more: from conditions, not from entries.

An independent reading of the SDM, volume 3A, "Paging": "Access Rights", "Protection Keys" and
"Page-Fault Exceptions". Imports nothing of what it judges, and shares no constant with it: a case
is a set of names, as in kvm-unit-tests' `access.c`.
"""

from typing import NamedTuple

PRESENT, WRITE, USER, RESERVED, FETCH, KEY = 1, 2, 4, 8, 16, 32  # bits of the error code


class Entry(NamedTuple):
    """One entry on the way, root first. `reserved`: one of the bits that are so at any setting."""

    present: bool = True
    writable: bool = True
    user: bool = True
    execute_disable: bool = False
    reserved: bool = False


class Case(NamedTuple):
    """One access under one set of controls. `access` is read, write, update or fetch."""

    access: str
    cpl: int
    entries: tuple[Entry, ...]
    wp: bool
    nxe: bool
    smep: bool
    smap: bool
    ac: bool
    pke: bool
    access_disable: bool  # PKRU.AD of the page's key
    write_disable: bool  # PKRU.WD of it


def error_code(case: Case) -> int | None:
    """Return the error code of the page fault that the access causes, or None."""
    by_user = case.cpl == 3
    writes = case.access in ("write", "update")
    code = WRITE if writes else 0
    if by_user:
        code += USER
    if case.access == "fetch" and (case.nxe or case.smep):
        code += FETCH

    for entry in case.entries:
        if not entry.present:
            return code
        if entry.reserved or (entry.execute_disable and not case.nxe):
            return code + PRESENT + RESERVED

    user_page = all(entry.user for entry in case.entries)
    read_only = not all(entry.writable for entry in case.entries)
    disabled = any(entry.execute_disable for entry in case.entries)
    data = case.access != "fetch"

    key_refuses = (
        data
        and case.pke
        and user_page
        and (case.access_disable or (case.write_disable and writes and (by_user or case.wp)))
    )
    if key_refuses:
        code += KEY

    refused = key_refuses
    if by_user:
        refused |= not user_page
        refused |= writes and read_only
    else:
        refused |= case.access == "fetch" and user_page and case.smep
        refused |= data and user_page and case.smap and not case.ac
        refused |= writes and read_only and case.wp
    refused |= case.access == "fetch" and disabled
    return code + PRESENT if refused else None
