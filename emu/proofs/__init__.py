"""Every behaviour of the engine that the project relies on, and how to see each.

Read `bare`, then any of the others. All but `deviations`, `hooks` and `recording` judge the bare
engine, by nothing of ours but the layout of its saved context; those show what is made of it.
Refuses to know who asks, and what becomes of a proof that fails.
"""

from typing import Final

from emu.proofs import (
    caches,
    deviations,
    hooks,
    privilege,
    recording,
    refusals,
    state,
    stops,
    tables,
)
from emu.proofs.proof import Proof as Proof
from emu.proofs.proof import ProofFailed as ProofFailed

PROOFS: Final = (
    *state.PROOFS,
    *stops.PROOFS,
    *tables.PROOFS,
    *caches.PROOFS,
    *hooks.PROOFS,
    *recording.PROOFS,
    *privilege.PROOFS,
    *deviations.PROOFS,
    *refusals.PROOFS,
)
