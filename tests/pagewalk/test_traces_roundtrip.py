"""What is read from a trace file is what was written, in both formats that are read."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import traces
from support.traces import CODE, OTHER_ROOT, ROOT

from emu.chunks import chunk_of
from emu.events import Accessed, Cr3Switch, Delivered, Executed, Faulted
from pagewalk.traces import parsing, rows
from pagewalk.traces.reading import read_trace

FORMATS = pytest.mark.parametrize("ending", [".jsonl.zst", ".parquet"])
ONE_DIRECTORY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=60,
    deadline=None,
)
NOP = Executed(CODE, b"\x90")


def walks_of(events):
    """What `==` does not compare: the walks of faults, and of the exceptions in a delivery."""
    stops = [e.stop for e in events if isinstance(e, Faulted)]
    for event in events:
        if isinstance(event, Delivered):
            stops += event.delivery.exceptions
    stops += [exc for stop in stops for exc in getattr(stop, "exceptions", ())]
    return [(getattr(s, "walk", None), getattr(s, "reason", None)) for s in stops]


@FORMATS
@ONE_DIRECTORY
@given(events=traces.plain)
def test_every_event_comes_back(tmp_path, ending, events):
    found = traces.read(traces.write(tmp_path / f"t{ending}", events))

    assert found == events
    assert walks_of(found) == walks_of(events)


@FORMATS
@ONE_DIRECTORY
@given(events=traces.with_registers)
def test_registers_come_back(tmp_path, ending, events):
    path = traces.write(tmp_path / f"t{ending}", events, registers=True)

    assert traces.read(path) == events


@FORMATS
@ONE_DIRECTORY
@given(streams=st.lists(traces.plain, max_size=4))
def test_chunks_follow_one_another(tmp_path, ending, streams):
    found = traces.read(traces.write(tmp_path / f"t{ending}", *streams))

    assert found == [event for events in streams for event in events]


@ONE_DIRECTORY
@given(stop=traces.stops)
def test_every_way_to_stop_comes_back(stop):
    from pagewalk.objects import Objects

    assert parsing.read_stop(Objects(traces.symbol, 4).stop(stop)) == stop


@given(events=traces.plain, most=st.integers(1, 5))
def test_pieces_of_a_chunk_are_the_chunk(events, most):
    chunk = chunk_of(events, first=7)

    pieces = list(rows.pieces(chunk, most))

    assert [event for piece in pieces for event in piece.events()] == events
    assert all(len(piece.instructions) <= most for piece in pieces)
    firsts = [piece.first for piece in pieces]
    assert firsts == [7 + i * most for i in range(len(pieces))]


@FORMATS
def test_the_header_comes_back(tmp_path, ending):
    path = traces.write(tmp_path / f"t{ending}")

    assert read_trace(path).header == traces.header()


@FORMATS
def test_the_ending_comes_back(tmp_path, ending):
    trace = read_trace(traces.write(tmp_path / f"t{ending}", [NOP, NOP]))

    assert len(list(trace.events())) == 2
    assert trace.ending.found == {**traces.ENDING, "nr_events": 2}
    assert not trace.cut_off


@FORMATS
def test_every_event_has_its_cpu_and_its_task(tmp_path, ending):
    switch = Cr3Switch(ROOT, OTHER_ROOT)
    path = traces.write(tmp_path / f"t{ending}", [NOP, switch, NOP], [NOP], cpus=[0, 1])

    found = [(seen.cpu, seen.cr3, seen.task) for seen in read_trace(path).events()]

    assert found == [
        (0, ROOT, "init_mm"),
        (0, OTHER_ROOT, "early"),
        (0, OTHER_ROOT, "early"),
        (1, ROOT, "init_mm"),
    ]


@FORMATS
def test_a_task_that_was_forked_later_has_its_name_from_the_switch(tmp_path, ending):
    tasks = dict(traces.TASKS)
    path = str(tmp_path / f"t{ending}")
    from pagewalk.traces.files import TraceFile
    from pagewalk.traces.header import Names

    file = TraceFile(path, traces.header(), Names(traces.symbol, lambda: tasks))
    tasks[0x7000] = "late"
    file.write(chunk_of([Cr3Switch(ROOT, 0x7000)]))
    file.close(traces.ENDING)

    assert [seen.task for seen in read_trace(path).events()] == ["late"]


@FORMATS
def test_addresses_have_their_names(tmp_path, ending):
    trace = read_trace(traces.write(tmp_path / f"t{ending}", [NOP, NOP._replace(rip=CODE + 0x104)]))
    list(trace.events())

    assert trace.symbols == {CODE: "first+0x0/0x100", CODE + 0x104: "second+0x4/0x100"}


def test_both_formats_say_the_same(tmp_path):
    events = [NOP, Accessed(CODE, 0x3000, 8, 1, "write"), Cr3Switch(ROOT, OTHER_ROOT)]

    first, second = (
        list(read_trace(traces.write(tmp_path / f"t{ending}", events)).events())
        for ending in (".jsonl.zst", ".parquet")
    )

    assert first == second
