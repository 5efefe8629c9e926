"""Reading an oops back: from mails and logs, from half of one, from what our own runs print."""

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kernel_facts import FOUR
from support.kernel_oops_texts import PAGE_FAULT
from support.kernel_oopses import COMPOUND_TRACE, SUB_PMD_TRACE
from support.oops_texts import (
    ARM64,
    COMPOUND,
    COVER,
    FIVE_LEVELS,
    HANDLER,
    PLAIN,
    SUB_PMD,
    without,
)

from emu import PageFault, Trap
from kernel_model import Kernel
from kernel_model.reading.oopses import Reading, read_oopses
from kernel_model.reading.stream import LONGEST
from kernel_model.reading.text import OopsText, parse
from kernel_model.releases import RELEASES
from kernel_model.scenarios import SCENARIOS, run_scenario
from kernel_model.scenarios.outcome import ScenarioRun


def read(text: bytes) -> Reading:
    """What is in a text."""
    return read_oopses(io.BytesIO(text).read)


def first(text: bytes) -> OopsText:
    """The first oops of a text."""
    found = read(text).first
    assert found is not None
    return found.oops


def frames(oops: OopsText) -> list[str]:
    """The frames that are certain."""
    return [str(frame) for frame in oops.trace if frame.sure]


# -- the mails


@pytest.mark.parametrize("text", [COMPOUND, COVER], ids=["patch", "cover letter"])
def test_the_first_oops_is_read_out_of_its_one_line(text: bytes) -> None:
    oops = first(text)

    assert (oops.address, oops.error_code) == (0xFFFF_E700_0000_0034, 2)
    assert oops.table == (("pgd", 0), ("p4d", 0))
    assert (oops.header, oops.number) == ("Oops: 0002 [#1] SMP NOPTI", 1)
    assert [str(oops.rip), *frames(oops)] == list(COMPOUND_TRACE)


def test_the_second_oops_is_read_out_of_its_one_line() -> None:
    oops = first(SUB_PMD)

    assert (oops.address, oops.error_code) == (0xFFFF_EB3F_F120_0000, 2)
    assert oops.table == (("pgd", 0), ("p4d", 0))
    assert oops.header == "Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI"
    assert [str(oops.rip), *frames(oops)] == list(SUB_PMD_TRACE)


def test_the_third_oops_is_read_through_its_debris() -> None:
    oops = first(HANDLER)

    assert (oops.address, oops.error_code) == (0xFFFF_8808_4000_0FF8, 0)
    assert oops.table == (("pgd", 0xC_7F03_A067), ("pud", 0))
    assert (str(oops.rip), oops.rip_address) == ("vmalloc_fault+0x1be/0x300", 0xFFFF_FFFF_8106_64AE)
    assert frames(oops) == [
        "__do_page_fault+0x285/0x3e0",
        "do_page_fault+0x2f/0x80",
        "page_fault+0x28/0x30",
        "btt_log_read+0x63/0x140 [nd_btt]",
        "SyS_finit_module+0xb9/0xf0",
        "entry_SYSCALL_64_fastpath+0x1a/0xa4",
    ]
    assert len(oops.trace) == 13


@pytest.mark.parametrize(
    ("text", "wording"),
    [(COMPOUND, "5.4"), (SUB_PMD, "6.10"), (HANDLER, "4.4"), (PLAIN, "5.4")],
)
def test_the_wording_is_told_by_the_words_that_changed(text: bytes, wording: str) -> None:
    assert first(text).wording == wording


@pytest.mark.parametrize("text", [COMPOUND, COVER, SUB_PMD, HANDLER])
def test_a_mail_leaves_something_out(text: bytes) -> None:
    assert first(text).elided
    assert "the registers" in first(text).missing


def test_arm64_is_no_oops_of_ours() -> None:
    reading = read(ARM64)

    assert (reading.first, reading.architecture) == (None, "arm64")


# -- a whole one


def test_the_cpu_line_is_taken_apart() -> None:
    oops = first(PLAIN)

    assert (oops.cpu, oops.uid, oops.pid, oops.comm) == (3, None, 4711, "daxctl (old)")
    assert (oops.taint, oops.uname) == ("PWOE", "5.16.9-1")
    assert oops.missing == ()


def test_the_registers_are_the_kernels_and_not_the_users() -> None:
    registers = first(PLAIN).registers

    assert (registers["rax"], registers["r8"], registers["rsp"]) == (1, 8, 0xFFFF_C900_006D_FBF8)
    assert (registers["cr0"], registers["cr4"]) == (0x8005_0033, 0x75_0EF0)
    assert (registers["gs_base"], registers["eflags"]) == (0xFFFF_8884_3FD8_0000, 0x1_0216)


