"""An oops in the wording of each release, and of whom it is (facts 5.3)."""

from collections.abc import Callable

import pytest
from support.kernel_facts import (
    FIVE,
    FOUR,
    GIB,
    MIB,
    boot,
    put_slot,
)
from support.kernel_oops import DEVICE, INIT, lines_with, store

from emu import PhysAddr, Stop, Trap
from kernel_model import Kernel
from kernel_model.drivers import dax_bus_probe
from kernel_model.oops import compose
from kernel_model.sync import sync_global_pgds

# -- releases and builds


@pytest.mark.parametrize(
    ("release", "build", "header"),
    [
        ("6.8", None, "Oops: 0002 [#1] SMP NOPTI"),
        ("6.8", "6.13-drm-tip", "Oops: 0002 [#1] PREEMPT SMP NOPTI"),
        ("6.13", None, "Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI"),
        ("6.13", "6.8", "Oops: Oops: 0002 [#1] SMP NOPTI"),
        ("6.16", None, "Oops: Oops: 0002 [#1] SMP NOPTI"),
        ("rfc-v1", None, "Oops: Oops: 0002 [#1] SMP NOPTI"),
        ("6.17", None, "Oops: Oops: 0002 [#1] SMP NOPTI"),
        ("6.17", "6.8", "Oops: Oops: 0002 [#1] SMP NOPTI"),
    ],
)
def test_the_die_header_is_that_of_the_release(
    make_kernel: Callable[..., Kernel], release: str, build: str | None, header: str
) -> None:
    lines = store(make_kernel(release, build=build), FOUR.boundary)

    assert lines[4] == header


@pytest.mark.parametrize(
    ("release", "build", "before", "after"),
    [
        ("6.8", None, "CPU: 0 ", " Comm: modprobe Not tainted 6.8.0 #1"),
        ("6.8", "6.13-drm-tip", "CPU: 0 ", " Comm: modprobe Not tainted 6.8.0 #1"),
        (
            "6.13",
            None,
            "CPU: 0 UID: 0 ",
            " Comm: modprobe Tainted: G        W          6.13.0-drm-tip-test+ #1 ",
        ),
        (
            "6.13",
            "6.8",
            "CPU: 0 UID: 0 ",
            " Comm: modprobe Tainted: G        W          6.13.0-drm-tip-test+ #1 ",
        ),
        (
            "6.16",
            None,
            "CPU: 0 UID: 0 ",
            " Comm: modprobe Not tainted 6.16.0 #1 PREEMPT(full) ",
        ),
        (
            "6.17",
            "6.8",
            "CPU: 0 UID: 0 ",
            " Comm: modprobe Not tainted 6.17.0 #1 PREEMPT(voluntary) ",
        ),
    ],
)
def test_the_cpu_line_is_that_of_the_release(
    make_kernel: Callable[..., Kernel], release: str, build: str | None, before: str, after: str
) -> None:
    kernel = make_kernel(release, build=build)
    task = kernel.fork("modprobe")

    lines = store(kernel, FOUR.boundary, task)

    assert lines[5] == f"{before}PID: {task.pid}{after}"


@pytest.mark.parametrize(
    ("release", "taint"),
    [("6.8", []), ("6.13", ["Tainted: [D]=DIE, [W]=WARN"]), ("6.17", ["Tainted: [D]=DIE"])],
)
def test_the_taint_is_spelled_out_from_6_11_on(
    make_kernel: Callable[..., Kernel], release: str, taint: list[str]
) -> None:
    kernel = make_kernel(release)
    store(kernel, FOUR.boundary)

    assert lines_with("Tainted", store(kernel, FOUR.boundary)) == taint


@pytest.mark.parametrize("release", ["6.16", "rfc-v1", "6.17"])
@pytest.mark.parametrize("build", ["6.8", "6.13-drm-tip"])
def test_a_release_is_not_tainted_by_its_build(
    make_kernel: Callable[..., Kernel], release: str, build: str
) -> None:
    kernel = make_kernel(release, build=build)

    assert " Not tainted " in store(kernel, FOUR.boundary)[5]
    assert " Tainted: G      D             6.1" in store(kernel, FOUR.boundary)[5]


