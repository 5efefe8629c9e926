"""`pagewalk show --writes-to`: who wrote a page-table entry, and what it holds."""

import pytest
from support import traces
from support.cli import run_cli
from support.traces import CODE, OTHER_ROOT, ROOT

from emu import PageFault, Trap
from emu.events import (
    Accessed,
    Cr3Switch,
    Delivered,
    Edited,
    Executed,
    Faulted,
    Walked,
    WalkedStep,
)
from emu.interrupts import Delivery
from emu.walk import Step, Walk

STORE = Executed(CODE, b"\x48\x89\x07")  # mov [rdi], rax
VA = 0xFFFF_E700_0000_0034  # index 462 at the top: 0xe70 in its table
PGD = ROOT + 0xE70
ENTRY = 0x9067


def write8(pa, value):
    return Accessed(0xFFFF_8880_0000_0000 + pa, pa, 8, value, "write")


def walk(*steps, kind="read"):
    return Walked(VA, kind, False, tuple(WalkedStep(*step) for step in steps))


@pytest.fixture
def history(tmp_path):
    """Return the JSON of who wrote an entry."""

    def ask(events, entry=f"{PGD:#x}", *options):
        path = traces.write(tmp_path / "t.jsonl.zst", events)
        status, document, errors = run_cli("show", path, "--json", "--writes-to", entry, *options)
        assert (status, errors) == (0, "")
        return document

    return ask


@pytest.fixture
def told(tmp_path):
    """Return the lines that tell who wrote an entry."""

    def ask(events, entry=f"{PGD:#x}", *options):
        path = traces.write(tmp_path / "t.parquet", events)
        status, text, errors = run_cli("show", path, "--writes-to", entry, *options, parse=False)
        assert (status, errors) == (0, "")
        return text.splitlines()

    return ask


# ------------------------------------------------------------------ who writes


def test_a_store_is_told_with_its_instruction_and_its_value(history):
    (write,) = history([STORE, write8(PGD, ENTRY)])["writes"]

    assert write == {
        "how": "store",
        "rip": f"{CODE:#x}",
        "symbol": "first+0x0/0x100",
        "text": "mov qword ptr [rdi], rax",
        "by": None,
        "cpu": 0,
        "task": "init_mm",
        "before": None,
        "after": f"{ENTRY:#x}",
    }


@pytest.mark.parametrize(
    ("pa", "size", "value", "after"),
    [
        (PGD, 8, 0x1122334455667788, 0x1122334455667788),
        (PGD, 1, 0x01, 0x9001),
        (PGD + 1, 2, 0xABCD, 0xABCD67),
        (PGD + 7, 1, 0x80, 0x8000000000009067),
        (PGD + 6, 4, 0x11228000, 0x8000000000009067),
        (PGD - 2, 4, 0x55443322, 0x5544),
    ],
)
def test_any_of_the_8_bytes_counts(history, pa, size, value, after):
    events = [Edited(PGD, (ENTRY,), "set_pgd"), STORE, Accessed(None, pa, size, value, "write")]

    found = history(events)

    assert len(found["writes"]) == 2
    assert found["writes"][1]["before"] == f"{ENTRY:#x}"
    assert found["holds"] == f"{after:#x}"


@pytest.mark.parametrize(("pa", "size"), [(PGD - 8, 8), (PGD + 8, 1), (PGD - 1, 1)])
def test_its_neighbours_do_not(history, pa, size):
    assert history([STORE, Accessed(None, pa, size, 1, "write")])["writes"] == []


def test_a_part_of_an_entry_that_nobody_knew_leaves_it_unknown(history):
    found = history([STORE, Accessed(None, PGD, 4, 1, "write")])

    assert (found["writes"][0]["after"], found["holds"]) == (None, None)


def test_a_walk_that_sets_bits_is_a_write_by_the_cpu(history):
    events = [STORE, walk((4, PGD, 0x9007, 0x9027)), walk((4, PGD, 0x9027, 0x9027))]

    (write,) = history(events)["writes"]

    assert (write["how"], write["before"], write["after"]) == ("walk", None, "0x9027")


def test_an_edit_that_covers_the_entry_is_a_write_from_outside(history):
    copied = Edited(PGD - 16, (0x1067, 0, ENTRY, 0), "clone_pgd_range")

    (write,) = history([copied, Edited(PGD + 8, (1, 2), "zork")])["writes"]

    assert (write["how"], write["by"], write["after"]) == ("edit", "clone_pgd_range", f"{ENTRY:#x}")


def test_an_upper_entry_that_was_copied_among_others_is_followed(history):
    copied = Edited(PGD - 16, (0x1067, 0, ENTRY, 0), "pgd_ctor")

    found = history([copied, STORE], f"pud:{VA:#x}", "--task", "init_mm")

    assert found["entry_pa"] == "0x9000"


