"""The page of `pagewalk view` in a browser: what it shows, and that it stays quick.

Needs a Chromium: the variable CHROMIUM says which, or it is looked for on PATH.
"""

import json
import re
import time

import pytest
from support.browser import Opened, chromium
from support.page_rules import PAGINGS, python_s, random_tables, the_page_s

from emu.walk import walk
from kernel_model import Kernel, audit
from kernel_model.ldt import write_ldt
from kernel_model.pti import map_user_page
from kernel_model.scenarios import prepare
from pagewalk import render
from pagewalk.playback.of_scenario import Capture, play_back
from pagewalk.playback.of_trace import read_back
from pagewalk.traces.reading import read_trace
from pagewalk.view.page import page

FAULT = 0xFFFF_E700_0000_0034
QUIET = {"reduced_motion": "reduce"}


@pytest.fixture(scope="module")  # the driver's event loop would be in the way of other modules'
def browser():
    with chromium() as found:
        yield found


def write(path, playback):
    path.write_bytes(page(playback))
    return path


@pytest.fixture(scope="session")
def devdax(tmp_path_factory):
    """Return a playback of the scenario, its kernel, and its page's file."""
    arguments = {"release": None, "build": None, "levels": 4, "settings": {}}
    playback, run = play_back("vmemmap-devdax", arguments, keep=4000)
    return playback, run.kernel, write(tmp_path_factory.mktemp("view") / "devdax.html", playback)


@pytest.fixture(scope="module")
def shared(browser, devdax):
    opened = Opened(browser, devdax[2], viewport={"width": 1280, "height": 900}, **QUIET)
    yield opened
    opened.close()


@pytest.fixture
def opened(shared, devdax):
    """Return the scenario's page, at its end, as if it had just been opened."""
    shared.page.check("#follow")
    shared.page.evaluate("document.activeElement.blur()")
    shared.go(devdax[0].nr_events)
    return shared


@pytest.fixture(scope="module")
def spare(browser, devdax):
    """A tab for the pages that need no options: a new one takes longer than they do."""
    opened = Opened(browser, devdax[2], viewport={"width": 1280, "height": 900}, **QUIET)
    yield opened
    opened.close()


@pytest.fixture
def show(browser, tmp_path, request):
    """Open the page of a playback, with the browser's options."""
    pages = []

    def opener(playback, **options):
        path = write(tmp_path / "page.html", playback)
        if not options:
            spare = request.getfixturevalue("spare")
            spare.open(path)
            return spare
        pages.append(Opened(browser, path, **QUIET | options))
        return pages[-1]

    yield opener
    for one in pages:
        one.close()


# ------------------------------------------------------------------ it stands alone


def test_it_loads_without_an_error_and_asks_for_nothing_else(browser, devdax):
    one = Opened(browser, devdax[2])

    one.page.wait_for_timeout(300)

    assert one.errors == []
    assert one.requests == [one.url]
    one.close()


def test_it_may_not_fetch_anything(opened):
    refused = opened.page.evaluate(
        """() => Promise.all([
            fetch("data:text/plain,x").then(() => "fetched", () => "refused"),
            new Promise((done) => {
                const image = new Image();
                image.onload = () => done("fetched");
                image.onerror = () => done("refused");
                image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACw=";
            }),
        ])"""
    )
    opened.errors.clear()

    assert refused == ["refused", "refused"]


def test_names_are_text_and_nothing_else(show):
    name = "</script><img src=x onerror=alert(1)>&amp;"
    kernel = Kernel("6.8")
    capture = Capture()
    with capture.recording(kernel):
        kernel.fork(name)

    one = show(capture.playback(name, name))

    assert one.errors == []
    assert one.text("h1") == name
    assert name in one.page.locator("#task option").all_inner_texts()
    assert one.page.locator("img").count() == 0


# ------------------------------------------------------------------ the walk


