"""The same deaths in the words of every release (facts 5.3, 5.4; public oopses of each)."""

from dataclasses import replace

import pytest
from support.kernel_deaths import filled, hand_made, text_of
from support.kernel_facts import ALL_RELEASES, FIVE, FOUR, Where, boot
from support.kernel_oops import lines_with, store
from support.kernel_oops_texts import PAGE_FAULT

from emu import PageFault, VirtAddr
from kernel_model import RELEASES, Kernel
from kernel_model.death import Death
from kernel_model.oops import compose

OLD = ("4.4", "4.6", "4.12-rc", "4.14", "4.17")
NEW = tuple(name for name in ALL_RELEASES if name not in OLD)
UD, DF, GP = 6, 8, 13


@pytest.fixture
def death(kernel: Kernel) -> Death:
    """A page fault."""
    return hand_made(kernel)


# -- a page fault


@pytest.mark.parametrize("style", PAGE_FAULT)
def test_a_page_fault_is_worded_so(kernel: Kernel, death: Death, style: str) -> None:
    assert text_of(kernel, death, style) == filled(kernel, PAGE_FAULT[style])


def starts(lines: list[str], among: tuple[str, ...]) -> list[str]:
    """Which of these the lines begin with, up to the end marker, in order."""
    found = (next((start for start in among if line.startswith(start)), "") for line in lines)
    return [start for start in found if start]


@pytest.mark.parametrize("style", OLD)
def test_the_old_order_has_modules_first_and_code_last(
    kernel: Kernel, death: Death, style: str
) -> None:
    lines = text_of(kernel, death, style).splitlines()

    order = (
        "BUG: ",
        "PGD 0 ",
        "Oops: ",
        "Modules",
        "CPU: ",
        "RIP: 0010:",
        "RSP: ",
        "RAX: ",
        "FS: ",
    )
    order = (
        *order,
        "CS: ",
        "CR2: ffffe70000000034 CR3",
        "Call Trace:",
        "Code: ",
        "CR2: ",
        "---[ end",
    )
    assert starts(lines, order) == list(order)


@pytest.mark.parametrize("style", NEW)
def test_the_new_order_has_code_below_rip_and_modules_last(
    kernel: Kernel, death: Death, style: str
) -> None:
    lines = text_of(kernel, death, style).splitlines()

    order = ("BUG: ", "#PF: s", "#PF: e", "PGD 0 P4D 0 ", "Oops: ", "CPU: ", "RIP: 0010:", "Code: ")
    order = (*order, "RSP: ", "RAX: ", "FS: ", "CS: ", "CR2: ffffe70000000034 CR3", "PKRU: ")
    order = (*order, "Call Trace:", "Modules", "CR2: ", "---[ end")
    assert starts(lines, order)[: len(order)] == list(order)


@pytest.mark.parametrize(
    ("style", "levels"),
    [(name, levels) for name, release in RELEASES.items() for levels in release.levels],
)
def test_every_release_has_a_text_at_each_of_its_depths(style: str, levels: int) -> None:
    where: Where = {4: FOUR, 5: FIVE}[levels]
    with boot(where) as kernel:
        store(kernel, where.boundary)
        last = kernel.deaths.last
        assert last is not None

        lines = text_of(kernel, last, style).splitlines()

        assert f"{where.boundary + 0x34:016x}" in lines[0]
        assert lines_with("PGD 0 ", lines)
        assert lines_with("---[ end trace ", lines)


@pytest.mark.parametrize(
    ("style", "line"),
    [
        ("4.4", "BUG: unable to handle kernel NULL pointer dereference at 0000000000000034"),
        ("4.17", "BUG: unable to handle kernel NULL pointer dereference at 0000000000000034"),
        ("5.4", "BUG: kernel NULL pointer dereference, address: 0000000000000034"),
    ],
)
def test_the_first_page_is_a_null_pointer(kernel: Kernel, style: str, line: str) -> None:
    store(kernel, 0)
    last = kernel.deaths.last
    assert last is not None

    assert text_of(kernel, last, style).splitlines()[0] == line


def called_null(kernel: Kernel, style: str) -> list[str]:
    """The lines of a call of address 0."""
    kernel.run(kernel.fork("a"), "call_once", rax=0)
    last = kernel.deaths.last
    assert last is not None
    return text_of(kernel, last, style).splitlines()


@pytest.mark.parametrize(
    ("style", "lines"),
    [
        (
            "4.4",
            [
                "BUG: unable to handle kernel NULL pointer dereference at           (null)",
                "IP: [<          (null)>]           (null)",
                "RIP: 0010:[<0000000000000000>]  [<          (null)>]           (null)",
                "Code:  Bad RIP value.",
            ],
        ),
        (
            "4.14",
            [
                "BUG: unable to handle kernel NULL pointer dereference at           (null)",
                "IP:           (null)",
                "RIP: 0010:          (null)",
                "Code:  Bad RIP value.",
            ],
        ),
        (
            "4.17",
            [
                "BUG: unable to handle kernel NULL pointer dereference at 0000000000000000",
                "RIP: 0010:          (null)",
                "Code:  Bad RIP value.",
            ],
        ),
        ("5.4", ["RIP: 0010:0x0", "Code: Bad RIP value."]),
        (
            "5.10",
            ["RIP: 0010:0x0", "Code: Unable to access opcode bytes at RIP 0xffffffffffffffd6."],
        ),
        ("6.8", ["RIP: 0010:0x0", "Code: Unable to access opcode bytes at 0xffffffffffffffd6."]),
    ],
)
def test_address_0_and_the_code_that_is_not_there(
    kernel: Kernel, style: str, lines: list[str]
) -> None:
    assert set(lines) <= set(called_null(kernel, style))


