"""The cases of the sweep, run once more by the probe: what it says is what the oracle predicts.

The probe takes raw entries and speaks for a CPU, hence it has corrected what the sweep only names.
"""

import random

import pytest
from support.oracle import predict

from emu import Case, Probe
from emu.paging import A, D
from pagewalk.sweep.conditions import written
from pagewalk.sweep.entries import setting
from pagewalk.sweep.families import families

SAMPLE = 800
NOT_THE_PROBES = {"twice", "update"}  # it makes one access, of one kind
MUST_GET = (0, 0, A, A | D)
MAY_GET = (0, A, A, A | D)


@pytest.fixture(scope="module")
def probe():
    with Probe() as probe:
        yield probe


def probed(conditions, levels):
    """The case as the probe takes it."""
    made = setting(conditions, levels, 0)
    controls = {
        "wp": "cr0.wp",
        "smep": "cr4.smep",
        "smap": "cr4.smap",
        "nxe": "efer.nx",
        "ac": "ac",
        "pke": "cr4.pke",
    }
    return Case(
        made.va,
        made.entries,
        levels,
        made.access.kind,
        made.access.user,
        pkru=made.paging.pkru,
        **{option: name in conditions for option, name in controls.items()},
    )


def may_be(before, after, mark):
    """Tell whether an entry may become what it became."""
    return not ((before | MUST_GET[mark]) & ~after or after & ~(before | MAY_GET[mark]))


def disagreements(probe, levels, cases):
    """Describe the cases on which the probe does not say what the oracle predicts."""
    for case in cases:
        asked = probed(case, levels)
        verdict, predicted = probe.access(asked), predict(case, levels, asked.va)
        entries = zip(asked.entries, verdict.entries_after, predicted.marks, strict=True)
        if verdict[:3] != predicted[:3] or not all(may_be(*entry) for entry in entries):
            yield written(case, levels), verdict, predicted


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("name", list(families(5)))
def test_the_probe_says_what_the_oracle_predicts(probe, name, levels):
    family = families(levels)[name]
    numbers = random.Random(name).sample(range(family.size), min(SAMPLE, family.size))
    cases = [case for case in map(family.case, numbers) if not case & NOT_THE_PROBES]

    assert len(cases) > 40
    assert list(disagreements(probe, levels, cases)) == []
