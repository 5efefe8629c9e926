"""What recording in machine code relies on, and which recorder this host has.

Knows that both recorders write the same events. Refuses to know how.
"""

from typing import Final

from emu._layout import tlb_fill
from emu.events import Event, Walked
from emu.proofs.bare import COUNT, DATA, DATA_PA, LOAD, STORE
from emu.proofs.ours import Ours
from emu.proofs.proof import Proof, proof, seen
from emu.trace import Recorder, why_not_native

_PROGRAM: Final = LOAD + COUNT + STORE + b"\x57\x5e" + b"\x0f\x01\x3f" + LOAD  # push, pop, invlpg


def _recorded(*, native: bool) -> list[Event]:
    guest = Ours()
    guest.map(DATA, DATA_PA)
    guest.put(_PROGRAM)
    with Recorder(guest.cpu, native=native) as recorder:
        guest.run(rdi=DATA, rsp=DATA + 0x800)
        guest.run(rdi=DATA + 0x1000, rsp=DATA + 0x800)
    return recorder.events()


@proof(
    "recorder", "what is recorded in machine code, where the host runs that, is what Python sees"
)
def recorder() -> str:
    by_python = _recorded(native=False)
    reason = why_not_native()
    if reason is not None:
        return f"Python records, {len(by_python)} events: {reason}"
    by_machine = _recorded(native=True)
    return seen(
        by_machine == by_python,
        f"machine code records, {len(by_machine)} events; Python sees "
        f"{'the same' if by_machine == by_python else f'others: {len(by_python)}'}",
    )


@proof("tlb-fill", "the engine walks through a pointer of the CPU's own, for each page anew")
def fills() -> str:
    guests = Ours(), Ours()
    pointers = [tlb_fill(guest.cpu.engine.handle) for guest in guests]
    before = pointers[1].value
    events = _recorded(native=why_not_native() is None)
    pages = [hex(event.va) for event in events if isinstance(event, Walked)]
    return seen(
        pointers[0].value == before == pointers[1].value and len(pages) == len(set(pages)) + 2,
        f"a fetch, a load, a store after it, a load after invlpg: walks for {' '.join(pages)}",
    )


PROOFS: Final[tuple[Proof, ...]] = (recorder, fills)