def test_who_was_interrupted_is_no_frame() -> None:
    oops = first(PLAIN)

    assert [(str(frame), frame.sure) for frame in oops.trace] == [
        ("__init_zone_device_page+0x17/0x5d", True),
        ("asm_exc_page_fault+0x26/0x30", False),
        ("do_syscall_64+0x5c/0x90", True),
    ]


REGISTERS = ("rax", "rbx", "r8", "r15", "rsp")

PREFIXES = [
    "",
    "[   12.345678] ",
    "[   57.659526][  T650] ",
    "<4>[   12.345678] ",
    "Jan 12 10:10:10 host kernel: ",
    "Jan 12 10:10:10 host kernel: [   12.345678] ",
    "2025-07-09T13:18:02.123456+02:00 host kernel: ",
    "[Wed Jul  9 13:18:02 2025] ",
    "vas. 19 10:20:12 neworld-home kernel: ",
    "> ",
    ">>>> [    0.161062] ",
    "> > > ",
    "\u00a0\u00c2 ",
    "\x1b[31m",
    "kern  :alert : [  12.345] ",
]


@pytest.mark.parametrize("text", [PLAIN, FIVE_LEVELS], ids=["4-level", "5-level"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_a_log_puts_before_each_line_changes_nothing(prefix: str, text: bytes) -> None:
    logged = "".join(f"{prefix}{line}\n" for line in text.decode().splitlines()).encode()

    assert first(logged) == first(text)


def test_entries_may_have_a_line_each() -> None:
    text = b"[ 1.0] BUG: unable to handle kernel paging request at ffffe70000000034\n"
    text += (
        b"[ 1.0] IP: f+0x1/0x2\n[ 1.0] PGD 0 \n[ 1.0] P4D 0 \n[ 1.0] \n[ 1.0] Oops: 0002 [#1] SMP\n"
    )

    assert first(text).table == (("pgd", 0), ("p4d", 0))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\n", b"\r\n"),
        (b"\n", b"\n\n"),
        (b"\n", b" "),
        (b"\n", b"<br>\n"),
        (b"<TASK>", b"&lt;TASK&gt;"),
        (b" ", b"\xc2\xa0"),
        (b"\n", b"\n\0\0"),
        (b"\n", b"=20\n"),
        (b"page fault for address: ", b"page fault for\n> address: "),
        (b"PGD 0 P4D 0", b"PGD 0\n> P4D 0"),
    ],
)
def test_what_a_mail_or_a_page_makes_of_it_changes_nothing(old: bytes, new: bytes) -> None:
    mangled, plain = first(PLAIN.replace(old, new)), first(PLAIN)

    assert (mangled.address, mangled.error_code) == (plain.address, plain.error_code)
    assert (mangled.table, mangled.rip, mangled.trace) == (plain.table, plain.rip, plain.trace)
    assert (mangled.comm, mangled.uname) == (plain.comm, plain.uname)
    assert mangled.registers == plain.registers
    assert mangled.lines == plain.lines


# -- other deaths


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("general protection fault: 0000 [#1] SMP PTI", "general-protection"),
        (
            "general protection fault, probably for non-canonical address 0xdead000000000100: "
            "0000 [#2] PREEMPT SMP",
            "general-protection",
        ),
        (
            "Oops: general protection fault, maybe for address 0x8: 0000 [#1] SMP",
            "general-protection",
        ),
        ("double fault: 0000 [#1] SMP", "double-fault"),
        ("PANIC: double fault, error_code: 0x0", "double-fault"),
        ("kernel BUG at mm/slub.c:4021!\ninvalid opcode: 0000 [#1] SMP", "bug"),
        ("divide error: 0000 [#1] SMP", "trap"),
        ("invalid opcode: 0000 [#1] SMP", "trap"),
        ("Oops: 0002 [#1] SMP", "page-fault"),
    ],
)
def test_a_death_is_known_by_its_header(header: str, kind: str) -> None:
    assert first(f"[ 1.0] {header}\nRIP: 0010:f+0x1/0x2\n".encode()).kind == kind


def test_null_is_printed_in_words_by_4_4() -> None:
    text = (
        b"BUG: unable to handle kernel NULL pointer dereference at           (null)\n"
        b"IP: [<          (null)>]           (null)\nPGD 0 \nOops: 0010 [#1] SMP \n"
    )

    assert (first(text).address, first(text).error_code) == (0, 0x10)


def test_4_15_names_the_place_without_its_address() -> None:
    text = (
        b"BUG: unable to handle kernel paging request at ffffc90001278000\n"
        b"IP: ioread32+0x1a/0x40\nPGD 13b128067 P4D 13b128067 PUD 0 \nOops: 0000 [#1] SMP PTI\n"
    )
    oops = first(text)

    assert (str(oops.rip), oops.wording) == ("ioread32+0x1a/0x40", "4.15")
    assert oops.table == (("pgd", 0x1_3B12_8067), ("p4d", 0x1_3B12_8067), ("pud", 0))
    assert oops.flags == ("SMP", "PTI")


