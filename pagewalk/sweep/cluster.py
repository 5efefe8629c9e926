"""Doing units of work on a Dask cluster; its scheduler gives another worker what a lost one had.

Knows `distributed`, which is an optional extra and loaded here alone. Refuses to know what a unit
is made of. Scheduler and workers must have the same pagewalk as we have.
"""

import logging
from collections.abc import Generator, Mapping
from typing import Final

from emu import EmuError
from pagewalk.arguments import BadInput, bad
from pagewalk.sweep.identity import identity as own_identity
from pagewalk.sweep.judging import do_unit
from pagewalk.sweep.tally import KEPT, Tally, Unit

_PATIENCE: Final = 5  # seconds until a scheduler must have answered


class Unfit(EmuError):
    """The cluster cannot do our units."""


def on_cluster(units: Mapping[int, Unit], address: str) -> Generator[tuple[int, Tally], None, None]:
    """Yield each unit's number and result as it is done, in any order.

    BadInput if there is no scheduler at the address, or no `distributed` here; Unfit if the
    cluster has not got our pagewalk, or a unit lost one worker after the other.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise BadInput(
            "--scheduler needs the package distributed: pip install 'pagewalk[dask]'"
        ) from None
    for name in ("distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they have to say is told below
    try:
        client = Client(address, timeout=_PATIENCE)
    except (OSError, ValueError):
        bad("--scheduler", repr(address), "the address of a Dask scheduler that runs")
    with client:
        work = list(units.values())
        futures = client.map(do_unit_as, work, identity=own_identity(), pure=False)
        numbers = dict(zip((future.key for future in futures), units, strict=True))
        try:
            for future, tally in as_completed(futures, with_results=True):
                if not isinstance(tally, dict):  # that is how it says that there is no scheduler
                    raise Unfit(f"the scheduler is gone; {KEPT}")
                yield numbers[future.key], tally
        except KilledWorker as error:
            raise Unfit(str(error)) from None
        except (ImportError, RuntimeError) as error:  # they have another Python, or no pagewalk
            raise Unfit(f"the cluster cannot load pagewalk.sweep: {error}") from None


def do_unit_as(unit: Unit, identity: dict[str, str]) -> Tally:
    """Do a unit on a worker, provided that it has what we have."""
    found = own_identity()
    if found != identity:
        raise Unfit(f"a worker has {found}: expected {identity}, as here")
    return do_unit(unit)
