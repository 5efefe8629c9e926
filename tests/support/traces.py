"""Trace files for tests: a header, events of all kinds, files written and read back."""

from hypothesis import strategies as st

from emu import Halted, OutsideRam, PageFault, Paging, Returned, Shutdown, StepLimit, Trap
from emu.chunks import chunk_of
from emu.events import (
    Accessed,
    Cr3Switch,
    Delivered,
    Edited,
    Executed,
    Faulted,
    Invalidated,
    Walked,
    WalkedStep,
)
from emu.interrupts import Delivery
from emu.walk import Step, Walk
from pagewalk.traces.files import TraceFile
from pagewalk.traces.header import Header, Names, Region
from pagewalk.traces.reading import read_trace

ROOT, OTHER_ROOT = 0x1000, 0x2000
TASKS = {ROOT: "init_mm", OTHER_ROOT: "early"}
CODE = 0xFFFF_FFFF_8100_0000
ENDING = {
    "instructions": 2,
    "outcome": "completed",
    "stop": {"kind": "returned", "value": "0x0"},
}


def symbol(address):
    """Two functions of 0x100 bytes, `first` and `second`."""
    if CODE <= address < CODE + 0x200:
        name = ("first", "second")[address >> 8 & 1]
        return f"{name}+{address & 0xFF:#x}/0x100"
    return None


def header(*, registers=False, cpus=1, tasks=TASKS):
    return Header(
        source={"file": "test.S"},
        paging=Paging.long_mode(ROOT),
        cpl=0,
        entry=CODE,
        cr3=(ROOT,) * cpus,
        tasks=tasks,
        regions=(Region(".text", CODE, CODE + 0x1000),),
        registers=registers,
    )


def write(path, *streams, registers=False, tasks=TASKS, ending=ENDING, cpus=None):
    """Write streams of events into a file, each as a chunk of its own, of these `cpus`."""
    path = str(path)
    cpus = cpus or [0] * len(streams)
    about = header(registers=registers, cpus=max(cpus, default=0) + 1, tasks=tasks)
    file = TraceFile(path, about, Names(symbol, lambda: tasks))
    first = 0
    for cpu, events in zip(cpus, streams, strict=True):
        chunk = chunk_of(events, cpu=cpu, first=first)
        first += len(chunk.instructions)
        file.write(chunk)
    if ending is not None:
        file.close(ending)
    return path


def read(path):
    """Return a file's events."""
    return [seen.event for seen in read_trace(str(path)).events()]


# ------------------------------------------------------------------ events, for Hypothesis

u64 = st.integers(0, (1 << 64) - 1)
pas = st.integers(0, (1 << 40) - 1)
vas = st.one_of(u64, st.integers(CODE, CODE + 0x1FF))
entry_pas = pas.map(lambda pa: pa & -8)
codes = st.binary(min_size=1, max_size=15)
levels = st.integers(1, 4)


def _accessed(size):
    values = st.integers(0, (1 << 8 * size) - 1)
    kinds = st.sampled_from(("read", "write"))
    return st.builds(Accessed, st.none() | u64, pas, st.just(size), values, kinds)


steps = st.builds(Step, levels, entry_pas, u64)
reasons = st.sampled_from(("not-present", "wp", "rsvd-ps", "us", "smap"))


@st.composite
def _page_faults(draw):
    va, reason = draw(vas), draw(reasons)
    verdict = {"not-present": "not-present", "rsvd-ps": "reserved-bit"}.get(reason, "mapped")
    found = tuple(draw(st.lists(steps, min_size=1, max_size=4)))
    walk = Walk(va, found, verdict, found[-1].entry_pa & -4096)
    cpl, cr3 = draw(st.integers(0, 3)), draw(pas)
    return PageFault(va, draw(st.integers(0, 63)), draw(vas), walk, cpl, cr3, reason)


@st.composite
def _outside_ram(draw):
    pa, what = draw(pas), draw(st.sampled_from(("leaf", "table", "root")))
    if what == "leaf":
        found = tuple(draw(st.lists(steps, min_size=1, max_size=4)))
        walk = Walk(draw(vas), found, "mapped", found[-1].entry_pa & -4096)
    else:
        walk = Walk(draw(vas), tuple(draw(st.lists(steps, max_size=3))), "outside-ram", pa & -4096)
    return OutsideRam(pa, draw(vas), what, walk)


traps = st.builds(Trap, st.integers(0, 255), st.none() | st.integers(0, 0xFFFF), vas)
exceptions = st.one_of(_page_faults(), traps)
shutdowns = st.builds(Shutdown, vas, st.lists(exceptions, max_size=4).map(tuple))
deliveries = st.builds(
    Delivery,
    exceptions=st.lists(exceptions, min_size=1, max_size=3).map(tuple),
    cpl=st.integers(0, 3),
    cs=st.integers(0, 0xFFFF),
    ss=st.integers(0, 0xFFFF),
    rip=vas,
    rsp=u64,
    rflags=u64,
    cr2=st.none() | u64,
    stores=st.dictionaries(pas, u64, max_size=7),
)
stops = st.one_of(
    st.builds(Returned, u64),
    _page_faults(),
    traps,
    _outside_ram(),
    st.builds(Halted, vas),
    st.builds(StepLimit, vas, st.none() | u64),
    shutdowns,
)
walked_steps = st.lists(st.builds(WalkedStep, levels, entry_pas, u64, u64), max_size=4).map(tuple)
kinds = st.sampled_from(("read", "write", "fetch"))
walks = st.builds(Walked, vas, kinds, st.booleans(), walked_steps)
registers_invalidated = st.sampled_from(("invlpg", "cr3", "pkru"))
others = st.one_of(
    st.sampled_from((1, 2, 4, 8)).flatmap(_accessed),
    walks,
    st.builds(Invalidated, registers_invalidated, u64),
    st.builds(Edited, entry_pas, st.lists(u64, min_size=1, max_size=512).map(tuple), st.text()),
    st.builds(Cr3Switch, pas, pas),
    st.builds(Faulted, st.one_of(exceptions, _outside_ram(), shutdowns), codes | st.just(b"")),
    st.builds(Delivered, deliveries, codes | st.just(b"")),
)
plain = st.lists(st.one_of(st.builds(Executed, vas, codes, st.none()), others))
general = st.lists(u64, min_size=16, max_size=16).map(tuple)
with_registers = st.lists(st.one_of(st.builds(Executed, vas, codes, general), others))
