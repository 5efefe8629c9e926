"""Audit and why: which tables disagree with init_mm's, who wrote what, and who did not tell them.

Knows how to judge the tables in RAM as they are now. Refuses to know wording, which is the front
door's. Linux vocabulary.

Below its top entry every table leads to the same ones: the walk of an address is the same in two
tables if the top entry is, and where two walks differ, they differ there first. The A and D bits
are the CPU's to write: no difference lies in them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from emu import PhysAddr
from emu.paging import ADDRESS, ENTRIES, ENTRY_SIZE, A, D
from emu.walk import Walk
from kernel_model.history import Cleared, Populated, SyncDied
from kernel_model.mm import Mm
from kernel_model.replay import Replay
from kernel_model.writers import Write

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_SAME: Final = ~(A | D)
_NO_PARENT: Final = 1 << 64
_USER_MODE: Final = "user mode"

Kind = Literal["lacking", "stale", "flags"]
"""How an entry differs from init_mm's: it is empty; it points to another table, or to one where
init_mm has none; or it points to the same one with other bits."""

Reason = Literal[
    "not-synced",
    "sync-died",
    "left-to-faults",
    "outside-pgd-list",
    "user-mode",
    "replaced",
    "per-mm",
    "unseen",
]
Verdict = Literal[
    "mapped", "never-mapped", "unmapped", "unsynced", "stale", "different", "malformed", "per-mm"
]
"""What an address comes to: the worst that is true of it. Of tables that differ: some lack the
entry, some have another one, some the same with other bits. Where none maps it: it never was, or
is no more. "malformed": init_mm's own walk ends at a reserved bit or outside RAM."""


class Table(NamedTuple):
    """A top table: whose it is, and whether a sync reaches it.

    Tables of one family share their fate: those on pgd_list (""), those for user mode, and each
    other one by itself.
    """

    name: str
    mm: Mm
    on_pgd_list: bool
    family: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why tables have not what init_mm has in a slot.

    "not-synced": `path` filled it in init_mm when they were there already, and no sync of the slot
    came after that. "sync-died": one did, and died of a BUG (in `by`) before it came to them.
    "left-to-faults": vmalloc_fault() copies it for who touches it. "outside-pgd-list": no sync
    reaches them; `by`, if it is known, had copied the slot before. "user-mode": page-table
    isolation's tables have of the kernel what its entries need, by design. "replaced": `path` has
    written init_mm's entry since theirs was copied. "per-mm": no table has another's entry there,
    by design. "unseen": nothing in the history explains it.
    """

    reason: Reason
    path: str | None = None
    at: int | None = None
    """The event by which `path` did that; None if nothing did."""
    after: str | None = None
    """Who was forked last before that, and in `before` who was first after it."""
    before: str | None = None
    by: str | None = None
    """The function whose own sync, at its end, is still due, or was when it died; see `reason`."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """A slot in which `tables` have not what init_mm has: `entry`, and init_mm `reference`."""

    slot: int
    addr: int
    kind: Kind
    entry: int
    reference: int
    tables: tuple[Table, ...]
    cause: Cause


@dataclass(frozen=True, slots=True)
class Reading:
    """What an address reads as under some tables, with who wrote each entry of the walk.

    The walk is the first table's; the others' are the same but for the A and D bits of their top
    entries. `written` is None for an entry that nobody wrote, or nobody that noted it.
    """

    tables: tuple[Table, ...]
    walk: Walk
    written: tuple[Write | None, ...]
    kind: Kind | None = None
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """An address under every table: what it comes to, init_mm's reading, and the other ones."""

    addr: int
    slot: int
    region: str
    verdict: Verdict
    reference: Reading
    others: tuple[Reading, ...]

    def _repr_html_(self) -> str:
        from kernel_model.why_html import why_html

        return why_html(self)