@pytest.mark.parametrize(
    ("task", "address"),
    [
        ("modprobe", hex(FAULT)),
        ("init_mm", hex(FAULT)),
        ("modprobe", "0xffff888000001234"),
        ("init_mm", "__init_single_page+0x9"),
        ("modprobe", "0x1000"),
        ("init_mm", "0x1000000000000"),
    ],
)
def test_an_address_that_is_typed_in_shows_its_walk(opened, devdax, task, address):
    _, kernel, _ = devdax
    mm = {"modprobe": next(iter(kernel.pgd_list)), "init_mm": kernel.init_mm}[task]
    va = int(address, 16) if address[0] == "0" else kernel.symbol(address)
    paging = kernel.paging(mm)
    found = walk(kernel.memory.read_u64, paging, va)

    steps, verdict = opened.walk(address, task=task)

    first, *_ = verdict.splitlines()
    assert [" ".join(text.split("\n\n")[0].split()) for text in steps] == [
        head(step) for step in found.steps
    ]
    assert first.lstrip("✓✕ ") == render.end_text(found, paging)


def head(step):
    """An entry's first line, as `render.step_text` has it, without its bits."""
    text, _, _ = render.step_text(step, 4).partition("  P ")
    return " ".join(re.sub(r"\[ +", "[", text).replace(":", "").split()).removesuffix(" -")


def test_it_says_where_the_task_parts_from_init_mm(opened, devdax):
    _, kernel, _ = devdax
    (mm,) = kernel.pgd_list
    ours, theirs = kernel.walk(FAULT), kernel.walk(FAULT, mm)

    _, verdict = opened.walk(hex(FAULT), task="modprobe")

    assert render.difference_text(theirs, ours, "modprobe", "init_mm", 4) in verdict


def test_each_bit_has_its_name(opened):
    opened.walk("0xffff888000001234", task="init_mm")

    top, leaf = (
        opened.page.locator("#steps .step").nth(i).locator(".field .name").all_inner_texts()
        for i in (0, 1)
    )

    assert top == (
        "XD ignored reserved table ignored ignored reserved ignored A PCD PWT US RW P".split()
    )
    assert leaf == (
        "XD key ignored reserved frame reserved PAT ignored G PS D A PCD PWT US RW P".split()
    )


def test_what_the_bits_mean_is_said_on_demand(opened):
    opened.walk("0xffff888000001234", task="init_mm")
    meanings = opened.page.locator("#steps .meanings").last

    before = meanings.is_visible()
    opened.page.check("#in-words")

    assert (before, meanings.is_visible()) == (False, True)
    assert "dirty: the CPU has written to the page" in meanings.inner_text()
    opened.page.uncheck("#in-words")


def test_a_table_that_an_entry_leads_to_is_shown_among_the_tables(opened):
    opened.walk("__init_single_page", task="init_mm")
    lead = opened.page.locator(".leads button").last

    lead.click()

    assert f"PD at {lead.inner_text()}" in opened.text(".row.chosen")


@pytest.mark.parametrize("text", ["zork", "constructor"])
def test_what_is_no_address_is_refused_in_words(opened, text):
    opened.walk(text)

    assert opened.text("#address-error").startswith(f"{text}: expected an address")


def test_it_is_animated_entry_by_entry(browser, devdax):
    one = Opened(browser, devdax[2], reduced_motion="no-preference")
    one.page.clock.install(time=0)
    one.page.clock.pause_at(60)  # from here on it goes only where it is told to
    one.walk("0xffff888000001234", task="init_mm")
    parts = one.page.locator("#steps li, #verdict")
    hidden = []

    for _ in range(parts.count()):
        one.page.clock.run_for(650)
        hidden.append(one.page.locator(".hidden").count())

    assert hidden == [2, 1, 0, 0]
    one.close()


def test_whoever_goes_on_in_the_middle_of_it_sees_all(browser, devdax):
    one = Opened(browser, devdax[2], reduced_motion="no-preference")
    one.walk("__init_single_page", task="init_mm")

    one.page.evaluate("document.activeElement.blur()")
    one.page.keyboard.press("Home")
    one.wait_at(0)

    assert one.page.locator(".hidden").count() == 0
    one.close()


def test_with_less_motion_all_is_there_at_once(opened):
    opened.walk("__init_single_page", task="init_mm")

    assert opened.page.locator(".hidden").count() == 0


