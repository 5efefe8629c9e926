"""Files for other tools: Tenet, Perfetto, drcov."""

import json
import struct
from itertools import pairwise

import pytest
from support import traces
from support.traces import CODE, OTHER_ROOT, ROOT

from emu import PageFault, Trap
from emu.events import Accessed, Cr3Switch, Delivered, Executed, Faulted, Invalidated, Walked
from emu.interrupts import Delivery
from pagewalk.traces import perfetto

NOP = b"\x90"
ZERO = (0,) * 16


def registers(**given):
    names = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
    return tuple(given.get(name, 0) for name in names)


def nops(*offsets):
    return [Executed(CODE + offset, NOP) for offset in offsets]


# ------------------------------------------------------------------ Tenet


@pytest.fixture
def tenet(tmp_path):
    """Return the lines of a file, each as a dict of its parts."""

    def lines(*streams, **named):
        path = traces.write(tmp_path / "t.tenet", *streams, registers=True, **named)
        with open(path, encoding="ascii") as file:
            return file.read().splitlines()

    return lines


def test_the_first_line_has_all_registers_and_rip_last(tenet):
    (line,) = tenet([Executed(CODE, NOP, registers(rax=1, r15=0xABC))])

    parts = [part.split("=") for part in line.split(",")]
    assert [name for name, _ in parts] == [*traces_names(), "rip"]
    assert (parts[0][1], parts[15][1], parts[16][1]) == ("0x1", "0xabc", f"{CODE:#x}")


def traces_names():
    return "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()


def test_a_line_has_what_the_instruction_before_it_left(tenet):
    events = [
        Executed(CODE, b"\x48\x8b\x07", ZERO),
        Accessed(0x1000, 0x5000, 4, 0x11223344, "read"),
        Executed(CODE + 3, b"\x48\x89\x06", registers(rax=0x11223344)),
        Accessed(0x2000, 0x6000, 2, 0x3344, "write"),
        Accessed(None, 0x7000, 8, 1, "read"),
        Executed(CODE + 6, NOP, registers(rax=0x11223344)),
    ]

    lines = tenet(events)

    assert lines[1] == f"rax=0x11223344,rip={CODE + 3:#x},mr=0x1000:44332211"
    assert lines[2] == f"rip={CODE + 6:#x},mw=0x2000:4433"


def test_it_does_not_matter_where_chunks_end(tenet):
    events = [
        Executed(CODE, NOP, registers(rbx=7)),
        Accessed(0x1000, 0x5000, 1, 0xFF, "write"),
        Executed(CODE + 1, NOP, registers(rbx=7)),
    ]

    whole = tenet(events)

    assert tenet(events[:1], events[1:2], events[2:]) == whole
    assert whole[1] == f"rip={CODE + 1:#x},mw=0x1000:ff"


def test_the_last_instruction_leaves_its_memory_at_the_rip_of_the_end(tenet):
    events = [Executed(CODE, NOP, ZERO), Accessed(0x1000, 0x5000, 1, 1, "write")]
    stop = {"kind": "halted", "rip": "0x77"}

    assert tenet(events)[-1] == f"rip={CODE + 1:#x},mw=0x1000:01"
    assert tenet(events, ending={**traces.ENDING, "stop": stop})[-1] == "rip=0x77,mw=0x1000:01"


def test_an_exceptions_frame_is_memory_that_is_written(tenet):
    stores = {0x9108: 0x18, 0x9100: 0x8000, 0x4118: 1}
    delivery = Delivery((Trap(6, None, CODE),), 0, 0x10, 0x18, CODE, 0xF100, 2, None, stores)
    events = [
        Executed(CODE, NOP, ZERO),
        Delivered(delivery, b""),
        Executed(CODE + 9, NOP, registers(rsp=0xF100)),
    ]

    line = tenet(events)[-1]

    assert line == (
        f"rsp=0xf100,rip={CODE + 9:#x},mw=0xf108:1800000000000000,mw=0xf100:0080000000000000"
    )


# ------------------------------------------------------------------ Perfetto


@pytest.fixture
def timeline(tmp_path):
    """Return the events of a file, by their phase."""

    def read(*streams, **named):
        path = traces.write(tmp_path / "t.json", *streams, **named)
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        return {phase: [e for e in found if e["ph"] == phase] for phase in "MXiC"}

    return read


def slices(found, process):
    return [(e["name"], e["ts"], e["dur"]) for e in found["X"] if e["pid"] == process]


def test_a_slice_is_a_stretch_in_one_function(timeline):
    found = timeline(nops(0, 1, 2, 0x100, 0x101, 3))

    assert slices(found, 1) == [("first", 0, 3), ("second", 3, 2), ("first", 5, 1)]


def test_a_slice_goes_on_over_chunks(timeline):
    assert slices(timeline(nops(0, 1), nops(2), nops(3, 0x100)), 1) == [
        ("first", 0, 4),
        ("second", 4, 1),
    ]


def test_each_cpu_and_each_task_has_a_track(timeline):
    switch = Cr3Switch(ROOT, OTHER_ROOT)

    found = timeline([*nops(0, 1), switch, *nops(2, 3, 4)], nops(5), cpus=[0, 1])

    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in found["M"] if "tid" in e}
    assert names == {(1, 0): "CPU 0", (1, 1): "CPU 1", (2, 0): "init_mm", (2, 1): "early"}
    assert slices(found, 2)[0] == ("on CPU 0", 0, 2)