def test_a_long_name_is_cut_to_twenty_characters(kernel: Kernel) -> None:
    task = kernel.fork("a-task-with-a-very-long-name")

    assert " Comm: a-task-with-a-very-l Not tainted" in store(kernel, FOUR.boundary, task)[5]


# -- the second death


def test_the_second_oops_is_number_2_and_tainted_by_the_first(kernel: Kernel) -> None:
    store(kernel, FOUR.boundary)

    lines = store(kernel, FOUR.boundary)

    assert lines[4] == "Oops: 0002 [#2] SMP NOPTI"
    assert " Tainted: G      D            6.8.0 #1" in lines[5]


def test_two_taints_are_spelled_out_in_the_order_of_the_flags(
    make_kernel: Callable[..., Kernel],
) -> None:
    kernel = make_kernel("6.13")
    store(kernel, FOUR.boundary)

    lines = store(kernel, FOUR.boundary)

    assert lines[6] == "Tainted: [D]=DIE, [W]=WARN"
    assert " Tainted: G      D W          6.13.0" in lines[5]


def test_every_oops_ends_with_the_registers_of_the_first(kernel: Kernel) -> None:
    first = store(kernel, FOUR.boundary)
    task = kernel.fork("modprobe")

    second = store(kernel, FOUR.boundary + 0x40, task)

    assert kernel_end(second)[:9] == kernel_end(first)[:9]
    assert kernel_end(second)[:9] != second[6:15]


def test_and_with_the_control_registers_of_now(kernel: Kernel) -> None:
    store(kernel, FOUR.boundary)
    task = kernel.fork("modprobe")

    second = store(kernel, FOUR.boundary + 0x40, task)

    line = f"CR2: ffffe70000000074 CR3: {task.mm.pgd:016x} CR4: 0000000000750ef0"
    assert line in kernel_end(second)


def kernel_end(lines: list[str]) -> list[str]:
    """What is printed after the end marker."""
    return lines[lines.index("---[ end trace 0000000000000000 ]---") + 1 :]


def test_an_oops_is_for_the_last_death_only(kernel: Kernel) -> None:
    first = kernel.run(kernel.fork("a"), INIT, rdi=FOUR.boundary)
    second = kernel.run(kernel.fork("b"), INIT, rdi=FOUR.boundary + 64)

    assert kernel.oops(second).startswith("BUG: unable to handle page fault")
    with pytest.raises(ValueError, match="is not how the last task died"):
        kernel.oops(first)


def test_an_oops_stays_as_it_was_when_the_kernel_runs_on(kernel: Kernel) -> None:
    task = kernel.fork("modprobe")
    stop = kernel.run(task, dax_bus_probe, *DEVICE)
    before = kernel.oops(stop)

    kernel.run(task, dax_bus_probe, 32 * GIB, 128 * MIB, 2 * MIB)
    kernel.memory.zero(PhysAddr(0x100_0000), 0x1000)  # text

    assert kernel.oops(stop) == before


# -- registers


def test_the_flags_have_rf_and_if(kernel: Kernel) -> None:
    (line,) = set(lines_with("RSP: 0018:", store(kernel, FOUR.boundary)))

    assert int(line.split("EFLAGS: ")[1], 16) & 0x10202 == 0x10202


@pytest.mark.levels(5)
def test_cr3_is_the_tasks_and_cr4_has_la57_at_five_levels(kernel: Kernel) -> None:
    task = kernel.fork("a")

    lines = store(kernel, FIVE.boundary, task)

    line = f"CR2: {FIVE.boundary + 0x34:016x} CR3: {task.mm.pgd:016x} CR4: 0000000000751ef0"
    assert lines_with("CR2: ", lines)[0] == line


