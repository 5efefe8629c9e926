"""What a checklist is made of: steps on one entry, and groups of them.

Knows the kinds. Refuses to know which there are (`checklist`) and how each is done (`checker`).
"""

from typing import Literal, NamedTuple

Level = Literal["pte", "pmd", "pud", "p4d", "pgd"]
Helpers = tuple[str, ...]
"""Names of helpers, applied one after the other, first to last."""


class Ask(NamedTuple):
    """A predicate on the value that comes of a fresh entry."""

    predicate: str
    wanted: bool
    of: Helpers = ()


class Same(NamedTuple):
    """The value that comes of a fresh entry is that entry itself."""

    of: Helpers = ()


class Given(NamedTuple):
    """A predicate on a value that is written here, with and without a folded p4d."""

    predicate: str
    value: int
    folded: bool
    real: bool


class Put(NamedTuple):
    """Set the entry in the table to what comes of a fresh one."""

    of: Helpers = ()


class Do(NamedTuple):
    """Have a helper change the entry where it lies; `wanted` is what it has to return, if that
    matters. `of` makes the value that it gets, from what is there; `below` is for the entry of the
    next lower level.
    """

    helper: str
    wanted: bool | None = None
    of: Helpers = ()
    below: bool = False


class Look(NamedTuple):
    """A predicate on the entry as it is in the table; "as-protected" where that follows from the
    protection: young if it may be read, dirty if it may be written to.
    """

    predicate: str
    wanted: bool | Literal["as-protected"]


class Kept(NamedTuple):
    """The entry is what it was before the last `Do`."""


class Offset(NamedTuple):
    """p4d_offset() leads into a table of its own, or folded it is the pgd's entry."""


Access = Literal["read", "read last", "read behind", "write"]
Verdict = Literal["allowed", "refused", "absent", "absent below", "as-protected"]


class Cpu(NamedTuple):
    """The CPU makes an access. Behind a protection that allows nothing it is always absent.

    It is at the checklist's own address; "read last" is at the last word that the entry maps, and
    "read behind" at the one after it. "refused" is a protection violation; "absent" is the group's
    own entry being not present, and "absent below" that of the next lower level, so the group's is
    a table to the CPU.
    """

    access: Access
    verdict: Verdict


Step = Ask | Same | Given | Put | Do | Look | Kept | Offset | Cpu
Need = Literal["pud-thp", "swap-exclusive", "p4d", "pmd-page", "pud-page", "pmd-range", "pud-range"]
Start = Literal["range", "page", "pfn", "noise", "swap"]


class Group(NamedTuple):
    """One function of the checklist.

    A fresh entry maps a frame of known RAM ("range") or a page that was allocated ("page"); or it
    is only that page's frame number, noise, or the entry of a page swapped out: of two, which have
    each bit once. It has the protection of a private mapping with all rights, unless `prot` says
    none at all; `each` are steps for every one of the 16. Where one of `needs` is lacking,
    `otherwise` is gone through instead.
    """

    name: str
    title: str
    level: Level
    steps: tuple[Step, ...] = ()
    each: tuple[Step, ...] = ()
    start: Start = "range"
    prot: Literal["rwx", "none"] = "rwx"
    needs: tuple[Need, ...] = ()
    otherwise: tuple[Step, ...] = ()
