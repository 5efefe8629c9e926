"""Deaths of other exceptions, in the words of every generation (facts 5.3, 12; public oopses)."""

import pytest
from support.kernel_deaths import BASE, hand_made, text_of, trap
from support.kernel_facts import ALL_RELEASES, FOUR

from emu import Trap
from kernel_model import Kernel
from kernel_model.death import Death

UD, DF, GP = 6, 8, 13
GUARD = BASE - 0x18
HALTS = ("4.4", "4.6", "4.12-rc", "4.14", "4.17", "5.4")


@pytest.fixture
def death(kernel: Kernel) -> Death:
    """A death, to be made another's."""
    return hand_made(kernel)


def until(text: str, start: str) -> list[str]:
    """The lines before the one that begins so."""
    lines = text.splitlines()
    return lines[: next(i for i, line in enumerate(lines) if line.startswith(start))]


def since(text: str, start: str) -> list[str]:
    """The lines behind the last one that begins so."""
    lines = text.splitlines()
    return lines[max(i for i, line in enumerate(lines) if line.startswith(start)) + 1 :]


# -- BUG()


@pytest.mark.parametrize(
    ("style", "at", "header"),
    [
        ("4.4", "Kernel BUG at {rip:016x}", "invalid opcode: 0000 [#1] SMP "),
        ("4.6", "Kernel BUG at {rip:016x}", "invalid opcode: 0000 [#1] SMP"),
        ("4.12-rc", "Kernel BUG at {rip:016x}", "invalid opcode: 0000 [#1] SMP"),
        ("4.14", "Kernel BUG at {rip:016x}", "invalid opcode: 0000 [#1] SMP"),
        ("4.17", "Kernel BUG at {name}", "invalid opcode: 0000 [#1] SMP NOPTI"),
        ("5.4", "Kernel BUG at {name}", "invalid opcode: 0000 [#1] SMP NOPTI"),
        ("5.10", "Kernel BUG at {name}", "invalid opcode: 0000 [#1] SMP NOPTI"),
        ("6.8", "kernel BUG at {name}", "invalid opcode: 0000 [#1] SMP NOPTI"),
        ("6.16", "kernel BUG at {name}", "Oops: invalid opcode: 0000 [#1] SMP NOPTI"),
    ],
)
def test_a_bug(kernel: Kernel, death: Death, style: str, at: str, header: str) -> None:
    text = text_of(kernel, trap(death, UD), style)

    place = at.format(rip=death.registers.rip, name="__init_single_page+0x9/0x6d")
    lines = [
        "------------[ cut here ]------------",
        f"{place} [verbose debug info unavailable]",
        header,
    ]
    assert text.splitlines()[:3] == lines


@pytest.mark.parametrize(
    ("style", "end"),
    [
        (
            "4.4",
            [
                "RIP  [<{rip:016x}>] __init_single_page+0x9/0x6d",
                " RSP <ffffc90000007f90>",
                "---[ end trace 0000000000000000 ]---",
            ],
        ),
        (
            "4.14",
            [
                "RIP: __init_single_page+0x9/0x6d RSP: ffffc90000007f90",
                "---[ end trace 0000000000000000 ]---",
            ],
        ),
    ],
)
def test_a_bug_ends_without_an_address(
    kernel: Kernel, death: Death, style: str, end: list[str]
) -> None:
    text = text_of(kernel, trap(death, UD), style)

    assert since(text, "Code: ") == [line.format(rip=death.registers.rip) for line in end]


# -- a general protection fault


@pytest.mark.parametrize(
    ("style", "header"),
    [
        ("4.4", "general protection fault: 0000 [#1] SMP "),
        ("4.6", "general protection fault: 0000 [#1] SMP"),
        ("4.14", "general protection fault: 0000 [#1] SMP"),
        ("4.17", "general protection fault: 0000 [#1] SMP NOPTI"),
        ("5.4", "general protection fault: 0000 [#1] SMP NOPTI"),
        (
            "5.6",
            "general protection fault, probably for non-canonical address 0x800000000000000b: "
            "0000 [#1] SMP NOPTI",
        ),
        (
            "6.16",
            "Oops: general protection fault, probably for non-canonical address "
            "0x800000000000000b: 0000 [#1] SMP NOPTI",
        ),
    ],
)
def test_a_general_protection_fault(kernel: Kernel, death: Death, style: str, header: str) -> None:
    code = bytes(42) + bytes.fromhex("488b03").ljust(22, b"\x90")  # mov rax, [rbx]
    registers = death.registers._replace(rbx=0x8000_0000_0000_000B)

    dead = trap(death._replace(registers=registers, code=code), GP, 0)

    assert text_of(kernel, dead, style).splitlines()[0] == header