def tables(kernel: "Kernel") -> Iterator[Table]:
    """Yield every top table beside init_mm's: those on pgd_list, by age, then the others."""
    for mm in kernel.pgd_list:
        yield Table(mm.name, mm, on_pgd_list=True)
    for_user_mode = {mm.user for mm in (kernel.init_mm, *kernel.pgd_list)}
    for mm in kernel.outside:
        if mm is not kernel.init_mm:
            family = _USER_MODE if mm in for_user_mode else mm.name
            yield Table(mm.name, mm, on_pgd_list=False, family=family)


def audit(kernel: "Kernel") -> tuple[Lacking, ...]:
    """List the kernel's slots in which tables have not what init_mm has, lowest first."""
    first = kernel.layout.kernel_pgd_boundary
    alike: dict[tuple[str, bytes], list[Table]] = {}
    for table in tables(kernel):
        alike.setdefault((table.family, _entries(kernel, table.mm, first)), []).append(table)
    reference = memoryview(_entries(kernel, kernel.init_mm, first)).cast("Q")
    found: dict[tuple[int, Kind, str, int], list[Table]] = {}
    for (family, raw), members in alike.items():
        for slot, entry in enumerate(memoryview(raw).cast("Q"), first):
            kind = _kind(kernel, entry, reference[slot - first])
            if kind and not per_mm(kernel, slot):
                found.setdefault((slot, kind, family, entry & _SAME), []).extend(members)
    replay = Replay(kernel)
    return tuple(
        Lacking(
            slot,
            kernel.layout.slot_base(slot),
            kind,
            kernel.pgtable.get(PhysAddr(members[0].mm.pgd + ENTRY_SIZE * slot)),
            reference[slot - first],
            tuple(members),
            _cause(kernel, replay, slot, kind, members),
        )
        for (slot, kind, *_), members in sorted(found.items(), key=lambda item: item[0])
    )


def why(kernel: "Kernel", addr: int) -> Why:
    """Walk an address under every table, and say where they part, who wrote what, and why.

    ValueError for an address that is not canonical.
    """
    layout = kernel.layout
    if not kernel.paging(kernel.init_mm).is_canonical(addr):
        bits = 12 + 9 * layout.levels
        raise ValueError(f"addr {addr:#x}: expected a canonical address of {bits} bits")
    slot = layout.pgd_index(addr)
    walk = kernel.walk(addr)
    init_mm = Table("init_mm", kernel.init_mm, on_pgd_list=False)
    reference = Reading((init_mm,), walk, kernel.pgtable.writers.of_walk(walk.steps))
    others = tuple(_readings(kernel, addr, reference))
    verdict = _verdict(kernel, slot, reference, others)
    return Why(addr, slot, layout.region(addr), verdict, reference, others)


def _readings(kernel: "Kernel", addr: int, reference: Reading) -> Iterator[Reading]:
    """Group the tables by what they have in the slot, and by who wrote that."""
    replay, slot = Replay(kernel), kernel.layout.pgd_index(addr)
    top = reference.walk.steps[0].entry
    alike: dict[tuple[str, int, str], list[Table]] = {}
    first: dict[tuple[str, int, str], Write | None] = {}
    for table in tables(kernel):
        entry = kernel.pgtable.get(kernel.pgtable.pgd_offset(table.mm.pgd, addr))
        write = replay.written(table.mm.pgd, slot)
        if kernel.pgtable.top_none(entry) and write is not None and write.how != "cleared":
            write = None
        key = table.family, entry & _SAME, write.by if write else ""
        alike.setdefault(key, []).append(table)
        first.setdefault(key, write)
    for key, members in alike.items():
        walk = kernel.walk(addr, members[0].mm)
        kind = _kind(kernel, key[1], top)
        below = reference.written[1:]
        if kind is not None:
            below = kernel.pgtable.writers.of_walk(walk.steps[1:], _NO_PARENT)
        cause = None
        if per_mm(kernel, slot):
            cause = Cause("per-mm")
        elif kind is not None:
            cause = _cause(kernel, replay, slot, kind, members)
        yield Reading(tuple(members), walk, (first[key], *below), kind, cause)


