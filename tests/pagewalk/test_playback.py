"""A run at any of its events: what its tables held, where CR3 pointed, who was there."""

import pytest
from support import traces
from support.playbacks import differences, roots, tables_in_ram, tables_in_the_middle
from support.traces import CODE, OTHER_ROOT, ROOT

from emu.events import Accessed, Cr3Switch, Edited, Executed, Faulted, Walked, WalkedStep
from kernel_model import Kernel
from kernel_model.scenarios import SCENARIOS
from pagewalk.playback.entry_values import Change, EntryValues
from pagewalk.playback.moments import Untold
from pagewalk.playback.of_scenario import Capture, play_back
from pagewalk.playback.of_trace import read_back
from pagewalk.traces.reading import read_trace

STORE = Executed(CODE, b"\x48\x89\x07")  # mov [rdi], rax
VA = 0xFFFF_E700_0000_0034
PGD = ROOT + 0xE70
SHORT = ("sync-race", "vmemmap-subpmd", "trace-fault-loop", "ldt-slot", "hot-readd")


def arguments(levels=4, **settings):
    return {"release": None, "build": None, "levels": levels, "settings": settings}


@pytest.fixture(scope="module", params=SHORT)
def played(request):
    playback, run = play_back(request.param, arguments(), keep=None)
    return playback, run.kernel


# ------------------------------------------------------------------ RAM is the truth


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_at_the_end_every_table_holds_what_ram_does(scenario):
    playback, run = play_back(scenario, arguments(), keep=1000)

    tables = tables_in_ram(run.kernel)
    assert differences(playback, playback.nr_events, tables) == []
    assert playback.tasks(playback.nr_events) == roots(run.kernel)


@pytest.mark.parametrize("scenario", ["vmemmap-subpmd", "sync-race", "pti-user-half"])
def test_so_it_does_with_five_levels(scenario):
    playback, run = play_back(scenario, arguments(levels=5))

    assert differences(playback, playback.nr_events, tables_in_ram(run.kernel)) == []


@pytest.mark.parametrize(
    ("scenario", "nr"),
    [("sync-race", 9), ("hot-readd", 12), ("trace-fault-loop", 20), ("ioremap-512g", 250)],
)
def test_in_the_middle_it_holds_what_ram_did_in_a_run_that_is_looked_at_there(scenario, nr):
    playback, _ = play_back(scenario, arguments(), keep=None)
    edits = [at for at, event in enumerate(playback.events, 1) if isinstance(event, Edited)]

    tables = tables_in_the_middle(scenario, nr)

    assert len(tables) > 10
    assert differences(playback, edits[nr - 1], tables) == []
    assert differences(playback, edits[nr - 1] - 1, tables) != []


def test_each_walk_of_the_cpu_read_what_the_playback_says(played):
    playback, _ = played

    wrong = [
        (at, step)
        for at, event in enumerate(playback.events, 1)
        if isinstance(event, Walked)
        for step in event.steps
        if (playback.entry(at - 1, step.entry_pa), playback.entry(at, step.entry_pa))
        != (step.before, step.after)
    ]

    assert wrong == []


def test_each_fault_s_walk_is_walked_again(played):
    playback, _ = played

    faults = [at for at in playback.moments("fault") if isinstance(playback.event(at), Faulted)]
    stops = [playback.event(at).stop for at in faults]

    again = [
        playback.walk(at, playback.paging(at), stop.walk.va)
        for at, stop in zip(faults, stops, strict=True)
        if getattr(stop, "walk", None)
    ]
    assert again == [stop.walk for stop in stops if getattr(stop, "walk", None)]


def test_a_thousand_tasks_have_what_fork_copied():
    kernel = Kernel("6.8")
    capture = Capture(keep=None)
    with capture.recording(kernel):
        forked = [kernel.fork(f"task-{i}") for i in range(1000)]
        kernel.exit(forked[500])

    playback = capture.playback("forks", "")

    assert differences(playback, playback.nr_events, tables_in_ram(kernel)) == []
    assert len(playback.tasks(1)) == 2
    assert len(playback.tasks(playback.nr_events - 1)) == 1000
    assert playback.tasks(playback.nr_events) == roots(kernel)


# ------------------------------------------------------------------ what is kept