def test_every_line_of_registers_has_its_width(kernel: Kernel) -> None:
    lines = store(kernel, FOUR.boundary)

    start = lines.index("Call Trace:")
    assert [len(line) for line in lines[start - 10 : start]] == [
        *(43, 65, 65, 65, 65, 65),
        *(76, 49, 65, 14),
    ]


# -- a BUG


def bug(kernel: Kernel) -> Stop:
    """Sync a slot under which a task has another table."""
    task = kernel.fork("a")
    put_slot(kernel, kernel.init_mm, 462, 0x1234_5067)
    put_slot(kernel, task.mm, 462, 0x6789_A067)
    return kernel.run(task, lambda k: sync_global_pgds(k, FOUR.boundary, FOUR.boundary))


@pytest.mark.parametrize(
    ("release", "header"),
    [
        ("6.8", "invalid opcode: 0000 [#1] SMP NOPTI"),
        ("6.13", "Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI"),
        ("6.17", "Oops: invalid opcode: 0000 [#1] SMP NOPTI"),
    ],
)
def test_a_bug_is_an_invalid_opcode(release: str, header: str) -> None:
    with boot(FOUR, release) as kernel:
        lines = kernel.oops(bug(kernel)).splitlines()

        assert lines[0] == "------------[ cut here ]------------"
        assert lines[1].startswith("kernel BUG at sync_global_pgds+0x")
        assert lines[2] == header


def test_a_bug_shows_the_ud2_and_no_fault_address(kernel: Kernel) -> None:
    lines = kernel.oops(bug(kernel)).splitlines()

    assert lines_with("RIP: 0010:sync_global_pgds+0x", lines)
    assert "<0f> 0b" in lines_with("Code: ", lines)[0]
    assert not [line for line in lines if "#PF" in line or line == "CR2: 0000000000000000"]


def test_the_cr2_of_a_bug_is_that_of_the_last_page_fault(kernel: Kernel) -> None:
    store(kernel, FOUR.boundary)

    lines = kernel.oops(bug(kernel)).splitlines()

    assert [line[:22] for line in lines_with("CR2: ", lines)] == ["CR2: ffffe70000000034 "] * 2


# -- a general protection fault


@pytest.mark.parametrize("page", [1 << 63, 1 << 47, 0xFFFF_7FFF_FFFF_FFC0])
@pytest.mark.parametrize(("release", "prefix"), [("6.8", ""), ("6.17", "Oops: ")])
def test_a_general_protection_fault_has_the_address_that_is_not_canonical(
    make_kernel: Callable[..., Kernel], release: str, prefix: str, page: int
) -> None:
    lines = store(make_kernel(release), page)

    assert lines[0] == (
        f"{prefix}general protection fault, probably for non-canonical address "
        f"{page + 0x34:#x}: 0000 [#1] SMP NOPTI"
    )


def general_protection(kernel: Kernel, code: bytes, error_code: int) -> str:
    """The first line for a #GP at an instruction, with RDI pointing to RAM."""
    kernel.run(kernel.fork("modprobe"), INIT, rdi=1 << 63)
    last = kernel.deaths.last
    assert last is not None
    registers = last.registers._replace(rdi=FOUR.vmemmap_base)
    stop = Trap(13, error_code, last.stop.rip, registers)
    death = last._replace(stop=stop, registers=registers, code=bytes(42) + code.ljust(22, b"\x90"))
    return compose(death, death, kernel.release, kernel.build, kernel.image).splitlines()[0]


@pytest.mark.parametrize(
    ("code", "error_code", "line"),
    [
        ("488b07", 0, "general protection fault, maybe for address 0xffffe6ffc0000000: 0000 "),
        ("0f30", 0, "general protection fault: 0000 "),  # wrmsr
        ("ffff", 0, "general protection fault: 0000 "),
        ("488b07", 0x18, "segment-related general protection fault: 0018 "),
    ],
)
def test_any_other_says_as_much_as_is_known(
    kernel: Kernel, code: str, error_code: int, line: str
) -> None:
    first = general_protection(kernel, bytes.fromhex(code), error_code)

    assert first == f"{line}[#1] SMP NOPTI"
