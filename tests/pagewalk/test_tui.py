"""`pagewalk tui`: a run is stepped through, and the screen shows what the playback knows."""

import sys
from itertools import pairwise

import pytest
from support import traces
from support.cli import run_cli
from support.tui import SMALL, WIDE, answer, press

from emu import PageFault, VirtAddr
from emu.events import Delivered, Edited, Executed, Faulted
from emu.paging import A, D
from emu.registers import GENERAL
from pagewalk.arguments import BadInput
from pagewalk.playback.of_scenario import play_back
from pagewalk.playback.of_source import run_back
from pagewalk.playback.of_trace import read_back
from pagewalk.traces.reading import read_trace
from pagewalk.tui.going import (
    address,
    find,
    first,
    first_look,
    following_instruction,
    place,
    preceding_instruction,
)
from pagewalk.tui.keys import KEYS
from pagewalk.tui.moment import Moment

ARGUMENTS = {"release": None, "build": None, "levels": 4, "settings": {}}


def play(scenario, **options):
    """A scenario's playback, with registers."""
    playback, run = play_back(scenario, ARGUMENTS, registers=True, **options)
    run.kernel.close()
    return playback


@pytest.fixture(scope="module")
def played():
    """A scenario of 97 events that ends in a fault, and its run, whose kernel is still there."""
    playback, run = play_back("vmemmap-subpmd", ARGUMENTS, registers=True)
    yield playback, run
    run.kernel.close()


@pytest.fixture(scope="module")
def playback(played):
    return played[0]


@pytest.fixture(scope="module")
def opened(playback):
    """The screen as it is at first, on a wide terminal."""
    return press(playback, at=first_look(playback))


@pytest.fixture(scope="module")
def small(playback):
    """The same on a small one."""
    return press(playback, size=SMALL)


def moments(playback, *kinds):
    """The moments right after the events of some types."""
    return [at for at in range(1, playback.nr_events + 1) if isinstance(playback.event(at), kinds)]


# ------------------------------------------------------------------ the fault


def test_it_begins_at_the_fault_and_shows_the_walk_and_the_reason(playback, opened):
    fault = playback.event(opened.at).stop

    assert isinstance(fault, PageFault)
    assert f"{fault.address:016x}  a write that faults, error code 0x2" in opened.screen
    assert f"PML4E pgd=p4d {fault.walk.steps[-1].slot} 0x0 -  at 0x" in opened.screen
    assert "→ not present: the walk stops here" in opened.screen


def test_the_line_of_the_fault_has_the_instruction_and_what_it_raised(playback, opened):
    name = playback.symbolise(playback.event(opened.at).stop.rip).partition("/")[0]

    (current,) = [line for line in opened.screen.split("\n") if "▶" in line and "#PF" in line]

    assert f"{opened.at} " in current
    assert current.index(name) < current.index("mov qword ptr [rbx], 0  ● #PF")


def test_the_status_has_event_cpu_task_and_cr3(playback, opened):
    at = playback.nr_events

    status = f"event {at} of {at}   CPU 0   {playback.task(at)}   CR3 {playback.cr3(at):#x}"

    assert status in opened.screen


def test_the_registers_of_a_fault_are_those_that_the_instruction_found(playback, opened):
    registers = playback.event(opened.at).stop.registers

    assert f"rbx {registers.rbx:016x}" in opened.screen
    assert f"rip {registers.rip:016x}" in opened.screen


def test_a_handled_fault_has_its_own_walk():
    playback = play("trace-fault-loop")
    at = moments(playback, Delivered)[0]

    subject = Moment(playback, at).subject

    assert subject.walk is playback.event(at).delivery.exceptions[0].walk
    assert "that faults" in subject.what


# ------------------------------------------------------------------ stepping


def test_there_and_back_again_is_the_same_screen(playback, opened):
    seen = press(playback, *"pppkk", *"jjnnn", "c", "left", "right")

    assert seen.at == opened.at
    assert seen.screen == opened.screen


def test_a_step_goes_from_instruction_to_instruction_and_back_through_all_of_them(playback):
    executed = moments(playback, Executed, Faulted)

    assert [following_instruction(playback, at) for at in executed] == [*executed[1:], None]
    assert [preceding_instruction(playback, at) for at in executed] == [None, *executed[:-1]]