def test_faults_and_invalidations_are_instants_with_their_fields(timeline):
    fault = PageFault(0x1000, 2, CODE, None, 0, ROOT, "not-present")

    found = timeline([*nops(0), Invalidated("invlpg", 0x5000), Faulted(fault, b"\x90")])

    *_, invalidation, page_fault, _ = found["i"]
    assert (invalidation["name"], invalidation["ts"]) == ("invlpg 0x5000", 1)
    assert page_fault["name"].startswith("#PF at 0x1000: supervisor write")
    assert page_fault["args"]["address"] == "0x1000"


def test_walks_are_counted(timeline):
    found = timeline([Walked(CODE, "fetch", False, ()), *nops(0)])

    assert found["C"][-1]["args"] == {"walks": 1}


def test_the_first_instant_says_what_the_time_is_and_the_last_how_it_ended(timeline):
    found = timeline(nops(0))

    assert found["i"][0]["args"]["time"] == "1 us stands for 1 instruction"
    assert found["i"][-1]["args"]["outcome"] == "completed"


def test_slices_of_one_track_do_not_overlap(timeline, monkeypatch):
    monkeypatch.setattr(perfetto, "MOST_SLICES", 7)

    found = slices(timeline(nops(*range(0, 0x200, 0x40)) * 50), 1)

    assert all(a[1] + a[2] == b[1] for a, b in pairwise(found))
    assert sum(dur for _, _, dur in found) == 400


def test_a_long_run_of_short_slices_is_bounded_and_says_so(timeline, monkeypatch):
    monkeypatch.setattr(perfetto, "MOST_SLICES", 10)
    monkeypatch.setattr(perfetto, "MOST_INSTANTS", 5)
    stretch = [*nops(0, 0x100), Invalidated("invlpg", 0x5000)]

    found = timeline(stretch * 1000)

    assert len(found["X"]) < 100
    assert "stretches, the last in" in found["X"][-2]["name"]
    assert len(found["i"]) == 5 + 2
    assert found["i"][-1]["args"]["instants left out"] == 995


def test_a_file_that_is_cut_off_lacks_the_bracket_alone(tmp_path):
    path = traces.write(tmp_path / "t.json", nops(0, 0x100, 1), nops(2), ending=None)
    with open(path, encoding="utf-8") as file:
        text = file.read()

    assert text.startswith("[\n{")
    assert json.loads(text + "]")


# ------------------------------------------------------------------ drcov


@pytest.fixture
def coverage(tmp_path):
    """Return the modules' lines, and the blocks as (module, offset, size)."""

    def read(*streams, **named):
        path = tmp_path / "t.drcov"
        traces.write(path, *streams, **named)
        head, _, rest = path.read_bytes().partition(b"BB Table: ")
        count, _, table = rest.partition(b" bbs\n")
        blocks = [(module, at, size) for at, size, module in struct.iter_unpack("<IHH", table)]
        assert len(blocks) == int(count)
        return head.decode().splitlines(), blocks

    return read


JUMP = b"\xeb\x10"


def jump(offset):
    return Executed(CODE + offset, JUMP)


def test_the_header_is_that_of_version_2(coverage):
    lines, _ = coverage(nops(0))

    assert lines == [
        "DRCOV VERSION: 2",
        "DRCOV FLAVOR: drcov",
        "Module Table: version 2, count 1",
        "Columns: id, base, end, entry, path",
        f"0, {CODE:#018x}, {CODE + 0x1000:#018x}, {CODE:#018x}, .text",
    ]


@pytest.mark.parametrize(
    ("events", "blocks"),
    [
        (nops(0, 1, 2), [(0, 3)]),
        ([*nops(0), jump(1), *nops(0x13, 0x14)], [(0, 3), (0x13, 2)]),
        ([*nops(0), jump(1), *nops(3)], [(0, 3), (3, 1)]),  # to the next one, and still a jump
        (nops(0, 1, 5, 6), [(0, 2), (5, 2)]),
        ([*nops(0), Faulted(Trap(6, None, CODE), b""), *nops(1)], [(0, 1), (1, 1)]),
        ([jump(0)] * 3, [(0, 2)]),
        ([Executed(CODE, b"\xf3\xa4")] * 5 + nops(2), [(0, 3)]),  # a rep's iterations
        ([], []),
    ],
)
def test_basic_blocks_end_where_control_may_go_elsewhere(coverage, events, blocks):
    _, found = coverage(events)

    assert found == [(0, *block) for block in blocks]


@pytest.mark.parametrize("at", range(1, 6))
def test_chunks_do_not_end_a_block(coverage, at):
    events = [*nops(0, 1), jump(2), *nops(0x14, 0x15, 0x16)]

    assert coverage(events[:at], events[at:]) == coverage(events)


def test_code_outside_all_regions_gets_a_module_of_its_own(coverage):
    lines, blocks = coverage([Executed(0x7000_0000_1234, NOP)])

    assert lines[-1].endswith("code-0x700000000000")
    assert blocks == [(1, 0x1234, 1)]
