"""May this access use this walk?

Knows the rules by which an access is refused, and the error code that each refusal gives. An entry
that is absent or has a reserved bit set settles the matter before any right is looked at. Among
rights the SDM gives no order, and the error code needs none; where several refuse, the reason is
the first of us, smep, xd (a fetch) or us, smap, pk-ad, pk-wd, rw, wp (data): that choice is ours.
Refuses to know how the entries were found (`walk`) and what happens next (`stops`). SDM vocabulary;
source: Intel SDM volume 3A, "Paging", "Determination of Access Rights", "Protection Keys" and
"Page-Fault Exceptions".
"""

from functools import cache
from typing import Literal, NamedTuple

from emu.fault import PF_I, PF_P, PF_PK, PF_RSVD, PF_U, PF_W
from emu.paging import (
    ADDRESS,
    CR0_WP,
    CR4_PKE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_NXE,
    KEY_SHIFT,
    PS,
    RW,
    US,
    XD,
    Paging,
)
from emu.walk import Walk

Kind = Literal["read", "write", "fetch"]


class Access(NamedTuple):
    """How memory is touched: what for, and with which privilege.

    `user` means an explicit access at CPL 3; the CPU's own accesses to descriptor tables and the
    TSS are `implicit` supervisor accesses at any CPL. `ac` is RFLAGS.AC.
    """

    kind: Kind
    user: bool = False
    implicit: bool = False
    ac: bool = False


class Refusal(NamedTuple):
    """Why an access may not use a walk: the #PF error code and the id of the rule."""

    error_code: int
    reason: str

    def __repr__(self) -> str:
        return f"Refusal({self.error_code:#x}, {self.reason!r})"


_refusal = cache(Refusal)  # there are few, and a fault is microseconds


def refusal(walk: Walk, access: Access, paging: Paging) -> Refusal | None:
    """Return why `access` faults on a walk that ended inside RAM, or None if it may proceed.

    A walk that ended "outside-ram" or "non-canonical" is no page fault, and a ValueError here.
    """
    kind = access.kind
    code = PF_W if kind == "write" else 0
    if access.user:
        code |= PF_U
    if kind == "fetch" and (paging.efer & EFER_NXE or paging.cr4 & CR4_SMEP):
        code |= PF_I

    verdict = walk.verdict
    if verdict == "not-present":
        return _refusal(code, "not-present")
    if verdict == "reserved-bit":
        level, _, entry = walk.steps[-1]
        return _refusal(code | PF_P | PF_RSVD, reserved_rule(paging.reserved(entry, level), paging))
    if verdict != "mapped":
        raise ValueError(f"va {walk.va:#x} is {walk.verdict}: expected a walk that can page-fault")

    everywhere, anywhere = -1, 0
    for _, _, entry in walk.steps:
        everywhere &= entry
        anywhere |= entry
    user_page = bool(everywhere & US)
    writable = bool(everywhere & RW)
    rule = _key_rule(entry, user_page, access, paging)
    if rule:
        code |= PF_PK  # reported even where another rule refuses the access, too

    if access.user and not user_page:
        rule = "us"
    elif kind == "fetch":
        if not access.user and user_page and paging.cr4 & CR4_SMEP:
            rule = "smep"
        elif anywhere & XD:
            rule = "xd"
    else:
        overridden = access.ac and not access.implicit
        if not access.user and user_page and paging.cr4 & CR4_SMAP and not overridden:
            rule = "smap"
        if rule is None and kind == "write" and not writable:
            if access.user:
                rule = "rw"
            elif paging.cr0 & CR0_WP:
                rule = "wp"
    return _refusal(code | PF_P, rule) if rule else None


def reserved_rule(bits: int, paging: Paging) -> str:
    """Return the id of the rule that the reserved `bits` of an entry break, the highest first."""
    if bits & XD:
        return "rsvd-xd"
    if bits & ADDRESS & -(1 << paging.maxphyaddr):
        return "rsvd-maxphyaddr"
    if bits & PS:
        return "rsvd-ps"
    return "rsvd-large"


def _key_rule(leaf: int, user_page: bool, access: Access, paging: Paging) -> str | None:
    """Return the protection-key rule that refuses a data access, or None."""
    if not (user_page and paging.cr4 & CR4_PKE) or access.kind == "fetch":
        return None
    rights = paging.pkru >> (leaf >> KEY_SHIFT & 15) * 2
    if rights & 1:
        return "pk-ad"
    if rights & 2 and access.kind == "write" and (access.user or paging.cr0 & CR0_WP):
        return "pk-wd"
    return None
