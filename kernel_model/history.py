"""What the kernel did, in order, as values: the story that a run tells.

Knows the kinds of event. Refuses to know their wording, which is the front door's.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Forked:
    """A task got a table of its own, with a copy of the kernel's slots."""

    comm: str
    pgd: int


@dataclass(frozen=True, slots=True)
class Populated:
    """A top-level entry of init_mm was filled by `path`."""

    name: str  # "pgd" or "p4d"
    addr: int
    slot: int
    entry: int
    path: str


@dataclass(frozen=True, slots=True)
class Synced:
    """`by` copied init_mm's entries for [start, end] to the tables on pgd_list.

    `filled` is how many entries of other tables were empty and are not any more.
    """

    start: int
    end: int
    by: str
    tables: int
    filled: int


@dataclass(frozen=True, slots=True)
class SyncDied:
    """`by`, begun at `start`, met another table than init_mm's for `addr` in `comm`'s: a BUG.

    Tables in front of that one on pgd_list were done, those behind it were not.
    """

    start: int
    addr: int
    by: str
    comm: str
    pgd: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """`path` gave [start, end) of `region` its tables and frames; `detail` says how."""

    region: str
    start: int
    end: int
    path: str
    detail: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """`path` did not do a part of its work, for the reason given."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Switched:
    """CR3 now points to this task's table."""

    comm: str
    cr3: int


@dataclass(frozen=True, slots=True)
class Refused:
    """`path` was the first to return -`errno`; `why` says what of, with the values."""

    path: str
    errno: int
    why: str


@dataclass(frozen=True, slots=True)
class Copied:
    """`path` copied slots [first, last] of init_mm to a table that is not on pgd_list."""

    table: str
    first: int
    last: int
    path: str


@dataclass(frozen=True, slots=True)
class Exited:
    """A task is gone, and its table with it."""

    comm: str
    pgd: int


@dataclass(frozen=True, slots=True)
class Unmapped:
    """`path` took [start, end) of `region` away; what its tables keep is another matter."""

    region: str
    start: int
    end: int
    path: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """A top-level entry was emptied by `path`, in init_mm and in `tables` others."""

    addr: int
    slot: int
    path: str
    tables: int


@dataclass(frozen=True, slots=True)
class LazyFault:
    """A page fault of `comm` at `address` went to the kernel's own handler.

    `filled` says whether its table lacked the slot before, and has it now; `repeated` whether the
    handler returned, so that the access was made once more.
    """

    comm: str
    address: int
    slot: int
    filled: bool
    repeated: bool


Event = (
    Forked
    | Copied
    | Exited
    | Populated
    | Cleared
    | Synced
    | SyncDied
    | Mapped
    | Unmapped
    | Switched
    | LazyFault
    | LeftOut
    | Refused
)