# -- half of one


@pytest.mark.parametrize(
    ("start", "missing"),
    [
        (b"BUG:", []),  # CR2 has the address, too
        (b"#PF:", []),  # and the header the error code
        (b"PGD", ["the line with the page-table entries (PGD …)"]),
        (b"Oops:", ["the header with the number of oopses (… [#1])"]),
        (b"CPU:", ["the CPU line (task and release)"]),
        (b"RIP: 0010", ["where it died (RIP)"]),
        (b"RAX: 0000000000000001", ["the registers"]),
    ],
)
def test_what_is_missing_is_named(start: bytes, missing: list[str]) -> None:
    assert list(first(without(PLAIN, start)).missing) == missing


def test_registers_alone_are_read_when_there_is_nothing_else() -> None:
    oops = first(PLAIN[PLAIN.index(b"RIP: 0010") :])

    assert (oops.kind, oops.address) == ("unknown", 0xFFFF_E700_0000_0034)


def test_a_warning_is_no_oops() -> None:
    warning = b"WARNING: CPU: 0 PID: 1 at mm/x.c:3 f+0x1/0x2\n" + PLAIN[PLAIN.index(b"RIP") :]

    assert read(warning).first is None


@pytest.mark.parametrize(
    ("text", "table", "ends"),
    [
        (b"PGD 0", (("pgd", 0),), False),
        (b"PGD 0 P4", (("pgd", 0),), False),
        (b"PGD 13b128067 P4D 13b12", (("pgd", 0x1_3B12_8067),), False),
        (b"PGD 13b128067 P4D 13b128067 ", (("pgd", 0x1_3B12_8067), ("p4d", 0x1_3B12_8067)), False),
        (b"PGD 0 \nOops: 0002", (("pgd", 0),), True),
        (b"PGD added to", (), False),
        (b"PGD entries", (), False),
    ],
)
def test_an_entry_that_may_be_cut_off_is_left_out(
    text: bytes, table: tuple[tuple[str, int], ...], ends: bool
) -> None:
    oops = parse(b"BUG: unable to handle page fault for address: ffffe70000000034\n" + text)

    assert (oops.table, oops.table_ends) == (table, ends)


def test_an_address_that_is_cut_off_is_none() -> None:
    assert first(b"BUG: unable to handle page fault for address: ffffe700").address is None


@pytest.mark.parametrize("text", [COMPOUND, SUB_PMD, HANDLER, PLAIN, FIVE_LEVELS])
def test_however_much_is_cut_off_what_is_read_is_what_the_whole_says(text: bytes) -> None:
    whole = first(text)
    halves = [found.oops for n in range(len(text)) if (found := read(text[:n]).first)]

    assert {half.address for half in halves} <= {None, whole.address}
    assert {half.error_code for half in halves} <= {None, whole.error_code}
    assert {half.table for half in halves} <= {whole.table[:n] for n in range(len(whole.table) + 1)}


# -- several, and a lot


def test_the_others_are_counted() -> None:
    reading = read(COMPOUND + b"noise\n" + SUB_PMD + HANDLER)

    assert reading.nr_others == 2
    assert [other.oops.address for other in reading.others] == [
        0xFFFF_EB3F_F120_0000,
        0xFFFF_8808_4000_0FF8,
    ]


def test_the_line_is_where_it_began() -> None:
    reading = read(b"a\nb\n" + COMPOUND + SUB_PMD)

    assert (reading.first and reading.first.oops.line) == 3
    assert [other.oops.line for other in reading.others] == [5]


@pytest.mark.parametrize("chunk", [1, 7, 100, 4096])
def test_how_a_stream_is_cut_into_pieces_changes_nothing(chunk: int) -> None:
    text = b"noise [#\n" * 20 + COMPOUND + HANDLER + PLAIN
    pieces = io.BytesIO(text)

    assert read_oopses(lambda _: pieces.read(chunk)) == read(text)


@pytest.mark.parametrize("at", range((1 << 20) - 700, (1 << 20) + 100, 37))
def test_an_oops_at_the_edge_of_what_is_read_at_once_is_whole(at: int) -> None:
    text = b"." * at + b"\n" + PLAIN

    assert first(text) == first(b"\n" + PLAIN)


def test_no_oops_is_longer_than_it_may_be() -> None:
    reading = read(PLAIN + b"x" * (3 * LONGEST) + b"\n" + SUB_PMD)

    assert reading.nr_others == 1
    assert reading.first is not None
    assert reading.first.oops == first(PLAIN)