@pytest.mark.parametrize("paging", PAGINGS, ids=PAGINGS.index)
def test_its_walk_and_its_rights_are_python_s(opened, paging):
    memory, vas = random_tables(paging, seed=PAGINGS.index(paging))

    answers = the_page_s(opened.page, memory, paging, vas)

    expected = python_s(memory, paging, vas)
    assert [one for one in zip(vas, answers, expected, strict=True) if one[1] != one[2]] == []
    assert len({one["verdict"] for one in expected}) == 5


# ------------------------------------------------------------------ the scrubber


def test_the_keys_go_through_the_run(opened, devdax):
    playback, _, _ = devdax
    end = playback.nr_events
    press = opened.page.keyboard.press

    press("Home")
    opened.wait_at(0)
    press("ArrowRight")
    opened.wait_at(1)
    press("Shift+ArrowRight")
    opened.wait_at(101)
    press("c")
    opened.wait_at(playback.following(101, "change"))
    press("Shift+S")
    opened.wait_at(playback.preceding(playback.following(101, "change"), "switch"))
    press("End")
    opened.wait_at(end)


def test_the_arrows_scroll_the_slots_while_one_is_there(opened, devdax):
    opened.page.focus("#matrix")

    opened.page.keyboard.press("ArrowLeft")
    opened.page.keyboard.press("f")
    opened.page.wait_for_timeout(50)

    assert opened.at() == devdax[0].nr_events


def test_the_state_is_that_of_the_moment(opened, devdax):
    playback, _, _ = devdax
    switch = playback.moments("switch")[0]

    opened.go(switch - 1)
    before = opened.text("#state")
    opened.go(switch)

    assert f"{playback.cr3(switch - 1):#x}" in before
    assert f"{playback.cr3(switch):#x}" in opened.text("#state")
    assert (
        opened.page.locator("#listing [aria-current]")
        .inner_text()
        .startswith(f"{playback.numbers[switch - 1]:,}")
    )


def test_it_says_what_is_left_out(opened, devdax):
    left_out = f"{devdax[0].nr_left_out:,} others are left out"

    assert f"{left_out}, none of which change a table, fault or switch CR3" in opened.text("header")


def test_registers_that_were_recorded_are_shown(show):
    arguments = {"release": None, "build": None, "levels": 4, "settings": {}}
    playback, _ = play_back("trace-fault-loop", arguments, keep=1000, registers=True)
    one = show(playback)
    moments = range(20, 1000, 140)

    shown = [(one.go(at), one.page.locator("#registers dd").all_inner_texts())[1] for at in moments]

    told = [[f"{value:016x}" for value in playback.registers(at)] for at in moments]
    assert shown == told


def test_without_them_there_is_no_place_for_them(opened):
    assert not opened.page.is_visible("#registers")


def test_the_scrubber_follows_the_mouse(opened, devdax):
    playback, _, _ = devdax
    opened.go(0)

    opened.page.click("#at")  # in its middle
    opened.page.wait_for_selector('body:not([data-at="0"])')

    assert abs(opened.at() - playback.nr_events / 2) < playback.nr_events / 20


def test_play_goes_on_by_itself_until_it_is_paused(opened):
    opened.go(10)

    opened.page.keyboard.press("Space")
    playing = opened.text("#play")
    opened.page.wait_for_selector('body:not([data-at="10"])')
    opened.page.keyboard.press("Space")

    assert (playing, opened.text("#play")) == ("Pause", "Play")
    assert opened.at() > 10


def test_the_tables_are_right_at_each_moment_forwards_and_backwards(opened, devdax):
    playback, _, _ = devdax
    changes = playback.moments("change")
    moments = [0, *changes[::100], playback.nr_events, *changes[::-150], 0]

    shown = [json.loads(opened.page.evaluate(TABLES, at)) for at in moments]

    told = [
        [
            [frame, [None if w is None else str(w) for w in playback.table(at, frame << 12)]]
            for frame, _ in tables
        ]
        for at, tables in zip(moments, shown, strict=True)
    ]
    assert shown == told


# ------------------------------------------------------------------ tables and slots