def test_what_the_delivery_of_an_exception_stores_counts(history):
    exc = Trap(6, None, CODE)
    delivery = Delivery((exc,), 0, 0x10, 0x18, CODE, 0x8000, 0x202, None, {PGD: 0x18})

    (write,) = history([STORE, Delivered(delivery, b"")])["writes"]

    assert (write["how"], write["after"]) == ("exception", "0x18")


def test_what_is_read_is_known(history):
    events = [STORE, Accessed(None, PGD, 8, ENTRY, "read"), STORE, write8(PGD, 0)]

    (write,) = history(events)["writes"]

    assert (write["before"], write["after"]) == (f"{ENTRY:#x}", "0x0")


def test_what_a_faults_walk_has_read_is_known(history):
    read = Walk(VA, (Step(4, PGD, 0),), "not-present", ROOT)
    fault = PageFault(VA, 2, CODE, read, 0, ROOT, "not-present")

    found = history([STORE, Faulted(fault, b"")])

    assert (found["writes"], found["holds"]) == ([], "0x0")


# ------------------------------------------------------------------ as text


def test_the_text_ends_with_the_last_writer(told):
    lines = told([STORE, write8(PGD, ENTRY), STORE, walk((4, PGD, 0x9047, 0x9067))])

    assert lines == [
        f"Writes to the 8 bytes at {PGD:#x}",
        f"{CODE:x} first+0x0/0x100: mov qword ptr [rdi], rax  [init_mm]",
        "    ? -> 0x9067",
        f"the CPU's walk for {CODE:x} first+0x0/0x100: mov qword ptr [rdi], rax  [init_mm]",
        f"    walk for {VA:x} (supervisor read): PML4E @{PGD:#x} = 0x9047+A",
        "    0x9067 -> 0x9067",
        f"last written by the CPU's walk for {CODE:x} first+0x0/0x100: mov qword ptr [rdi], rax; "
        "it holds 0x9067",
    ]


def test_an_edit_is_told_by_its_function(told):
    lines = told(
        [Edited(PGD, (ENTRY,), "p4d_populate")],
        "pgd:0xffffe70000000000",
        "--task",
        "init_mm",
    )

    assert lines[0] == (
        f"Writes to the PML4E (pgd) for {VA - 0x34:x} in init_mm's table, at {PGD:#x}"
    )
    assert lines[-1] == "last written by p4d_populate (from outside the CPU); it holds 0x9067"


def test_that_nobody_wrote_it_is_said(told):
    lines = told([STORE, Accessed(None, PGD, 8, 0, "read")])

    assert lines[-1] == f"nobody wrote the 8 bytes at {PGD:#x}; it holds 0x0"


# ------------------------------------------------------------------ which entry


LEVELS = [
    ((4, PGD, 0x9067, 0x9067), (3, 0x9000, 0xA067, 0xA067)),
    ((2, 0xA000, 0xB067, 0xB067), (1, 0xB000, 0xC067, 0xC067)),
]
FOLLOWED = [walk(*LEVELS[0], *LEVELS[1])]


@pytest.mark.parametrize(
    ("name", "pa"),
    [
        ("pgd", PGD),
        ("PML4E", PGD),
        ("p4d", PGD),
        ("pud", 0x9000),
        ("pdpte", 0x9000),
        ("PMD", 0xA000),
        ("PDE", 0xA000),
        ("pte", 0xB000),
    ],
)
def test_a_level_in_either_vocabulary_is_found_by_the_walks(history, name, pa):
    found = history([STORE, *FOLLOWED], f"{name}:{VA:#x}", "--task", "init_mm")

    assert (found["entry_pa"], found["va"], found["task"]) == (f"{pa:#x}", f"{VA:#x}", "init_mm")


def test_the_neighbours_entry_is_found_beside(history):
    found = history([STORE, *FOLLOWED], f"pte:{VA + 0x5000:#x}", "--task", "init_mm")

    assert found["entry_pa"] == "0xb028"


def test_each_task_has_its_own(history):
    events = [STORE, Cr3Switch(ROOT, OTHER_ROOT), STORE]

    assert history(events, f"pgd:{VA:#x}", "--task", "early")["entry_pa"] == "0x2e70"


def test_upper_entries_that_are_told_of_later_are_found(history):
    events = [walk(*LEVELS[1]), STORE, Edited(0x9000, (0xA067,), "f"), write8(PGD, 0x9067)]

    assert history(events, f"pmd:{VA:#x}", "--task", "init_mm")["entry_pa"] == "0xa000"


def test_a_table_that_was_replaced_is_the_last_one(history):
    events = [STORE, *FOLLOWED, STORE, write8(PGD, 0xD067)]

    assert history(events, f"pud:{VA:#x}", "--task", "init_mm")["entry_pa"] == "0xd000"


def test_with_one_table_there_is_no_need_to_say_whose(tmp_path):
    path = traces.write(tmp_path / "t.parquet", [STORE, write8(PGD, ENTRY)], tasks={})

    _, text, _ = run_cli("show", path, "--writes-to", f"pgd:{VA:#x}", parse=False)

    assert text.splitlines()[-1].endswith("it holds 0x9067")