def test_keys_step_by_instructions_and_move_by_events(playback):
    executed = moments(playback, Executed)

    seen = press(playback, "home", "n", "n", "n", "p", "j")

    assert seen.at == executed[1] + 1


def test_at_either_end_it_stays(playback):
    seen = press(playback, "n", "j", "pagedown", "home", "p", "k", "pageup")

    assert seen.at == 0
    assert seen.said == ["no instruction follows", "no instruction before"]


@pytest.mark.parametrize("kind", ["change", "switch"])
def test_a_key_goes_to_the_next_of_a_kind_and_its_capital_to_the_one_before(playback, kind):
    key = kind[0]
    first, last = playback.moments(kind)[0], playback.moments(kind)[-1]

    assert press(playback, key, at=0).at == first
    assert press(playback, key.upper()).at == last


def test_it_says_that_there_is_no_other_fault(playback):
    assert press(playback, "f").said == ["no fault or exception follows"]


def test_an_event_that_is_pointed_at_is_gone_to(playback):
    assert press(playback, at=0, click=(5, 8)).at == 7  # below the border, 0 is first


# ------------------------------------------------------------------ registers


def test_the_registers_are_those_that_were_recorded_with_the_instruction(playback):
    at = moments(playback, Executed)[10]
    recorded = playback.event(at).registers

    seen = press(playback, at=at)

    found = {f"{n} {v:016x}" for n, v in zip(GENERAL, recorded, strict=True)}
    assert {text for text in found if text in seen.screen} == found


def test_those_that_the_instruction_before_has_changed_are_marked(playback):
    def rsp(at):
        return playback.event(at).registers[GENERAL.index("rsp")]

    steps = pairwise(moments(playback, Executed))
    at = next(after for before, after in steps if rsp(before) != rsp(after))

    seen = press(playback, at=at)

    assert "●rsp" in seen.screen
    assert "●r15" not in seen.screen


def test_a_file_without_registers_and_tables_has_no_guesses(tmp_path):
    path = traces.write(tmp_path / "a.jsonl.zst", [Executed(traces.CODE, b"\x90")])

    seen = press(read_back(read_trace(path), keep=None))

    assert "first+0x0  nop" in seen.screen
    assert "not recorded" in seen.screen
    assert "nobody told what this entry holds" in seen.screen


# ------------------------------------------------------------------ walks and tables


def test_an_address_that_is_typed_is_walked_as_the_kernel_walks_it(played):
    playback, run = played
    task = run.ending.task
    va = run.kernel.symbol("__init_single_page")

    seen = press(playback, *answer("a", f"{va:#x}"))

    found = run.kernel.walk(VirtAddr(va), task.mm)
    entries = {f"{step.entry:#x} P " for step in found.steps}
    assert seen.moment.subject.walk == found
    assert f"{va:016x}  asked for" in seen.screen
    assert {entry for entry in entries if entry in seen.screen} == entries
    assert f"→ pa {found.pa:#x}, in the 2M page at" in seen.screen


def test_nothing_typed_is_what_the_event_is_about_again(playback, opened):
    seen = press(playback, *answer("a", "0x1000"), *answer("a", ""))

    assert seen.moment.typed is None
    assert seen.screen == opened.screen


def test_a_name_that_is_nearly_right_is_refused_with_the_right_one_and_can_be_mended(playback):
    seen = press(playback, *answer("a", "memcpy_erm"), "s", "enter")

    assert seen.said[0].endswith("did you mean memcpy_erms?")
    assert seen.moment.typed == playback.symbols["memcpy_erms"]


@pytest.mark.parametrize("text", ["0x800000000000", "0x1ffff888000000000", "nonsense", "-1", ""])
def test_what_is_no_address_is_refused(playback, text):
    with pytest.raises(BadInput, match="expected"):
        address(playback, text, "walk")


def test_a_symbol_may_have_an_offset_and_a_size(playback):
    start = playback.symbols["memcpy_erms"]

    assert address(playback, "memcpy_erms", "walk") == start
    assert address(playback, "memcpy_erms+0x9/0x12", "walk") == start + 9
    assert address(playback, f"{start:016x}", "walk") == start


def test_an_instruction_is_about_its_access(playback):
    at = next(
        n for n in moments(playback, Executed) if Moment(playback, n).subject.what == "a write"
    )

    access = next(playback.event(n) for n in range(at, at + 4) if hasattr(playback.event(n), "pa"))

    assert Moment(playback, at).subject.walk.pa == access.pa