def _verdict(
    kernel: "Kernel", slot: int, reference: Reading, others: tuple[Reading, ...]
) -> Verdict:
    kinds = {reading.kind for reading in others if reading.tables[0].family != _USER_MODE}
    walk = reference.walk
    if per_mm(kernel, slot):
        return "per-mm"
    if "stale" in kinds:
        return "stale"
    if walk.verdict == "not-present":
        last = reference.written[-1]
        return "unmapped" if last is not None and last.how == "cleared" else "never-mapped"
    if walk.verdict != "mapped":
        return "malformed"
    if "lacking" in kinds:
        return "unsynced"
    return "different" if "flags" in kinds else "mapped"


def _kind(kernel: "Kernel", entry: int, reference: int) -> Kind | None:
    """Say how an entry of a top table differs from init_mm's, if it does."""
    none = kernel.pgtable.top_none
    if not (entry ^ reference) & _SAME or (none(entry) and none(reference)):
        return None
    if none(entry):
        return "lacking"
    return "stale" if none(reference) or (entry ^ reference) & ADDRESS else "flags"


def per_mm(kernel: "Kernel", slot: int) -> bool:
    """Tell whether each mm has a slot to itself: the user half, and the LDT's with PTI."""
    if slot < kernel.layout.kernel_pgd_boundary:
        return True
    return kernel.release.pti and slot == kernel.layout.ldt_slot


def _entries(kernel: "Kernel", mm: Mm, first: int) -> bytes:
    """Return the entries of a top table from slot `first` on."""
    return kernel.memory.peek(mm.pgd + ENTRY_SIZE * first, ENTRY_SIZE * (ENTRIES - first))


def _cause(kernel: "Kernel", replay: Replay, slot: int, kind: Kind, members: list[Table]) -> Cause:
    """Say why some tables of one sort have not what init_mm has."""
    at, event = replay.filled(slot) or (None, None)
    first = members[0]
    if first.family == _USER_MODE:
        return Cause("user-mode")
    if at is None or event is None:
        return Cause("unseen" if first.on_pgd_list else "outside-pgd-list")
    after, before = replay.forks_around(at)
    known = event.path, at, after, before
    if not first.on_pgd_list:
        copied = replay.copied(first.mm.pgd, slot, before=at)
        return Cause("outside-pgd-list", *known, copied.by if copied else None)
    if kind == "stale":
        write = replay.written(first.mm.pgd, slot)
        return Cause("replaced" if write is not None and write.at < at else "unseen", *known)
    forks = [replay.forked(table.mm.pgd) for table in members]
    if kind == "flags" or isinstance(event, Cleared) or any(f is None or f > at for f in forks):
        return Cause("unseen", *known)
    synced = replay.synced_since(slot, at)
    if isinstance(synced, SyncDied):
        return Cause("sync-died", *known, synced.by)
    if synced is not None:
        return Cause("unseen", *known)
    if _left_to_faults(kernel, event):
        return Cause("left-to-faults", *known)
    return Cause("not-synced", *known, _syncs_at_end(kernel, event))


def _left_to_faults(kernel: "Kernel", event: Populated) -> bool:
    layout = kernel.layout
    in_vmalloc = layout.vmalloc_base <= event.addr < layout.vmalloc_end
    return in_vmalloc and kernel.release.vmalloc_fault is not None


def _syncs_at_end(kernel: "Kernel", event: Populated) -> str | None:
    """Return the function that calls sync_global_pgds() when a path has come to its end, if any.

    It did not get there, or there would be a sync: it failed, died, or is still at it.
    """
    due = {
        "vmemmap_populate_basepages": "vmemmap_populate",
        "vmemmap_populate_hugepages": "vmemmap_populate",
        "__kernel_physical_mapping_init": "__kernel_physical_mapping_init",
    }
    if kernel.release.sync == "rfc-v1":
        due.clear()
    if kernel.release.vmalloc_sync == "map":
        due |= {path: path for path in ("ioremap_page_range", "map_kernel_range")}
    return due.get(event.path)
