"""The story of a run, told to people: layout, what happened, the oops, two walks side by side.

Knows the order of telling. Refuses to know how a line looks (`render`).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emu import PageFault, Walk
from kernel_model.auditing import Lacking, audit
from kernel_model.history import Populated
from kernel_model.scenarios.outcome import ScenarioRun
from pagewalk import render
from pagewalk.guard import SECONDS
from pagewalk.render_trace import Lines

if TYPE_CHECKING:
    from emu.trace import MachineRecorder
    from kernel_model.kernel import Kernel
    from kernel_model.mm import Mm


def story_lines(run: ScenarioRun, recorder: "MachineRecorder | None" = None) -> Iterator[str]:
    """Tell a finished run, with what was recorded of it."""
    kernel, scenario = run.kernel, run.scenario
    layout = kernel.layout
    yield f"{scenario.name}: {scenario.summary}"
    yield (
        f"release {kernel.release.name} ({kernel.release.summary}), build {kernel.build.name}, "
        f"{layout.levels} levels"
    )
    yield "  " + " ".join(f"{p.name}={p.show(run.settings[p.name])}" for p in scenario.parameters)
    yield ""
    yield "Layout"
    for line in render.layout_lines(layout):
        yield "  " + line
    yield f"  a table has one entry for each {layout.pgdir_size >> 30} GiB"
    yield ""
    yield "What happened"
    for line in render.history_lines(kernel.history[kernel.nr_boot_events :]):
        yield "  " + line
    yield from _unsynced_lines(kernel)
    for note in run.ending.notes:
        yield f"  {note}"
    yield ""
    if recorder is not None:
        yield f"Trace: the end of {recorder.instructions} instructions"
        lines = Lines(kernel.image.describe, lambda: kernel.cpu.paging)
        for event in recorder.events():
            yield from lines.of(event)
        yield ""
    yield from _end_lines(run)
    yield ""
    yield from _source_lines(run)


def _unsynced_lines(kernel: "Kernel") -> Iterator[str]:
    """Say which tables lack a slot that was filled since boot; read from the tables themselves."""
    differs = {one.slot: one for one in audit(kernel) if one.tables[0].on_pgd_list}
    events = kernel.history[kernel.nr_boot_events :]
    filled = {e.slot: e for e in events if isinstance(e, Populated)}.values()
    verdicts: list[tuple[int, int, str]] = []  # first slot, last slot, what is true of them
    for event in filled:
        entry = kernel.pgtable.get(kernel.pgtable.pgd_offset(kernel.init_mm.pgd, event.addr))
        if not kernel.pgd_list or (kernel.pgtable.top_none(entry) and event.slot not in differs):
            continue
        verdict = _verdict(differs.get(event.slot))
        if verdicts and verdicts[-1][1:] == (event.slot - 1, verdict):
            verdicts[-1] = verdicts[-1][0], event.slot, verdict
        elif (event.slot, event.slot, verdict) not in verdicts:
            verdicts.append((event.slot, event.slot, verdict))
    for first, last, verdict in verdicts:
        slots, is_ = (f"slot {first}", "is") if first == last else (f"slots {first}..{last}", "are")
        yield f"  {slots} {is_} {verdict}"


def _verdict(one: Lacking | None) -> str:
    """Say who has not what init_mm has in a slot, if anybody."""
    if one is None:
        return "in every task's table"
    names = [table.name for table in one.tables]
    some = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    if one.kind == "lacking":
        return f"not synced: {some} {'lacks' if len(names) == 1 else 'lack'} it"
    return f"another one than init_mm's in the table of {some}"


def _end_lines(run: ScenarioRun) -> Iterator[str]:
    kernel, ending = run.kernel, run.ending
    oops = run.oops
    if oops:
        yield "Oops"
        yield from oops.rstrip("\n").split("\n")
    elif run.outcome == "error":
        yield f"The kernel refused: {run.as_json()['error']}"
    elif run.outcome == "limit":
        yield f"limit: it took longer than {SECONDS} seconds, and was {ending.stop}"
    else:
        yield f"{run.outcome}: {ending.stop}"
    yield ""
    addr = ending.touched
    mm = ending.task.mm
    if isinstance(ending.stop, PageFault) and ending.stop.walk is not None:
        addr, theirs = ending.stop.address, ending.stop.walk
    else:
        theirs = kernel.walk(addr, mm)
    if mm is kernel.init_mm:
        yield f"The walk for {addr:016x} under init_mm's table, which {ending.task.comm} runs on"
        for line in render.walk_lines(theirs, kernel.paging(mm)):
            yield "  " + line
        return
    yield f"The walk for {addr:016x}, under {mm.name}'s table and under init_mm's"
    for line in two_walks(kernel, mm, theirs):
        yield "  " + line


def two_walks(kernel: "Kernel", mm: "Mm", theirs: Walk) -> Iterator[str]:
    """Show a walk under `mm`'s table beside that of the same address under init_mm's, as it is now.

    The last line names the entry by which they differ.
    """
    ours = kernel.walk(theirs.va)
    left = [mm.name, *render.walk_lines(theirs, kernel.paging(mm))]
    right = ["init_mm", *render.walk_lines(ours, kernel.paging(kernel.init_mm))]
    yield from render.beside(left, right)
    yield render.difference_text(theirs, ours, mm.name, "init_mm", kernel.layout.levels)


def _source_lines(run: ScenarioRun) -> Iterator[str]:
    """Cite what broke it and what fixed it: of this death, or of the ones that did not happen."""
    scenario = run.scenario
    died = run.oops is not None
    died_in = getattr(run.ending.stop, "symbol", None) or ""
    for function, commit in scenario.broke.items():
        if not died:
            yield f"a death{f' in {function}' if function else ''} would come from {commit}"
        elif died_in.startswith(function):
            yield f"broke: {commit}"
    if isinstance(scenario.fixed, str):
        yield f"fixed: {scenario.fixed}"
    else:
        for function, commit in scenario.fixed.items():
            if died_in.startswith(function):
                yield f"fixed: {commit}"
            elif not died:
                yield f"that in {function} was fixed by {commit}"
    if died:
        yield f"look at: {scenario.look_at}"