def test_the_tables_have_what_ram_has(played):
    playback, run = played
    root = run.ending.task.mm.pgd >> 3
    entries = {
        slot: entry
        for slot, entry in enumerate(run.kernel.memory.words[root : root + 512])
        if entry
    }

    seen = press(playback, size=(160, 120))

    found = {slot for slot, entry in entries.items() if f"{entry:#x}  " in seen.screen}
    assert len(entries) > 10
    assert found == entries.keys()


def test_an_entry_unfolds_into_its_table_and_stays_so(playback):
    seen = press(playback, "t", "home", "down", "enter", "p", "n", "p")

    (first, *_) = seen.app.tables.root.children
    assert first.is_expanded
    assert len(first.children) > 0


def test_an_event_that_changes_an_entry_is_marked_and_so_is_the_entry(playback):
    at = playback.moments("change")[-1]
    change = playback.changes(at)[-1]

    seen = press(playback, at=at)

    assert seen.moment.changed_entries == {change.entry_pa}
    assert f"▶ {at}●" in seen.screen
    assert f"●entry at {change.entry_pa:#x}: {change.before:#x} → {change.after:#x}" in seen.screen


# ------------------------------------------------------------------ going and finding


def test_one_goes_to_a_number_an_address_or_a_symbol(playback):
    end, stop = playback.nr_events, playback.event(playback.nr_events).stop

    assert first(place(playback, 5, "12", "goto")) == 12
    assert first(place(playback, 5, f"{stop.rip:#x}", "goto")) == end
    assert first(place(playback, 5, f"{stop.rip:016x}", "goto")) == end
    assert first(place(playback, 5, playback.symbolise(stop.rip), "goto")) == end
    assert first(place(playback, 5, "fault", "goto")) == end
    assert first(place(playback, 5, "begin", "goto")) == 0
    assert first(place(playback, 5, "memcpy_erms", "goto")) is None


def test_behind_the_last_time_that_an_address_is_executed_comes_the_first(playback):
    at = moments(playback, Executed)[3]

    assert first(place(playback, at, f"{playback.event(at).rip:#x}", "goto")) == at


def test_a_number_is_gone_to_and_one_past_the_end_is_refused(playback):
    seen = press(playback, *answer("g", "98"), "escape", *answer("g", "12"))

    assert seen.said == ["goto 98: expected an event's number, 97 at most"]
    assert seen.at == 12


def test_a_text_is_found_and_found_again(playback):
    one = first(find(playback, 0, "RSP", forward=True))
    two = first(find(playback, one, "RSP", forward=True))

    seen = press(playback, *answer("slash", "RSP"), "full_stop", "full_stop", "comma", at=0)

    assert 0 < one < two
    assert seen.at == two


@pytest.fixture
def patient(monkeypatch):
    """Every event takes as long to look at as many do."""
    monkeypatch.setattr("pagewalk.tui.app._SLICE", -1)
    monkeypatch.setattr("pagewalk.tui.app._PAUSE", 0)


def test_what_takes_long_to_find_is_found_in_the_end(playback, patient):
    seen = press(playback, *answer("slash", "RSP"), at=0)

    assert seen.said == ["still looking; Esc stops"]
    assert seen.at == first(find(playback, 0, "RSP", forward=True))


@pytest.mark.parametrize(("key", "at"), [("escape", 1), ("end", 97)])
def test_keys_are_heard_while_it_looks_and_whoever_goes_on_is_left_there(
    playback, patient, monkeypatch, key, at
):
    monkeypatch.setattr("pagewalk.tui.app._PAUSE", 0.1)

    seen = press(playback, *answer("slash", "cpuid"), key, at=1)

    assert (seen.at, seen.said) == (at, ["still looking; Esc stops"])


@pytest.mark.parametrize("text", ["cpuid", "[rax]", "[/]"])
def test_a_text_that_is_nowhere_is_not_found(playback, text):
    seen = press(playback, *answer("slash", text), toasts=True)

    assert seen.said == [f"no {text!r} follows"]
    assert seen.said[0] in seen.screen


def test_keys_are_text_while_one_types(playback):
    seen = press(playback, "slash", "n", "slash", "question_mark", "q")

    assert seen.at == playback.nr_events
    assert " n/?q " in seen.screen