@pytest.fixture(scope="module")
def whole_and_kept():
    whole, _ = play_back("trace-fault-loop", arguments(), keep=None)
    kept, _ = play_back("trace-fault-loop", arguments(), keep=2000)
    return whole, kept


def test_the_tables_are_right_at_every_event_that_is_kept(whole_and_kept):
    whole, kept = whole_and_kept
    moments = range(1, kept.nr_events + 1, 61)

    wrong = [
        (at, frame)
        for at in moments
        for frame in whole.values.frames
        if kept.table(at, frame) != whole.table(kept.numbers[at - 1], frame)
    ]

    assert wrong == []


def test_so_are_cr3_and_the_tasks(whole_and_kept):
    whole, kept = whole_and_kept
    moments = range(1, kept.nr_events + 1)

    now = [(kept.cr3(at), kept.tasks(at)) for at in moments]

    assert now == [(whole.cr3(n), whole.tasks(n)) for n in kept.numbers]


def test_the_last_events_are_kept_and_those_that_tell_most(whole_and_kept):
    whole, kept = whole_and_kept
    edits = [n for n, event in enumerate(whole.events, 1) if isinstance(event, Edited)]

    assert (kept.nr_events, kept.nr_left_out) == (2000, whole.nr_events - 2000)
    assert kept.events == [whole.events[number - 1] for number in kept.numbers]
    assert list(kept.numbers[-1000:]) == list(range(whole.nr_events - 999, whole.nr_events + 1))
    assert set(edits) <= set(kept.numbers)
    assert len(kept.moments("fault")) == len(whole.moments("fault"))


def test_of_a_trace_it_is_the_same(tmp_path, whole_and_kept):
    from pagewalk.cli import main

    path = str(tmp_path / "run.jsonl.zst")
    main(["run", "trace-fault-loop", "-o", path])

    whole, kept = (read_back(read_trace(path), keep=keep) for keep in (None, 2000))

    assert kept.nr_events == 2000
    assert set(whole.moments("fault")) <= set(kept.numbers)
    assert [kept.table(2000, f) for f in whole.values.frames] == [
        whole.table(whole.nr_events, f) for f in whole.values.frames
    ]


def test_backwards_is_as_good_as_forwards(played):
    playback, _ = played
    at = playback.nr_events
    places = {change.entry_pa for change in playback.values.changes}
    now = {pa: playback.entry(at, pa) for pa in places}

    for change in reversed(playback.values.changes):
        assert now[change.entry_pa] == change.after
        now[change.entry_pa] = change.before

    assert now == {pa: playback.entry(0, pa) for pa in places}


def test_a_fault_a_change_and_a_switch_are_found_from_either_side(played):
    playback, _ = played
    faults, end = playback.moments("fault"), playback.nr_events

    assert playback.following(0, "fault") == faults[0]
    assert playback.preceding(end + 1, "fault") == faults[-1]
    assert playback.following(faults[-1], "fault") is None
    assert all(playback.changes(at) for at in playback.moments("change"))
    switches = playback.moments("switch")
    assert [playback.cr3(at) for at in switches] == [playback.event(at).new for at in switches]


def test_the_registers_are_those_before_the_instruction():
    playback, _ = play_back("sync-race", arguments(), registers=True)
    fault = playback.moments("fault")[0]

    executed = playback.instruction(fault)

    assert executed.registers == playback.registers(fault)
    assert len(playback.registers(fault)) == 16


# ------------------------------------------------------------------ trace files


@pytest.fixture
def told(tmp_path):
    """Return the playback of a trace of these events."""

    def read(*events, keep=None, **options):
        path = traces.write(tmp_path / "t.jsonl.zst", events, **options)
        return read_back(read_trace(path), keep=keep)

    return read


def walk(*steps, kind="read"):
    return Walked(VA & -4096, kind, False, tuple(WalkedStep(*step) for step in steps))


@pytest.mark.parametrize("scenario", ["sync-race", "trace-fault-loop"])
def test_a_trace_tells_nothing_that_was_not_so(tmp_path, scenario):
    from pagewalk.cli import main

    path = str(tmp_path / "run.jsonl.zst")
    main(["run", scenario, "-o", path])
    whole, _ = play_back(scenario, arguments(), keep=None)

    playback = read_back(read_trace(path), keep=None)

    moments = range(0, whole.nr_events + 1, 97)
    entries = [
        (at, pa, playback.entry(at, pa), whole.entry(at, pa))
        for at in moments
        for frame in playback.values.frames
        for pa in range(frame, frame + 4096, 8)
    ]
    told = [one for one in entries if one[2] is not None]
    assert len(told) > 100
    assert [one for one in told if one[2] != one[3] and one[3] is not None] == []


