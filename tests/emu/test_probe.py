"""One access under raw entries: what a CPU would do, and nothing left behind."""

import doctest
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.one_access import is_ambiguous, predicted

from emu import BadCase, Case, EngineError, Probe, Refusal, probe
from emu._unicorn import Engine
from emu.paging import PS, RW, US, XD, A, D, P, canonical

VA = 0x7F00_1234_5678
TABLE = P | RW | US
ENTRIES = (0x1000 | TABLE, 0x2000 | TABLE, 0x3000 | TABLE)
WALKED = tuple(entry | A for entry in ENTRIES)
GIB = 1 << 30
HOMES = [home >> 12 for home in probe._HOMES]


@pytest.fixture(scope="module")
def cpu():
    with Probe() as made:
        yield made


# -- against a model

indices = st.sampled_from([0, 1, 2, 3, 511]) | st.integers(0, 511)
frames = st.sampled_from([0, 1, 2, 3, 1 << 18, (1 << 28) - 1, *HOMES]) | st.integers(0, 2**28 - 1)
flags = st.sampled_from([TABLE, TABLE, TABLE, P | RW, P | US, TABLE | A | D]) | st.integers(0, 4095)
high = st.sampled_from([0, 0, 0, 0, XD, 1 << 40, 1 << 51, 1 << 52, 5 << 59])
entries = st.builds(lambda frame, low, top: frame << 12 | low | top, frames, flags, high)


@st.composite
def cases(draw):
    levels = draw(st.sampled_from([4, 5]))
    va = draw(st.integers(0, 7))
    for shift in range(3, 3 + 9 * (levels + 1), 9):
        va |= draw(indices) << shift
    if draw(st.integers(0, 19)):
        va = canonical(va, levels)
    given_entries = draw(st.lists(entries, min_size=1, max_size=levels))
    kind = draw(st.sampled_from(["read", "write", "fetch"]))
    switches = [draw(st.booleans()) for _ in range(7)]
    pkru = draw(st.sampled_from([0, 1 << 10, 2 << 10, 3, 0xFFFF_FFFF]))
    return Case(va, tuple(given_entries), levels, kind, *switches, pkru)


@settings(max_examples=600)
@given(cases().filter(lambda case: not is_ambiguous(case)))
def test_any_case_comes_to_what_the_model_says(cpu, case):
    verdict = cpu.access(case)

    outcome, after = predicted(case)
    assert (verdict[:3], verdict.entries_after) == (outcome, after)


@given(cases().filter(lambda case: not is_ambiguous(case)))
def test_any_case_leaves_ram_as_it_was(cpu, case):
    pa = cpu.see(case).walk.pa or 0

    words = cpu._benches[case.levels].machine.memory.words
    touched = [pa >> 12, *(entry >> 12 & (1 << 28) - 1 for entry in case.entries)]
    assert [frame for frame in touched if any(words[frame << 9 : frame + 1 << 9])] == []


# -- by example


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        (Case(VA, (*ENTRIES, 0x4000 | P)), (None, None, None, None, (*WALKED, 0x4000 | P | A))),
        (
            Case(VA, (*ENTRIES, 0x4000 | P | RW), kind="write"),
            (None, None, None, None, (*WALKED, 0x4000 | P | RW | A | D)),
        ),
        (
            Case(VA, (*ENTRIES, 0x4000 | P), kind="write"),
            (14, 3, VA, "wp", (*WALKED, 0x4000 | P)),
        ),
        (Case(VA, ENTRIES, user=True), (14, 4, VA, "not-present", WALKED)),
        (
            Case(VA, (0x1000, *ENTRIES[1:]), kind="fetch"),
            (14, 16, VA, "not-present", (0x1000, *ENTRIES[1:])),
        ),
        (
            Case(1 << 47, ENTRIES, kind="fetch", user=True),
            (13, 0, None, "non-canonical", ENTRIES),
        ),
    ],
    ids=["read", "write", "refused", "absent", "absent-at-the-root", "non-canonical"],
)
def test_a_case_comes_to_this(cpu, case, verdict):
    assert cpu.access(case) == verdict


@pytest.mark.parametrize("offset", [0, 7, 0xFFF])
@pytest.mark.parametrize("user", [False, True])
def test_a_fetch_executes_one_byte_anywhere_in_a_page(cpu, user, offset):
    case = Case(VA & -4096 | offset, (*ENTRIES, 0x4000 | P | US), kind="fetch", user=user)

    assert cpu.access(case).rule is None


def test_a_write_to_the_entry_that_maps_it_keeps_a_and_d(cpu):
    maps_itself = 0x1000 | P | RW

    verdict = cpu.access(Case(0, (maps_itself,) * 4, kind="write"))

    assert verdict.entries_after == (maps_itself | A, *(maps_itself | A | D,) * 3)


@pytest.mark.parametrize("byte", range(8))
def test_a_fetch_of_any_byte_of_an_entry_changes_it_no_more_than_by_a(cpu, byte):
    maps_itself = 0x1000 | P | RW

    verdict = cpu.access(Case(byte, (maps_itself,) * 4, kind="fetch"))

    assert verdict == (None, None, None, None, (maps_itself | A,) * 4)


