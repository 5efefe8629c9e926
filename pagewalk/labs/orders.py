"""Things done to a page and its PTE, one after the other, and what the last of them comes to.

Knows each step as the CPU makes it, and as instructions in a file. Refuses to know which order is
to show what, but for one thing: whether the CPU may go on as if nothing had been changed.
"""

from typing import Final, NamedTuple

from emu.paging import RW, P
from pagewalk.labs.bench import INVLPG, LOAD, STORE, Bench

Order = tuple[str, ...]
"""The names of steps. The last one is an access, and most orders begin with the same."""

REMEMBERED: Final[tuple[Order, ...]] = (
    ("load", "clear P", "load"),
    ("load", "clear P", "invlpg q", "load"),
    ("store", "clear RW", "store"),
    ("store", "clear RW", "invlpg q", "store"),
)
"""After these, the TLB still has what the PTE said before."""
FORGOTTEN: Final[tuple[Order, ...]] = (
    ("clear P", "load"),
    ("load", "clear P", "invlpg p", "load"),
    ("load", "clear P", "write CR3", "load"),
    ("clear RW", "store"),
    ("store", "clear RW", "invlpg p", "store"),
    ("store", "clear RW", "write CR3", "store"),
)
"""After these, it has not, or never had."""
_CODE: Final = {
    "load": "mov     rax, [rdi]              # load from p",
    "store": "mov     [rdi], rax              # store to p",
    "clear P": "and     qword ptr [rsi], -2     # clear P in the PTE of p",
    "clear RW": "and     qword ptr [rsi], -3     # clear RW in the PTE of p",
    "invlpg p": "invlpg  [rdi]",
    "invlpg q": "invlpg  [rbp]                   # of q",
    "write CR3": "mov     rax, cr3\n        mov     cr3, rax                # as it is",
}
_CLEARED: Final = {"clear P": P, "clear RW": RW}


class Subject(NamedTuple):
    """What an order is done to: page p, where its PTE lies, and page q, under one root."""

    root: int
    p: int
    pte_pa: int
    q: int


def code(order: Order) -> str:
    """Return the instructions: RDI is p, RSI its PTE, RBP is q."""
    return "\n".join(f"        {_CODE[step]}" for step in order)


def error_code(order: Order, bench: Bench, subject: Subject) -> int | None:
    """Have the CPU do all of it, and return what the last access comes to."""
    from emu import PageFault

    bench.cr3 = subject.root
    accesses = {
        "load": (LOAD, subject.p),
        "store": (STORE, subject.p),
        "invlpg p": (INVLPG, subject.p),
        "invlpg q": (INVLPG, subject.q),
    }
    stop = None
    for step in order:
        if step in accesses:
            stop = bench.access(*accesses[step])
        elif step in _CLEARED:
            bench.put(subject.pte_pa, bench.get(subject.pte_pa) & ~_CLEARED[step])
        else:
            bench.cr3 = subject.root
    return stop.error_code if isinstance(stop, PageFault) else None
