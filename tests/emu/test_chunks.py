"""Columns and events are the same thing: one can be had from the other."""

import pytest

from emu.chunks import chunk_of
from emu.events import Accessed, Cr3Switch, Executed, Invalidated, Walked

FETCH = Walked(0x1000, "fetch", user=False, steps=())
STORE, LOAD = Executed(0x1000, b"\x89\x07"), Executed(0x1002, b"\x8b\x07")
WRITE = Accessed(0x2000, 0x5000, 4, 0x1234, "write")
READ = Accessed(None, 0x5000, 8, (1 << 64) - 1, "read")
SWITCH = Cr3Switch(0x1000, 0x2000)

STREAMS = [
    [],
    [SWITCH],
    [STORE, WRITE, LOAD, READ],
    [FETCH, STORE, Walked(0x2000, "write", user=False, steps=()), WRITE, SWITCH, LOAD],
    [STORE, WRITE, Walked(0x2000, "read", user=True, steps=()), READ, Invalidated("cr3", 0x2000)],
]


@pytest.mark.parametrize("events", STREAMS)
def test_the_events_of_their_columns_are_the_same(events):
    assert list(chunk_of(events).events()) == events


def test_registers_stay_with_their_instruction():
    events = [STORE._replace(registers=tuple(range(16))), WRITE, LOAD._replace(registers=(7,) * 16)]

    assert list(chunk_of(events).events()) == events


def test_an_instruction_that_comes_again_has_the_same_number():
    chunk = chunk_of([STORE, WRITE, LOAD, STORE, WRITE])

    assert chunk.instructions.tolist() == [0, 1, 0]
    assert chunk.shapes == [STORE, LOAD]
    assert len(chunk) == 5