@pytest.mark.parametrize("style", ALL_RELEASES)
def test_a_call_into_data_is_an_exploit_attempt(kernel: Kernel, style: str) -> None:
    kernel.run(kernel.fork("a"), "call_once", rax=0xFFFF_FFFF_8200_0000)
    last = kernel.deaths.last
    assert last is not None

    first = text_of(kernel, last, style).splitlines()[0]

    assert first == "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)"


@pytest.mark.parametrize(
    ("style", "lines"),
    [
        ("4.4", ["PGD c7f03a067 PUD 0 "]),
        ("4.12-rc", ["PGD c7f03a067 ", "P4D c7f03a067 ", "PUD 0 ", ""]),
        ("4.14", ["PGD c7f03a067 P4D c7f03a067 PUD 0 "]),
        ("6.17", ["PGD c7f03a067 P4D c7f03a067 PUD 0 "]),
    ],
)
def test_the_entries_of_a_missing_pud(
    kernel: Kernel, death: Death, style: str, lines: list[str]
) -> None:
    entries = (("pgd", 0xC_7F03_A067), ("p4d", 0xC_7F03_A067), ("pud", 0))

    text = text_of(kernel, death._replace(entries=entries), style)

    assert "\n".join(("", *lines, "Oops: ")) in text


@pytest.mark.parametrize(
    ("style", "lines"),
    [
        ("4.4", ["PGD 1067 BAD"]),
        ("4.12-rc", ["PGD 1067 ", "P4D 1067 ", "BAD"]),
        ("4.14", ["PGD 1067 P4D 1067 ", "BAD"]),
    ],
)
def test_a_table_that_cannot_be_read(
    kernel: Kernel, death: Death, style: str, lines: list[str]
) -> None:
    entries = (("pgd", 0x1067), ("p4d", 0x1067), ("pud", None))

    text = text_of(kernel, death._replace(entries=entries), style)

    assert "\n".join(("", *lines, "Oops: ")) in text


# -- the mail of 2016


def test_the_lines_of_4_4_are_those_of_the_mail(kernel: Kernel, death: Death) -> None:
    fault = PageFault(
        VirtAddr(0xFFFF_8808_4000_0FF8),
        0,
        VirtAddr(death.registers.rip),
        death.stop.walk,  # type: ignore[union-attr]
    )
    entries = (("pgd", 0xC_7F03_A067), ("p4d", 0xC_7F03_A067), ("pud", 0))

    lines = text_of(kernel, death._replace(stop=fault, entries=entries), "4.4").splitlines()

    assert lines[0] == "BUG: unable to handle kernel paging request at ffff880840000ff8"
    assert lines[1] == f"IP: [<{death.registers.rip:016x}>] __init_single_page+0x9/0x6d"
    assert lines[2] == "PGD c7f03a067 PUD 0 "
    assert lines[3] == "Oops: 0000 [#1] SMP "


# -- the header


@pytest.mark.parametrize(
    ("style", "header"),
    [
        ("4.4", "Oops: 0002 [#1] PREEMPT SMP "),
        ("4.6", "Oops: 0002 [#1] PREEMPT SMP"),
        ("4.17", "Oops: 0002 [#1] PREEMPT SMP NOPTI"),
        ("5.10", "Oops: 0002 [#1] PREEMPT SMP NOPTI"),
    ],
)
def test_a_preemptible_build_says_so_in_the_header(
    kernel: Kernel, death: Death, style: str, header: str
) -> None:
    build = replace(kernel.build, preempt="full")

    text = compose(death, death, RELEASES[style], build, kernel.image)

    assert header in text.splitlines()


@pytest.mark.parametrize(
    ("style", "tainted", "end"),
    [
        ("4.4", "Tainted: G      D         4.4.0 #1", 1),
        ("4.17", "Tainted: G      D           4.17.0 #1", 1),
        ("5.10", "Tainted: G      D           5.10.0 #1", 1),
        ("6.8", "Tainted: G      D            6.8.0 #1", 0),
    ],
)
def test_the_second_oops_has_another_number_at_its_end_and_a_taint(
    kernel: Kernel, death: Death, style: str, tainted: str, end: int
) -> None:
    text = text_of(kernel, death._replace(number=2), style)

    assert tainted in text
    assert f"---[ end trace {end:016x} ]---" in text


def test_the_cpu_is_the_one_that_ran_the_task(kernel: Kernel, death: Death) -> None:
    assert "\nCPU: 3 PID: 301 " in text_of(kernel, death._replace(cpu=3), "4.4")


def test_a_fault_without_a_walk_has_the_entries_that_linux_read(
    kernel: Kernel, death: Death
) -> None:
    fault = PageFault(VirtAddr(FOUR.boundary), 0, VirtAddr(death.registers.rip))

    text = text_of(kernel, death._replace(stop=fault, entries=(("pgd", 0), ("p4d", 0))), "6.17")

    assert "\nPGD 0 P4D 0 \n" in text