# ------------------------------------------------------------------ the terminal


def test_the_help_has_every_key_that_says_what_it_does_and_closes_again(playback, small):
    unfolded = press(playback, "question_mark", size=SMALL)
    closed = press(playback, "question_mark", "escape", size=SMALL)

    wanted = {key.what for key in KEYS if key.what}
    assert {what for what in wanted if what in unfolded.screen} == wanted
    assert closed.screen == small.screen


def test_every_key_has_an_action(opened):
    actions = {key.action.partition("(")[0].removeprefix("app.") for key in KEYS}

    assert {name for name in actions if not hasattr(opened.app, f"action_{name}")} == set()


def test_all_panes_stand_side_by_side_where_there_is_room(opened):
    names = {"─ Events ─", "─ Registers ─", "─ Walk ─", "─ Tables ─"}

    assert {name for name in names if name in opened.screen} == names


@pytest.mark.parametrize(
    ("key", "shown", "hidden"),
    [
        ("r", "─ Registers ─", "─ Walk ─"),
        ("t", "─ Tables ─", "─ Walk ─"),
    ],
)
def test_in_80_columns_the_panes_take_turns(playback, key, shown, hidden):
    seen = press(playback, key, size=SMALL)

    assert shown in seen.screen
    assert hidden not in seen.screen
    assert "─ Events ─" in seen.screen


def test_it_follows_the_terminal_when_that_grows_and_shrinks(playback, opened, small):
    assert press(playback, size=SMALL, resize=WIDE).screen == opened.screen
    assert press(playback, size=WIDE, resize=SMALL).screen == small.screen


@pytest.mark.parametrize("size", [(60, 12), (20, 5)])
def test_the_current_event_is_seen_however_low_the_terminal(playback, size):
    assert "▶" in press(playback, size=size).screen


@pytest.mark.parametrize("before", [(), ("a",), ("question_mark",)])
def test_ctrl_c_quits_whatever_is_open(playback, before):
    assert press(playback, *before, "ctrl+c").app._exit


def test_light_is_another_theme(playback):
    assert press(playback, "d").app.theme == "textual-light"


def test_without_colours_the_same_is_said(playback, opened, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    seen = press(playback)

    assert seen.app.no_color
    assert seen.screen == opened.screen


def test_of_a_long_run_the_first_events_are_left_out_and_the_others_keep_their_numbers():
    playback = play("vmemmap-subpmd", keep=50)
    told = next(at for at in range(1, 51) if playback.numbers[at - 1] > at)

    seen = press(playback, "home", *["j"] * told)

    assert "the beginning; 47 events are left out" in seen.screen
    assert f"event {playback.numbers[told - 1]} of 97" in seen.screen
    assert f"⋮{playback.numbers[told - 1]}" in seen.screen
    assert first(place(playback, 0, "97", "goto")) == 50
    assert first(place(playback, 0, f"{playback.numbers[told - 1] - 1}", "goto")) == told


def test_an_instruction_that_was_kept_for_what_it_changed_has_its_registers():
    whole, kept = play("vmemmap-subpmd"), play("vmemmap-subpmd", keep=50)
    at = next(n for n in moments(kept, Executed) if kept.numbers[n] > n + 1)

    assert kept.event(at) == whole.event(kept.numbers[at - 1])
    assert Moment(kept, at).registers == Moment(whole, kept.numbers[at - 1]).registers
    assert Moment(kept, at).changed_registers == frozenset()


def test_an_event_is_its_own_cpus():
    playback = play("sync-race")
    at = moments(playback, Edited)[-1]

    seen = press(playback, at=at)

    assert "sync_global_pgds writes entry" in seen.screen
    assert f"CPU {playback.cpu(at)}   {playback.task(at)}" in seen.screen
    assert seen.moment.subject is None


# ------------------------------------------------------------------ the command


def test_without_a_terminal_it_refuses():
    status, output, error = run_cli("tui", "vmemmap-subpmd", parse=False)

    assert (status, output) == (2, "")
    assert "is no terminal: expected one" in error


def test_without_textual_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "textual.app", None)
    monkeypatch.delitem(sys.modules, "pagewalk.tui.app", raising=False)

    status, _, error = run_cli("tui", "vmemmap-subpmd", parse=False)

    assert status == 2
    assert error == "pagewalk: pagewalk tui needs textual: pip install 'pagewalk[tui]'\n"