@pytest.mark.parametrize(
    ("style", "header"),
    [
        ("5.4", "general protection fault: 0018 [#1] SMP NOPTI"),
        ("5.6", "segment-related general protection fault: 0018 [#1] SMP NOPTI"),
    ],
)
def test_a_selector_in_the_error_code(
    kernel: Kernel, death: Death, style: str, header: str
) -> None:
    assert text_of(kernel, trap(death, GP, 0x18), style).splitlines()[0] == header


# -- a double fault


@pytest.mark.parametrize("style", HALTS)
def test_a_double_fault_shows_the_registers_and_halts(
    kernel: Kernel, death: Death, style: str
) -> None:
    text = text_of(kernel, trap(death, DF, 0), style)

    assert until(text, "CPU: ") == ["PANIC: double fault, error_code: 0x0"]
    assert text.splitlines()[-1] == "Kernel panic - not syncing: Machine halted."
    assert "[#1]" not in text
    assert "end trace" not in text


@pytest.mark.parametrize(
    ("style", "header", "end"),
    [
        ("5.6", "double fault: 0000 [#1] SMP NOPTI", "PKRU: 55555554"),
        (
            "5.8",
            "double fault: 0000 [#1] SMP NOPTI",
            "Kernel panic - not syncing: Fatal exception in interrupt",
        ),
        (
            "6.16",
            "Oops: double fault: 0000 [#1] SMP NOPTI",
            "Kernel panic - not syncing: Fatal exception in interrupt",
        ),
    ],
)
def test_later_a_double_fault_is_an_oops(
    kernel: Kernel, death: Death, style: str, header: str, end: str
) -> None:
    text = text_of(kernel, trap(death, DF, 0), style)

    assert until(text, "CPU: ") == ["traps: PANIC: double fault, error_code: 0x0", header]
    assert text.splitlines()[-1] == end


OLD_GUARD = (
    "BUG: stack guard page was hit at ffffc90000003fe8 "
    "(stack is ffffc90000004000..ffffc90000007fff)"
)
NEW_GUARD = (
    "BUG: TASK stack guard page was hit at ffffc90000003fe8 "
    "(stack is ffffc90000004000..ffffc90000008000)"
)


@pytest.mark.parametrize(
    ("style", "lines"),
    [
        ("4.12-rc", [OLD_GUARD, "kernel stack overflow (double-fault): 0000 [#1] SMP"]),
        ("4.17", [OLD_GUARD, "kernel stack overflow (double-fault): 0000 [#1] SMP NOPTI"]),
        ("5.10", [OLD_GUARD, "kernel stack overflow (double-fault): 0000 [#1] SMP NOPTI"]),
        ("6.8", [NEW_GUARD, "stack guard page: 0000 [#1] SMP NOPTI"]),
        ("6.16", [NEW_GUARD, "Oops: stack guard page: 0000 [#1] SMP NOPTI"]),
    ],
)
def test_just_below_the_stack_it_is_the_guard_page(
    kernel: Kernel, death: Death, style: str, lines: list[str]
) -> None:
    text = text_of(kernel, trap(death._replace(cr2=GUARD), DF, 0), style)

    assert text.splitlines()[:2] == lines
    assert "---[ end trace" in text
    assert "Machine halted" not in text


@pytest.mark.parametrize("style", ["4.4", "4.6"])
def test_a_stack_in_the_direct_map_has_no_guard(kernel: Kernel, death: Death, style: str) -> None:
    text = text_of(kernel, trap(death._replace(cr2=GUARD), DF, 0), style)

    assert text.startswith("PANIC: double fault")


@pytest.mark.parametrize("cr2", [BASE - 0x1001, BASE, BASE + 0x3F88])
@pytest.mark.parametrize("style", ["4.14", "6.16"])
def test_the_guard_is_one_page(kernel: Kernel, death: Death, style: str, cr2: int) -> None:
    text = text_of(kernel, trap(death._replace(cr2=cr2), DF, 0), style)

    assert "PANIC: double fault" in text.splitlines()[0]


@pytest.mark.parametrize("style", ALL_RELEASES)
def test_cr2_is_what_the_double_fault_found(kernel: Kernel, death: Death, style: str) -> None:
    text = text_of(kernel, trap(death._replace(cr2=BASE + 8), DF, 0), style)

    assert "\nCR2: ffffc90000004008 CR3: " in text


# -- the picture


def test_a_stack_pointer_in_the_guard_shows_the_whole_stack(kernel: Kernel) -> None:
    kernel.run(kernel.fork("a"), "__init_single_page", rdi=FOUR.boundary)
    last = kernel.deaths.last
    assert last is not None
    registers = last.registers._replace(rsp=last.bounds[0] - 8)

    death = Death.of(kernel, Trap(DF, 0, last.stop.rip, registers, cr3=last.cr3), 2)

    assert len(death.stack) == 0x4000
    assert death.bounds[1] - death.bounds[0] == 0x4000