@pytest.mark.parametrize(("keep", "has"), [(20, False), (380, True), (None, True)])
def test_it_knows_whether_what_tells_most_is_all_there(tmp_path, keep, has):
    from pagewalk.cli import main

    path = str(tmp_path / "run.jsonl.zst")
    main(["run", "hot-readd", "-o", path])

    playback, _ = play_back("hot-readd", arguments(), keep=keep)

    assert playback.has_telling == has
    assert read_back(read_trace(path), keep=keep).has_telling == has


def test_what_a_walk_read_was_there_from_the_beginning(told):
    playback = told(STORE, STORE, walk((4, PGD, 0x9047, 0x9067)))

    assert [playback.entry(at, PGD) for at in (0, 2, 3)] == [0x9047, 0x9047, 0x9067]
    assert playback.changes(3) == [Change(3, PGD, 0x9047, 0x9067)]


def test_what_nobody_told_is_unknown_and_ends_a_walk(told):
    playback = told(walk((4, PGD, 0x9067, 0x9067)))

    found = playback.walk(1, playback.paging(1), VA)

    assert found == Untold(VA, ((4, PGD, 0x9067),), 3, 0x9000)


def test_the_stores_into_a_table_that_is_linked_later_are_known(told):
    store = Accessed(None, 0x9000, 8, 0xA067, "write")
    playback = told(STORE, store, Edited(PGD, (0x9067,), "pgd_populate"))

    found = playback.walk(3, playback.paging(3), VA)

    assert [step.entry for step in found.steps] == [0x9067, 0xA067]


def test_each_moment_has_its_own_cr3_and_task(told):
    playback = told(STORE, Cr3Switch(ROOT, OTHER_ROOT), STORE)

    assert [playback.cr3(at) for at in range(4)] == [ROOT, ROOT, OTHER_ROOT, OTHER_ROOT]
    assert [playback.task(at) for at in (0, 3)] == ["init_mm", "early"]


def test_a_file_that_was_cut_off_is_played_back_up_to_there(told):
    playback = told(*[STORE] * 70_000, ending=None)

    assert 30_000 < playback.nr_events < 70_000
    assert playback.ending == "the file was cut off"


# ------------------------------------------------------------------ single words


@pytest.mark.parametrize(
    ("pa", "size", "value", "after"),
    [
        (0x1000, 8, 0x1122334455667788, 0x1122334455667788),
        (0x1000, 1, 0x01, 0x9001),
        (0x1001, 2, 0xABCD, 0xABCD67),
        (0x1007, 1, 0x80, 0x8000000000009067),
        (0x0FFE, 4, 0x55443322, 0x5544),
    ],
)
def test_a_store_changes_the_bytes_that_it_covers(pa, size, value, after):
    values = EntryValues()
    values.saw(0, 0x1000, (0x9067,))

    values.wrote_bytes(1, pa, size, value)

    assert (values.value(0, 0x1000), values.value(1, 0x1000)) == (0x9067, after)


def test_a_part_of_a_word_that_nobody_knew_leaves_it_unknown():
    values = EntryValues()

    values.wrote_bytes(1, 0x1000, 4, 1)
    values.saw(2, 0x1000, (7,))

    assert [values.value(at, 0x1000) for at in range(3)] == [None, None, 7]


def test_a_word_that_was_written_unseen_is_right_from_when_it_is_seen():
    values = EntryValues()
    values.wrote(1, 0x1000, (1,))

    values.saw(5, 0x1000, (0,))

    assert values.changes == [Change(1, 0x1000, None, 1), Change(5, 0x1000, 1, 0)]


def test_a_run_of_words_may_cross_into_the_next_frame():
    values = EntryValues()

    values.wrote(1, 0x1FF8, (1, 2))

    assert (values.frames, values.value(1, 0x2000)) == ([0x1000, 0x2000], 2)
    assert isinstance(values.changes[0], Change)