def test_a_shared_table_is_drawn_once(opened):
    tree = opened.page.locator("#tree")
    tree.evaluate("tree => { pagewalk.tree.expanded = new Set(); pagewalk.tree.makeRows(); }")
    opened.page.focus("#tree")
    for key in ("Home", "ArrowRight", "End", "ArrowRight", "ArrowDown"):
        opened.page.keyboard.press(key)

    row = opened.page.locator(".row.chosen")

    assert "drawn under init_mm [273]" in row.inner_text()
    opened.page.keyboard.press("Enter")
    assert "shared by 2" in opened.page.locator(".row.chosen").inner_text()


def test_what_an_event_changes_stands_out(opened, devdax):
    playback, _, _ = devdax

    opened.go(playback.moments("change")[-1])

    assert opened.page.locator("#tree .changed").count() > 0


def test_the_unsynced_slot_is_marked_in_words(opened):
    row = opened.page.locator("#matrix tbody tr", has_text="462")

    assert "unsynced" in row.inner_text()
    assert opened.page.locator("#matrix .unsynced").count() == 1


@pytest.mark.parametrize("scenario", ["prealloc-nonpresent", "efi-call", "hot-readd", "ldt-slot"])
def test_what_is_marked_is_what_the_audit_finds(show, scenario):
    arguments = {"release": None, "build": None, "levels": 4, "settings": {}}
    playback, run = play_back(scenario, arguments, keep=1000)
    one = show(playback)
    one.go(playback.nr_events)

    marked = one.page.locator("#matrix tr:has(.unsynced), #matrix tr:has(.other)")

    found = [lack for lack in audit(run.kernel) if lack.tables[0].family != "user mode"]
    slots = [int(text.split()[0]) for text in marked.locator(".index").all_inner_texts()]
    assert slots == sorted({lack.slot for lack in found})


def test_where_the_release_syncs_none_is(show):
    arguments = {"release": "6.17", "build": None, "levels": 4, "settings": {}}
    playback, _ = play_back("vmemmap-devdax", arguments, keep=1000)

    one = show(playback)

    assert one.page.locator("#matrix tbody tr", has_text="462").count() == 1
    assert one.page.locator("#matrix .unsynced").count() == 0


def test_tasks_that_are_alike_share_a_column_until_the_user_half_counts(show):
    kernel = Kernel("6.17", pti=True)
    capture = Capture()
    with capture.recording(kernel):
        for name in ("one", "two", "three"):
            kernel.fork(name)
        map_user_page(kernel, kernel.task("two").mm, 0x400000, b"two")
    one = show(capture.playback("three", ""))
    heads = one.page.locator("#matrix thead th")

    alike = heads.all_inner_texts()
    one.page.check("#all-slots")

    assert "one and 2 like it" in alike
    assert {"one and 1 like it", "two"} <= set(heads.all_inner_texts())


def test_what_is_marked_has_room_before_the_columns_that_only_differ(show):
    kernel = Kernel("6.17", pti=True)
    capture = Capture()
    with capture.recording(kernel):
        for i in range(45):
            write_ldt(kernel, kernel.fork(f"own-{i}").mm, 0, 0x00CF93000000FFFF)
        for name, entry in (("lacks", 0), ("other", 0x1067)):
            slot = kernel.pgtable.pgd_offset(kernel.fork(name).mm.pgd, kernel.layout.va(0))
            kernel.pgtable.set(slot, entry, by="a test")
    one = show(capture.playback("two of 47", ""))

    heads = one.page.locator("#matrix thead th").all_inner_texts()

    assert (len(heads), heads[:2], set(heads[2:4])) == (41, ["slot", "init_mm"], {"lacks", "other"})
    assert "1 slot unsynced" in one.text("#slots-summary")
    assert "1 slot in which a task has another entry" in one.text("#slots-summary")


def test_of_a_trace_it_says_what_nobody_told(show, tmp_path):
    from pagewalk.cli import main

    main(["run", "sync-race", "-o", str(tmp_path / "run.jsonl.zst")])
    one = show(read_back(read_trace(str(tmp_path / "run.jsonl.zst")), keep=None))

    steps, verdict = one.walk("0xffff888000000000", task="init_mm")

    assert steps[-1].split()[-1] == "?"
    assert render.ENDS["untold"] in verdict
    assert one.text("#slots-summary").endswith(", as far as the trace tells")