# -- what our own kernels print

RUNS = [
    (scenario.name, release.name, levels)
    for scenario in SCENARIOS.values()
    for release in RELEASES.values()
    for levels in release.levels
    if not scenario.why_not(release, levels)
]


def said(run: ScenarioRun) -> dict[str, object] | None:
    """What a run's oops has to say; None if nothing died."""
    stop = run.ending.stop
    if run.oops is None or not isinstance(stop, PageFault | Trap):
        return None
    assert stop.registers is not None
    is_fault = isinstance(stop, PageFault)
    return {
        "address": stop.address if is_fault else None,
        "error code": stop.error_code if is_fault else None,
        "symbol": stop.symbol,
        "release": run.kernel.release.uname,
        "registers": [getattr(stop.registers, name) for name in REGISTERS],
        "cr3": stop.cr3,
        "levels": {run.kernel.layout.levels, None},
        "others": 0,
        "not printed": [],
    }


def read_back(text: str | None) -> dict[str, object] | None:
    """The same, read from the text."""
    reading = read((text or "").encode())
    if reading.first is None:
        return None
    oops, depth, _ = reading.first
    return {
        "address": oops.address,
        "error code": oops.error_code,
        "symbol": None if oops.rip is None else str(oops.rip),
        "release": oops.uname,
        "registers": [oops.registers[name] for name in REGISTERS],
        "cr3": oops.registers["cr3"],
        "levels": {depth.levels, None},
        "others": reading.nr_others,
        "not printed": [line for line in oops.lines if line not in (text or "")],
    }


@pytest.mark.parametrize(("scenario", "release", "levels"), RUNS)
def test_what_a_run_prints_is_read_back(scenario: str, release: str, levels: int) -> None:
    run = run_scenario(scenario, release=release, levels=levels)

    with run.kernel:
        assert read_back(run.oops) == said(run)


@pytest.mark.parametrize("release", PAGE_FAULT)
def test_each_generation_of_kernels_is_read(release: str) -> None:
    addresses = dict.fromkeys(("rip", "caller", "stray", "outer"), "ffffffff81000000")
    oops = first(PAGE_FAULT[release].format(**addresses).encode())

    assert (oops.address, oops.error_code, oops.comm) == (FOUR.boundary + 0x34, 2, "ndctl")
    assert {entry for _, entry in oops.table} == {0}
    assert oops.registers["rsi"] == 0x51
    assert [(str(frame), frame.sure) for frame in oops.trace] == [
        ("__init_zone_device_page+0x17/0x5d", True),
        ("memremap_pages+0x10b/0x2f0", False),
        ("memmap_init_zone_device+0x154/0x1bb", True),
    ]
    assert oops.missing == ()


def test_a_gp_fault_that_a_run_prints_is_read_back(kernel: Kernel) -> None:
    stop = kernel.run(kernel.fork("modprobe"), "__init_single_page", rdi=0xDEAD_0000_0000_0100)
    assert isinstance(stop, Trap)

    oops = first(kernel.oops(stop).encode())

    assert (oops.kind, str(oops.rip)) == ("general-protection", stop.symbol)
    assert oops.what == (
        "general protection fault, probably for non-canonical address 0xdead000000000134"
    )
    assert oops.address is None


def test_the_registers_of_the_first_oops_are_not_those_of_the_second(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")
    kernel.run(task, "__init_single_page", rdi=FOUR.boundary)
    second = kernel.run(task, "__init_single_page", rdi=FOUR.boundary + 64)

    text = kernel.oops(second)
    cut = text[: text.index("RIP: ")] + text[text.index("Call Trace:") :]

    assert first(text.encode()).registers["rdi"] == FOUR.boundary + 64
    assert first(text.encode()).taint == "D"
    assert "rdi" not in first(cut.encode()).registers


# -- anything at all

TEXTS = (COMPOUND, COVER, SUB_PMD, HANDLER, PLAIN, FIVE_LEVELS, ARM64)


@given(st.binary(max_size=2000))
def test_noise_is_read_to_its_end(noise: bytes) -> None:
    assert read(noise).size == len(noise)


@given(
    st.sampled_from(TEXTS),
    st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 60), st.binary(max_size=12)), max_size=8
    ),
)
def test_no_mutation_is_too_much(text: bytes, cuts: list[tuple[int, int, bytes]]) -> None:
    for at, length, instead in cuts:
        text = text[:at] + instead + text[at + length :]

    assert read(text).size == len(text)


@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False))
def test_neither_are_lines_in_any_order(text: bytes, chance: random.Random) -> None:
    words = text.split(b" ")
    chance.shuffle(words)

    assert read(b" ".join(words)).size == len(text)