@pytest.fixture
def at_a_terminal(monkeypatch):
    """Standard input and output pass for a terminal; what would be shown is kept."""
    from pagewalk.commands import tui
    from pagewalk.tui.app import Stepper

    shown = []
    monkeypatch.setattr(tui, "is_interactive", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(Stepper, "run", lambda app: shown.append(app))
    return shown


def test_a_dumb_terminal_is_not_drawn_on(at_a_terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")

    status, _, error = run_cli("tui", "vmemmap-subpmd", parse=False)

    assert (status, at_a_terminal) == (2, [])
    assert error == "pagewalk: TERM is dumb: expected a terminal that can be drawn on\n"


def test_a_trace_file_is_shown_as_well(at_a_terminal, tmp_path):
    path = traces.write(tmp_path / "a.jsonl.zst", [Executed(traces.CODE, b"\x90")] * 5)

    status, _, _ = run_cli("tui", path, "--at", "3", parse=False)

    assert status == 0
    assert at_a_terminal[0].at == 3


def test_a_scenario_begins_at_its_fault(at_a_terminal):
    status, _, _ = run_cli("tui", "vmemmap-subpmd", "--events", "20", parse=False)

    assert status == 0
    assert isinstance(at_a_terminal[0].moment.event, Faulted)
    assert at_a_terminal[0].moment.playback.nr_events == 20


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("vmemmap-supmd",), "did you mean vmemmap-subpmd?"),
        (("vmemmap-subpmd", "--events", "0"), "--events '0': expected a number from"),
        (("vmemmap-subpmd", "--at", "nowhere"), "--at 'nowhere': expected an address, or a symbol"),
        (("vmemmap-subpmd", "--at", "0xffffffff81000001"), "expected an address that is executed"),
        (("missing.jsonl.zst",), "missing.jsonl.zst"),
    ],
)
def test_bad_input_is_one_line(at_a_terminal, arguments, line):
    status, output, error = run_cli("tui", *arguments, parse=False)

    assert (status, output) == (2, "")
    assert line in error
    assert error.count("\n") == 1


def test_a_file_takes_no_options_of_a_scenario(at_a_terminal, tmp_path):
    path = traces.write(tmp_path / "a.jsonl.zst", [Executed(traces.CODE, b"\x90")])

    status, _, error = run_cli("tui", path, "--release", "6.8", parse=False)

    assert status == 2
    assert "--release '6.8': expected a scenario that it is for" in error


SOURCE = """
# pagewalk: --map 0x1000=0x2000:rw --reg rdi=0x1000
.globl store
.type store, @function
store:
    mov dword ptr [rdi], 7
    mov eax, dword ptr [rdi]
    mov byte ptr [rdi + 0x1000], 1
    ret
.size store, . - store
"""


def test_a_source_is_run_and_shown_with_its_registers_and_all_its_tables(tmp_path):
    path = tmp_path / "store.S"
    path.write_text(SOURCE)

    playback = run_back(str(path), keep=None)
    seen = press(playback, *answer("a", "0x1000"))

    assert "store+0x" in seen.screen
    assert "a write that faults" not in seen.screen
    assert "→ pa 0x2000, in the 4K page at 0x2000" in seen.screen
    assert "rdi 0000000000001000" in seen.screen


def test_its_tables_hold_what_they_held_before_anything_ran(tmp_path):
    path = tmp_path / "store.S"
    path.write_text(SOURCE)

    playback = run_back(str(path), keep=None)

    first, last = (
        playback.walk(at, playback.paging(at), VirtAddr(0x1000)) for at in (0, playback.nr_events)
    )
    assert (first.verdict, first.pa) == ("mapped", 0x2000)
    assert last.steps[-1].entry & ~first.steps[-1].entry == A | D
    assert playback.walk(0, playback.paging(0), VirtAddr(0x2000)).verdict == "not-present"


def test_a_source_is_opened_by_the_command(at_a_terminal, tmp_path):
    path = tmp_path / "store.S"
    path.write_text(SOURCE)

    status, _, _ = run_cli("tui", str(path), "--at", "store", parse=False)

    assert status == 0
    assert at_a_terminal[0].moment.event.rip == at_a_terminal[0].moment.playback.symbols["store"]