# ------------------------------------------------------------------ looks


def test_it_is_light_or_dark_as_the_system_and_the_key_say(show, devdax):
    one = show(devdax[0], color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"

    dark = one.page.evaluate(colour)
    one.page.keyboard.press("t")
    light = one.page.evaluate(colour)

    assert (dark, light) == ("rgb(21, 23, 26)", "rgb(252, 252, 250)")


@pytest.mark.parametrize("levels", [4, 5])
def test_a_phone_s_width_is_enough(show, levels):
    arguments = {"release": None, "build": None, "levels": levels, "settings": {}}
    playback, run = play_back("vmemmap-subpmd", arguments)
    one = show(playback, viewport={"width": 360, "height": 740})

    one.walk("__init_single_page", task="init_mm")

    assert one.page.evaluate("document.documentElement.scrollWidth") == 360
    run.kernel.close()


def test_all_that_can_be_used_has_a_name(opened):
    nameless = opened.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, [tabindex='0']")].filter(
            (one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length
                       || one.getAttribute("aria-labelledby"))).map((one) => one.outerHTML)"""
    )

    assert nameless == []


def test_the_keys_are_listed(opened):
    opened.page.keyboard.press("?")

    assert "type an address" in opened.text("#help")
    opened.page.keyboard.press("Escape")


# ------------------------------------------------------------------ size


def test_a_thousand_tasks_and_a_hundred_thousand_events_stay_usable(
    browser, tmp_path, record_testsuite_property
):
    playback = crowd()
    path = write(tmp_path / "crowd.html", playback)

    began = time.perf_counter()
    one = Opened(browser, path, viewport={"width": 1280, "height": 900}, **QUIET)
    loaded = time.perf_counter() - began
    step, jump, walked = (one.page.evaluate(script) for script in (STEP, JUMP, WALK))

    for name, value in (
        *(("bytes", path.stat().st_size), ("load_s", loaded)),
        *(("step_ms", step), ("jump_ms", jump), ("walk_ms", walked)),
    ):
        record_testsuite_property(name, value)
    assert (playback.nr_events, len(playback.tasks(playback.nr_events))) == (100_000, 1002)
    assert path.stat().st_size < 4 << 20
    assert (loaded < 10, step < 200, jump < 1000, walked < 200) == (True,) * 4
    assert one.errors == []
    assert one.page.locator("#tree .row").count() < 100
    assert "and 1,000 like it" in one.text("#matrix")
    one.close()


def crowd():
    """A thousand tasks beside the one that meets what was not synced."""
    found, kernel, values = prepare("vmemmap-devdax")
    capture = Capture(keep=100_000)
    with capture.recording(kernel):
        for i in range(1000):
            kernel.fork(f"task-{i}")
        found.play(kernel, values)
    playback = capture.playback("a thousand tasks", "")
    kernel.close()
    return playback


TABLES = """(at) => {
    pagewalk.goTo(at);
    const { tables, words, known } = pagewalk.run;
    const entries = (first) =>
        Array.from(words.slice(first, first + 512), (w, i) => (known[first + i] ? `${w}` : null));
    return JSON.stringify([...tables].map(([frame, first]) => [frame, entries(first)]));
}"""
# Each goes somewhere and draws at once, with no frame to wait for, and returns the milliseconds.
TIMED = """(...moments) => {
    const began = performance.now();
    for (const at of moments) { pagewalk.goTo(at); pagewalk.show(); document.body.offsetHeight; }
    return (performance.now() - began) / moments.length;
}"""
STEP = f"() => ({TIMED})(...Array.from({{ length: 20 }}, (_, i) => 90000 - i))"
JUMP = f"() => ({TIMED})(0, 100000, 1, 99999)"
WALK = """() => {
    const began = performance.now();
    pagewalk.walk.lookAt(0xffffe70000000034n);
    document.body.offsetHeight;
    return performance.now() - began;
}"""