def test_a_refused_fetch_of_an_entry_faults_as_any_other(cpu):
    maps_itself = 0x1000 | P | RW | XD

    verdict = cpu.access(Case(0, (maps_itself,) * 4, kind="fetch"))

    assert verdict[:4] == (14, 0x11, 0, "xd")


@pytest.mark.parametrize("extra", [0, 1 << 13], ids=["refused", "reserved-bit"])
def test_the_engine_s_a_on_a_refused_gigabyte_is_seen_and_taken_back(cpu, extra):
    case = Case(VA, (0x1000 | TABLE, GIB | PS | P | extra), user=True)

    seen = cpu.see(case)

    assert seen.entries_after == (0x1000 | TABLE | A, case.entries[1] | A)
    assert cpu.access(case).entries_after == (0x1000 | TABLE | A, case.entries[1])


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("levels", [4, 5])
def test_no_frame_is_the_probe_s_own_for_a_case_that_names_it(cpu, home, levels):
    table = home << 12 | TABLE
    elsewhere = tuple([(frame << 12) | TABLE for frame in HOMES if frame != home])
    va = 511 << 12

    verdicts = [
        cpu.access(Case(va, entries, levels)).rule
        for entries in ((table, table + 0x1000), elsewhere[:levels], (table,))
    ]

    assert verdicts == ["not-present", None, "not-present"]


def test_walk_and_rights_are_there_to_be_compared(cpu):
    seen = cpu.see(Case(VA, (*ENTRIES, 0x4000 | P), kind="write"))

    assert [step.entry for step in seen.walk.steps] == [*ENTRIES, 0x4000 | P]
    assert (seen.walk.pa, seen.refusal) == (0x4678, Refusal(3, "wp"))
    assert [slot & 0xFFF for slot in seen.slots] == [254 * 8, 0, 145 * 8, 325 * 8]


def test_the_cpu_and_the_tables_never_disagree_in_silence(cpu, monkeypatch):
    monkeypatch.setattr(probe, "refusal", lambda *_: Refusal(5, "of no rule"))

    with pytest.raises(EngineError, match=r"CPU reports no exception.* say #PF 0x5 at 0x7f00"):
        cpu.access(Case(VA, (*ENTRIES, 0x4000 | P)))


@pytest.mark.parametrize(
    ("field", "case"),
    [
        ("levels", Case(VA, ENTRIES, levels=3)),
        ("va", Case(1 << 64, ENTRIES)),
        ("va", Case(-1, ENTRIES)),
        ("entries", Case(VA, ())),
        ("entries", Case(VA, ENTRIES + ENTRIES)),
        ("entries", Case(VA, (0x1007, 1 << 64))),
        ("entries", Case(0, (0x1007, 0x1007, 0x1027))),
        ("kind", Case(VA, ENTRIES, kind="execute")),
        ("pkru", Case(VA, ENTRIES, pkru=1 << 32)),
    ],
)
def test_bad_input_names_the_field(cpu, field, case):
    with pytest.raises(BadCase, match=f"^{field} .*: expected") as error:
        cpu.access(case)

    assert error.value.field == field


def test_two_values_for_one_place_name_the_entry_that_comes_too_late(cpu):
    with pytest.raises(BadCase, match=r"entries 0x1027: expected 0x1007, .* pa 0x1000") as error:
        cpu.access(Case(0, (0x1007, 0x1007, 0x1027)))

    assert error.value.entry == 2


def test_a_bad_case_does_not_disturb_the_next(cpu):
    with pytest.raises(BadCase):
        cpu.access(Case(0, (0x1007, 0x1007, 0x1027)))

    assert cpu.access(Case(0, (0x1007,) * 4)).rule is None


def test_a_run_that_is_interrupted_does_not_disturb_the_next(cpu, monkeypatch):
    case = Case(VA, (*ENTRIES, 0x4000 | P), kind="write")
    monkeypatch.setattr(Engine, "forget_exception", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cpu.access(case)
    monkeypatch.undo()

    assert cpu.access(case).rule == "wp"


def interrupt(_):
    """Be where Ctrl-C is pressed."""
    raise KeyboardInterrupt


def test_the_example_in_the_documentation_is_true():
    assert doctest.testmod(probe) == (0, 2)


def test_memory_does_not_grow_with_the_cases():
    with Probe() as cpu:
        touch_anywhere(cpu, 3000)
        before = resident()
        touch_anywhere(cpu, 6000)

        assert resident() - before < 16 << 20


def touch_anywhere(cpu, number):
    """Fetch through tables that lie far from each other, and in none of the probe's homes."""
    rng = random.Random(number)
    for _ in range(number):
        anywhere = tuple([rng.randrange(1 << 27) << 12 | TABLE for _ in range(4)])
        cpu.access(Case(VA, anywhere, kind="fetch"))


def resident():
    """Return the bytes of this process in the host's memory: its pages, and their tables."""
    with open("/proc/self/status") as status:
        sizes = dict(line.split(":", 1) for line in status)
    return sum(int(sizes[name].split()[0]) << 10 for name in ("VmRSS", "VmPTE"))
