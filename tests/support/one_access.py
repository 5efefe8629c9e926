"""What one access comes to, from the SDM: a model of its own, over a dict for RAM.

Imports nothing that it judges. A table entry is memory[frame, index]; the root's frame is -1.
"""

from collections.abc import Mapping

P, RW, US, A, D, PS, XD = 1, 2, 4, 32, 64, 128, 1 << 63
ROOT = -1
FRAMES = (1 << 28) - 1
ABOVE_MAXPHYADDR = (1 << 52) - (1 << 40)
BELOW_PAGE = {3: (1 << 30) - (1 << 13), 2: (1 << 21) - (1 << 13)}

Memory = Mapping[tuple[int, int], int]


def predicted(case):
    """Return (vector, error code, CR2), the entries after, and where each lies."""
    slots = [*places(case)]
    memory = dict(zip(slots, case.entries, strict=True))
    outcome = outcome_of(case, memory)
    return outcome, tuple(memory[slot] for slot in slots)


def places(case):
    """Yield where each entry lies."""
    frame = ROOT
    for level, entry in zip(range(case.levels, 0, -1), case.entries, strict=False):
        yield frame, index(case.va, level)
        frame = entry >> 12 & FRAMES


def is_ambiguous(case):
    """Tell whether one place would have to hold two values."""
    return len(set(places(case))) < len({*zip(places(case), case.entries, strict=True)})


def index(va, level):
    return va >> 3 + 9 * level & 511


def outcome_of(case, memory):
    """Make the access: set A and D in `memory`, and return what is raised."""
    bits = 3 + 9 * (case.levels + 1)
    if case.va >> bits - 1 not in (0, (1 << 65 - bits) - 1):
        return 13, 0, None
    write, fetch = case.kind == "write", case.kind == "fetch"
    code = 2 * write | 4 * case.user | 16 * (fetch and (case.nxe or case.smep))
    frame, allowed, forbidden = ROOT, RW | US, 0
    for level in range(case.levels, 0, -1):
        slot = frame, index(case.va, level)
        entry = memory.get(slot, 0)
        if not entry & P:
            return 14, code, case.va
        if entry & reserved(entry, level, case.nxe):
            return 14, code | 9, case.va
        allowed &= entry
        forbidden |= entry & XD
        if level == 1 or entry & PS:
            break
        memory[slot] |= A
        frame = entry >> 12 & FRAMES
    key = refused_by_key(case, entry, allowed)
    if key or refused(case, allowed, forbidden):
        return 14, code | 1 | 32 * key, case.va
    memory[slot] |= A | D * write
    return None, None, None


def reserved(entry, level, nxe):
    """Return the bits that must be 0."""
    bits = ABOVE_MAXPHYADDR | (0 if nxe else XD)
    if level > 3:
        return bits | PS
    return bits | (BELOW_PAGE.get(level, 0) if entry & PS else 0)


def refused(case, allowed, forbidden):
    """Tell whether a right is missing, protection keys aside."""
    if case.user:
        missing = not allowed & US or (case.kind == "write" and not allowed & RW)
        return missing or (case.kind == "fetch" and forbidden)
    if case.kind == "fetch":
        return forbidden or (allowed & US and case.smep)
    if allowed & US and case.smap and not case.ac:
        return True
    return case.kind == "write" and case.wp and not allowed & RW


def refused_by_key(case, leaf, allowed):
    """Tell whether the key of a user page refuses the access."""
    if not case.pke or not allowed & US or case.kind == "fetch":
        return False
    rights = case.pkru >> 2 * (leaf >> 59 & 15)
    write_disabled = rights & 2 and case.kind == "write" and (case.user or case.wp)
    return bool(rights & 1 or write_disabled)
